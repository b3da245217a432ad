"""Which elements of an operand one element of a result reads, exactly and axis by axis.

A relation gives, for each axis of the result (channels first), the axis of the operand that it
walks along and the indices there. Operators mix axes only by reading all of them, and by
reshaping, which `cone.py` follows element by element. What is not known here reads everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.ops.adaptive import end, first
from cnncc.ops.base import Op, operand_axes
from cnncc.passes.linear import constant_array
from cnncc.tensor import TensorType, evaluate
from cnncc.window import Axis

Reads = Callable[[int], Iterable[int]]
"""Index along an axis of the result -> the indices along that axis of the operand, in range."""


@dataclass(frozen=True)
class Relation:
    """One reader per axis of the operand: the axis of the result and what is read along it; None
    where all of the operand's axis is read whatever the result.
    """

    axes: tuple[tuple[int, Reads] | None, ...]


def relation(graph: Graph, node: Node, k: int) -> Relation:
    """What a node reads of its operand k. Extents must be known."""
    x, out, op = graph[node.inputs[k]].type, node.type, node.op
    special = _SPECIAL.get(op.name)
    if special is not None:
        return special(graph, node, k)
    if getattr(op, "pointwise", False):
        kept = operand_axes(x, out)
        if kept is not None:
            return _broadcast(x, out, kept)
    window = getattr(op, "window", None)
    if window is not None and k == 0 and len(window) == x.rank == out.rank:
        return Relation((_same(0), *_windows(window, x)))
    return Relation((None,) * len(x.shape))


def _same(axis: int) -> tuple[int, Reads]:
    return axis, lambda o: (o,)


def _broadcast(x: TensorType, out: TensorType, kept: tuple[int, ...]) -> Relation:
    """An operand of the result's shape, or one number per channel or per sample."""
    own = kept[1:] if x.batched else kept
    first_axis = 1 if out.batched else 0
    return Relation(tuple(_same(a - first_axis) if a >= 0 else None for a in own))


def _windows(window: tuple[Axis, ...], x: TensorType) -> list[tuple[int, Reads]]:
    return [
        (a + 1, _through(axis, evaluate(n, {})))
        for a, (axis, n) in enumerate(zip(window, x.spatial, strict=True))
    ]


def _through(axis: Axis, n: int) -> Reads:
    return lambda o: (i for _, i in axis.taps(o, n))


def _back(axis: Axis, outs: int, extent: int) -> Reads:
    """Results of `axis` over an extent that read position i: what a transposed window reads."""
    readers: dict[int, list[int]] = {}
    for o in range(outs):
        for _, i in axis.taps(o, extent):
            readers.setdefault(i, []).append(o)
    return lambda i: readers.get(i, ())


# --- operators that read otherwise than a window or a pointwise operator does ---------------------


def _conv(graph: Graph, node: Node, k: int) -> Relation:
    x = graph[node.inputs[0]].type
    op: Any = node.op
    connected = _connected(graph, node)
    channels = (0, lambda o: connected[o])
    return Relation((channels, *_windows(op.window, x)))


def _conv_dx(graph: Graph, node: Node, k: int) -> Relation:
    x, out = graph[node.inputs[0]].type, node.type
    op: Any = node.op
    readers: dict[int, list[int]] = {}
    for q, inputs in enumerate(_connected(graph, node)):
        for c in inputs:
            readers.setdefault(c, []).append(q)
    spatial = [
        (a + 1, _back(axis, evaluate(n, {}), evaluate(extent, {})))
        for a, (axis, n, extent) in enumerate(zip(op.window, x.spatial, out.spatial, strict=True))
    ]
    return Relation(((0, lambda c: readers.get(c, ())), *spatial))


