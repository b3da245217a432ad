"""Convolution (cross-correlation) and its partial derivatives: one trilinear form, three operators.

With the window relation i = o * stride + k * dilation - lo, per sample and group,

    sum over o, k, c, t of y[k, o] * w[k, c, t] * x[c, i(o, t)]
        = <y, conv(x, w)> = <x, conv_dx(y, w)> = <w, conv_dw(x, y)>

so the gradient of each of the three is made of the other two. conv_dx is also the transposed
convolution. Padding is by zeros, which take part in the products; other borders are a `pad` in
front. Definition: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Index, Let, Lit, Nest, Ref, Statement, Var, ix, prim
from cnncc.ops.base import Array, Cost, Op, Sample, operator
from cnncc.ops.conv_channels import channels, check_groups
from cnncc.ops.reduce import accumulate, channel_sum
from cnncc.ops.relation import Relation, fold, unfold
from cnncc.ops.spatial import by, require_rank
from cnncc.ops.windows import output_extents
from cnncc.tensor import DType, Extent, TensorType, evaluate, product
from cnncc.window import Axis, Window


def taps(window: Window) -> tuple[int, ...]:
    return tuple(axis.size for axis in window)


def lead(t: TensorType) -> list[str]:
    """The axes in front of the channels: the batch, if there is one."""
    return ["n"] if t.batched else []


def variables(names: Iterable[str]) -> list[Index]:
    return [Var(f"i_{name}") for name in names]


def ranges(n: NestBuilder, names: Iterable[str]) -> list[tuple[str, Index | int]]:
    """The loops over named sizes that the buffers have declared."""
    return [(f"i_{name}", n.size(name, n.sizes[name])) for name in names]


def grouped(a: Array, groups: int) -> Array:
    """Split the channel axis: [n, C, ...] -> [n, groups, C / groups, ...]."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, *a.shape[2:])


def batch_first(a: Array, rank: int) -> Array:
    """A batch axis in front where the array has none."""
    return a if a.ndim == rank + 2 else a[None]


