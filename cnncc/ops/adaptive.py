"""Adaptive average pooling: a fixed number of bins whatever the extent (PyTorch's AdaptiveAvgPool).

Along an axis of extent n with m outputs, output o averages the inputs from floor(o * n / m) up to,
not including, ceil((o + 1) * n / m); bins may overlap. Backward uses the same formula with the
roles exchanged: input i lies in the outputs from floor(i * m / n) up to ceil((i + 1) * m / n).
Where n is a multiple of m, this is an ordinary average pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Extents, LayerBuilder
from cnncc.loops.build import NestBuilder
from cnncc.loops.ir import (
    AsFloat,
    Condition,
    Guard,
    Index,
    Int,
    Nest,
    Ref,
    Var,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.grid import GridNest, summed
from cnncc.ops.pool_average import AvgPool
from cnncc.ops.spatial import per_axis, require_rank, require_spatial
from cnncc.tensor import DType, Extent, TensorType, evaluate
from cnncc.window import Axis, Window


def first(o: Any, n: Any, m: Any) -> Any:
    """The first of n positions that bin o of m covers; over ints or loop indices."""
    return o * n // m


def end(o: Any, n: Any, m: Any) -> Any:
    """The position after the last one that bin o of m covers."""
    return ((o + 1) * n + m + -1) // m


def covered(o: Sequence[int], extents: Sequence[int], outs: Sequence[int]) -> tuple[Any, ...]:
    """The index of the inputs that bin `o` covers, over the last axes of an array."""
    bins = zip(o, extents, outs, strict=True)
    return (..., *(slice(first(i, n, m), end(i, n, m)) for i, n, m in bins))


def longest(n: Extent, m: int) -> Extent:
    """A bound on the positions in one of m bins over n: exact where m divides n."""
    if isinstance(n, int):
        return -(-n // m) + (1 if n % m else 0)
    return (n + (m - 1)) // m + 1


class Bins:
    """The loop over the positions `to` that the bins of positions `at` cover, with their guard."""

    def __init__(
        self,
        n: NestBuilder,
        at: Sequence[tuple[Index, Index]],
        to: Sequence[Index],
        bounds: Sequence[Extent],
    ) -> None:
        self.loops: list[tuple[str, Index | int]] = []
        self.index: list[Index] = []
        conditions: list[Condition] = []
        for a, ((o, m), extent) in enumerate(zip(at, to, strict=True)):
            i = first(o, extent, m) + Var(f"b{a}")
            self.loops.append((f"b{a}", n.size(f"bin{a}", bounds[a])))
            self.index.append(i)
            conditions.append(test("<", i, end(o, extent, m)))
        self.inside = all_of(conditions[0], *conditions[1:])


def adaptive_cases() -> Iterable[tuple[tuple[int, ...], TensorType]]:
    """Grids and input types whose nests differ."""
    yield (3, 2), TensorType(DType.F32, (3, 7, 5))
    yield (2, 3), TensorType(DType.F32, (2, 6, 9))
    yield (5, 4), TensorType(DType.F32, (2, 3, 4))  # more outputs than inputs
    yield (3,), TensorType(DType.F32, (2, 8))
    yield (2, 1, 3), TensorType(DType.F32, (2, 3, 4, 5))
    yield (2, 2), TensorType(DType.F32, (2, 5, 3), batched=False)


@operator("adaptiveavgpool")
@dataclass(frozen=True)
class AdaptiveAverage(Op):
    """[*, C, i...] -> [*, C, extents...]."""

    extents: tuple[int, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("adaptiveavgpool", x, len(self.extents))
        return x.with_shape((x.channels, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        rank = len(self.extents)
        y = np.zeros((*x.shape[:-rank], *self.extents), x.dtype)
        for o in np.ndindex(*self.extents):
            seen = x[covered(o, x.shape[-rank:], self.extents)]
            count = np.prod(seen.shape[-rank:])
            y[(..., *o)] = seen.sum(axis=tuple(range(-rank, 0))) / x.dtype.type(count)
        return y

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        op = AdaptiveAverageDx(b[node.inputs[0]].type.spatial)
        return (b.add(op, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        bounds = [longest(i, m) for i, m in zip(types[0].spatial, self.extents, strict=True)]
        bins = Bins(g.n, list(zip(g.place, g.extents, strict=True)), g.source_extents, bounds)
        count: Index = Int(1)
        for o, m, extent in zip(g.place, g.extents, g.source_extents, strict=True):
            count = count * (end(o, extent, m) + first(o, extent, m) * -1)
        step = Guard(bins.inside, (summed(g.at(bins.index)),))
        return g.reduced(bins.loops, step, prim("div", Ref("acc"), AsFloat(count)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(extents), (x,)) for extents, x in adaptive_cases())


@operator("adaptiveavgpool_dx")
@dataclass(frozen=True)
class AdaptiveAverageDx(Op):
    """[*, C, o...] -> [*, C, extents...]: sums of dy / count over the bins that cover an input."""

    extents: tuple[Extent, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (dy,) = types
        require_rank("adaptiveavgpool_dx", dy, len(self.extents))
        if not all(isinstance(m, int) for m in dy.spatial):
            raise ShapeError("E0201", f"adaptiveavgpool_dx: {dy} does not have fixed extents")
        return dy.with_shape((dy.channels, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        rank = len(self.extents)
        known = [evaluate(e, {}) for e in self.extents]
        outs = dy.shape[-rank:]
        dx = np.zeros((*dy.shape[:-rank], *known), dy.dtype)
        for o in np.ndindex(*outs):
            seen = dx[covered(o, known, outs)]
            share = dy[(..., *o)] / dy.dtype.type(np.prod(seen.shape[-rank:]))
            seen += share.reshape(*share.shape, *[1] * rank)
        return dx

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        extents = tuple(evaluate(e, {}) for e in b[node.inputs[0]].type.spatial)
        return (b.add(AdaptiveAverage(extents), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out, read="dy", write="dx")
        bounds = [sharing(i, o) for i, o in zip(out.spatial, types[0].spatial, strict=True)]
        bins = Bins(g.n, list(zip(g.place, g.extents, strict=True)), g.source_extents, bounds)
        count: Index = Int(1)
        for o, extent, m in zip(bins.index, g.extents, g.source_extents, strict=True):
            count = count * (end(o, extent, m) + first(o, extent, m) * -1)
        share = prim("div", g.at(bins.index), AsFloat(count))
        return g.reduced(bins.loops, Guard(bins.inside, (summed(share),)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in AdaptiveAverage.samples():
            (x,) = sample.types
            yield Sample(cls(x.spatial), (sample.op.infer((x,)),), exact=False)


def sharing(n: Extent, m: Extent) -> Extent:
    """A bound on how many of m bins cover one of n positions."""
    assert isinstance(m, int)
    return longest(m, n) if isinstance(n, int) else m


@layer("adaptiveavgpool", "pooling")
def adaptiveavgpool(b: LayerBuilder, x: Node, out: Extents) -> Node:
    """Average into `out` bins per axis whatever the input's extents: [C, i...] -> [C, out...].

    Bin o of m along an extent n covers floor(o * n / m) up to ceil((o + 1) * n / m), as in PyTorch.

    Example: `x -> adaptiveavgpool(7x7) -> flatten`
    """
    extents, window = adaptive_window("adaptiveavgpool", x, out)
    return b.add(AvgPool(window) if window else AdaptiveAverage(extents), x)


def adaptive_window(name: str, x: Node, out: Extents) -> tuple[tuple[int, ...], Window | None]:
    """The extents of the grid, and the ordinary window where they divide those of x.

    Raises ShapeError E0203.
    """
    require_spatial(name, x.type)
    extents = per_axis("out", out, x.type)
    sizes = [
        n // m
        for n, m in zip(x.type.spatial, extents, strict=True)
        if isinstance(n, int) and n % m == 0
    ]
    fits = len(sizes) == x.type.rank
    return extents, tuple(Axis(size, size) for size in sizes) if fits else None
