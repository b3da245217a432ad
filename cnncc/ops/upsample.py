"""Upsampling by repetition: output o shows input floor(o / factor). The adjoint sums each block.

The layer `upsample` also offers the interpolation of the linear upsampling room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, PerAxis
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Index, Let, Lit, Nest, Ref, Var, prim
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.ops.spatial import per_axis, require_rank, require_spatial
from cnncc.ops.upsample_linear import UpsampleLinear
from cnncc.tensor import DType, TensorType


def upsample_cases() -> Iterable[tuple[tuple[int, ...], TensorType]]:
    yield (2, 2), TensorType(DType.F32, (3, 3, 4))
    yield (3, 1), TensorType(DType.F32, (2, 4, 5))
    yield (4,), TensorType(DType.F32, (2, 5))
    yield (2, 3, 2), TensorType(DType.F32, (2, 2, 3, 1))
    yield (2, 2), TensorType(DType.F32, (2, 2, 3), batched=False)


@operator("upsample_nearest")
@dataclass(frozen=True)
class UpsampleNearest(Op):
    """[*, C, i...] -> [*, C, i * factor ...]."""

    factors: tuple[int, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("upsample", x, len(self.factors))
        grown = (n * f for n, f in zip(x.spatial, self.factors, strict=True))
        return x.with_shape((x.channels, *grown))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        for a, factor in enumerate(self.factors):
            x = np.repeat(x, factor, axis=x.ndim - len(self.factors) + a)
        return x

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(BlockSum(self.factors), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        names = axis_names(out)
        lead, space = names[: -out.rank], names[-out.rank :]
        x = n.input("x", types[0], " ".join([*lead, *(f"in{a}" for a in range(out.rank))]))
        y = n.output("y", out, " ".join(names))
        index = tuple(Var(f"i_{name}") for name in names)
        place: list[Index] = [
            Var(f"i_{name}") // n.size(f"factor{a}", self.factors[a])
            for a, name in enumerate(space)
        ]
        loops = [(f"i_{name}", n.size(name, n.sizes[name])) for name in names]
        return n.nest(parallel(loops, y.store(index, x[(*index[: len(lead)], *place)])))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(factors), (x,)) for factors, x in upsample_cases())


@operator("block_sum")
@dataclass(frozen=True)
class BlockSum(Op):
    """[*, C, i * factor ...] -> [*, C, i...]: the sum of each block of `factors` positions."""

    factors: tuple[int, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("block_sum", x, len(self.factors))
        shrunk = tuple(n // f for n, f in zip(x.spatial, self.factors, strict=True))
        if tuple(n * f for n, f in zip(shrunk, self.factors, strict=True)) != x.spatial:
            raise ShapeError("E0201", f"block_sum: {x} does not divide into blocks {self.factors}")
        return x.with_shape((x.channels, *shrunk))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        rank = len(self.factors)
        split: list[int] = list(x.shape[:-rank])
        for n, f in zip(x.shape[-rank:], self.factors, strict=True):
            split += [n // f, f]
        return np.asarray(
            x.reshape(split).sum(axis=tuple(range(len(split) - 1, x.ndim - rank, -2)))
        )

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(UpsampleNearest(self.factors), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        names = axis_names(out)
        lead, space = names[: -out.rank], names[-out.rank :]
        x = n.input("x", types[0], " ".join([*lead, *(f"in{a}" for a in range(out.rank))]))
        y = n.output("y", out, " ".join(names))
        index = tuple(Var(f"i_{name}") for name in names)
        factors = [n.size(f"factor{a}", f) for a, f in enumerate(self.factors)]
        place: list[Index] = [
            Var(f"i_{name}") * factors[a] + Var(f"t{a}") for a, name in enumerate(space)
        ]
        step = Assign("acc", prim("add", Ref("acc"), x[(*index[: len(lead)], *place)]))
        return n.nest(
            parallel(
                [(f"i_{name}", n.size(name, n.sizes[name])) for name in names],
                Let("acc", Lit(0.0)),
                serial([(f"t{a}", f) for a, f in enumerate(factors)], step),
                y.store(index, Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for factors, x in upsample_cases():
            yield Sample(cls(factors), (UpsampleNearest(factors).infer((x,)),))


@layer("upsample", "shape")
def upsample(
    b: LayerBuilder, x: Node, factor: PerAxis, *, mode: Literal["nearest", "linear"] = "nearest"
) -> Node:
    """Enlarge the spatial axes by whole factors, one for all axes or one per axis.

    `nearest` repeats every position; `linear` interpolates between the centres of neighbours along
    each axis (bilinear on images, trilinear on volumes; PyTorch with align_corners=False).

    Example: `x -> upsample(2, mode = linear)`
    """
    require_spatial("upsample", x.type)
    factors = per_axis("factor", factor, x.type)
    return b.add(UpsampleNearest(factors) if mode == "nearest" else UpsampleLinear(factors), x)