@operator("conv")
@dataclass(frozen=True)
class Conv(Op):
    """x [*, C, i...], w [K, C / groups, k...], bias [K] if any -> y [*, K, o...]."""

    window: Window
    groups: int = 1

    linear = (0, 1)  # of the three; with a bias, affine

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, w, *bias = types
        require_rank("conv", x, len(self.window))
        check_groups(x.channels, w.shape[0], self.groups)
        expected = (w.shape[0], x.channels // self.groups, *taps(self.window))
        if w.shape != expected or w.batched:
            raise ShapeError(
                "E0201",
                "the weight of a conv is [outputs, inputs / groups, taps...]",
                arithmetic=[f"input: {x}", f"weight: {w}, expected [{by(expected)}]"],
            )
        if bias and (bias[0].shape != w.shape[:1] or bias[0].batched):
            raise ShapeError(
                "E0201",
                "the bias of a conv has one number per output channel",
                arithmetic=[f"weight: {w}", f"bias: {bias[0]}"],
            )
        return x.with_shape((w.shape[0], *output_extents(self.window, x.spatial)))

    def reference(self, *arrays: Array) -> Array:
        x, w, *bias = arrays
        rank, g = len(self.window), self.groups
        seen = grouped(unfold(batch_first(x, rank), self.window, 0.0), g)  # [n, g, c, o..., t...]
        out = seen.shape[3 : 3 + rank]
        seen = seen.reshape(*seen.shape[:3], int(np.prod(out)), -1)
        kernel = w.reshape(g, w.shape[0] // g, w.shape[1], -1)
        y = np.einsum("ngcot,gkct->ngko", seen, kernel).reshape(len(seen), w.shape[0], *out)
        if bias:
            y = y + bias[0].reshape(-1, *[1] * rank)
        return np.asarray(y if x.ndim == rank + 2 else y[0])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, w, *bias = (b[name] for name in node.inputs)
        name = node.name
        dx = b.add(ConvDx(self.window, self.groups, x.type.spatial), dy, w, name=f"{name}.dx")
        dw = b.add(ConvDw(self.window, self.groups), x, dy, name=f"{name}.dw")
        return (dx, dw, channel_sum(b, dy, name=f"{name}.dbias")) if bias else (dx, dw)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        c = channels(n, types[0].channels, out.channels, self.groups)
        relation = Relation(n, self.window)
        x = n.input("x", types[0], _axes(types[0], c.x_axis, "in"))
        w = n.input("w", types[1], c.w_axes + _tap_axes(self.window))
        bias = n.input("bias", types[2], c.y_axis) if len(types) > 2 else None
        y = n.output("y", out, _axes(out, c.y_axis, "s"))
        batch, place = variables(lead(out)), variables(f"s{a}" for a in range(out.rank))
        kernel = w[(*c.w, *(relation.tap(a) for a in range(out.rank)))]
        seen = relation.load(x, (*batch, c.x), place, 0.0)
        add = Assign("acc", prim("fma", seen, kernel, Ref("acc")))
        loops = [*relation.taps, *ranges(n, c.ins)]
        return n.nest(
            parallel(
                ranges(n, [*lead(out), *c.shared, *c.outs, *(f"s{a}" for a in range(out.rank))]),
                Let("acc", bias[c.y] if bias else Lit(0.0)),
                serial(loops, add) if loops else add,
                y.store((*batch, c.y, *place), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = out.elements * product(types[1].shape[1:])
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            yield Sample(op, (x, op.weight(x, k)))
        op, x, k = CASES[0]
        yield Sample(op, (x, op.weight(x, k), TensorType(DType.F32, (k,), batched=False)))

    def weight(self, x: TensorType, k: int) -> TensorType:
        """The type of the weight for k output channels."""
        return TensorType(
            x.dtype, (k, x.channels // self.groups, *taps(self.window)), batched=False
        )


@operator("conv_dx")
@dataclass(frozen=True)
class ConvDx(Op):
    """dy [*, K, o...], w [K, C / groups, k...] -> dx [*, C, extents...].

    Every product of the conv goes back to the input that it read.
    """

    window: Window
    groups: int
    extents: tuple[Extent, ...]

    linear = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, w = types
        require_rank("conv_dx", dy, len(self.window))
        expected = (dy.channels, w.shape[1] if len(w.shape) > 1 else 0, *taps(self.window))
        if w.shape != expected or w.batched:
            raise ShapeError(
                "E0201",
                "the weight of a transposed conv is [inputs, outputs / groups, taps...]",
                arithmetic=[f"input: {dy}", f"weight: {w}, expected [{by(expected)}]"],
            )
        check_groups(dy.channels, w.shape[1] * self.groups, self.groups)
        if output_extents(self.window, self.extents) != dy.spatial:
            raise ShapeError(
                "E0207",
                "a window over the extents of a conv_dx must give its input's extents",
                arithmetic=[f"extents: {by(self.extents)}", f"input: {dy}"],
            )
        return dy.with_shape((w.shape[1] * self.groups, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        dy, w = arrays
        rank, g = len(self.window), self.groups
        upper = grouped(batch_first(dy, rank), g)
        out = upper.shape[3:]
        upper = upper.reshape(*upper.shape[:3], -1)
        kernel = w.reshape(g, w.shape[0] // g, w.shape[1], -1)
        products = np.einsum("ngko,gkct->ngcot", upper, kernel)
        shape = (len(upper), g * w.shape[1], *out, *taps(self.window))
        dx = fold(products.reshape(shape), self.window, [evaluate(e, {}) for e in self.extents])
        return dx if dy.ndim == rank + 2 else dx[0]

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        upper, w = (b[name] for name in node.inputs)
        d_upper = b.add(Conv(self.window, self.groups), dy, w, name=f"{node.name}.dx")
        dw = b.add(ConvDw(self.window, self.groups), dy, upper, name=f"{node.name}.dw")
        return d_upper, dw

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        c = channels(n, out.channels, types[0].channels, self.groups)
        relation = Relation(n, self.window)
        dy = n.input("dy", types[0], _axes(types[0], c.y_axis, "s"))
        w = n.input("w", types[1], c.w_axes + _tap_axes(self.window))
        dx = n.output("dx", out, _axes(out, c.x_axis, "in"))
        spatial = [f"in{a}" for a in range(out.rank)]
        batch, place = variables(lead(out)), variables(spatial)
        kernel = w[(*c.w, *(relation.tap(a) for a in range(out.rank)))]
        add: Statement = Assign(
            "acc", prim("fma", dy[(*batch, c.y, *relation.target(place))], kernel, Ref("acc"))
        )
        over = ranges(n, c.outs)
        return n.nest(
            parallel(
                ranges(n, [*lead(out), *c.shared, *c.ins, *spatial]),
                Let("acc", Lit(0.0)),
                *relation.gather(place, types[0].spatial, [serial(over, add) if over else add]),
                dx.store((*batch, c.x, *place), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = types[0].elements * product(types[1].shape[1:])
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            w = op.weight(x, k)
            yield Sample(cls(op.window, op.groups, x.spatial), (op.infer((x, w)), w))


@operator("conv_dw")
@dataclass(frozen=True)
class ConvDw(Op):
    """x [*, C, i...], dy [*, K, o...] -> dw [K, C / groups, k...].

    The sum over batch and space is long: partial sums per sample and first output row are added to
    the total.
    """

    window: Window
    groups: int = 1

    linear = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, dy = types
        require_rank("conv_dw", x, len(self.window))
        check_groups(x.channels, dy.channels, self.groups)
        y = x.with_shape((dy.channels, *output_extents(self.window, x.spatial)))
        if y != dy:
            raise ShapeError(
                "E0201",
                "conv_dw needs the input and the output gradient of one conv",
                arithmetic=[f"input: {x}, whose output is {y}", f"gradient: {dy}"],
            )
        shape = (dy.channels, x.channels // self.groups, *taps(self.window))
        return TensorType(x.dtype, shape, batched=False)

    def reference(self, *arrays: Array) -> Array:
        x, dy = arrays
        rank, g = len(self.window), self.groups
        seen = grouped(unfold(batch_first(x, rank), self.window, 0.0), g)
        upper = grouped(batch_first(dy, rank), g)
        upper = upper.reshape(*upper.shape[:3], -1)
        seen = seen.reshape(*seen.shape[:3], upper.shape[3], -1)
        dw = np.einsum("ngcot,ngko->gkct", seen, upper)
        return np.asarray(dw.reshape(-1, dw.shape[2], *taps(self.window)))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, upper = (b[name] for name in node.inputs)
        conv_dx = ConvDx(self.window, self.groups, x.type.spatial)
        dx = b.add(conv_dx, upper, dy, name=f"{node.name}.dx")
        return dx, b.add(Conv(self.window, self.groups), x, dy, name=f"{node.name}.dy")

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x_type, dy_type = types
        c = channels(n, x_type.channels, dy_type.channels, self.groups)
        relation = Relation(n, self.window)
        x = n.input("x", x_type, _axes(x_type, c.x_axis, "in"))
        dy = n.input("dy", dy_type, _axes(dy_type, c.y_axis, "s"))
        dw = n.output("dw", out, c.w_axes + _tap_axes(self.window))
        spatial = [f"s{a}" for a in range(dy_type.rank)]
        batch, place = variables(lead(x_type)), variables(spatial)
        seen = relation.load(x, (*batch, c.x), place, 0.0)
        other = dy[(*batch, c.y, *place)]
        over = [(v, ix(e)) for v, e in ranges(n, [*lead(x_type), *spatial])]
        return n.nest(
            parallel(
                [*ranges(n, [*c.shared, *c.outs, *c.ins]), *relation.taps],
                *accumulate("acc", over, lambda acc: prim("fma", seen, other, acc)),
                dw.store((*c.w, *(relation.tap(a) for a in range(len(spatial)))), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = types[1].elements * product(out.shape[1:])
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            yield Sample(cls(op.window, op.groups), (x, op.infer((x, op.weight(x, k)))))


def _axes(t: TensorType, channel: str, space: str) -> str:
    return " ".join([*lead(t), channel, *(f"{space}{a}" for a in range(t.rank))])


def _tap_axes(window: Window) -> str:
    return "".join(f" {axis.size}" for axis in window)


def _case(
    shape: tuple[int, ...], k: int, groups: int, *window: Axis
) -> tuple[Conv, TensorType, int]:
    return Conv(window, groups), TensorType(DType.F32, shape), k


CASES: tuple[tuple[Conv, TensorType, int], ...] = (
    _case((3, 6, 7), 4, 1, Axis(3), Axis(2)),
    _case((5, 5, 6), 3, 1, Axis(1), Axis(1)),
    _case((3, 7, 5), 2, 1, Axis(3, lo=1, hi=1), Axis(3, lo=1, hi=1)),
    _case((2, 9, 8), 3, 1, Axis(3, 2, lo=1, hi=1), Axis(2, 3, lo=2, hi=0)),  # columns are dropped
    _case((3, 7, 9), 2, 1, Axis(1, 2), Axis(1, 3)),
    _case((2, 9, 7), 3, 1, Axis(3, dilation=2), Axis(2, 2, 3, lo=1, hi=2)),
    _case((4, 6, 6), 6, 2, Axis(3, lo=1, hi=1), Axis(3, 2, lo=0, hi=1)),
    _case((5, 6, 7), 5, 5, Axis(3, 2, lo=1, hi=1), Axis(3, lo=1, hi=1)),  # depthwise
    _case((3, 5, 5), 6, 3, Axis(3), Axis(3, lo=1, hi=1)),  # two outputs per input
    _case((1, 5, 6), 1, 1, Axis(2), Axis(2)),
    _case((3, 9), 4, 1, Axis(4, 2, lo=2, hi=1)),
    _case((4, 8), 4, 4, Axis(3, lo=2)),
    _case((2, 5, 4, 6), 3, 1, Axis(2), Axis(3, lo=1, hi=1), Axis(2, 2)),
    (Conv((Axis(3, lo=1, hi=1), Axis(3))), TensorType(DType.F32, (2, 5, 6), batched=False), 3),
)
