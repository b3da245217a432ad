"""What fusion gains, edge by edge: the time of the kernels on both sides of an edge that is kept
apart, by the time of the kernel in which it is fused.

An edge is kept apart in a program of its own, beside the fused one; edges of different kernels
share such a program. Both programs must give the same bits; then their steps are timed in turns.
Two copies of one program differ as well, since their tensors lie elsewhere in memory, so the fused
network is compared with a copy of itself: what is not beyond that is no gain and no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cnncc.model.network import Network
from cnncc.model.programs import Options
from cnncc.model.trials import Trials
from cnncc.model.turns import (
    Arrays,
    Contestant,
    Turns,
    check_bits,
    nodes_alone,
    steps_compared,
    turns_for,
)
from cnncc.passes.fuse import Fused
from cnncc.targets.cpu.peaks import Peaks, measure_peaks
from cnncc.targets.cpu.profile import Timer, stopwatch
from cnncc.targets.runtime import Shape

Progress = Callable[[str, int, int], None]
"""Called with what comes next, how many edges have been measured, and how many there are."""


@dataclass(frozen=True)
class Cut:
    """Edges (producer, consumer) that are fused or not as one: a single one, or those of all inputs
    of a concat in place. nodes: all that the kernels at their ends compute.
    """

    edges: tuple[tuple[str, str], ...]
    nodes: frozenset[str]


@dataclass(frozen=True)
class Gain:
    """What a fusion is worth. turns: the seconds of a call that go into the kernels at both ends of
    the edges, before and after they are fused. copies: of the fused kernel in two programs.
    predicted: the quotient of the least times that the roofline allows.
    """

    edges: tuple[tuple[str, str], ...]
    turns: Turns
    copies: Turns
    predicted: float

    @property
    def measured(self) -> float:
        """How many times as long the kernels take without the fusion: the median of the turns."""
        return 1 / (1 - self.turns.gain)

    @property
    def spread(self) -> tuple[float, float]:
        """Between these lies the middle half of the turns."""
        return _quotients(self.turns)

    @property
    def noise(self) -> tuple[float, float]:
        """Between these lies the middle half of the turns of two copies."""
        return _quotients(self.copies)

    @property
    def loses(self) -> bool:
        """Whether the fusion costs time, more than two copies differ by."""
        return self.spread[1] < min(1.0, self.noise[0])


@dataclass(frozen=True)
class Gains:
    """Every fusion that a call of inference makes use of, in the order of the ledger; not those of
    kernels that compute from parameters alone, which do not run in a call.
    """

    shape: Shape
    threads: int
    found: tuple[Gain, ...]

    @property
    def losing(self) -> list[Gain]:
        """Those that cost time, beyond the noise."""
        return [g for g in self.found if g.loses]


def measure_gains(
    network: Network,
    inputs: Arrays,
    options: Options,
    *,
    turns: int | None = None,
    peaks: Peaks | None = None,
    timer: Timer = stopwatch,
    progress: Progress = lambda what, done, of: None,
) -> Gains:
    """Measure all fusions of calls of inference with these inputs.

    `turns`: by default 15, and more where a call takes little time. `peaks`: measured, if they are
    not given. Raises what compiling raises, and CompilerBug when a fusion changes a bit.
    """
    trials = Trials(network)
    with Contestant(trials.runtime(options), inputs) as fused:
        peaks = peaks or measure_peaks(fused.runtime.threads)
        turns = turns or turns_for(fused, timer)
        cuts = [c for c in cuts_of(fused.runtime.fused) if fused.places_of(c.nodes)]
        found: dict[Cut, Gain] = {}
        progress("a copy", 0, len(cuts))
        with Contestant(trials.runtime(options), inputs, fused.binding.batch) as copy:
            own = {c: (fused.places_of(c.nodes),) * 2 for c in cuts}
            copies = steps_compared(copy, fused, own, turns, timer)
        while len(found) < len(cuts):
            progress("without some fusions", len(found), len(cuts))
            taken = _far_from_each_other((c for c in cuts if c not in found), fused)
            edges = frozenset(frozenset(edge) for c in taken for edge in c.edges)
            runtime = trials.runtime(replace(options, apart=edges))
            with Contestant(runtime, inputs, fused.binding.batch) as apart:
                check_bits(fused.outputs, apart.outputs, "fuse", "fusion changes no bit")
                for cut, (times, predicted) in _compared(
                    apart, fused, taken, turns, peaks, timer
                ).items():
                    found[cut] = Gain(cut.edges, times, copies[cut], predicted)
        return Gains(fused.shape, fused.runtime.threads, tuple(found[c] for c in cuts))


def cuts_of(fused: Fused) -> list[Cut]:
    """How each fusion is undone: all that had been fused with the producer before stays so, and is
    kept apart from the rest of the kernel.
    """
    kernels = {n.name: frozenset(n.name for n in k.nodes) for k in fused.kernels for n in k.nodes}
    groups = {name: frozenset((name,)) for name in kernels}
    found: dict[tuple[str, str], Cut] = {}
    for v in fused.ledger:  # in the order in which the edges were fused
        if not v.fused:
            continue
        if v.consumer not in kernels:  # a concat, whose parts are written where they belong
            old = found.get(("", v.consumer), Cut((), frozenset()))
            edges = (*old.edges, (v.producer, v.consumer))
            own = kernels[v.producer] | {v.consumer}
            found["", v.consumer] = Cut(edges, old.nodes | own)
            continue
        before, own = groups[v.producer], groups[v.consumer]
        if before is own:
            continue  # fused by another edge, with which it is cut
        groups.update(dict.fromkeys(before | own, before | own))
        rest = kernels[v.consumer] - before
        leaving = tuple(
            (name, reader.name)
            for reader in fused.kernel_of(v.consumer).nodes
            if reader.name in rest
            for name in dict.fromkeys(reader.inputs)
            if name in before
        )
        found[v.producer, v.consumer] = Cut(leaving, kernels[v.consumer])
    return list(found.values())


def _far_from_each_other(cuts: Iterable[Cut], fused: Contestant) -> list[Cut]:
    """The first of them, and those that concern other steps than those before, and none next to
    them: what a kernel takes also depends on where the one before left its input.
    """
    taken, busy = [], set[int]()
    for cut in cuts:
        places = set(fused.places_of(cut.nodes))
        if places.isdisjoint(busy):
            taken.append(cut)
            busy |= {p + d for p in places for d in (-1, 0, 1)}
    return taken


def _compared(
    apart: Contestant,
    fused: Contestant,
    cuts: Iterable[Cut],
    turns: int,
    peaks: Peaks,
    timer: Timer,
) -> dict[Cut, tuple[Turns, float]]:
    """The times of the kernels without the fusions and with them, and the gain by the roofline. But
    for those whose kernels now share a step with those of others: they have to be measured in
    another program.
    """
    places: dict[Cut, tuple[list[int], list[int]]] = {}
    busy: set[str] = set()
    for cut in cuts:
        nodes = nodes_alone(apart, fused, set(cut.nodes))
        if nodes.isdisjoint(busy):
            places[cut] = apart.steps_of(nodes, nodes), fused.steps_of(nodes, nodes)
            busy |= nodes
    least = apart.least(peaks), fused.least(peaks)

    def predicted(cut: Cut) -> float:
        before, after = (
            sum(seconds[i] for i in own) for seconds, own in zip(least, places[cut], strict=True)
        )
        return before / after

    measured = steps_compared(apart, fused, places, turns, timer)
    return {cut: (times, predicted(cut)) for cut, times in measured.items()}


def _quotients(turns: Turns) -> tuple[float, float]:
    low, high = turns.spread
    return 1 / (1 - low), 1 / (1 - high)
