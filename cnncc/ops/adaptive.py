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
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Condition,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Nest,
    Ref,
    Var,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.ops.pool_average import AvgPool
from cnncc.ops.spatial import per_axis, require_rank, require_spatial
from cnncc.tensor import DType, Extent, TensorType, evaluate
from cnncc.window import Axis


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
        n = NestBuilder()
        names = axis_names(out)
        lead, space = names[: -out.rank], names[-out.rank :]
        inner = [f"in{a}" for a in range(out.rank)]
        x = n.input("x", types[0], " ".join([*lead, *inner]))
        y = n.output("y", out, " ".join(names))
        index = tuple(Var(f"i_{name}") for name in names)
        at = [(Var(f"i_{name}"), n.size(name, n.sizes[name])) for name in space]
        extents = [n.size(name, n.sizes[name]) for name in inner]
        bounds = [longest(i, m) for i, m in zip(types[0].spatial, self.extents, strict=True)]
        bins = Bins(n, at, extents, bounds)
        count: Index = Int(1)
        for (o, m), extent in zip(at, extents, strict=True):
            count = count * (end(o, extent, m) + first(o, extent, m) * -1)
        seen = x[(*index[: len(lead)], *bins.index)]
        step = Guard(bins.inside, (Assign("acc", prim("add", Ref("acc"), seen)),))
        return n.nest(
            parallel(
                [(f"i_{name}", n.size(name, n.sizes[name])) for name in names],
                Let("acc", Lit(0.0)),
                serial(bins.loops, step),
                y.store(index, prim("div", Ref("acc"), AsFloat(count))),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for extents, shape in (
            ((3, 2), (3, 7, 5)),
            ((2, 3), (2, 6, 9)),
            ((5, 4), (2, 3, 4)),  # more outputs than inputs
            ((3,), (2, 8)),
            ((2, 1, 3), (2, 3, 4, 5)),
        ):
            yield Sample(cls(extents), (TensorType(DType.F32, shape),))
        yield Sample(cls((2, 2)), (TensorType(DType.F32, (2, 5, 3), batched=False),))


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
        n = NestBuilder()
        names = axis_names(out)
        lead, space = names[: -out.rank], names[-out.rank :]
        outer = [f"out{a}" for a in range(out.rank)]
        dy = n.input("dy", types[0], " ".join([*lead, *outer]))
        dx = n.output("dx", out, " ".join(names))
        index = tuple(Var(f"i_{name}") for name in names)
        at = [(Var(f"i_{name}"), n.size(name, n.sizes[name])) for name in space]
        counts = [n.size(name, n.sizes[name]) for name in outer]
        bounds = [_sharing(i, o) for i, o in zip(out.spatial, types[0].spatial, strict=True)]
        bins = Bins(n, at, counts, bounds)
        count: Index = Int(1)
        for o, (_, extent), m in zip(bins.index, at, counts, strict=True):
            count = count * (end(o, extent, m) + first(o, extent, m) * -1)
        share = prim("div", dy[(*index[: len(lead)], *bins.index)], AsFloat(count))
        step = Guard(bins.inside, (Assign("acc", prim("add", Ref("acc"), share)),))
        return n.nest(
            parallel(
                [(f"i_{name}", n.size(name, n.sizes[name])) for name in names],
                Let("acc", Lit(0.0)),
                serial(bins.loops, step),
                dx.store(index, Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in AdaptiveAverage.samples():
            (x,) = sample.types
            yield Sample(cls(x.spatial), (sample.op.infer((x,)),), exact=False)


def _sharing(n: Extent, m: Extent) -> Extent:
    """A bound on how many of m bins cover one of n positions."""
    assert isinstance(m, int)
    return longest(m, n) if isinstance(n, int) else m


@layer("adaptiveavgpool", "pooling")
def adaptiveavgpool(b: LayerBuilder, x: Node, out: Extents) -> Node:
    """Average into `out` bins per axis whatever the input's extents: [C, i...] -> [C, out...].

    Bin o of m along an extent n covers floor(o * n / m) up to ceil((o + 1) * n / m), as in PyTorch.

    Example: `x -> adaptiveavgpool(7x7) -> flatten`
    """
    require_spatial("adaptiveavgpool", x.type)
    extents = per_axis("out", out, x.type)
    sizes = [
        n // m
        for n, m in zip(x.type.spatial, extents, strict=True)
        if isinstance(n, int) and n % m == 0
    ]
    if len(sizes) == x.type.rank:
        return b.add(AvgPool(tuple(Axis(size, size) for size in sizes)), x)
    return b.add(AdaptiveAverage(extents), x)
