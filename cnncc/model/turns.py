"""Two programs of one network timed in turns, step by step, and what the times say.

What else a machine does comes and goes, so single times mean little. Both programs run in every
turn, the first now before and now behind the second, and only the ratio of the two in one turn
counts: a turn that something disturbed is one of many. A gain counts when it is at least LEAST and
three turns of four show one; it is then measured once more before it is believed, because the best
of several candidates is partly the luckiest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Graph
from cnncc.model.profile import first_samples
from cnncc.ops.winograd import WinogradFilter, WinogradInput, WinogradProduct
from cnncc.targets.cpu.peaks import Peaks
from cnncc.targets.cpu.profile import Stepwise, Timer
from cnncc.targets.cpu.program_step import Step
from cnncc.targets.cpu.work import macs_of, traffic_of
from cnncc.targets.runtime import Runtime, Shape, shape_of

LEAST = 0.02
"""The part of its time that another choice must spare a layer."""

TURNS = 15
MORE, SECONDS = 300, 0.3
"""Turns of a small network, and the seconds in which it may take more turns than TURNS."""

SHORTEST = 1e-9
"""Seconds of a step that takes none when the overhead is taken off."""

Arrays = Mapping[str, NDArray[Any]]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Turns:
    """Seconds of the same layers in each turn, before and after a change. None is 0."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def gains(self) -> list[float]:
        """The part of its time that the change spares, turn by turn."""
        return [1 - a / b for b, a in zip(self.before, self.after, strict=True)]

    @property
    def gain(self) -> float:
        """The median of the gains."""
        return statistics.median(self.gains)

    @property
    def spread(self) -> tuple[float, float]:
        """Between these lies the middle half of the gains."""
        ordered = sorted(self.gains)
        quarter = len(ordered) // 4
        return ordered[quarter], ordered[-1 - quarter]

    @property
    def seconds(self) -> tuple[float, float]:
        """The medians."""
        return statistics.median(self.before), statistics.median(self.after)

    @property
    def is_faster(self) -> bool:
        """Whether the change is a gain beyond the noise."""
        return self.gain >= LEAST and self.spread[0] > 0

    @property
    def is_slower(self) -> bool:
        """Whether it is a loss beyond the noise."""
        return self.gain < 0 and self.spread[1] < 0


class Contestant:
    """A compiled network whose steps run one by one. It has an arena until it is closed, and a call
    may have to wait for that. `portion`: samples that run at a time, by default as in a call.
    """

    def __init__(self, runtime: Runtime, inputs: Arrays, portion: int | None = None) -> None:
        self.runtime, self.inputs = runtime, inputs
        self.outputs = runtime.run(inputs)  # this computes what depends on parameters alone, too
        self.shape = shape = shape_of(runtime.graph, inputs)
        own = portion or runtime.portion(shape)
        binding = runtime.bind(Shape(own, shape.symbols), shape.batch)
        self.binding = binding
        self.values = {**dict(shape.symbols), "*": binding.batch}
        self._portions = shape.batch / binding.batch
        self._overhead = float("inf")
        self._stepwise = Stepwise(
            binding, first_samples(inputs, shape, binding.batch), threads=runtime.threads,
            phases=[0],
        )  # fmt: skip

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *error: object) -> None:
        self._stepwise.__exit__(*error)

    @property
    def graph(self) -> Graph:
        return self.runtime.graph

    @property
    def steps(self) -> tuple[Step, ...]:
        return self._stepwise.steps

    def run(self, timer: Timer) -> list[float]:
        """The seconds that each step takes of a call."""
        empty, times = self._stepwise.run(timer)
        self._overhead = min(self._overhead, empty)
        return [max(t - self._overhead, SHORTEST) * self._portions for t in times]

    def call(self, timer: Timer) -> float:
        """The seconds of a whole call."""
        return max(timer(None, lambda: self.runtime.run(self.inputs)), SHORTEST)

    def least(self, peaks: Peaks) -> list[float]:
        """The seconds that each step takes of a call at the least, by the roofline."""
        binding, program = self.binding, self.runtime.program
        cold = peaks.overflows(binding.plan.size + self.runtime.store.bytes)
        bounds = []
        for step in self.steps:
            traffic, parameters = traffic_of(program, step, binding.placements)
            macs = macs_of(program, step, binding.batch, self.values)
            bounds.append(peaks.bound(2.0 * macs, traffic, parameters if cold else 0).seconds)
        return [b * self._portions for b in bounds]

    def nodes_of(self, names: Collection[str]) -> set[str]:
        """The nodes that stand for some nodes of the network."""
        return {part for name in names for part in parts(self.graph, name)}

    def nodes_with(self, names: set[str]) -> set[str]:
        """These nodes, and all others of the steps in which one of them is computed."""
        steps = [{n.name for n in s.nodes} for s in self.steps if s.nodes]
        return names.union(*(nodes for nodes in steps if not nodes.isdisjoint(names)))

    def places_of(self, nodes: Collection[str]) -> list[int]:
        """The places of the steps that compute one of these nodes."""
        return [i for i, s in enumerate(self.steps) if any(n.name in nodes for n in s.nodes)]

    def steps_of(self, names: Collection[str], nodes: Collection[str]) -> list[int]:
        """The places of the steps that compute these nodes, and that fill the borders which
        `names` read.
        """
        own = [self.graph[part] for name in names for part in parts(self.graph, name)]
        read = {i for node in own for i in node.inputs}
        return [
            place
            for place, step in enumerate(self.steps)
            if (not step.kernels and step.tensors[0] in read)
            or any(n.name in nodes for n in step.nodes)
        ]


