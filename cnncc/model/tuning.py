"""`cnncc tune`: which of the possible choices for each layer is the fastest on this machine.

First the algorithms of convolutions (under `precision = "default"`), then the widths of register
tiles. Both are found in the same way: candidates that the cost model does not rule out are
compiled, those of all layers at once, and run in turns with what the model chooses; outputs are
compared before anything is timed. What is faster beyond the noise is measured once more, together,
and kept if it is faster again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnncc.compiler import allowed
from cnncc.graph.ir import Graph, Node
from cnncc.model.network import Network
from cnncc.model.programs import Options
from cnncc.model.trials import Trials
from cnncc.model.turns import (
    Arrays,
    Contestant,
    Turns,
    calls_compared,
    check_bits,
    compared,
    turns_for,
)
from cnncc.ops.base import Op
from cnncc.passes.choices import Choice, Choices, form
from cnncc.passes.winograd import algorithms, costs
from cnncc.targets.cpu.bands import Cut
from cnncc.targets.cpu.profile import Timer, stopwatch
from cnncc.targets.cpu.schedule import other_widths, registers
from cnncc.targets.tuned import Key, save_choices
from cnncc.tensor import DType

ALGORITHM, WIDTH = "algorithm", "width"
PRUNED = {ALGORITHM: 1.6, WIDTH: 1.3}
"""Candidates that take more than this many times what the model's choice takes, by the model, are
not measured."""

MOST = {ALGORITHM: 3, WIDTH: 4}
"""Candidates measured for a layer, the best by the model."""

CLOSE = 1e-5
"""Relative L2 distance of an output with other algorithms: the bound that outputs are held to
against other frameworks."""

Progress = Callable[[str, int, int], None]
"""Called with what comes next, how many networks are compiled and timed, and of how many."""


@dataclass(frozen=True)
class Group:
    """The nodes of one form, what the cost model chooses for them, and the candidates with the time
    that the model gives them, by that of its choice.
    """

    kind: str
    form: str
    names: tuple[str, ...]
    layers: tuple[str, ...]
    before: int
    candidates: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Candidate:
    """A candidate as it was measured. `predicted`: the gain by the model."""

    value: int
    predicted: float
    turns: Turns


@dataclass(frozen=True)
class Found:
    """What came of a group. `chosen`: another value than the model's, None for none; `confirmed`:
    its second measurement, also where that did not confirm it.
    """

    group: Group
    candidates: tuple[Candidate, ...]
    chosen: int | None = None
    confirmed: Turns | None = None


@dataclass(frozen=True)
class Tuning:
    """The whole: what was found for every group that has candidates, whole calls with the models'
    choices and with the new ones (None where nothing changes), and what is to be saved.
    """

    name: str
    key: Key
    extents: Mapping[str, int]
    found: tuple[Found, ...]
    call: Turns | None
    choices: Choices

    def save(self) -> Path:
        """Keep the choices for later compiles; the groups that were measured have no older ones."""
        settled = {
            kind: [f.group.form for f in self.found if f.group.kind == kind]
            for kind in (ALGORITHM, WIDTH)
        }
        return save_choices(self.key, self.choices, settled)


def tune(
    network: Network,
    inputs: Arrays,
    options: Options,
    *,
    batch: int,
    extents: Mapping[str, int],
    turns: int | None = None,
    timer: Timer = stopwatch,
    progress: Progress = lambda what, done, of: None,
) -> Tuning:
    """Measure the choices for calls with these inputs; nothing is saved.

    `options`: as to compile; its own choices are not used. `turns`: by default TURNS, and more
    where a call takes little time. Raises what compiling raises, and CompilerBug when another tile
    gives other bits.
    """
    by_model = Choices(batch=batch)
    tuner = _Tuner(network, inputs, replace(options, choices=by_model), turns, timer, progress)
    found: list[Found] = []
    choices = by_model
    for groups_of in (tuner.algorithms, tuner.widths) if not options.exact else (tuner.widths,):
        more = tuner.search(choices, groups_of)
        found += more
        choices = choices.joined(_chosen(more))
    call = tuner.whole(choices) if choices else None
    if call is not None and call.is_slower:
        choices = by_model  # what layers gain is lost between them
    precision = "exact" if options.exact else "default"
    name = network.inference.module.name
    key = Key(tuner.threads, batch, precision)
    return Tuning(name, key, dict(extents), tuple(found), call, choices)


@dataclass
class _Tuner:
    network: Network
    inputs: Arrays
    options: Options
    turns: int | None
    timer: Timer
    progress: Progress
    _done: int = 0
    _planned: int = 0

    def __post_init__(self) -> None:
        self.trials = Trials(self.network)

    def contestant(self, choices: Choices, what: str) -> Contestant:
        """The network compiled with choices."""
        self.progress(what, self._done, max(self._planned, self._done + 1))
        self._done += 1
        runtime = self.trials.runtime(replace(self.options, choices=choices))
        self.threads = runtime.threads
        return Contestant(runtime, self.inputs)

    # --- groups ---

    def algorithms(self, base: Contestant) -> list[Group]:
        """Convolutions with several algorithms."""
        graph, module = self.network.inference.graph, self.network.inference.module
        model = self.options.choices
        chosen = algorithms(graph, model)
        groups = []
        for text, nodes in _by_form(graph).items():
            by_value = costs(nodes[0], graph, model.batch)
            if not by_value or not allowed(Choices({text: Choice(0)}), module):
                continue
            before = chosen.get(nodes[0].name, 0)
            predicted = {m: c / by_value[before] for m, c in by_value.items() if m != before}
            groups.append(_group(ALGORITHM, text, nodes, before, predicted))
        return groups

    def widths(self, base: Contestant) -> list[Group]:
        """Nodes whose kernels have register tiles of which other widths are possible."""
        found: dict[str, tuple[int, Mapping[int, float]]] = {}
        held = registers(base.runtime.program.lanes, DType.F32)
        for step in (part for s in base.steps if not isinstance(s.cut, Cut) for part in s.kernels):
            if step.kernel is None or step.emitted is None:
                continue
            anchors = [n for n in step.kernel.nodes if isinstance(n.op, Op) and not n.op.pointwise]
            for segment in step.emitted.segments if anchors else ():
                predicted = other_widths(segment.nest, segment.schedule, held, base.values)
                if predicted:
                    own = segment.schedule.width
                    found.setdefault(form(anchors[0], base.graph), (own, predicted))
        groups = _by_form(base.graph)
        return [
            _group(WIDTH, text, groups[text], own, predicted)
            for text, (own, predicted) in found.items()
        ]

    # --- measuring ---

    def search(
        self, choices: Choices, groups_of: Callable[[Contestant], list[Group]]
    ) -> list[Found]:
        """Measure the candidates of all groups beside a network with the choices so far."""
        with self.contestant(choices, "as the cost models choose") as base:
            turns = self.turns or turns_for(base, self.timer)
            groups = [g for g in groups_of(base) if g.candidates]
            rounds = max((len(g.candidates) for g in groups), default=0)
            self._planned = self._done + rounds + 1
            measured: dict[str, list[Candidate]] = {g.form: [] for g in groups}
            for place in range(rounds):
                own = {g: g.candidates[place] for g in groups if place < len(g.candidates)}
                taking = {g: value for g, (value, _) in own.items()}
                what = f"candidate {place + 1} of every layer"
                times = self._times(base, choices, taking, turns, what)
                for group, (value, predicted) in own.items():
                    if group.form in times:
                        candidate = Candidate(value, 1 - predicted, times[group.form])
                        measured[group.form].append(candidate)
            best = {g: c.value for g in groups if (c := _fastest(measured[g.form])) is not None}
            again: dict[str, Turns] = {}
            if best:
                again = self._times(base, choices, best, turns, "the fastest once more")
        found = []
        for group in groups:
            second = again.get(group.form)
            kept = best[group] if second is not None and second.is_faster else None
            found.append(Found(group, tuple(measured[group.form]), kept, second))
        return found

    def _times(
        self,
        base: Contestant,
        choices: Choices,
        taking: Mapping[Group, int],
        turns: int,
        what: str,
    ) -> dict[str, Turns]:
        """The times of groups with other values, by form, after a look at the results: tiles give
        the same bits. None, with a warning, where other algorithms give results too far away, which
        may be no fault of theirs: where large terms cancel, the sum has their errors.
        """
        other = choices.joined(_as_choices(taking))
        with self.contestant(other, what) as changed:
            if any(g.kind == ALGORITHM for g in taking):
                far = _furthest(base.outputs, changed.outputs)
                if far > CLOSE:
                    warnings.warn(
                        f"{what}: left out, because a result is {far:.1e} away, relative to its "
                        f"norm, and {CLOSE:.0e} are allowed",
                        RuntimeWarning,
                        stacklevel=1,
                    )
                    return {}
            else:
                check_bits(
                    base.outputs, changed.outputs, "schedule", "the width of a tile changes no bit"
                )
            layers = {g.form: g.names for g in taking}
            return compared(base, changed, layers, turns, self.timer)

    def whole(self, choices: Choices) -> Turns:
        """Whole calls with the models' choices and with these."""
        with self.contestant(self.options.choices, "whole calls") as before, \
                self.contestant(choices, "whole calls") as after:  # fmt: skip
            turns = self.turns or turns_for(before, self.timer)
        return calls_compared(before, after, turns, self.timer)


