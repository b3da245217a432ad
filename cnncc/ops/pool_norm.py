"""Lp pooling: the norm of what each window sees, (sum |x|^p)^(1/p), without a divisor; p = 2 is L2.

Powers are not scaled down first: |x|^p must lie in the range of floats. The gradient, sign(x) (|x|
/ y)^(p - 1) dy, is taken as 0 where x or y is 0, the middle of the subgradients there. It is not
linear in x and y, so it has no gradient of its own. Source: Sermanet, Chintala and LeCun,
"Convolutional Neural Networks Applied to House Numbers Digit Classification" (2012).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Number, Pad, PerAxis, Size
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Assign, Let, Lit, Nest, Ref, Value, prim
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.pool_window import (
    PoolNest,
    Subsampling,
    channel_cases,
    is_disjoint,
    pool_cases,
    pool_out,
    pool_window,
    subsampled,
    taps_count,
    whole,
)
from cnncc.ops.relation import fold, unfold
from cnncc.tensor import TensorType
from cnncc.window import Window

MULTIPLIED = 8
"""Whole exponents up to here are products, which are exact on small integers."""


def power(a: Value, q: float) -> Value:
    """a^q for a >= 0 and q >= 0, with 0^0 = 1; `a` is a name or a number, for it is repeated."""
    if q == 0:
        return Lit(1.0)
    if q == int(q) and q <= MULTIPLIED:
        product = a
        for _ in range(int(q) - 1):
            product = prim("mul", product, a)
        return product
    return prim("select", prim("eq", a, 0.0), 0.0, prim("exp", prim("mul", prim("log", a), q)))


def root(a: Value, p: float) -> Value:
    """a^(1 / p) for a >= 0."""
    if p == 1:
        return a
    if p in (2, 4):
        once = prim("sqrt", a)
        return once if p == 2 else prim("sqrt", once)
    return power(a, 1 / p)


@operator("lppool")
@dataclass(frozen=True)
class LpPool(Op):
    """[*, C, i...] -> [*, C / across, o...]."""

    window: Window
    p: float = 2.0
    across: int = 1  # channels that are taken together

    @property
    def reads_once(self) -> bool:
        return is_disjoint(self.window)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return pool_out("lppool", self.window, types[0], self.across)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        window = whole(self.window, self.across)
        total = (np.abs(unfold(x, window, 0.0)) ** self.p).sum(axis=tuple(range(-len(window), 0)))
        return np.asarray(np.sqrt(total) if self.p == 2 else total ** (1 / self.p))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        op = LpPoolDx(self.window, self.p, self.across)
        return (b.add(op, x, node, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out, self.across)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        seen, acc = Ref("seen"), Ref("acc")
        value: Value = p.load(x, 0.0)
        if self.p == 2:
            total = prim("fma", seen, seen, acc)
        else:
            value, total = prim("abs", value), prim("add", acc, power(seen, self.p))
        return n.nest(
            parallel(
                p.over_output,
                Let("acc", Lit(0.0)),
                *p.over_taps(Let("seen", value), Assign("acc", total)),
                y.store(p.output_index, root(acc, self.p)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * (2 * taps_count(whole(self.window, self.across)) + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            yield Sample(cls(window), (x,))
        for window, across, x in channel_cases():
            yield Sample(cls(window, 2.0, across), (x,), note=f"{across} channels")
        window, x = next(iter(pool_cases()))
        yield Sample(cls(window, 1.0), (x,), note="p = 1")
        for p in (1.5, 3.0, 4.0, 10.0):
            yield Sample(cls(window, p), (x,), exact=False, note=f"p = {p:g}")


@operator("lppool_dx")
@dataclass(frozen=True)
class LpPoolDx(Op):
    """x [*, C, i...], y, dy [*, C / across, o...] -> sign(x) * the sum of dy (|x| / y)^(p - 1) over
    the windows that see x.
    """

    window: Window
    p: float = 2.0
    across: int = 1

    linear = (2,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, y, dy = types
        if not (pool_out("lppool_dx", self.window, x, self.across) == y == dy):
            raise ShapeError("E0201", f"lppool_dx: {y} and {dy} are not of a pool of {x}")
        return x

    def reference(self, *arrays: Array) -> Array:
        x, y, dy = arrays
        window = whole(self.window, self.across)
        seen = unfold(x, window, 0.0)
        norm, upstream = (a.reshape(*a.shape, *[1] * len(window)) for a in (y, dy))
        ratio = np.divide(np.abs(seen), norm, out=np.zeros_like(seen), where=norm != 0)
        parts = np.where(norm != 0, np.sign(seen) * ratio ** (self.p - 1) * upstream, 0)
        return fold(parts, window, x.shape[-len(window) :])

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, out, types[1], self.across)
        x, y = p.at_input("x", types[0]), p.at_output("y", types[1])
        dy, dx = p.at_output("dy", types[2]), p.input_result("dx", out)
        here, ratio = x[p.input_index], Ref("ratio")
        zero = prim("max", prim("eq", y[p.target_index], 0.0), prim("eq", here, 0.0))
        steps = (
            Let("ratio", prim("div", prim("abs", here), y[p.target_index])),
            Let("part", prim("mul", prim("copysign", power(ratio, self.p - 1), here),
                             dy[p.target_index])),
            Assign("acc", prim("add", Ref("acc"), prim("select", zero, 0.0, Ref("part")))),
        )  # fmt: skip
        return n.nest(p.gather(steps, dx, Ref("acc")))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[1].elements * (3 * taps_count(whole(self.window, self.across))))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in LpPool.samples():
            pool = sample.op
            assert isinstance(pool, LpPool)
            (x,) = sample.types
            y = pool.infer((x,))
            # sums of rounded quotients; y is a norm, so it is not negative
            op = cls(pool.window, pool.p, pool.across)
            yield Sample(op, (x, y, y), exact=False, positive=(1,), note=sample.note)


VALID = Pad("valid")


@layer("lppool", "pooling")
def lppool(
    b: LayerBuilder,
    x: Node,
    size: Size,
    p: Number,
    *,
    stride: PerAxis | None = None,
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    affine: Subsampling = "none",
    fit: Literal["exact", "floor", "partial"] | None = None,
) -> Node:
    """The p-norm of what each window sees, per channel: (sum |x|^p)^(1/p), for p of at least 1.

    p = 1 adds absolute values, p = 2 is `l2pool`, a large p comes close to the largest absolute
    value. The sum is not divided by the number of elements, and |x|^p must be a float. `stride`,
    `pad`, `dilation`, `affine` and `fit` are as in maxpool; zero padding adds nothing. The gradient
    at 0 is 0.

    Example: `x -> lppool(2x2, 3)`
    """
    if p < 1:
        b.error("E0213", f"`p` of a norm is at least 1, but got {p:g}", argument="p")
    x, window = pool_window(
        b, x, "lppool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    return subsampled(b, LpPool(window, p), x, affine)


@layer("l2pool", "pooling")
def l2pool(
    b: LayerBuilder,
    x: Node,
    size: Size,
    *,
    stride: PerAxis | None = None,
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    affine: Subsampling = "none",
    fit: Literal["exact", "floor", "partial"] | None = None,
) -> Node:
    """The norm of what each window sees, per channel: sqrt(sum x^2), which is not the mean square.

    The stride is the size unless given. `pad`, `dilation`, `affine` and `fit` are as in maxpool;
    zero padding adds nothing to the norm. The gradient at 0 is 0.

    Example: `x -> l2pool(2x2)`
    """
    x, window = pool_window(
        b, x, "l2pool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    return subsampled(b, LpPool(window), x, affine)
