"""Receptive fields: which positions of the input a result depends on. Along every spatial axis of
the first input the field of a result is an interval that moves with the result's position. Every
operator moves the interval by the window relation (see cnncc.window); where paths meet, the field
is the hull of theirs (Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", 2019).

Behind an upsampling neighbours may see the same positions or other ones, in turn. So a field has an
interval for each position of a period: result q * period + r sees what result r sees, moved by
q * step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cnncc.graph.ir import Graph, Node
from cnncc.tensor import TensorType
from cnncc.window import Axis

LONGEST_PERIOD = 1024
"""Beyond it a field is given up: strides that do not divide each other make long periods."""


@dataclass(frozen=True)
class Span:
    """The field along one axis of the input, in input positions, both ends included.

    `intervals` are those of the first results, one period; `step` 0: every result sees the same.
    """

    intervals: tuple[tuple[int, int], ...]
    step: int

    @property
    def period(self) -> int:
        return len(self.intervals)

    @property
    def size(self) -> int:
        """Input positions from the first to the last that some result sees, padding included."""
        return max(hi - lo + 1 for lo, hi in self.intervals)

    @property
    def jump(self) -> Fraction:
        """How far the field moves from one result to the next, on average."""
        return Fraction(self.step, self.period)

    @property
    def start(self) -> float:
        """The centre of the field of the first result (0 is the first input position)."""
        lo, hi = self.intervals[0]
        return (lo + hi) / 2

    @property
    def padding(self) -> int:
        """Positions by which the first result's field reaches before the input."""
        return max(0, -self.intervals[0][0])

    def at(self, o: int) -> tuple[int, int]:
        """The interval of result o, which may be negative: a position in the padding."""
        turns, r = divmod(o, self.period)
        lo, hi = self.intervals[r]
        return lo + turns * self.step, hi + turns * self.step


Field = tuple[Span, ...]
Sources = Callable[[int], tuple[int, int]]  # result -> the first and last operand position it reads


def receptive_fields(graph: Graph) -> dict[str, Field | None]:
    """The field of every node in the first input that is data; None where there is none.

    None stands for: the node does not depend on that input, it mixes the samples of a batch, the
    field depends on a symbolic extent, or an operator does not say how it moves fields.
    """
    fields: dict[str, Field | None] = {}
    source = next((n for n in graph.of("input") if _is_data(n)), None)
    for node in graph.nodes:
        if node is source:
            fields[node.name] = (Span(((0, 0),), 1),) * max(0, node.type.rank)
            continue
        found = [
            _moved(node, graph[i].type, field)
            for i in node.inputs
            if (field := fields[i]) is not None
        ]
        fields[node.name] = _merged(found) if node.type.batched else None
    return fields


def _is_data(node: Node) -> bool:
    return getattr(node.op, "role", "data") == "data"


def _merged(found: list[Field | None]) -> Field | None:
    if not found or any(f is None for f in found):
        return None
    known = [f for f in found if f is not None]
    spans = [hull(axis) for axis in zip(*known, strict=True)]
    return None if any(s is None for s in spans) else tuple(s for s in spans if s is not None)


def hull(spans: Iterable[Span]) -> Span | None:
    """The field of a result that depends on all of them; None when they move differently."""
    several = tuple(spans)
    moving = [s for s in several if s.step]
    if len({s.jump for s in moving}) > 1:
        return None
    period = math.lcm(*(s.period for s in several))
    if period > LONGEST_PERIOD:
        return None
    step = period * moving[0].jump if moving else Fraction(0)
    intervals = [[s.at(o) for s in several] for o in range(period)]
    return Span(tuple((min(x)[0], max(hi for _, hi in x)) for x in intervals), int(step))


