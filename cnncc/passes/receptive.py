"""Receptive fields: which positions of the input a result depends on. For every spatial axis of the
first input a field is an interval that moves with the result's position: result o depends on input
positions lo + o * jump to hi + o * jump. Every operator moves the interval by the window relation
(see cnncc.window); where paths meet, the field is the hull of theirs (Araujo, Norris and Sim,
"Computing Receptive Fields of Convolutional Neural Networks", 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cnncc.graph.ir import Graph, Node
from cnncc.tensor import TensorType
from cnncc.window import Axis


@dataclass(frozen=True)
class Span:
    """The field along one axis of the input, in input positions. `jump` 0: every result sees it."""

    lo: Fraction
    hi: Fraction
    jump: Fraction

    @property
    def size(self) -> int:
        """Input positions from the first to the last, padding included."""
        return math.floor(self.hi - self.lo) + 1

    @property
    def start(self) -> float:
        """The centre of the field of the first result (0 is the first input position)."""
        return float((self.lo + self.hi) / 2)

    @property
    def padding(self) -> int:
        """Positions by which the first result's field reaches before the input."""
        return max(0, math.ceil(-self.lo))

    def hull(self, other: Span) -> Span | None:
        """The field of a result that depends on both; None when they move differently."""
        if 0 not in (self.jump, other.jump) and self.jump != other.jump:
            return None
        lo, hi = min(self.lo, other.lo), max(self.hi, other.hi)
        return Span(lo, hi, max(self.jump, other.jump))


Field = tuple[Span, ...]


def receptive_fields(graph: Graph) -> dict[str, Field | None]:
    """The field of every node in the first input that is data; None where there is none.

    None stands for: the node does not depend on that input, it mixes the samples of a batch, the
    field depends on a symbolic extent, or an operator does not say how it moves fields.
    """
    fields: dict[str, Field | None] = {}
    source = next((n for n in graph.of("input") if _is_data(n)), None)
    for node in graph.nodes:
        if node is source:
            one = Span(Fraction(0), Fraction(0), Fraction(1))
            fields[node.name] = (one,) * max(0, node.type.rank)
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
    first, *rest = [f for f in found if f is not None]
    for other in rest:
        spans = [a.hull(b) for a, b in zip(first, other, strict=True)]
        if any(s is None for s in spans):
            return None
        first = tuple(s for s in spans if s is not None)
    return first


def _moved(node: Node, operand: TensorType, field: Field) -> Field | None:
    """The field of a node through one of its operands."""
    if not field or all(span.jump == 0 for span in field):
        return field
    move = _MOVES.get(node.op.name)
    if move is not None:
        return tuple(move(node.op, axis, span) for axis, span in enumerate(field))
    window = getattr(node.op, "window", None)
    if window is not None:
        return tuple(through_window(a, s) for a, s in zip(window, field, strict=True))
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
        spans.append(Span(span.lo, span.hi + (n - 1) * span.jump, Fraction(0)))
    return tuple(spans)


def through_window(axis: Axis, span: Span) -> Span:
    """The field of a window's results: tap k of result o reads o * stride + k * dilation - lo."""
    first, last = axis.input(0, 0), axis.input(0, axis.size - 1)
    jump = span.jump
    return Span(span.lo + first * jump, span.hi + last * jump, jump * axis.stride)


def through_transposed(axis: Axis, span: Span) -> Span:
    """The field of a transposed window's results: i comes from (i - place of a tap) / stride."""
    first, last = axis.input(0, 0), axis.input(0, axis.size - 1)
    jump = span.jump / axis.stride
    return Span(span.lo - last * jump, span.hi - first * jump, jump)


def _transposed(op: Any, axis: int, span: Span) -> Span:
    return through_transposed(op.window[axis], span)


def _cropped(op: Any, axis: int, span: Span) -> Span:
    shift = op.amounts[axis][0] * span.jump
    return Span(span.lo + shift, span.hi + shift, span.jump)


def _padded(op: Any, axis: int, span: Span) -> Span:
    shift = op.amounts[axis][0] * span.jump
    return Span(span.lo - shift, span.hi - shift, span.jump)


_MOVES: dict[str, Callable[[Any, int, Span], Span]] = {
    "conv_dx": _transposed,
    "crop": _cropped,
    "pad": _padded,
}
"""Operators that move fields otherwise than a window or a pointwise operator does."""