def _by_form(graph: Graph) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Op):
            found.setdefault(form(node, graph), []).append(node)
    return found


def _group(
    kind: str, text: str, nodes: Sequence[Node], before: int, predicted: Mapping[int, float]
) -> Group:
    """A group with the candidates that are worth measuring."""
    ordered = sorted(predicted.items(), key=lambda item: item[1])
    kept = tuple(item for item in ordered if item[1] <= PRUNED[kind])[: MOST[kind]]
    layers = tuple(dict.fromkeys(n.origin.layer or n.name for n in nodes))
    return Group(kind, text, tuple(n.name for n in nodes), layers, before, kept)


def _as_choices(taking: Mapping[Group, int]) -> Choices:
    by_kind = {k: {g.form: Choice(v) for g, v in taking.items() if g.kind == k}
               for k in (ALGORITHM, WIDTH)}  # fmt: skip
    return Choices(by_kind[ALGORITHM], by_kind[WIDTH])


def _chosen(found: Sequence[Found]) -> Choices:
    by_kind: dict[str, dict[str, Choice]] = {ALGORITHM: {}, WIDTH: {}}
    for f in found:
        if f.chosen is not None and f.confirmed is not None:
            before, after = f.confirmed.seconds
            by_kind[f.group.kind][f.group.form] = Choice(f.chosen, after, before)
    return Choices(by_kind[ALGORITHM], by_kind[WIDTH])


def _fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that gains most, None where no gain is beyond the noise."""
    faster = [c for c in candidates if c.turns.is_faster]
    return max(faster, key=lambda c: c.turns.gain, default=None)


def _furthest(expected: Arrays, found: Arrays) -> float:
    """The largest relative L2 distance of an output; infinite where a number has become none."""
    distances = [0.0]
    for name, array in expected.items():
        a, b = np.asarray(array, np.float64), np.asarray(found[name], np.float64)
        other = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        if other.any():
            away = np.linalg.norm(a[other] - b[other])
            norm = np.linalg.norm(a[np.isfinite(a)])
            distances.append(float(away / norm) if norm and np.isfinite(away) else np.inf)
    return max(distances)
