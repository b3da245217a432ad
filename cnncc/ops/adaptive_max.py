"""Adaptive max pooling: the largest element of each bin, with the bins of the adaptive average.

Where the maximum was is kept as one number, its place in the bin in row-major order; it passes
through the compute type, which is exact below 2^24. The gradient goes to the first maximum, or to
the last NaN, as in max pooling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Extents, LayerBuilder
from cnncc.loops.build import serial
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Choose,
    Fetch,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Nest,
    Ref,
    Var,
    prim,
    test,
)
from cnncc.ops.adaptive import (
    Bins,
    adaptive_cases,
    adaptive_window,
    covered,
    first,
    longest,
    sharing,
)
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.grid import GridNest, summed
from cnncc.ops.pool_max import LOWEST, MaxPool, tap_type
from cnncc.ops.spatial import require_rank
from cnncc.tensor import DType, Extent, TensorType, evaluate


def bounds(x: TensorType, outs: Sequence[int]) -> list[Extent]:
    """How many positions a bin has at most, along every axis."""
    return [longest(n, m) for n, m in zip(x.spatial, outs, strict=True)]


def number(offsets: Sequence[Index], sizes: Sequence[Index]) -> Index:
    """The place in a bin in row-major order."""
    result: Index = Int(0)
    for offset, size in zip(offsets, sizes, strict=True):
        result = result * size + offset
    return result


def places(x: TensorType, outs: Sequence[int], known: Sequence[int]) -> Array:
    """The row-major numbers of a whole bin, [b...], by the bounds that the nests use."""
    most = [evaluate(e, {}) for e in bounds(x.with_shape((x.channels, *known)), outs)]
    return np.arange(int(np.prod(most))).reshape(most)


@operator("adaptivemaxpool")
@dataclass(frozen=True)
class AdaptiveMax(Op):
    """[*, C, i...] -> [*, C, extents...]."""

    extents: tuple[int, ...]

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("adaptivemaxpool", x, len(self.extents))
        return x.with_shape((x.channels, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        rank = len(self.extents)
        y = np.zeros((*x.shape[:-rank], *self.extents), x.dtype)
        for o in np.ndindex(*self.extents):
            seen = x[covered(o, x.shape[-rank:], self.extents)]
            y[(..., *o)] = seen.max(axis=tuple(range(-rank, 0)))  # NumPy's max keeps NaN
        return y

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        at = b.add(AdaptiveMaxAt(self.extents), x, name=f"{node.name}.at")
        return (b.add(AdaptiveMaxDx(x.type.spatial), dy, at, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        at = list(zip(g.place, g.extents, strict=True))
        bins = Bins(g.n, at, g.source_extents, bounds(types[0], self.extents))
        # on a tie `max` gives its second operand, so that the first of +0 and -0 stays
        step = Assign("acc", prim("max", g.at(bins.index), Ref("acc")))
        return g.reduced(bins.loops, Guard(bins.inside, (step,)), start=LOWEST)

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(extents), (x,)) for extents, x in adaptive_cases())


@operator("adaptivemaxpool_at")
@dataclass(frozen=True)
class AdaptiveMaxAt(Op):
    """[*, C, i...] -> i32 [*, C, extents...]: the place of each maximum in its bin."""

    extents: tuple[int, ...]

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("adaptivemaxpool_at", x, len(self.extents))
        return x.with_shape((x.channels, *self.extents)).with_dtype(DType.I32)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        rank = len(self.extents)
        known = x.shape[-rank:]
        t = TensorType(DType.F32, (1, *known))
        at = np.zeros((*x.shape[:-rank], *self.extents), np.int32)
        for o in np.ndindex(*self.extents):
            seen = x[covered(o, known, self.extents)]
            own = places(t, self.extents, known)[tuple(slice(n) for n in seen.shape[-rank:])]
            flat = seen.reshape(*seen.shape[:-rank], -1)
            nan = np.isnan(flat)
            last_nan = flat.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
            place = np.where(nan.any(axis=-1), last_nan, flat.argmax(axis=-1))
            at[(..., *o)] = own.reshape(-1)[place]
        return at

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None,)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        at = list(zip(g.place, g.extents, strict=True))
        bins = Bins(g.n, at, g.source_extents, bounds(types[0], self.extents))
        offsets = [Var(f"b{a}") for a in range(out.rank)]
        sizes = [g.n.size(f"bin{a}", g.n.sizes[f"bin{a}"]) for a in range(out.rank)]
        seen, best = Ref("seen"), Ref("best")
        larger = prim("max", prim("lt", best, seen), prim("ne", seen, seen))
        here = AsFloat(number(offsets, sizes))
        steps = (
            Let("seen", g.at(bins.index)),
            Assign("acc", prim("select", larger, here, Ref("acc"))),
            Assign("best", prim("max", seen, best)),
        )
        start = (Let("best", Lit(LOWEST)), Let("acc", Lit(0.0)))
        return g.each(Ref("acc"), *start, serial(bins.loops, Guard(bins.inside, steps)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(extents), (x,)) for extents, x in adaptive_cases())


@operator("adaptivemaxpool_dx")
@dataclass(frozen=True)
class AdaptiveMaxDx(Op):
    """dy [*, C, o...], places [*, C, o...] -> dx [*, C, extents...]: each dy goes to its place."""

    extents: tuple[Extent, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, at = types
        require_rank("adaptivemaxpool_dx", dy, len(self.extents))
        if at.shape != dy.shape or not all(isinstance(m, int) for m in dy.spatial):
            raise ShapeError("E0201", f"adaptivemaxpool_dx: {dy} and {at} are not of one grid")
        return dy.with_shape((dy.channels, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        dy, at = arrays
        rank = len(self.extents)
        known = [evaluate(e, {}) for e in self.extents]
        outs = dy.shape[-rank:]
        own = places(TensorType(DType.F32, (1, *known)), outs, known)
        dx = np.zeros((*dy.shape[:-rank], *known), dy.dtype)
        for o in np.ndindex(*outs):
            seen = dx[covered(o, known, outs)]
            inside = own[tuple(slice(n) for n in seen.shape[-rank:])]
            chosen, part = (a[(..., *o)].reshape(*a.shape[:-rank], *[1] * rank) for a in (at, dy))
            seen += np.where(chosen == inside, part, 0)
        return dx

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out, read="dy", write="dx")
        g.second("at", types[1])
        outs = [evaluate(m, {}) for m in types[0].spatial]
        most = [sharing(i, o) for i, o in zip(out.spatial, types[0].spatial, strict=True)]
        bins = Bins(g.n, list(zip(g.place, g.extents, strict=True)), g.source_extents, most)
        sizes = [g.n.size(f"most{a}", e) for a, e in enumerate(bounds(out, outs))]
        offsets = [
            i + first(o, n, m) * -1
            for i, o, n, m in zip(g.place, bins.index, g.extents, g.source_extents, strict=True)
        ]
        chosen = Fetch("at", (*g.index[: len(g.lead)], *bins.index))
        part = Choose(test("==", chosen, number(offsets, sizes)), g.at(bins.index), Lit(0.0))
        return g.reduced(bins.loops, Guard(bins.inside, (summed(part),)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for extents, x in adaptive_cases():
            y = AdaptiveMax(extents).infer((x,))
            yield Sample(cls(x.spatial), (y, y.with_dtype(DType.I32)), low=0, high=3)


@layer("adaptivemaxpool", "pooling")
def adaptivemaxpool(b: LayerBuilder, x: Node, out: Extents) -> Node:
    """The largest element of each of `out` bins per axis: [C, i...] -> [C, out...].

    The bins are those of adaptiveavgpool, so neighbours may share positions. The gradient goes to
    the first maximum of each bin in row-major order.

    Example: `x -> adaptivemaxpool(3x3) -> flatten`
    """
    extents, window = adaptive_window("adaptivemaxpool", x, out)
    if window is None:
        return b.add(AdaptiveMax(extents), x)
    tap_type(window)
    return b.add(MaxPool(window), x)
