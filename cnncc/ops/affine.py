"""The last step of every normalisation: y = slope * x + offset per channel, and how slope and
offset are made.

With mean, variance, weight and bias: slope = weight / sqrt(variance + eps), offset = bias - mean *
slope. The two rows are one tensor, the fold: [2, C], or [*, 2, C] where each sample has its own.
They are computed once, in kernels as small as the channels; the large tensor sees a single fma, in
training and at inference alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import Handle, NestBuilder, parallel
from cnncc.loops.ir import Index, Nest, Ref, Value, Var, prim
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, operator
from cnncc.ops.reduce import CHANNEL, SPACE, Sum, accumulate_all
from cnncc.tensor import DType, TensorType

F32 = DType.F32


def fold_row(fold: Handle, t: TensorType, row: int) -> Value:
    """Row 0 (slope) or 1 (offset) at the current sample and channel."""
    return fold[((Var("i_n"),) if t.batched else ()) + (row, Var("i_c"))]


def fold_axes(t: TensorType) -> str:
    return "n 2 c" if t.batched else "2 c"


def rows(fold: Array, rank: int) -> tuple[Array, Array]:
    """Slope and offset as arrays that broadcast against a batched tensor with `rank` axes."""
    column = (-1 if fold.ndim == 2 else fold.shape[0], fold.shape[-1], *[1] * (rank - 2))
    lead = column if fold.ndim == 3 else (1, *column[1:])
    return fold[..., 0, :].reshape(lead), fold[..., 1, :].reshape(lead)


def check_fold(x: TensorType, fold: TensorType) -> None:
    if fold.shape != (2, x.channels) or not x.batched:
        raise ShapeError(
            "E0201", "slope and offset come per channel", arithmetic=[f"x: {x}", f"fold: {fold}"]
        )


@operator("affine")
@dataclass(frozen=True)
class Affine(Op):
    """(x [*, C, s...], fold [2, C] or [*, 2, C]) -> fma(x, slope, offset)."""

    pointwise: ClassVar[bool] = True
    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        check_fold(*types)
        return types[0]

    def reference(self, x: Array, fold: Array) -> Array:  # type: ignore[override]
        slope, offset = rows(fold, x.ndim)
        return np.asarray(x * slope + offset)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, fold = b[node.inputs[0]], b[node.inputs[1]]
        dfold = b.add(AffineDfold(), x, dy, name=f"{node.name}.sums")
        if not fold.type.batched:
            dfold = b.add(Sum((CHANNEL, SPACE)), dfold, name=f"{node.name}.dfold")
        return (b.add(AffineDx(), dy, fold, name=f"{node.name}.dx"), dfold)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join(axes))
        fold = n.input("fold", types[1], fold_axes(types[1]))
        y = n.output("y", out, " ".join(axes))
        index = tuple(Var(f"i_{a}") for a in axes)
        slope, offset = (fold_row(fold, types[1], row) for row in range(2))
        store = y.store(index, prim("fma", x[index], slope, offset))
        loops = [(v.name, e) for v, e in zip(index, n.buffers[0].extents, strict=True)]
        return n.nest(parallel(loops, store))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 6), (3, 4, 5), (3, 2, 3, 4)]:
            for batched in (False, True):
                fold = TensorType(F32, (2, shape[0]), batched)
                yield Sample(cls(), (TensorType(F32, shape), fold))


@operator("affine_dx")
@dataclass(frozen=True)
class AffineDx(Op):
    """(dy [*, C, s...], fold) -> dy * slope."""

    pointwise: ClassVar[bool] = True
    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        check_fold(*types)
        return types[0]

    def reference(self, dy: Array, fold: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy * rows(fold, dy.ndim)[0])

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        dy = n.input("dy", types[0], " ".join(axes))
        fold = n.input("fold", types[1], fold_axes(types[1]))
        dx = n.output("dx", out, " ".join(axes))
        index = tuple(Var(f"i_{a}") for a in axes)
        store = dx.store(index, prim("mul", dy[index], fold_row(fold, types[1], 0)))
        loops = [(v.name, e) for v, e in zip(index, n.buffers[0].extents, strict=True)]
        return n.nest(parallel(loops, store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for batched in (False, True):
            fold = TensorType(F32, (2, 3), batched)
            yield Sample(cls(), (TensorType(F32, (3, 4, 5)), fold))


@operator("affine_dfold")
@dataclass(frozen=True)
class AffineDfold(Op):
    """(x, dy) -> [*, 2, C]: the sums over space of dy * x and of dy."""

    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, _ = types
        return x.with_shape((2, x.channels))

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        space = tuple(range(2, x.ndim))
        return np.stack([(dy * x).sum(axis=space), dy.sum(axis=space)], axis=1)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(types[0])
        x, dy = n.input("x", types[0], " ".join(axes)), n.input("dy", types[1], " ".join(axes))
        sums = n.output("sums", out, "n 2 c")
        index = tuple(Var(f"i_{a}") for a in axes)
        loops: list[tuple[str, Index]] = [
            (v.name, e) for v, e in zip(index, n.buffers[0].extents, strict=True)
        ]
        totals = accumulate_all(
            {
                "products": lambda acc: prim("fma", dy[index], x[index], acc),
                "total": lambda acc: prim("add", acc, dy[index]),
            },
            loops[2:],
        )
        return n.nest(
            parallel(
                loops[:2],
                *totals,
                sums.store((*index[:1], 0, index[1]), Ref("products")),
                sums.store((*index[:1], 1, index[1]), Ref("total")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=3 * types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 6), (3, 4, 5), (3, 2, 3, 4)]:
            yield Sample(cls(), (TensorType(F32, shape),) * 2)
