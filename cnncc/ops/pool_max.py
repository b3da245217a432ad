"""Max pooling: the largest element under each window, per channel or per group of channels.

Padding counts as minus infinity. As in PyTorch a NaN under the window is the maximum. The gradient
goes to one element: the first maximum in row-major order of the taps, or the last NaN. Its tap
number is what backward needs saved, one byte (two for more than 256 taps). A window that sees
nothing above minus infinity names tap 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, PerAxis, Size
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import AsFloat, Assign, Let, Lit, Nest, Ref, Statement, prim
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
from cnncc.ops.spatial import by
from cnncc.tensor import DType, Extent, TensorType, evaluate
from cnncc.window import Axis, Window

LOWEST = float("-inf")


def tap_type(window: Window, across: int = 1) -> DType:
    """The smallest type that numbers all taps. Raises ShapeError E0205 beyond 65536 taps."""
    count = taps_count(whole(window, across))
    if count > 1 << 16:
        raise ShapeError(
            "E0205",
            f"a max pool of {by([a.size for a in window])} has {count} taps, more than 65536",
            fixes=["pool in two steps", "globalmaxpool"],
            argument="size",
        )
    return DType.U8 if count <= 256 else DType.U16


def seen_taps(x: Array, window: Window, fill: float) -> Array:
    """What each window sees, its taps in one last axis in row-major order."""
    seen = unfold(x, window, fill)
    return seen.reshape(*seen.shape[: seen.ndim - len(window)], -1)


@operator("maxpool")
@dataclass(frozen=True)
class MaxPool(Op):
    """[*, C, i...] -> [*, C, o...]."""

    window: Window
    across: int = 1  # channels that are taken together

    @property
    def reads_once(self) -> bool:
        return is_disjoint(self.window)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return pool_out("maxpool", self.window, types[0], self.across)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        seen = seen_taps(x, whole(self.window, self.across), LOWEST)
        return np.asarray(seen.max(axis=-1))  # NumPy's max keeps NaN

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        argmax = b.add(MaxPoolArgmax(self.window, self.across), x, name=f"{node.name}.argmax")
        op = MaxPoolDx(self.window, x.type.spatial, self.across)
        return (b.add(op, dy, argmax, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out, self.across)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        # on a tie `max` gives its second operand, so that the first of +0 and -0 stays
        step = Assign("best", prim("max", p.load(x, LOWEST), Ref("best")))
        return n.nest(
            parallel(
                p.over_output,
                Let("best", Lit(LOWEST)),
                *p.over_taps(step),
                y.store(p.output_index, Ref("best")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * taps_count(whole(self.window, self.across)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            yield Sample(cls(window), (x,))
        for window, across, x in channel_cases():
            yield Sample(cls(window, across), (x,), note=f"{across} channels")
        wide = (Axis(17, 2, lo=8, hi=8), Axis(16))
        yield Sample(
            cls(wide), (TensorType(DType.F32, (2, 7, 17)),), note="tap numbers of two bytes"
        )


@operator("maxpool_argmax")
@dataclass(frozen=True)
class MaxPoolArgmax(Op):
    """[*, C, i...] -> tap numbers u8 or u16 [*, C, o...]."""

    window: Window
    across: int = 1

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        y = pool_out("maxpool_argmax", self.window, types[0], self.across)
        return y.with_dtype(tap_type(self.window, self.across))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        seen = seen_taps(x, whole(self.window, self.across), LOWEST)
        first = seen.argmax(axis=-1)  # the first NaN if there is one
        last_nan = seen.shape[-1] - 1 - np.isnan(seen)[..., ::-1].argmax(axis=-1)
        number = np.where(np.isnan(seen).any(axis=-1), last_nan, first)
        kind = np.uint8 if tap_type(self.window, self.across) is DType.U8 else np.uint16
        return np.asarray(number.astype(kind))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None,)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out, self.across)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        seen = Ref("seen")
        larger = prim("max", prim("lt", Ref("best"), seen), prim("ne", seen, seen))
        steps: list[Statement] = [
            Let("seen", p.load(x, LOWEST)),
            Assign("number", prim("select", larger, AsFloat(p.relation.number()), Ref("number"))),
            Assign("best", prim("max", seen, Ref("best"))),
        ]
        return n.nest(
            parallel(
                p.over_output,
                Let("best", Lit(LOWEST)),
                Let("number", Lit(0.0)),
                *p.over_taps(*steps),
                y.store(p.output_index, Ref("number")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * taps_count(whole(self.window, self.across)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in MaxPool.samples():
            assert isinstance(sample.op, MaxPool)
            yield Sample(cls(sample.op.window, sample.op.across), sample.types, note=sample.note)


@operator("maxpool_dx")
@dataclass(frozen=True)
class MaxPoolDx(Op):
    """dy [*, C, o...], tap numbers [*, C, o...] -> dx [*, C, extents...].

    Each dy goes to the input that its tap number names.
    """

    window: Window
    extents: tuple[Extent, ...]
    across: int = 1

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, argmax = types
        x = dy.with_shape((dy.channels * self.across, *self.extents))
        if pool_out("maxpool_dx", self.window, x, self.across) != dy or argmax.shape != dy.shape:
            raise ShapeError("E0201", f"maxpool_dx: {dy} and {argmax} are not of a pool of {x}")
        return x

    def reference(self, *arrays: Array) -> Array:
        dy, argmax = arrays
        numbers = np.arange(taps_count(whole(self.window, self.across)))
        parts = np.where(argmax[..., None] == numbers, dy[..., None], dy.dtype.type(0))
        window = whole(self.window, self.across)
        known = [evaluate(e, {}) for e in self.extents]
        if self.across > 1:  # dy's channels are the axis before its spatial ones
            known = [dy.shape[dy.ndim - len(window)] * self.across, *known]
        return fold(parts.reshape(*dy.shape, *(axis.size for axis in window)), window, known)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        argmax = b[node.inputs[1]]
        return (
            b.add(MaxPoolPick(self.window, self.across), dy, argmax, name=f"{node.name}.dx"),
            None,
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, out, types[0], self.across)
        dy, argmax = p.at_output("dy", types[0]), p.at_output("argmax", types[1])
        dx = p.input_result("dx", out)
        named = prim("eq", argmax[p.target_index], AsFloat(p.relation.number()))
        part = prim("select", named, dy[p.target_index], 0.0)
        return n.nest(p.gather(Assign("acc", prim("add", Ref("acc"), part)), dx, Ref("acc")))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements * taps_count(whole(self.window, self.across)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            y = MaxPool(window).infer((x,))
            yield Sample(cls(window, x.spatial), (y, y.with_dtype(tap_type(window))), low=0, high=2)
        for window, across, x in channel_cases():
            y = MaxPool(window, across).infer((x,))
            types = (y, y.with_dtype(tap_type(window, across)))
            yield Sample(cls(window, x.spatial, across), types, low=0, high=2)


@operator("maxpool_pick")
@dataclass(frozen=True)
class MaxPoolPick(Op):
    """x [*, C, i...], tap numbers [*, C, o...] -> the named elements; 0 in the padding."""

    window: Window
    across: int = 1

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, argmax = types
        y = pool_out("maxpool_pick", self.window, x, self.across)
        if argmax.shape != y.shape:
            raise ShapeError("E0201", f"maxpool_pick: {argmax} is not of a pool of {x}")
        return y

    def reference(self, *arrays: Array) -> Array:
        x, argmax = arrays
        numbers = np.arange(taps_count(whole(self.window, self.across)))
        named = argmax[..., None] == numbers
        return np.asarray(
            np.where(named, seen_taps(x, whole(self.window, self.across), 0.0), 0).sum(axis=-1)
        )

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, argmax = (b[name] for name in node.inputs)
        op = MaxPoolDx(self.window, x.type.spatial, self.across)
        return (b.add(op, dy, argmax, name=f"{node.name}.dx"), None)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out, self.across)
        x, argmax = p.at_input("x", types[0]), p.at_output("argmax", types[1])
        y = p.output("y", out)
        named = prim("eq", argmax[p.output_index], AsFloat(p.relation.number()))
        step = Assign("acc", prim("select", named, p.load(x, 0.0), Ref("acc")))
        return n.nest(
            parallel(
                p.over_output,
                Let("acc", Lit(0.0)),
                *p.over_taps(step),
                y.store(p.output_index, Ref("acc")),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            y = MaxPool(window).infer((x,)).with_dtype(tap_type(window))
            yield Sample(cls(window), (x, y), low=0, high=2)
        for window, across, x in channel_cases():
            y = MaxPool(window, across).infer((x,)).with_dtype(tap_type(window, across))
            yield Sample(cls(window, across), (x, y), low=0, high=2)


VALID = Pad("valid")


@layer("maxpool", "pooling")
def maxpool(
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
    """The largest element under each window, per channel; the stride is the size unless given.

    Zero padding counts as minus infinity here; const, replicate, reflect and circular pad the input
    first. `fit` says what a stride that does not divide means: an error (exact), dropping the last
    positions (floor), or a last window that sees fewer of them (partial). The gradient goes to the
    first maximum in row-major order. `affine = per_map` gives each channel a trainable `scale` and
    `bias` behind the pool.

    Example: `x -> maxpool(3x3, stride = 2, fit = partial)`
    """
    x, window = pool_window(
        b, x, "maxpool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    tap_type(window)
    return subsampled(b, MaxPool(window), x, affine)
