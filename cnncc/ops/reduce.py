"""Sums over axes, and the order in which everything in this compiler sums.

A reduction over many elements is two-level: a partial sum for each position of the first axes
(sample and first row), added to the total. The rounding error then grows with the number of rows
and not with the number of elements, and the order is fixed by the shape alone, so any number of
threads gives the same bits. `accumulate` is that order; sums, moments and losses use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Body,
    Condition,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Nest,
    Ref,
    Statement,
    Value,
    Var,
    prim,
)
from cnncc.ops.base import Array, Op, Pointwise, Sample, axis_names, operator
from cnncc.ops.shape import Reshape
from cnncc.tensor import DType, Extent, TensorType, evaluate

Axes = Sequence[tuple[str, Index]]  # loop variables with their extents


def accumulate(
    name: str,
    axes: Axes,
    update: Callable[[Value], Value],
    *before: Statement,
    where: Condition | None = None,
) -> Body:
    """Statements that leave in the local `name` the reduction over the axes.

    `update(acc)` is the accumulator after one element, such as fma(x, y, acc); the statements
    `before` run first at every element. Two axes: one partial sum for each position of the first;
    more: for each position of the first two. A single axis is summed directly. With `where` only
    elements for which it holds take part.
    """
    return accumulate_all({name: update}, axes, *before, where=where)


def accumulate_all(
    updates: dict[str, Callable[[Value], Value]],
    axes: Axes,
    *before: Statement,
    where: Condition | None = None,
) -> Body:
    """Several reductions at once, as `accumulate` makes each of them."""
    start = [Let(name, Lit(0.0)) for name in updates]
    if len(axes) <= 1:
        steps = _only(where, *before, *(Assign(name, f(Ref(name))) for name, f in updates.items()))
        return (*start, *([serial(axes, *steps)] if axes else steps))
    split = 1 if len(axes) == 2 else 2
    parts = {name: f"{name}_part" for name in updates}
    return (
        *start,
        serial(
            axes[:split],
            *(Let(part, Lit(0.0)) for part in parts.values()),
            serial(
                axes[split:],
                *_only(
                    where,
                    *before,
                    *(Assign(parts[name], f(Ref(parts[name]))) for name, f in updates.items()),
                ),
            ),
            *(Assign(name, prim("add", Ref(name), Ref(part))) for name, part in parts.items()),
        ),
    )


def _only(where: Condition | None, *body: Statement) -> Body:
    return body if where is None else (Guard(where, body),)


def count(extents: Iterable[Index]) -> Index:
    """The number of positions of axes with these extents, as a run-time integer."""
    total: Index = Int(1)
    for extent in extents:
        total = total * extent
    return total


SAMPLE, CHANNEL, SPACE = "sample", "channel", "space"


@operator("sum")
@dataclass(frozen=True)
class Sum(Op):
    """Sum over all axes but those in `keep`: some of "sample", "channel" and "space" (all spatial
    axes).

    "space" needs "channel". Without "channel" the result is [1]. Reduced axes run in the order
    sample, space, channel.
    """

    keep: tuple[str, ...] = ()
    linear: ClassVar[tuple[int, ...]] = (0,)

    def __post_init__(self) -> None:
        if SPACE in self.keep and CHANNEL not in self.keep:
            raise ValueError("a sum over the channels alone has no tensor type")

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        shape = x.shape[:1] if CHANNEL in self.keep else (1,)
        shape += x.shape[1:] if SPACE in self.keep else ()
        return TensorType(x.dtype, shape, x.batched and SAMPLE in self.keep)

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        """For a batched array."""
        return self._sum(x, (SAMPLE, CHANNEL, *[SPACE] * x.ndim)[: x.ndim])

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        return self._sum(arrays[0], _kinds(types[0]))

    def _sum(self, x: Array, kinds: tuple[str, ...]) -> Array:
        y = x.sum(axis=tuple(i for i, kind in enumerate(kinds) if kind not in self.keep))
        return np.asarray(y if CHANNEL in self.keep else y.reshape((*y.shape, 1)))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(Spread(), b[node.inputs[0]], dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        (t,) = types
        n = NestBuilder()
        axes = axis_names(t)
        x = n.input("x", t, " ".join(axes))
        extents: dict[str, Index] = dict(zip(axes, n.buffers[0].extents, strict=True))
        kept = [a for a, kind in zip(axes, _kinds(t), strict=True) if kind in self.keep]
        # channels last: they are neighbours in memory
        reduced = sorted((a for a in axes if a not in kept), key=lambda a: a == "c")
        if CHANNEL not in self.keep:
            kept.append("1")
            extents["1"] = Int(1)
        y = n.output("y", out, " ".join(kept))
        value = x[tuple(Var(f"i_{a}") for a in axes)]
        total = accumulate(
            "total",
            [(f"i_{a}", extents[a]) for a in reduced],
            lambda acc: prim("add", acc, value),
        )
        return n.nest(
            parallel(
                [(f"i_{a}", extents[a]) for a in kept],
                *total,
                y.store([Var(f"i_{a}") for a in kept], Ref("total")),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 4, 5))
        for keep in [(), (SAMPLE,), (CHANNEL,), (SAMPLE, CHANNEL), (CHANNEL, SPACE)]:
            yield Sample(cls(keep), (image,))
        yield Sample(cls((CHANNEL,)), (TensorType(DType.F32, (5,)),))
        yield Sample(cls((CHANNEL,)), (TensorType(DType.F32, (3, 7)),))
        yield Sample(cls((CHANNEL,)), (TensorType(DType.F32, (3, 2, 3, 4)),))
        yield Sample(cls((CHANNEL,)), (TensorType(DType.F32, (3, 4, 5), batched=False),))
        yield Sample(cls(), (TensorType(DType.F32, (3, 4), batched=False),))


def _kinds(t: TensorType) -> tuple[str, ...]:
    return (*([SAMPLE] if t.batched else []), CHANNEL, *[SPACE] * (len(t.shape) - 1))


@operator("spread")
@dataclass(frozen=True)
class Spread(Pointwise):
    """spread(x, dy): dy repeated to the shape of x, the adjoint of `sum`. The values of x are not
    read.
    """

    linear: ClassVar[tuple[int, ...]] = (1,)

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.broadcast_to(dy, x.shape).copy()

    def scalar(self, *args: Value) -> Value:
        return args[1]

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None, sum_like(b, dy, b[node.inputs[1]], name=f"{node.name}.dx"))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(), (image, TensorType(DType.F32, (3,), batched=False)))
        yield Sample(cls(), (image, TensorType(DType.F32, (3,))))
        yield Sample(cls(), (image, TensorType(DType.F32, (1,), batched=False)))


@operator("mean")
@dataclass(frozen=True)
class Mean(Op):
    """The sum of all elements, divided by their number times `positions`: a number, [1] without
    batch.

    `positions` counts what each element already sums over, so that long sums can run in parallel
    before.
    """

    positions: Extent = 1
    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return TensorType(types[0].dtype, (1,), batched=False)

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        mean = x.sum() / (x.size * evaluate(self.positions, {}))
        return np.full(1, mean, x.dtype)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        return (b.add(MeanGrad(self.positions), x, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(types[0])
        x, y = n.input("x", types[0], " ".join(axes)), n.output("y", out, "1")
        extents = n.buffers[0].extents
        index = tuple(Var(f"i_{a}") for a in axes)
        total = accumulate(
            "total",
            [(v.name, e) for v, e in zip(index, extents, strict=True)],
            lambda acc: prim("add", acc, x[index]),
        )
        number = AsFloat(count(extents) * n.size("positions", self.positions))
        mean = prim("div", Ref("total"), number)
        return n.nest(parallel([("i_1", 1)], *total, y.store((Var("i_1"),), mean)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (TensorType(DType.F32, (1,)),))
        yield Sample(cls(20), (TensorType(DType.F32, (3,)),), exact=False)
        yield Sample(cls(), (TensorType(DType.F32, (2, 4, 8)),))


@operator("mean_grad")
@dataclass(frozen=True)
class MeanGrad(Op):
    """mean_grad(x, dy): dy / (number of elements * positions) everywhere. The values of x are not
    read.
    """

    positions: Extent = 1
    linear: ClassVar[tuple[int, ...]] = (1,)
    pointwise: ClassVar[bool] = True

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.full_like(x, dy[0] / (x.size * evaluate(self.positions, {})))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None, b.add(Mean(self.positions), dy, name=f"{node.name}.dx"))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        n.input("x", types[0], " ".join(axes))
        dy = n.input("dy", types[1], "1")
        dx = n.output("dx", out, " ".join(axes))
        extents = n.buffers[0].extents
        number = AsFloat(count(extents) * n.size("positions", self.positions))
        index = [Var(f"i_{a}") for a in axes]
        store = dx.store(index, prim("div", dy[0], number))
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        one = TensorType(DType.F32, (1,), batched=False)
        yield Sample(cls(), (TensorType(DType.F32, (2, 4, 8)), one))
        yield Sample(cls(20), (TensorType(DType.F32, (3,)), one), exact=False)


def sum_like(b: Builder, dy: Node, operand: Node, *, name: str) -> Node:
    """Add the gradient of an operand that was repeated to dy's shape: dy summed over the axes it
    was repeated along.
    """
    t, out = operand.type, dy.type
    if t == out:
        return dy
    keep = (SAMPLE,) if t.batched else ()
    if t.shape == out.shape:
        return b.add(Sum((*keep, CHANNEL, SPACE)), dy, name=name)
    if t.shape == (1,):
        return b.add(Sum(keep), dy, name=name)
    if t.batched:
        total = b.add(Sum((SAMPLE, CHANNEL)), dy, name=name)
    else:
        total = channel_sum(b, dy, name=name)
    return total if len(t.shape) == 1 else b.add(Reshape(t.shape), total, name=name)


def channel_sum(b: Builder, dy: Node, *, name: str) -> Node:
    """Add the sum over samples and space, [*, C, s...] -> [C]: the gradient of a bias.

    The space of each sample first, so that samples and channels can run in parallel.
    """
    if dy.type.batched and dy.type.spatial:
        dy = b.add(Sum((SAMPLE, CHANNEL)), dy, name=f"{name}.sums")
    return b.add(Sum((CHANNEL,)), dy, name=name)
