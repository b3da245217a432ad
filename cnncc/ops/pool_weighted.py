"""Average pooling weighted by the distance from the window's centre.

y = sum over taps of w x / sum over taps of w, over the taps inside the input, with w a product of
one weight per axis: exp(-d^2 / (2 sigma^2)) for the Euclidean distance d (gauss), or binomial
coefficients, which are its limit for small windows (1 2 1). Where all windows see all taps the
weights are divided by their sum beforehand; elsewhere a second operator divides by what the window
sees. Each is linear: the sum with the usual adjoint, the division its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, PerAxis, Size, Word
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import (
    Assign,
    Choose,
    Guard,
    Let,
    Lit,
    Nest,
    Ref,
    Value,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.pool_average import one_divisor
from cnncc.ops.pool_window import (
    PoolNest,
    is_disjoint,
    pool_cases,
    pool_out,
    pool_window,
    taps_count,
)
from cnncc.ops.relation import Relation, fold, unfold
from cnncc.tensor import Extent, TensorType, evaluate
from cnncc.window import Axis, Window

Weights = tuple[tuple[float, ...], ...]  # per axis, per tap

NARROWEST = 7.0
"""The most standard deviations from the centre to the ends: exp(-7^2 / 2) along three axes is still
a float32, so that the sum is above 0 also for a window whose centre lies in the padding.
"""


def gauss(axis: Axis, sigma: float) -> tuple[float, ...]:
    """exp(-d^2 / (2 sigma^2)) for the distances of an axis' taps from their centre."""
    centre = (axis.size - 1) / 2
    distances = (axis.dilation * (k - centre) for k in range(axis.size))
    return tuple(math.exp(-(d**2) / (2 * sigma**2)) for d in distances)


def binomial(axis: Axis) -> tuple[float, ...]:
    """A row of Pascal's triangle: 1 2 1, 1 3 3 1, 1 4 6 4 1."""
    return tuple(float(math.comb(axis.size - 1, k)) for k in range(axis.size))


def table(weights: Weights) -> Array:
    """The weights of all taps, [k...]: products of one per axis."""
    product: Array = np.ones(())
    for row in weights:
        product = np.multiply.outer(product, np.array(row))
    return product


def weight(relation: Relation, weights: Weights) -> Value:
    """The weight of the current tap."""
    result: Value | None = None
    for a, row in enumerate(weights):
        one: Value = Lit(row[-1])
        for k in reversed(range(len(row) - 1)):
            one = Choose(test("==", relation.tap(a), k), Lit(row[k]), one)
        result = one if result is None else prim("mul", result, one)
    assert result is not None
    return result


