"""How much memory a network needs, computed without compiling or allocating anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cnncc.graph.ir import Graph, Node
from cnncc.passes.fuse import Fused
from cnncc.passes.plan import Life
from cnncc.passes.storage import macs
from cnncc.targets.cpu.arrangement import (
    Arrangement,
    by_samples,
    one_after_another,
    placements,
)
from cnncc.targets.cpu.declare import declare, tensors_of, with_prepared
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.cpu.machine import (
    cores,
    hungry_cache,
    last_cache_is_far,
    lasting_cache,
    memory_limit,
    vector_lanes,
)
from cnncc.targets.cpu.portions import (
    FAR,
    NEAR,
    WIDE,
    Costs,
    Traffic,
    Work,
    largest_that_fits,
    samples_at_once,
)
from cnncc.targets.cpu.tensors import Tensor
from cnncc.tensor import DType, evaluate, product


@dataclass(frozen=True)
class Need:
    """Bytes of a run: the arena with everything that is computed, and what lasts between runs
    (parameters, the optimizer's state, constants, values prepared from parameters). `portion`: the
    samples that run at a time, which the arena is for.
    """

    activations: int
    parameters: int
    portion: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.activations + self.parameters


@dataclass(frozen=True)
class Touch:
    """A step that is not the border of a tensor: its phase, what it computes, and its tensors."""

    phase: int
    nodes: tuple[Node, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Outline:
    """What of a program decides its memory, before it is compiled as after.

    touched: all steps in order, without those that fill borders. lives: when each tensor of the
    arena is alive.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]
    lives: Mapping[str, Life]
    touched: tuple[Touch, ...]
    lanes: int

    def arranged(self, batch: int, symbols: Mapping[str, int]) -> Arrangement:
        """Where everything lies in a run of `batch` samples at once."""
        places = placements(self.tensors, batch, symbols, self.lanes)
        if batch > 1 and self.separable:
            return by_samples(self.tensors, self.lives, places, batch)
        return one_after_another(self.lives, places)

    def need(self, batch: int, symbols: Mapping[str, int]) -> Need:
        """What a run of `batch` samples at once holds."""
        found = self.arranged(batch, symbols)
        return Need(found.plan.size, sum(lasting(self.tensors, found.places).values()), batch)

    @cached_property
    def kept(self) -> frozenset[str]:
        """The memory that outlives a run, by the names that `lasting` uses."""
        return frozenset(t.alias or n for n, t in self.tensors.items() if _lasts(t))

    def portion(self, batch: int, symbols: Mapping[str, int], fits: Callable[[int], bool]) -> int:
        """Samples of a call that run at a time: all of them, or, where samples have nothing to do
        with each other, as many as stay in the cache and fit the memory limit, as `fits` says.
        """
        if batch == 1 or not self.separable:
            return batch
        cache = lasting_cache()
        best = samples_at_once(self.traffic(symbols), batch, cache) if cache else batch
        return largest_that_fits(batch, best, fits)

    @cached_property
    def separable(self) -> bool:
        """Inference in one phase in which every sample is computed by itself. An input or output
        without a batch axis belongs to all samples, and so does what is computed from a batch
        without having its axis, such as batch statistics.
        """
        g = self.graph
        ends = [*g.of("input"), *(g[name] for _, name in g.outputs)]
        joined = any(
            g[name].type.batched for n in g.nodes if not n.type.batched for name in n.inputs
        )
        phases = {t.phase for t in self.touched if t.phase >= 0}
        return all(n.type.batched for n in ends) and not (joined or g.updates or len(phases) > 1)

    def traffic(self, symbols: Mapping[str, int]) -> Traffic:
        """What the steps of inference do and touch."""
        parts: dict[str, list[str]] = {}  # a tensor that is written in parts is touched in parts
        for name, t in self.tensors.items():
            if t.slice_of:
                parts.setdefault(t.slice_of, []).append(name)
        steps = []
        for touch in self.touched:
            if touch.phase < 0:
                continue
            names = [part for name in touch.tensors for part in parts.get(name, [name])]
            own = {n: t for n in names if not (t := self.tensors[n]).cut}
            bytes_of = {
                name: evaluate(product(t.type.shape), symbols) * t.type.dtype.bytes
                for name, t in own.items()
            }  # what there is of the others at a time stays in the cache
            work = sum(evaluate(macs(self.graph, n), symbols) for n in touch.nodes)
            samples = {n: b for n, b in bytes_of.items() if own[n].type.batched}
            fixed = {t.alias or n: bytes_of[n] for n, t in own.items() if not t.type.batched}
            steps.append(Work(work, samples, fixed))
        return Traffic(tuple(steps), _costs(), cores())


def _costs() -> Costs:
    """Of a byte on this machine."""
    if last_cache_is_far():
        return FAR
    wide = vector_lanes() == 16  # 512 bits
    return WIDE if wide and hungry_cache(512) else NEAR


def default_limit() -> int:
    """Bytes that a program may hold where nobody says how many: half of the memory."""
    return memory_limit() // 2


def needed(
    fused: Fused,
    *,
    phases: Mapping[str, int] | None = None,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    lanes: int | None = None,
    limit: int | None = None,
) -> Need:
    """What the program of a fused graph plans to hold for calls of `batch` samples, to the byte, on
    this machine or one with vectors of `lanes` floats of the graph's type.

    `phases` is given for a training graph; `symbols` for inputs with symbolic extents. `limit`: the
    bytes that may be held, to which portions of the batch are fitted where they can be.
    """
    wide = any(n.type.dtype is DType.F64 for n in fused.graph.nodes)
    lanes = lanes or max(1, vector_lanes() // (2 if wide else 1))
    declared = declare(fused, lanes=lanes, phases=with_prepared(fused.graph, phases or {}))
    touched = tuple(
        Touch(run.phase, tuple(n for k in run.kernels for n in k.nodes), tensors_of(run.kernels))
        for run in declared.runs
    )
    lives = declared.lives([t.tensors for t in touched])
    outline = Outline(fused.graph, declared.tensors, lives, touched, lanes)
    values, most = symbols or {}, default_limit() if limit is None else limit
    portion = outline.portion(batch, values, lambda n: outline.need(n, values).peak <= most)
    return outline.need(portion, values)


def lasting(tensors: Mapping[str, Tensor], places: Mapping[str, Placement]) -> dict[str, int]:
    """Bytes of the tensors that outlive a run, by the name of the memory that they share."""
    return {t.alias or n: places[n].bytes for n, t in tensors.items() if _lasts(t)}


def _lasts(t: Tensor) -> bool:
    return t.space in ("store", "constant")
