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
from cnncc.loops.ir import Nest, Var
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.grid import GridNest, factor_cases, summed
from cnncc.ops.spatial import per_axis, require_rank, require_spatial
from cnncc.ops.upsample_linear import UpsampleLinear
from cnncc.tensor import TensorType


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
        g = GridNest(types[0], out)
        factors = [g.n.size(f"factor{a}", f) for a, f in enumerate(self.factors)]
        return g.each(g.at([o // f for o, f in zip(g.place, factors, strict=True)]))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(factors), (x,)) for factors, x in factor_cases())


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
        g = GridNest(types[0], out)
        factors = [g.n.size(f"factor{a}", f) for a, f in enumerate(self.factors)]
        place = [
            i * f + Var(f"t{a}") for a, (i, f) in enumerate(zip(g.place, factors, strict=True))
        ]
        return g.reduced([(f"t{a}", f) for a, f in enumerate(factors)], summed(g.at(place)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for factors, x in factor_cases():
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
