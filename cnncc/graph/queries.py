"""What a text can ask about a tensor while the network is built: `channels(x)`, `extent(x, axis)`
with axis 0 for the first spatial axis, and `shape(x)`, a list. `zeros(c, h, w)` is a tensor of
zeros, one per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from cnncc.errors import Span
from cnncc.graph.faults import Faults
from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.limits import check_type
from cnncc.graph.values import POISON, Value, is_integer, kind, show
from cnncc.syntax import tree as t
from cnncc.tensor import DType, Poly, TensorType

Given: TypeAlias = tuple[Value, Span]
Query: TypeAlias = Callable[[Faults, t.Call, Sequence[Given]], "Value | TensorType"]


def _tensor(faults: Faults, call: t.Call, given: Sequence[Given], count: int) -> Node | None:
    """The first argument as a tensor, when there are `count` arguments; None after a report."""
    if len(given) != count:
        faults.error(
            "E0306",
            f"`{call.name}` takes {count} argument{'s' * (count != 1)}, but got {len(given)}",
            call.name_span if call.name_span.known else call.span,
        )
        return None
    value, span = given[0]
    if isinstance(value, Node):
        return value
    faults.error("E0308", f"`{call.name}` asks about a tensor, but this is {show(value)}", span)
    return None


def channels(faults: Faults, call: t.Call, given: Sequence[Given]) -> Value:
    """The channels of a tensor."""
    x = _tensor(faults, call, given, 1)
    return POISON if x is None else x.type.channels


def shape(faults: Faults, call: t.Call, given: Sequence[Given]) -> Value:
    """The extents of a tensor, channels first, as a list."""
    x = _tensor(faults, call, given, 1)
    return POISON if x is None else list(x.type.shape)


def extent(faults: Faults, call: t.Call, given: Sequence[Given]) -> Value:
    """The extent along a spatial axis."""
    x = _tensor(faults, call, given, 2)
    if x is None:
        return POISON
    axis, span = given[1]
    if is_integer(axis) and isinstance(axis, int) and 0 <= axis < x.type.rank:
        return x.type.spatial[axis]
    last = x.type.rank - 1
    rule = f"spatial axes of `{x.name}` are 0 to {last}" if last >= 0 else f"`{x.name}` has none"
    return faults.error("E0308", f"`extent` takes an axis: {rule}, but got {show(axis)}", span)


def zeros(faults: Faults, call: t.Call, given: Sequence[Given]) -> Value | TensorType:
    """The type of a batch of zeros: f32, with the extents that are given."""
    head = call.name_span if call.name_span.known else call.span
    if not 1 <= len(given) <= 4:
        return faults.error(
            "E0306",
            f"`zeros` takes channels and up to 3 extents, but got {len(given)} arguments",
            head,
        )
    for value, span in given:
        if not is_integer(value) and not isinstance(value, Poly):
            return faults.error(
                "E0308", f"`zeros` takes extents, but this is {show(value)}, {kind(value)}", span
            )
    extents = tuple(value for value, _ in given if isinstance(value, int | Poly))
    type = TensorType(DType.F32, extents)
    try:
        check_type(type, "zeros")
    except ShapeError as broken:
        return faults.error(broken.code, broken.rule, head)
    return type


QUERIES: dict[str, Query] = {
    "channels": channels,
    "extent": extent,
    "shape": shape,
    "zeros": zeros,
}
