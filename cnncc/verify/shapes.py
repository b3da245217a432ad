"""What the smaller types of some operands say about the others, and about attributes that name
channels or extents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

from cnncc.graph.ir import Operator
from cnncc.ops.conv import ConvDx
from cnncc.tensor import Extent, TensorType, evaluate, product


class Known:
    """How channels, extents and numbers of positions have changed so far."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {}

    def learn(self, old: TensorType, new: TensorType) -> None:
        """Take note of a tensor's types in the network and in the smaller one."""
        if old.spatial:
            self.positions[_number(product(old.spatial))] = _number(product(new.spatial))


def parameter_shape(
    op: Operator,
    position: int,
    was: Sequence[TensorType],
    types: Sequence[TensorType | None],
    narrow: Callable[[int], int],
) -> list[int]:
    """The smaller shape of an operand that is a parameter or a target, read here for the first
    time. `was`: the types in the network; `types`: the smaller ones, None where not known yet.
    """
    own = [_number(e) for e in was[position].shape]
    x = types[0]
    if x is not None:
        if op.name in ("conv", "conv_dx") and position == 1:
            inner = own[1]
            if op.name == "conv":
                inner = _number(x.channels) // smaller_groups(op, was, types)
            outer = narrow(own[0]) if op.name == "conv" else _number(x.channels)
            return [outer, narrow(inner) if op.name == "conv_dx" else inner, *own[2:]]
        if op.name == "dense" and position == 1:
            return [narrow(own[0]), _number(x.elements)]
        if op.name == "cross_entropy" and position == 1:
            return [_number(e) for e in x.spatial] or own
    channels: dict[int, int] = {}
    extents: dict[int, int] = {}
    for old, new in zip(was, types, strict=True):
        if new is None or len(old.shape) != len(new.shape):
            continue
        if [_number(e) for e in old.shape] == own:
            return [_number(e) for e in new.shape]
        channels |= _changes(old.shape[:1], new.shape[:1])
        extents |= _changes(old.shape[1:], new.shape[1:])
    first, rest = own[:1], own[1:]
    shape = [channels.get(e) or extents.get(e) or narrow(e) for e in first]
    return shape + [extents.get(e) or channels.get(e) or narrow(e) for e in rest]


def smaller_groups(
    op: Operator, was: Sequence[TensorType], types: Sequence[TensorType | None]
) -> int:
    """How many groups a convolution has with fewer channels: as many as before, or with as many
    channels each as before where there were more than can be kept.
    """
    groups = int(getattr(op, "groups", 1))
    x = types[0]
    assert x is not None
    old, new = _number(was[0].channels), _number(x.channels)
    if groups == 1 or new % groups == 0:
        return groups
    each = old // groups
    return new // each if new % each == 0 else groups


def adapted(
    op: Operator,
    was: Sequence[TensorType],
    types: Sequence[TensorType],
    known: Known,
    symbols: Mapping[str, int],
) -> Operator:
    """The operator with attributes that name channels or extents changed as its operands are."""
    own = {f.name for f in fields(op)}  # type: ignore[arg-type]
    changes: dict[str, object] = {}
    x = types[0]
    if op.name == "reshape":
        changes["shape"] = _reshaped(op, was[0], x, symbols)
    if op.name in ("conv", "conv_dx"):
        changes["groups"] = smaller_groups(op, was, types)
    if isinstance(op, ConvDx):
        # what the strides left over stays left over
        lost = (_number(a) - _number(b) for a, b in zip(was[0].spatial, x.spatial, strict=True))
        extents = (evaluate(e, symbols) for e in op.extents)
        changes["extents"] = tuple(
            e - n * w.stride for e, n, w in zip(extents, lost, op.window, strict=True)
        )
    if "positions" in own:
        positions = evaluate(getattr(op, "positions"), symbols)  # noqa: B009
        changes["positions"] = known.positions.get(positions, positions)
    return replace(op, **changes) if changes else op  # type: ignore[type-var]


def _list(op: Operator, name: str, symbols: Mapping[str, int]) -> list[int]:
    return [evaluate(e, symbols) for e in getattr(op, name)]


def _reshaped(
    op: Operator, was: TensorType, x: TensorType, symbols: Mapping[str, int]
) -> tuple[int, ...]:
    """Axes keep their extents, or change as an axis of the operand did; what is left over goes to
    the first.
    """
    changed = _changes(was.shape, x.shape)
    shape = [changed.get(e, e) for e in _list(op, "shape", symbols)]
    total, rest = _number(x.elements), _number(product(shape[1:]))
    return (max(1, total // rest), *shape[1:])


def _changes(old: Sequence[Extent], new: Sequence[Extent]) -> dict[int, int]:
    return {_number(a): _number(b) for a, b in zip(old, new, strict=True)}


def _number(e: Extent) -> int:
    return evaluate(e, {})