@operator("weighted_sum")
@dataclass(frozen=True)
class WeightedSum(Op):
    """[*, C, i...] -> [*, C, o...]: the sum of w x over the taps inside the input."""

    window: Window
    weights: Weights

    linear = (0,)

    @property
    def reads_once(self) -> bool:
        return is_disjoint(self.window)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return pool_out("weighted_sum", self.window, types[0])

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        seen = unfold(x, self.window, 0.0) * table(self.weights).astype(x.dtype)
        return np.asarray(seen.sum(axis=tuple(range(-len(self.window), 0))))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        op = WeightedSumDx(self.window, self.weights, b[node.inputs[0]].type.spatial)
        return (b.add(op, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        step = prim("fma", p.load(x, 0.0), weight(p.relation, self.weights), Ref("acc"))
        return n.nest(
            parallel(
                p.over_output,
                Let("acc", Lit(0.0)),
                *p.over_taps(Assign("acc", step)),
                y.store(p.output_index, Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * out.elements * taps_count(self.window))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            yield Sample(cls(window, tuple(map(binomial, window))), (x,))
        window, x = next(iter(pool_cases()))
        yield Sample(cls(window, tuple(gauss(a, 0.8) for a in window)), (x,), exact=False)


@operator("weighted_sum_dx")
@dataclass(frozen=True)
class WeightedSumDx(Op):
    """The adjoint of a weighted sum: [*, C, o...] -> [*, C, extents...]."""

    window: Window
    weights: Weights
    extents: tuple[Extent, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (dy,) = types
        x = dy.with_shape((dy.channels, *self.extents))
        if pool_out("weighted_sum_dx", self.window, x) != dy:
            raise ShapeError("E0201", f"weighted_sum_dx: {dy} is not a pool of {x}")
        return x

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        known = [evaluate(e, {}) for e in self.extents]
        parts = dy.reshape(*dy.shape, *[1] * len(known)) * table(self.weights).astype(dy.dtype)
        return fold(parts, self.window, known)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(WeightedSum(self.window, self.weights), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, out, types[0])
        dy, dx = p.at_output("dy", types[0]), p.input_result("dx", out)
        own = weight(p.relation, self.weights)
        step = Assign("acc", prim("fma", dy[p.target_index], own, Ref("acc")))
        return n.nest(p.gather(step, dx, Ref("acc")))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=2 * types[0].elements * taps_count(self.window))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in WeightedSum.samples():
            pool = sample.op
            assert isinstance(pool, WeightedSum)
            (x,) = sample.types
            op = cls(pool.window, pool.weights, x.spatial)
            yield Sample(op, (pool.infer((x,)),), exact=sample.exact)


@operator("weighted_share")
@dataclass(frozen=True)
class WeightedShare(Op):
    """[*, C, o...] -> the same, divided by the weights of the taps that lie inside `extents`.

    It reads no window, only its own position: `before` is the window of the sum before it.
    """

    before: Window
    weights: Weights
    extents: tuple[Extent, ...]

    pointwise: ClassVar[bool] = True
    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (y,) = types
        x = y.with_shape((y.channels, *self.extents))
        if pool_out("weighted_share", self.before, x) != y:
            raise ShapeError("E0201", f"weighted_share: {y} is not a pool of {x}")
        return y

    def reference(self, *arrays: Array) -> Array:
        (y,) = arrays
        known = [evaluate(e, {}) for e in self.extents]
        seen = unfold(np.ones(known), self.before, 0.0) * table(self.weights)
        mass = seen.sum(axis=tuple(range(-len(known), 0)))
        return np.asarray(y / mass.astype(y.dtype))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.before, out.with_shape((out.channels, *self.extents)), out)
        x, y = p.at_output("x", types[0]), p.output("y", out)
        extents = [n.size(f"in{a}", e) for a, e in enumerate(self.extents)]
        inside = [c for i, e in zip(p.relation.source(p.place), extents, strict=True)
                  for c in (test("<=", 0, i), test("<", i, e))]  # fmt: skip
        add = Assign("mass", prim("add", Ref("mass"), weight(p.relation, self.weights)))
        return n.nest(
            parallel(
                p.over_output,
                Let("mass", Lit(0.0)),
                *p.over_taps(Guard(all_of(inside[0], *inside[1:]), (add,))),
                y.store(p.output_index, prim("div", x[p.output_index], Ref("mass"))),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * (taps_count(self.before) + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in WeightedSum.samples():
            pool = sample.op
            assert isinstance(pool, WeightedSum)
            (x,) = sample.types
            y = pool.infer((x,))
            yield Sample(cls(pool.window, pool.weights, x.spatial), (y,), exact=sample.exact)


VALID = Pad("valid")


@layer("wavgpool", "pooling")
def wavgpool(
    b: LayerBuilder,
    x: Node,
    size: Size,
    kernel: Word,
    *,
    stride: PerAxis | None = None,
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    fit: Literal["exact", "floor", "partial"] | None = None,
) -> Node:
    """The average under each window, weighted by the distance d from its centre, per channel.

    `kernel` is gauss(sigma), weights exp(-d^2 / (2 sigma^2)) for d in input positions, or binomial:
    1 2 1 along each axis of a 3x3 window, 1 4 6 4 1 of a 5x5 window. The weights of what a window
    sees are divided by their sum; zero padding is not seen. `stride`, `dilation` and `fit` are as
    in maxpool.

    Example: `x -> wavgpool(3x3, binomial, stride = 2, pad = same)`
    """
    x, window = pool_window(
        b, x, "wavgpool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    weights = tuple(kernel_weights(b, kernel, axis) for axis in window)
    if one_divisor(window, include_pad=False):
        return b.add(WeightedSum(window, normalised(weights)), x)
    y = b.add(WeightedSum(window, weights), x, suffix=".sum")
    return b.add(WeightedShare(window, weights, x.type.spatial), y)


def normalised(weights: Weights) -> Weights:
    """Each row divided by its sum, so that all products add up to 1."""
    return tuple(tuple(w / math.fsum(row) for w in row) for row in weights)


def kernel_weights(b: LayerBuilder, kernel: Word, axis: Axis) -> tuple[float, ...]:
    """The weights that `kernel` names, for one axis. Refuses other words (E0304, E0213)."""
    match kernel:
        case Word("binomial", (), ()):
            return binomial(axis)
        case Word("gauss", (int() | float() as sigma,), ()) if not isinstance(sigma, bool):
            farthest = axis.dilation * (axis.size - 1) / 2
            if sigma >= farthest / NARROWEST and sigma > 0:
                return gauss(axis, float(sigma))
            b.error(
                "E0213",
                f"gauss({sigma:g}) gives the ends of a window of {axis.span} no weight that floats "
                "tell from 0",
                argument="kernel",
                fixes=[f"gauss({max(axis.span, 2) / 4:g})", "a smaller size"],
            )
        case _:
            b.error(
                "E0304",
                f"`kernel` must be gauss(sigma) or binomial, but got {kernel}",
                argument="kernel",
                fixes=["gauss(1.0)", "binomial"],
            )
