"""A compiled graph that can be called: arrays in, arrays out, for any batch size and any extents
the graph allows.

`Runtime` is the CPU target. `InterpRuntime` in `interp` is the definition, behind the same
interface, so a model does not know which it has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cnncc.passes.fuse import Fused
from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.binding import Binding, bind
from cnncc.targets.cpu.declare import PREPARE, with_prepared
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.memory import default_limit
from cnncc.targets.cpu.program import Program, compile_program
from cnncc.targets.cpu.ready import Ready as Ready
from cnncc.targets.cpu.store import Store as Store
from cnncc.targets.cpu.team import Team
from cnncc.targets.locks import Lock
from cnncc.targets.shapes import Shape as Shape
from cnncc.targets.shapes import check_extents
from cnncc.targets.shapes import shape_of as shape_of
from cnncc.tensor import DType, TensorType

BINDINGS = 8  # kept per runtime, the least recently used goes first
SHAPES = 64  # shapes of calls that a runtime remembers
ARENAS = 4  # callers of one binding that run at the same time; more wait


class Session(Protocol):
    """One pass through the phases on one arena: forward, then backward, then update."""

    def run(self, phase: int, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


class Runtime:
    """The CPU target's program for one graph, with its bindings. Safe to call from several
    threads.
    """

    def __init__(
        self,
        fused: Fused,
        *,
        store: Store,
        phases: Mapping[str, int] | None = None,
        dtype: DType = DType.F32,
        threads: int | None = None,
        lanes: int | None = None,
        max_memory: int | None = None,
        panels: bool = True,
        guard: str = "",
        widths: Mapping[str, int] | None = None,
    ) -> None:
        """`widths`: as for `compile_program`. `guard`: the public name of an output of one number.
        With it all phases run as one, WHOLE, and the last of them, which updates parameters, is
        left out when the number is not finite.
        """
        machine = detect()
        wide = machine.lanes_f32 if dtype is DType.F32 else machine.lanes_f64
        self.fused, self.graph, self.store = fused, fused.graph, store
        self.threads = threads or machine.cores
        self.limit = max_memory if max_memory is not None else default_limit()
        self.phases = with_prepared(self.graph, phases or {})
        self.program: Program = compile_program(
            fused, dtype=dtype, lanes=lanes or wide, phases=self.phases, panels=panels,
            guard=guard, widths=widths,
        )  # fmt: skip
        self.entries = self.program.entries
        self._bindings: OrderedDict[Shape, Binding] = OrderedDict()
        self._lock = Lock()
        self._prepared = -1
        self._latest: tuple[Shape | None, Binding | None] = None, None
        self._portions: dict[Shape, tuple[int, int]] = {}  # what the store's growth was, portion
        self._shapes: dict[tuple[tuple[str, tuple[int, ...]], ...], Shape] = {}

    def _shape(self, inputs: Mapping[str, Array]) -> Shape:
        """`shape_of`, remembered: a small network runs in less time than checking takes."""
        key = tuple((name, array.shape) for name, array in inputs.items())
        found = self._shapes.get(key)
        if found is None:
            found = shape_of(self.graph, inputs)
            if len(self._shapes) >= SHAPES:
                self._shapes.clear()
            self._shapes[key] = found
        return found

    @property
    def entry_texts(self) -> Mapping[int, str]:
        return self.program.entry_texts

    @property
    def peak(self) -> int:
        """Bytes of the largest plan bound so far, and of the parameters; 0 before the first."""
        with self._lock:
            plans = [
                binding.plan.size + sum(c.nbytes for c in binding.constants.values())
                for binding in self._bindings.values()
            ]
        return max(plans) + self.store.bytes if plans else 0

    @property
    def kernel_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(t for s in self.program.steps for t in s.texts))

    def bind(self, shape: Shape, whole: int | None = None) -> Binding:
        """The binding for a batch size, perhaps a portion of `whole` samples, and extents, made on
        first use. Raises SpecError (E08xx).
        """
        last, binding = self._latest
        if last is shape and binding is not None:
            return binding
        with self._lock:
            if shape in self._bindings:
                self._bindings.move_to_end(shape)
                self._latest = shape, self._bindings[shape]
                return self._bindings[shape]
            check_extents(self.graph, shape)
            binding = bind(
                self.program, shape.batch, dict(shape.symbols), self.store,
                limit=self.limit, threads=self.threads, arenas=ARENAS,
                whole=whole,
            )  # fmt: skip
            self._bindings[shape] = binding
            self._latest = shape, binding
            while len(self._bindings) > 1 and self._held() > self.limit:
                self._bindings.popitem(last=False)
            if len(self._bindings) > BINDINGS:
                self._bindings.popitem(last=False)
            return binding

    def _held(self) -> int:
        """Bytes that all bindings may come to hold, parameters included."""
        return self.store.bytes + sum(b.pool.size * b.pool.limit for b in self._bindings.values())

    def run(
        self, inputs: Mapping[str, Array], *, phases: Sequence[int] | None = None
    ) -> dict[str, Array]:
        """All phases (or the given ones) in order: results by public name, fresh logical arrays.

        `inputs`: C-contiguous arrays of the input nodes' dtypes, by node name.
        """
        shape = self._shape(inputs)
        portion = self.portion(shape)
        if portion < shape.batch:
            return self._run_portions(shape, portion, inputs)
        binding = self.bind(shape)
        self._prepare(binding)
        outputs: dict[str, Array] = {}
        with binding.pool.acquire() as arena:
            for phase in self.run_phases if phases is None else phases:
                outputs |= self._run_phase(binding, phase, inputs, arena)
        return outputs

    def ready(self, inputs: Mapping[str, Array]) -> Ready | None:
        """What runs again on arrays such as these, which have just run, given in this order; None
        where a run has several parts or changes what it reads.
        """
        shape = self._shape(inputs)
        phases = self.run_phases
        if len(phases) != 1 or self.graph.updates or self.portion(shape) < shape.batch:
            return None
        version = self._prepared if PREPARE in self.entries else None
        try:
            binding = self.bind(shape)
            return Ready(binding, phases[0], list(inputs), self._team, self.store, version)
        except KeyError:  # an input that nothing reads
            return None

    def planned(self, shape: Shape) -> Binding:
        """The binding on which a call of that shape begins: of its first portion."""
        return self.bind(Shape(self.portion(shape), shape.symbols), shape.batch)

    def portion(self, shape: Shape) -> int:
        """Samples of a call that run at a time: all of them, or as many as stay in the cache and
        within the memory limit where samples have nothing to do with each other. Chosen anew when
        other programs have laid more into the store meanwhile.
        """
        if shape.batch == 1:
            return 1
        growth, found = self._portions.get(shape, (-1, 0))
        if growth != self.store.growth:
            growth = self.store.growth
            symbols = dict(shape.symbols)
            check_extents(self.graph, shape)

            outline = self.program.outline
            room = self.limit - self.store.bytes_besides(outline.kept)

            def fits(batch: int) -> bool:
                return outline.need(batch, symbols).peak <= room

            found = outline.portion(shape.batch, symbols, fits)
            if len(self._portions) >= SHAPES:
                self._portions.clear()
            self._portions[shape] = growth, found
        return found

    def _run_portions(
        self, shape: Shape, portion: int, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """A run in portions of the batch, the last of which may be smaller; the same bits."""
        (phase,) = self.run_phases
        outputs: dict[str, Array] = {}
        for first in range(0, shape.batch, portion):
            part = {name: array[first : first + portion] for name, array in inputs.items()}
            binding = self.bind(self._shape(part), shape.batch)
            self._prepare(binding)
            if not outputs:
                outputs = binding.results(phase, shape.batch)
            into = {name: array[first : first + portion] for name, array in outputs.items()}
            with binding.pool.acquire() as arena:
                binding.run(phase, part, self._team, arena, into)
        return outputs

    def _run_phase(
        self, binding: Binding, phase: int, inputs: Mapping[str, Array], arena: Array
    ) -> dict[str, Array]:
        results = binding.run(phase, inputs, self._team, arena)
        if self.graph.updates:
            self.store.version += 1  # what other programs have prepared is stale
        return results

    @cached_property
    def _team(self) -> Team:
        return Team.shared(self.threads)

    @cached_property
    def run_phases(self) -> list[int]:
        return [p for p in self.entries if p != PREPARE]

    @contextmanager
    def session(self, shape: Shape) -> Iterator[Session]:
        """An arena of the binding, for running the phases one by one."""
        binding = self.bind(shape)
        self._prepare(binding)
        with binding.pool.acquire() as arena:
            yield _CpuSession(self, binding, arena)

    def _prepare(self, binding: Binding) -> None:
        """Write the parameters that the store still misses, so late that none is drawn that is
        loaded before the first run. Recompute what depends on parameters only, when they have
        changed.
        """
        self.store.fill(self.threads)
        if self._prepared == self.store.version or PREPARE not in self.entries:
            return
        with self._lock:
            version = self.store.version  # read first: what changes meanwhile is prepared again
            if self._prepared == version:
                return
            with binding.pool.acquire() as arena:
                binding.run(PREPARE, {}, Team.shared(1), arena)
            self._prepared = version


@dataclass
class _CpuSession:
    runtime: Runtime
    binding: Binding
    arena: Array

    def run(self, phase: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.runtime._run_phase(self.binding, phase, inputs, self.arena)


def numpy_dtype(t: TensorType) -> type[np.generic]:
    return NUMPY[t.dtype]
