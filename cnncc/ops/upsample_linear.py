"""Upsampling by linear interpolation along each axis, as PyTorch with align_corners=False.

Output o has its centre at (o + 1/2) / factor - 1/2 in input positions, cut to at least 0. In whole
numbers: with s = max(2 o + 1 - factor, 0), the neighbours are i = floor(s / 2 factor) and i + 1
(cut to the last), and their weights are 2 factor - r and r for r = s mod 2 factor, over 2 factor.
The weights stay whole until one division at the end, so on integer data the result is exact but for
that division. Backward gathers, for every input, the outputs that it is a neighbour of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Choose,
    Condition,
    Guard,
    Index,
    Int,
    Least,
    Lit,
    Nest,
    Ref,
    Size,
    Statement,
    Value,
    Var,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, operator
from cnncc.ops.grid import GridNest, factor_cases
from cnncc.ops.spatial import require_rank
from cnncc.tensor import Extent, TensorType


@dataclass(frozen=True)
class Between:
    """The two input neighbours of an output along one axis, and their weights times 2 * factor."""

    low: Index
    high: Index
    low_weight: Index
    high_weight: Index

    @staticmethod
    def at(o: Index, extent: Index, factor: Size) -> Between:
        s = Least(Int(0), (o * 2 + 1 + factor * -1) * -1) * -1
        rest = s % (factor * 2)
        low = s // (factor * 2)
        return Between(low, Least(low + 1, extent + -1), factor * 2 + rest * -1, rest)


def matrix(n: int, factor: int) -> Array:
    """The interpolation along one axis as weights [outputs, inputs], times 2 * factor."""
    weights = np.zeros((n * factor, n), np.int64)
    for o in range(n * factor):
        low, rest = divmod(max(2 * o + 1 - factor, 0), 2 * factor)
        weights[o, low] += 2 * factor - rest
        weights[o, min(low + 1, n - 1)] += rest
    return weights


def _apply(x: Array, matrices: list[Array], factors: tuple[int, ...]) -> Array:
    """Each matrix along its spatial axis; one division at the end."""
    rank = len(matrices)
    for a, weights in enumerate(matrices):
        axis = x.ndim - rank + a
        x = np.moveaxis(np.tensordot(x, weights.astype(x.dtype), axes=(axis, 1)), -1, axis)
    divisor = 1
    for factor in factors:
        divisor *= 2 * factor
    return np.asarray(x / x.dtype.type(divisor))


def _divided(total: Value, factors: list[Size]) -> Value:
    divisor: Index = Int(1)
    for factor in factors:
        divisor = divisor * (factor * 2)
    return prim("div", total, AsFloat(divisor))


@operator("upsample_linear")
@dataclass(frozen=True)
class UpsampleLinear(Op):
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
        extents = x.shape[-len(self.factors) :]
        matrices = [matrix(n, f) for n, f in zip(extents, self.factors, strict=True)]
        return _apply(x, matrices, self.factors)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(UpsampleLinearDx(self.factors), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        factors = [g.n.size(f"factor{a}", f) for a, f in enumerate(self.factors)]
        weight: Index = Int(1)
        place: list[Index] = []
        for a, (o, extent) in enumerate(zip(g.place, g.source_extents, strict=True)):
            near = Between.at(o, extent, factors[a])
            side = Var(f"t{a}")  # 0: the low neighbour, 1: the high one
            place.append(Least(near.low + side, extent + -1))
            weight = weight * (near.low_weight + side * (near.high_weight + near.low_weight * -1))
        step = Assign("acc", prim("fma", g.at(place), AsFloat(weight), Ref("acc")))
        loops = [(f"t{a}", 2) for a in range(out.rank)]
        return g.reduced(loops, step, _divided(Ref("acc"), factors))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * (2 * 2**out.rank + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(factors), (x,)) for factors, x in factor_cases())


@operator("upsample_linear_dx")
@dataclass(frozen=True)
class UpsampleLinearDx(Op):
    """The adjoint: [*, C, i * factor ...] -> [*, C, i...]."""

    factors: tuple[int, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (dy,) = types
        require_rank("upsample_linear_dx", dy, len(self.factors))
        shrunk: tuple[Extent, ...] = tuple(
            n // f for n, f in zip(dy.spatial, self.factors, strict=True)
        )
        if tuple(n * f for n, f in zip(shrunk, self.factors, strict=True)) != dy.spatial:
            raise ShapeError("E0201", f"upsample_linear_dx: {dy} is no multiple of {self.factors}")
        return dy.with_shape((dy.channels, *shrunk))

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        extents = dy.shape[-len(self.factors) :]
        matrices = [matrix(n // f, f).T for n, f in zip(extents, self.factors, strict=True)]
        return _apply(dy, matrices, self.factors)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(UpsampleLinear(self.factors), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out, read="dy", write="dx")
        factors = [g.n.size(f"factor{a}", f) for a, f in enumerate(self.factors)]
        place: list[Index] = []
        weights: list[Value] = []
        for a, (i, extent) in enumerate(zip(g.place, g.extents, strict=True)):
            o = (i + -1) * factors[a] + Var(f"t{a}")  # no output farther than 2 factors shows i
            near = Between.at(o, extent, factors[a])
            place.append(o)
            weights.append(
                prim(
                    "add",
                    Choose(test("==", near.low, i), AsFloat(near.low_weight), Lit(0.0)),
                    Choose(test("==", near.high, i), AsFloat(near.high_weight), Lit(0.0)),
                )
            )
        weight = weights[0]
        for more in weights[1:]:
            weight = prim("mul", weight, more)
        step: Statement = Assign("acc", prim("fma", g.at(place), weight, Ref("acc")))
        inside = [c for o, m in zip(place, g.source_extents, strict=True) for c in _within(o, m)]
        loops = [(f"t{a}", g.n.size(f"reach{a}", 3 * f)) for a, f in enumerate(self.factors)]
        guarded = Guard(all_of(inside[0], *inside[1:]), (step,))
        return g.reduced(loops, guarded, _divided(Ref("acc"), factors))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements * (2 * 2**out.rank + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for factors, x in factor_cases():
            yield Sample(cls(factors), (UpsampleLinear(factors).infer((x,)),))


def _within(o: Index, extent: Index) -> tuple[Condition, ...]:
    return test("<=", 0, o), test("<", o, extent)
