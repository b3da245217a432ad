"""Average pooling: the mean under each window, per channel.

The sum is divided by the number of taps that count: with `include_pad` those inside input and
padding, without it those inside the input. Where that is the same for all windows the divisor is a
constant; a partial window never counts what lies beyond the padding (as PyTorch). Backward adds dy
/ divisor of every window to what it saw, or, with one divisor, divides the sum once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Flag, LayerBuilder, Pad, PerAxis, Size
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import AsFloat, Assign, Let, Lit, Nest, Ref, prim
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
from cnncc.tensor import Extent, TensorType, evaluate
from cnncc.window import Window


def one_divisor(window: Window, include_pad: bool) -> bool:
    """Whether all windows have all their taps counted."""
    return all(
        axis.fit != "partial" and (include_pad or not (axis.lo or axis.hi)) for axis in window
    )


def divisors(window: Window, extents: tuple[int, ...], include_pad: bool) -> Array:
    """The divisor of each window, [o...]: the product of the counts along the axes."""
    product: Array = np.ones((), np.int64)
    for axis, n in zip(window, extents, strict=True):
        counts = [
            axis.counted(o, n) if include_pad else len(axis.taps(o, n))
            for o in range(evaluate(axis.out(n), {}))
        ]
        product = np.multiply.outer(product, np.array(counts))
    return product


@operator("avgpool")
@dataclass(frozen=True)
class AvgPool(Op):
    """[*, C, i...] -> [*, C, o...]."""

    window: Window
    include_pad: bool = False
    across: int = 1  # channels that are taken together

    linear = (0,)

    @property
    def reads_once(self) -> bool:
        return is_disjoint(self.window)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return pool_out("avgpool", self.window, types[0], self.across)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        window = whole(self.window, self.across)
        total = unfold(x, window, 0.0).sum(axis=tuple(range(-len(window), 0)))
        count = divisors(window, x.shape[-len(window) :], self.include_pad)
        return np.asarray(total / count.astype(x.dtype))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        extents = b[node.inputs[0]].type.spatial
        op = AvgPoolDx(self.window, self.include_pad, extents, self.across)
        return (b.add(op, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out, self.across)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        step = Assign("acc", prim("add", Ref("acc"), p.load(x, 0.0)))
        if one_divisor(self.window, self.include_pad):
            mean = prim("div", Ref("acc"), float(taps_count(whole(self.window, self.across))))
        else:
            count = p.counted(p.place, include_pad=self.include_pad)
            mean = prim("div", Ref("acc"), AsFloat(count))
        return n.nest(
            parallel(
                p.over_output,
                Let("acc", Lit(0.0)),
                *p.over_taps(step),
                y.store(p.output_index, mean),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * (taps_count(whole(self.window, self.across)) + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            for include_pad in (False, True) if any(a.lo or a.hi for a in window) else (False,):
                yield Sample(cls(window, include_pad), (x,))
        for window, across, x in channel_cases():
            yield Sample(cls(window, False, across), (x,), note=f"{across} channels")


@operator("avgpool_dx")
@dataclass(frozen=True)
class AvgPoolDx(Op):
    """The adjoint of an average pool: [*, C, o...] -> [*, C, extents...]."""

    window: Window
    include_pad: bool
    extents: tuple[Extent, ...]
    across: int = 1

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (dy,) = types
        x = dy.with_shape((dy.channels * self.across, *self.extents))
        if pool_out("avgpool_dx", self.window, x, self.across) != dy:
            raise ShapeError("E0201", f"avgpool_dx: {dy} is not a pool of {x}")
        return x

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        window = whole(self.window, self.across)
        known = tuple(evaluate(e, {}) for e in self.extents)
        if self.across > 1:  # dy's channels are the axis before its spatial ones
            known = (dy.shape[dy.ndim - len(window)] * self.across, *known)
        count = divisors(window, known, self.include_pad).astype(dy.dtype)
        one = one_divisor(window, self.include_pad)
        parts = (dy if one else dy / count).reshape(*dy.shape, *[1] * len(window))
        sizes = (axis.size for axis in window)
        total = fold(np.broadcast_to(parts, (*dy.shape, *sizes)), window, known)
        return total / dy.dtype.type(taps_count(window)) if one else total

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (
            b.add(AvgPool(self.window, self.include_pad, self.across), dy, name=f"{node.name}.dx"),
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, out, types[0], self.across)
        dy, dx = p.at_output("dy", types[0]), p.input_result("dx", out)
        part, result = dy[p.target_index], Ref("acc")
        if one_divisor(self.window, self.include_pad):
            step = Assign("acc", prim("add", Ref("acc"), part))
            return n.nest(
                p.gather(
                    step,
                    dx,
                    prim("div", result, float(taps_count(whole(self.window, self.across)))),
                )
            )
        count = p.counted(p.relation.target(p.source_place), include_pad=self.include_pad)
        step = Assign("acc", prim("add", Ref("acc"), prim("div", part, AsFloat(count))))
        return n.nest(p.gather(step, dx, result))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements * (taps_count(whole(self.window, self.across)) + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in AvgPool.samples():
            pool = sample.op
            assert isinstance(pool, AvgPool)
            (x,) = sample.types
            op = cls(pool.window, pool.include_pad, x.spatial, pool.across)
            # sums of rounded quotients depend on their order
            exact = one_divisor(pool.window, pool.include_pad)
            yield Sample(op, (pool.infer((x,)),), exact=exact)


VALID = Pad("valid")


@layer("avgpool", "pooling")
def avgpool(
    b: LayerBuilder,
    x: Node,
    size: Size,
    *,
    stride: PerAxis | None = None,
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    count_include_pad: Flag | None = None,
    affine: Subsampling = "none",
    fit: Literal["exact", "floor", "partial"] | None = None,
) -> Node:
    """The mean under each window, per channel; the stride is the size unless given.

    Frameworks disagree on whether zero padding counts in the divisor, so with `pad` say it:
    `count_include_pad = true` divides by all taps inside input and padding, `false` by those inside
    the input. `fit = partial` keeps a last incomplete window, divided by what it sees. `affine =
    per_map` multiplies each channel by a trainable `scale` and adds a `bias`, as in LeNet's
    subsampling.

    Example: `x -> avgpool(2x2, affine = per_map)`
    """
    x, window = pool_window(
        b, x, "avgpool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    padded = any(axis.lo or axis.hi for axis in window)
    if padded and count_include_pad is None:
        b.error(
            "E0304",
            "an average pool with padding must say whether padding counts in the divisor",
            argument="pad",
            fixes=[
                "count_include_pad = false (TensorFlow, ONNX)",
                "count_include_pad = true (PyTorch)",
            ],
        )
    op = AvgPool(window, include_pad=bool(count_include_pad) and padded)
    return subsampled(b, op, x, affine)