def check_bits(expected: Arrays, found: Arrays, stage: str, rule: str) -> None:
    """Raises CompilerBug where a result has other bits, which `stage` was not to change."""
    for name, array in expected.items():
        if array.tobytes() != found[name].tobytes():
            raise CompilerBug(stage, name, rule)


def parts(graph: Graph, name: str) -> set[str]:
    """The nodes that stand for a node of the network: itself, and the transforms and the product of
    which it is the last.
    """
    found = {name}
    for other in graph[name].inputs:
        if isinstance(graph[other].op, WinogradFilter | WinogradInput | WinogradProduct):
            found |= parts(graph, other)
    return found


def turns_for(network: Contestant, timer: Timer) -> int:
    """How many turns are worth it."""
    network.run(timer)  # to warm up
    return max(TURNS, min(MORE, int(SECONDS / (2 * sum(network.run(timer))))))


def nodes_alone(before: Contestant, after: Contestant, nodes: set[str]) -> set[str]:
    """These nodes and the fewest others such that both compute them in steps that compute nothing
    else.
    """
    while (more := before.nodes_with(nodes) | after.nodes_with(nodes)) != nodes:
        nodes = more
    return nodes


def compared(
    before: Contestant,
    after: Contestant,
    layers: Mapping[str, Sequence[str]],
    turns: int,
    timer: Timer,
) -> dict[str, Turns]:
    """The times of some groups of nodes, by the name of the group, in the same turns."""
    places = {}
    for group, names in layers.items():
        nodes = nodes_alone(before, after, before.nodes_of(names) | after.nodes_of(names))
        places[group] = before.steps_of(names, nodes), after.steps_of(names, nodes)
    return steps_compared(before, after, places, turns, timer)


def steps_compared(
    before: Contestant,
    after: Contestant,
    places: Mapping[K, tuple[Sequence[int], Sequence[int]]],
    turns: int,
    timer: Timer,
) -> dict[K, Turns]:
    """The times of some steps of the one and of the other, by whatever names them, in the same
    turns; nothing for what has no steps.
    """
    times: dict[K, list[tuple[float, float]]] = {name: [] for name in places}
    for seconds in _in_turns(before.run, after.run, turns, timer):
        for name, both in places.items():
            own = [sum(s[i] for i in own) for s, own in zip(seconds, both, strict=True)]
            times[name].append((own[0], own[1]))
    return {name: _turns(t) for name, t in times.items() if all(places[name])}


def calls_compared(before: Contestant, after: Contestant, turns: int, timer: Timer) -> Turns:
    """The times of whole calls."""
    return _turns([(b, a) for b, a in _in_turns(before.call, after.call, turns, timer)])


def _in_turns(
    before: Callable[[Timer], T], after: Callable[[Timer], T], turns: int, timer: Timer
) -> Iterator[tuple[T, T]]:
    """What both give in each turn; who comes first alternates."""
    before(timer), after(timer)  # to warm up
    for turn in range(turns):
        if turn % 2:
            second = after(timer)
            yield before(timer), second
        else:
            first = before(timer)
            yield first, after(timer)


def _turns(pairs: Sequence[tuple[float, float]]) -> Turns:
    return Turns(tuple(b for b, _ in pairs), tuple(a for _, a in pairs))
