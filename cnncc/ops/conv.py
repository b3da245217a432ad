"""Convolution (cross-correlation) and its partial derivatives: one trilinear form, three operators.

With the window relation i = o * stride + k * dilation - lo, per sample and group,

    sum over o, k, c, t of y[k, o] * w[k, c, t] * x[c, i(o, t)]
        = <y, conv(x, w)> = <x, conv_dx(y, w)> = <w, conv_dw(x, y)>

so the gradient of each of the three is made of the other two. conv_dx is also the transposed
convolution. Padding is by zeros, which take part in the products; other borders are a `pad` in
front. With `tiles` the kernel w[k, c] depends on the position o, by the rule of `sharing.py`:
tiled and local layers are the same three operators.
Definition: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Index, Let, Lit, Nest, Ref, Statement, Var, ix, prim
from cnncc.ops.base import Array, Cost, Op, Sample, operator
from cnncc.ops.conv_cases import CONV_CASES
from cnncc.ops.conv_channels import channels, check_groups, grouped
from cnncc.ops.reduce import CHANNEL, SPACE, Sum, accumulate, channel_sum
from cnncc.ops.relation import Relation, fold, unfold
from cnncc.ops.sharing import (
    Sharing,
    Tiles,
    check_tiles,
    kernels_at,
    kernels_from,
    mosaic,
    period,
    taps,
)
from cnncc.ops.spatial import by, require_rank
from cnncc.ops.sums import is_long, summed
from cnncc.ops.windows import output_extents
from cnncc.tensor import DType, Extent, TensorType, evaluate
from cnncc.window import Window


def lead(t: TensorType) -> list[str]:
    """The axes in front of the channels: the batch, if there is one."""
    return ["n"] if t.batched else []


def variables(names: Iterable[str]) -> list[Index]:
    return [Var(f"i_{name}") for name in names]


def ranges(n: NestBuilder, names: Iterable[str]) -> list[tuple[str, Index | int]]:
    """The loops over named sizes that the buffers have declared."""
    return [(f"i_{name}", n.size(name, n.sizes[name])) for name in names]


def batch_first(a: Array, rank: int) -> Array:
    """A batch axis in front where the array has none."""
    return a if a.ndim == rank + 2 else a[None]


@operator("conv")
@dataclass(frozen=True)
class Conv(Op):
    """x [*, C, i...], w [K, C / groups, t k...], bias [K] or [K, o...] if any -> y [*, K, o...]."""

    window: Window
    groups: int = 1
    tiles: Tiles = ()

    linear = (0, 1)  # of the three; with a bias, affine

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, w, *bias = types
        require_rank("conv", x, len(self.window))
        check_groups(x.channels, w.shape[0], self.groups)
        expected = (w.shape[0], x.channels // self.groups, *mosaic(self.window, self.tiles))
        if w.shape != expected or w.batched:
            raise ShapeError(
                "E0201",
                "the weight of a conv is [outputs, inputs / groups, taps...]",
                arithmetic=[f"input: {x}", f"weight: {w}, expected [{by(expected)}]"],
            )
        y = x.with_shape((w.shape[0], *output_extents(self.window, x.spatial)))
        check_tiles(self.window, self.tiles, y.spatial)
        if bias and (bias[0].shape not in (y.shape[:1], y.shape) or bias[0].batched):
            raise ShapeError(
                "E0201",
                "the bias of a conv has one number per output channel or per output",
                arithmetic=[f"output: {y}", f"bias: {bias[0]}"],
            )
        return y

    def reference(self, *arrays: Array) -> Array:
        x, w, *bias = arrays
        rank, g = len(self.window), self.groups
        seen = grouped(unfold(batch_first(x, rank), self.window, 0.0), g)  # [n, g, c, o..., t...]
        out = seen.shape[3 : 3 + rank]
        seen = seen.reshape(*seen.shape[:3], int(np.prod(out)), -1)
        kernel = kernels_at(w, self.window, self.tiles, out)
        kernel = kernel.reshape(g, w.shape[0] // g, *kernel.shape[1:2], *seen.shape[3:])
        y = np.einsum("ngcot,gkcot->ngko", seen, kernel).reshape(len(seen), w.shape[0], *out)
        if bias:
            y = y + bias[0].reshape(-1, *(bias[0].shape[1:] or [1] * rank))
        return np.asarray(y if x.ndim == rank + 2 else y[0])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, w, *bias = (b[name] for name in node.inputs)
        name = node.name
        conv_dx = ConvDx(self.window, self.groups, x.type.spatial, self.tiles)
        dx = b.add(conv_dx, dy, w, name=f"{name}.dx")
        dw = b.add(ConvDw(self.window, self.groups, self.tiles), x, dy, name=f"{name}.dw")
        if not bias:
            return dx, dw
        if bias[0].type.shape == dy.type.shape[:1]:
            return dx, dw, channel_sum(b, dy, name=f"{name}.dbias")
        return dx, dw, b.add(Sum((CHANNEL, SPACE)), dy, name=f"{name}.dbias")

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        c = channels(n, types[0].channels, out.channels, self.groups)
        relation, sharing = Relation(n, self.window, any_lo=True), self._sharing(n, out)
        places = [f"s{a}" for a in range(out.rank)]
        x = n.input("x", types[0], _axes(types[0], c.x_axis, "in"))
        w = n.input("w", types[1], c.w_axes + sharing.axes)
        untied = len(types) > 2 and len(types[2].shape) > 1
        bias_axes = " ".join([c.y_axis, *(places if untied else ())])
        bias = n.input("bias", types[2], bias_axes) if len(types) > 2 else None
        y = n.output("y", out, _axes(out, c.y_axis, "s"))
        batch, place = variables(lead(out)), variables(places)
        kernel = w[(*c.w, *sharing.entries(place, relation.all_taps()))]
        seen = relation.load(x, (*batch, c.x), place, 0.0)
        start = bias[(c.y, *(place if untied else ()))] if bias else Lit(0.0)
        add = Assign("acc", prim("fma", seen, kernel, Ref("acc")))
        loops = [*relation.taps, *ranges(n, c.ins)]
        total: Statement = serial(loops, add) if loops else add
        if relation.taps and c.ins and is_long(types[1].shape[1]):
            total = summed(relation.taps, ranges(n, c.ins), (seen, kernel))
        return n.nest(
            parallel(
                ranges(n, [*lead(out), *c.shared, *c.outs, *places]),
                Let("acc", start),
                total,
                y.store((*batch, c.y, *place), Ref("acc")),
            )
        )

    def _sharing(self, n: NestBuilder, out: TensorType) -> Sharing:
        return Sharing(n, self.window, self.tiles, out.spatial)

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = out.elements * types[1].shape[1] * taps(self.window)
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            yield Sample(op, (x, op.weight(x, k)))
        op, x, k = CASES[0]
        w = op.weight(x, k)
        for bias in ((k,), op.infer((x, w)).shape):
            yield Sample(op, (x, w, TensorType(DType.F32, bias, batched=False)))

    def weight(self, x: TensorType, k: int) -> TensorType:
        """The type of the weight for k output channels."""
        shape = (k, x.channels // self.groups, *mosaic(self.window, self.tiles))
        return TensorType(x.dtype, shape, batched=False)


@operator("conv_dx")
@dataclass(frozen=True)
class ConvDx(Op):
    """dy [*, K, o...], w [K, C / groups, t k...] -> dx [*, C, extents...].

    Every product of the conv goes back to the input that it read.
    """

    window: Window
    groups: int
    extents: tuple[Extent, ...]
    tiles: Tiles = ()

    linear = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, w = types
        require_rank("conv_dx", dy, len(self.window))
        inner = w.shape[1] if len(w.shape) > 1 else 0
        expected = (dy.channels, inner, *mosaic(self.window, self.tiles))
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
        check_tiles(self.window, self.tiles, dy.spatial)
        return dy.with_shape((w.shape[1] * self.groups, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        dy, w = arrays
        rank, g = len(self.window), self.groups
        upper = grouped(batch_first(dy, rank), g)
        out = upper.shape[3:]
        upper = upper.reshape(*upper.shape[:3], -1)
        kernel = kernels_at(w, self.window, self.tiles, out)
        kernel = kernel.reshape(g, w.shape[0] // g, w.shape[1], upper.shape[3], -1)
        products = np.einsum("ngko,gkcot->ngcot", upper, kernel)
        shape = (len(upper), g * w.shape[1], *out, *(axis.size for axis in self.window))
        dx = fold(products.reshape(shape), self.window, [evaluate(e, {}) for e in self.extents])
        return dx if dy.ndim == rank + 2 else dx[0]

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        upper, w = (b[name] for name in node.inputs)
        conv, conv_dw = (cls(self.window, self.groups, self.tiles) for cls in (Conv, ConvDw))
        d_upper = b.add(conv, dy, w, name=f"{node.name}.dx")
        dw = b.add(conv_dw, dy, upper, name=f"{node.name}.dw")
        return d_upper, dw

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        c = channels(n, out.channels, types[0].channels, self.groups)
        relation = Relation(n, self.window, any_lo=True)
        sharing = Sharing(n, self.window, self.tiles, types[0].spatial)
        dy = n.input("dy", types[0], _axes(types[0], c.y_axis, "s"))
        w = n.input("w", types[1], c.w_axes + sharing.axes)
        dx = n.output("dx", out, _axes(out, c.x_axis, "in"))
        spatial = [f"in{a}" for a in range(out.rank)]
        batch, place = variables(lead(out)), variables(spatial)
        target = relation.target(place)
        kernel = w[(*c.w, *sharing.entries(target, relation.all_taps()))]
        # Beyond the outputs the gradient is 0 and takes part in the products, as padding does in a
        # conv; but there are no kernels for outputs that are not there.
        own = any(sharing.alone(a) and period(self.tiles, a) > 1 for a in range(out.rank))
        upper = (*batch, c.y, *target)
        seen = dy[upper] if own else dy.padded(upper, 0.0)
        add: Statement = Assign("acc", prim("fma", seen, kernel, Ref("acc")))
        over = ranges(n, c.outs)
        return n.nest(
            parallel(
                ranges(n, [*lead(out), *c.shared, *c.ins, *spatial]),
                Let("acc", Lit(0.0)),
                *relation.gather(
                    place, types[0].spatial, [serial(over, add) if over else add], inside=own
                ),
                dx.store((*batch, c.x, *place), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = types[0].elements * types[1].shape[1] * taps(self.window)
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            w = op.weight(x, k)
            conv_dx = cls(op.window, op.groups, x.spatial, op.tiles)
            yield Sample(conv_dx, (op.infer((x, w)), w))


@operator("conv_dw")
@dataclass(frozen=True)
class ConvDw(Op):
    """x [*, C, i...], dy [*, K, o...] -> dw [K, C / groups, t k...].

    The sum over batch and space is long: partial sums per sample and first output row are added to
    the total.
    """

    window: Window
    groups: int = 1
    tiles: Tiles = ()

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
        check_tiles(self.window, self.tiles, dy.spatial)
        shape = (dy.channels, x.channels // self.groups, *mosaic(self.window, self.tiles))
        return TensorType(x.dtype, shape, batched=False)

    def reference(self, *arrays: Array) -> Array:
        x, dy = arrays
        rank, g = len(self.window), self.groups
        seen = grouped(unfold(batch_first(x, rank), self.window, 0.0), g)
        upper = grouped(batch_first(dy, rank), g)
        places = (*upper.shape[3:], *(axis.size for axis in self.window))
        upper = upper.reshape(*upper.shape[:3], -1)
        seen = seen.reshape(*seen.shape[:3], upper.shape[3], -1)
        if not self.tiles:
            dw = np.einsum("ngcot,ngko->gkct", seen, upper)
            return np.asarray(dw.reshape(-1, dw.shape[2], *places[rank:]))
        each = np.einsum("ngcot,ngko->gkcot", seen, upper)
        each = each.reshape(-1, each.shape[2], *places)
        return kernels_from(each, self.window, self.tiles)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, upper = (b[name] for name in node.inputs)
        conv_dx = ConvDx(self.window, self.groups, x.type.spatial, self.tiles)
        dx = b.add(conv_dx, upper, dy, name=f"{node.name}.dx")
        conv = Conv(self.window, self.groups, self.tiles)
        return dx, b.add(conv, x, dy, name=f"{node.name}.dy")

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x_type, dy_type = types
        c = channels(n, x_type.channels, dy_type.channels, self.groups)
        relation = Relation(n, self.window, any_lo=True)
        sharing = Sharing(n, self.window, self.tiles, dy_type.spatial)
        x = n.input("x", x_type, _axes(x_type, c.x_axis, "in"))
        dy = n.input("dy", dy_type, _axes(dy_type, c.y_axis, "s"))
        dw = n.output("dw", out, c.w_axes + sharing.axes)
        kernels, turns, kernel, place = sharing.uses()
        batch = variables(lead(x_type))
        seen = relation.load(x, (*batch, c.x), place, 0.0)
        other = dy[(*batch, c.y, *place)]
        over = [(v, ix(e)) for v, e in ranges(n, [*lead(x_type), *turns])]
        taps_of = zip(kernel, relation.all_taps(), strict=True)
        entries = [sharing.own(a, o, tap) for a, (o, tap) in enumerate(taps_of)]
        return n.nest(
            parallel(
                [*ranges(n, [*c.shared, *c.outs, *c.ins, *kernels]), *relation.taps],
                *accumulate(
                    "acc",
                    over,
                    lambda acc: prim("fma", seen, other, acc),
                    where=sharing.within(place),
                ),
                dw.store((*c.w, *entries), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = types[1].elements * out.shape[1] * taps(self.window)
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, x, k in CASES:
            conv_dw = cls(op.window, op.groups, op.tiles)
            yield Sample(conv_dw, (x, op.infer((x, op.weight(x, k)))))


def _axes(t: TensorType, channel: str, space: str) -> str:
    return " ".join([*lead(t), channel, *(f"{space}{a}" for a in range(t.rank))])


CASES: tuple[tuple[Conv, TensorType, int], ...] = tuple(
    (Conv(case.window, case.groups, case.tiles), case.x, case.outputs) for case in CONV_CASES
)