def moved(span: Span, reads: Sources, period: int, turn: int) -> Span | None:
    """The field of results that read the operand positions `reads(o)`.

    `period` results read `turn` positions further than the `period` before them.
    """
    # The least number of results after which both what is read and what that sees repeat.
    times = span.period // math.gcd(span.period, turn)
    whole = times * period
    if whole > LONGEST_PERIOD:
        return None
    intervals = []
    for o in range(whole):
        first, last = reads(o)
        seen = [span.at(i) for i in range(first, last + 1)]
        intervals.append((min(lo for lo, _ in seen), max(hi for _, hi in seen)))
    return Span(tuple(intervals), times * turn * span.step // span.period)


def _moved(node: Node, operand: TensorType, field: Field) -> Field | None:
    """The field of a node through one of its operands."""
    if not field or all(span.step == 0 for span in field):
        return field
    move = _MOVES.get(node.op.name)
    if move is None and getattr(node.op, "window", None) is not None:
        move = _through_window
    if move is not None:
        spans = [move(node.op, axis, span) for axis, span in enumerate(field)]
        return None if any(s is None for s in spans) else tuple(s for s in spans if s is not None)
    if node.type.spatial == operand.spatial:
        return field
    if node.type.rank == 0 or all(e == 1 for e in node.type.spatial):
        return _whole(operand, field)
    return None


def _whole(operand: TensorType, field: Field) -> Field | None:
    """The field of something that depends on all positions of an operand."""
    spans = []
    for n, span in zip(operand.spatial, field, strict=True):
        if not isinstance(n, int):
            return None
        positions = {*range(min(n, span.period)), *range(max(0, n - span.period), n)}
        seen = [span.at(o) for o in positions]
        spans.append(Span(((min(lo for lo, _ in seen), max(hi for _, hi in seen)),), 0))
    return tuple(spans)


# --- how operators move fields -------------------------------------------------------------------


def through_window(axis: Axis, span: Span) -> Span | None:
    """The field of a window's results."""
    return moved(span, lambda o: (axis.input(o, 0), axis.input(o, axis.size - 1)), 1, axis.stride)


def through_transposed(axis: Axis, span: Span) -> Span | None:
    """The field of a transposed window's results: i reads every o of which some tap is at i."""

    def reads(i: int) -> tuple[int, int]:
        distances = (i - axis.input(0, k) for k in range(axis.size))
        reached = [d // axis.stride for d in distances if d % axis.stride == 0]
        # A position between the windows reads nothing; its field is that of the window before it.
        return (min(reached), max(reached)) if reached else (i // axis.stride, i // axis.stride)

    return moved(span, reads, axis.stride, 1)


def _through_window(op: Any, axis: int, span: Span) -> Span | None:
    return through_window(op.window[axis], span)


def _through_transposed(op: Any, axis: int, span: Span) -> Span | None:
    return through_transposed(op.window[axis], span)


def _cropped(op: Any, axis: int, span: Span) -> Span | None:
    lo = op.amounts[axis][0]
    return moved(span, lambda o: (o + lo, o + lo), 1, 1)


def _padded(op: Any, axis: int, span: Span) -> Span | None:
    lo = op.amounts[axis][0]
    return moved(span, lambda o: (o - lo, o - lo), 1, 1)


def _repeated(op: Any, axis: int, span: Span) -> Span | None:
    factor = op.factors[axis]
    return moved(span, lambda o: (o // factor, o // factor), factor, 1)


def _interpolated(op: Any, axis: int, span: Span) -> Span | None:
    factor = op.factors[axis]

    def reads(o: int) -> tuple[int, int]:
        # Centre o of the result lies at (o + 1/2) / factor - 1/2 between two centres.
        place, rest = divmod(2 * o + 1 - factor, 2 * factor)
        return place, place + (rest != 0)

    return moved(span, reads, factor, 1)


_MOVES: dict[str, Callable[[Any, int, Span], Span | None]] = {
    "conv_dx": _through_transposed,
    "crop": _cropped,
    "pad": _padded,
    "upsample_nearest": _repeated,
    "upsample_linear": _interpolated,
}
"""Operators that move fields otherwise than a window or a pointwise operator does."""
