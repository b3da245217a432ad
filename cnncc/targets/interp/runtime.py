"""The interpreter behind the interface of the CPU target's `Runtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cnncc.passes.fuse import Fused
from cnncc.targets.arrays import Array
from cnncc.targets.cpu.declare import WHOLE
from cnncc.targets.interp.program import run_interp
from cnncc.targets.shapes import Shape, check_extents, shape_of
from cnncc.tensor import DType


class InterpRuntime:
    """A graph that the interpreter runs. Parameters live in a plain dict store."""

    def __init__(
        self,
        fused: Fused,
        *,
        store: DictStore,
        phases: Mapping[str, int] | None = None,
        dtype: DType = DType.F32,
        guard: str = "",
    ) -> None:
        self.fused, self.graph, self.store, self.dtype = fused, fused.graph, store, dtype
        self.guard = guard
        self.phases = dict(phases or {})
        self.threads = 1

    def run(
        self, inputs: Mapping[str, Array], *, phases: Sequence[int] | None = None
    ) -> dict[str, Array]:
        """All phases; `phases` other than all of them need a session."""
        with self.session(shape_of(self.graph, inputs)) as session:
            outputs: dict[str, Array] = {}
            for phase in phases if phases is not None else self.run_phases:
                outputs |= session.run(phase, inputs)
            return outputs

    @property
    def run_phases(self) -> list[int]:
        return [WHOLE] if self.guard else self.own_phases

    @property
    def own_phases(self) -> list[int]:
        """The phases that nodes belong to."""
        return sorted({0, *self.phases.values()})

    @contextmanager
    def session(self, shape: Shape) -> Iterator[_InterpSession]:
        check_extents(self.graph, shape)
        yield _InterpSession(self, shape, {})


@dataclass
class _InterpSession:
    runtime: InterpRuntime
    shape: Shape
    arrays: dict[str, Array]

    def run(self, phase: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        r = self.runtime
        if phase == WHOLE:
            return self._whole(inputs)
        self.arrays |= {n: a for n, a in inputs.items()}
        for node in r.graph.of("parameter"):
            self.arrays[node.name] = r.store.read(node.name)
        kernels = tuple(k for k in r.fused.kernels if r.phases.get(k.sink.name, 0) == phase)
        part = Fused(r.graph, kernels, (), r.fused.slices)
        dtype = np.float32 if r.dtype is DType.F32 else np.float64
        self.arrays = run_interp(
            part, self.arrays, self.shape.batch, dtype, dict(self.shape.symbols)
        )
        written = {n for k in kernels for n in k.writes}
        for old, new in r.graph.updates:
            if new in written:
                r.store.write(old, self.arrays[new])
        results = {}
        for public, name in r.graph.outputs:
            if name in self.arrays and r.phases.get(name, 0) == phase:
                results[public] = self.arrays[name]
        return results

    def _whole(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        *before, last = self.runtime.own_phases
        results: dict[str, Array] = {}
        for phase in before:
            results |= self.run(phase, inputs)
        if np.isfinite(results[self.runtime.guard]).all():
            results |= self.run(last, inputs)
        return results


class DictStore:
    """Parameters as logical arrays."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self.version = 0

    def write(self, name: str, array: Array) -> None:
        self._arrays[name] = np.array(array)
        self.version += 1

    def write_later(self, name: str, nbytes: int, make: Callable[[], Array]) -> None:
        """As `write`; there is no layout to wait for."""
        self.write(name, make())

    def read(self, name: str) -> Array:
        return self._arrays[name]

    def names(self) -> list[str]:
        return list(self._arrays)