def _connected(graph: Graph, node: Node) -> list[Sequence[int]]:
    """For each output channel of the convolution the input channels that it is connected with."""
    op: Any = node.op
    weight = graph[node.inputs[1]]
    outs, per_group = (evaluate(e, {}) for e in weight.type.shape[:2])
    first_of = [q // (outs // op.groups) * per_group for q in range(outs)]
    kept = None if isinstance(weight.op, Parameter) else _nonzero_pairs(graph, weight)
    if kept is None:
        return [range(i, i + per_group) for i in first_of]
    return [[i + c for c in range(per_group) if kept[q, c]] for q, i in enumerate(first_of)]


def _nonzero_pairs(graph: Graph, weight: Node) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Channel pairs whose weights are not all zero by construction, [outs, inputs per group]."""
    values: dict[str, Any] = {}

    def value(name: str) -> Any:
        if name not in values:
            node = graph[name]
            if isinstance(node.op, Parameter):
                values[name] = np.ones(node.type.dims(0))
            elif isinstance(node.op, Constant):
                values[name] = constant_array(node, 0)
            else:
                assert isinstance(node.op, Op)
                operands = [value(i) for i in node.inputs]
                values[name] = node.op.oracle(graph.types(node), operands)
        return values[name]

    found = np.asarray(value(weight.name))
    return np.asarray((found != 0).any(axis=tuple(range(2, found.ndim))))


def _shifted(offset: int, n: int) -> Reads:
    return lambda o: (o + offset,) if 0 <= o + offset < n else ()


def _crop(graph: Graph, node: Node, k: int) -> Relation:
    x = graph[node.inputs[0]].type
    op: Any = node.op
    spatial = [
        (a + 1, _shifted(lo, evaluate(n, {})))
        for a, ((lo, _), n) in enumerate(zip(op.amounts, x.spatial, strict=True))
    ]
    return Relation((_same(0), *spatial))


def _pad(graph: Graph, node: Node, k: int) -> Relation:
    x = graph[node.inputs[0]].type
    op: Any = node.op
    modes: Any = {"replicate": "edge", "reflect": "reflect", "circular": "wrap"}

    def shown(pair: tuple[int, int], n: int) -> Reads:
        if op.mode not in modes:
            return _shifted(-pair[0], n)
        source = np.pad(np.arange(n), pair, mode=modes[op.mode]).tolist()
        return lambda o: (source[o],)

    spatial = [
        (a + 1, shown(pair, evaluate(n, {})))
        for a, (pair, n) in enumerate(zip(op.amounts, x.spatial, strict=True))
    ]
    return Relation((_same(0), *spatial))


def _concat(graph: Graph, node: Node, k: int) -> Relation:
    types = graph.types(node)
    offset = sum(evaluate(t.channels, {}) for t in types[:k])
    channels = (0, _shifted(-offset, evaluate(types[k].channels, {})))
    return Relation((channels, *(_same(a + 1) for a in range(types[k].rank))))


def _channels(graph: Graph, node: Node, k: int) -> Relation:
    """All channels at the same position."""
    x = graph[node.inputs[k]].type
    return Relation((None, *(_same(a + 1) for a in range(x.rank))))


def _lrn(graph: Graph, node: Node, k: int) -> Relation:
    x = graph[node.inputs[0]].type
    op: Any = node.op
    n = evaluate(x.channels, {})
    below, above = op.size // 2, (op.size - 1) // 2
    near = (0, lambda c: range(max(0, c - below), min(n, c + above + 1)))
    return Relation((near, *(_same(a + 1) for a in range(x.rank))))


def _global(graph: Graph, node: Node, k: int) -> Relation:
    """All positions of the same channel."""
    x = graph[node.inputs[k]].type
    return Relation((_same(0), *[None] * x.rank))


def _adaptive(graph: Graph, node: Node, k: int) -> Relation:
    x, out = graph[node.inputs[0]].type, node.type

    def bins(n: int, m: int) -> Reads:
        return lambda o: range(first(o, n, m), end(o, n, m))

    spatial = [
        (a + 1, bins(evaluate(n, {}), evaluate(m, {})))
        for a, (n, m) in enumerate(zip(x.spatial, out.spatial, strict=True))
    ]
    return Relation((_same(0), *spatial))


def _repeated(graph: Graph, node: Node, k: int) -> Relation:
    op: Any = node.op
    spatial = [(a + 1, _divided(f)) for a, f in enumerate(op.factors)]
    return Relation((_same(0), *spatial))


def _divided(factor: int) -> Reads:
    return lambda o: (o // factor,)


def _interpolated(graph: Graph, node: Node, k: int) -> Relation:
    x = graph[node.inputs[0]].type
    op: Any = node.op

    def between(factor: int, n: int) -> Reads:
        def reads(o: int) -> set[int]:
            # centre o of the result lies at (o + 1/2) / factor - 1/2 between two centres
            place, rest = divmod(2 * o + 1 - factor, 2 * factor)
            return {min(max(i, 0), n - 1) for i in (place, place + (rest != 0))}

        return reads

    spatial = [
        (a + 1, between(f, evaluate(n, {})))
        for a, (f, n) in enumerate(zip(op.factors, x.spatial, strict=True))
    ]
    return Relation((_same(0), *spatial))


def _embed(graph: Graph, node: Node, k: int) -> Relation:
    """Token l, which has no channels, is behind all channels at position l."""
    return Relation(((1, lambda o: (o,)),) if k == 0 else (None, None))


_SPECIAL: dict[str, Callable[[Graph, Node, int], Relation]] = {
    "conv": _conv,
    "conv_dx": _conv_dx,
    "crop": _crop,
    "pad": _pad,
    "concat": _concat,
    "softmax": _channels,
    "lrn_scale": _lrn,
    "globalavgpool": _global,
    "globalmaxpool": _global,
    "adaptiveavgpool": _adaptive,
    "upsample_nearest": _repeated,
    "upsample_linear": _interpolated,
    "embed": _embed,
}
