"""Winograd's filtering F(m x m, r x r) as operators: convolutions in fewer multiplications.

    y = A^T [ sum over c of (G w G^T) * (B^T d B) ] A

for each tile of m x m outputs, d being the n x n inputs that it reads, n = m + r - 1. The products
of the n x n places of a tile are independent: at every place p a matrix product over the channels,
group by group. `passes/winograd.py` puts these operators in the place of a convolution; results
differ from it by rounding.

With stride s the k taps of a window fall on s phases of an axis (`ops/strided_phases.py`), on each
at most r = k / s, rounded up. So the s s phases of a channel are channels of a convolution with
stride 1 and r x r taps, zeros where a phase has fewer, and are summed like others.

    u = winograd_filter(w)       w [K, C / groups, k, k] -> u [K, s s C / groups, n n]
    v = winograd_input(x)        x [*, C, h, w]          -> v [*, s s C, n n, tiles]
    z = winograd_product(v, u)                           -> z [*, K, n n, tiles]
    y = winograd_output(z, bias)                         -> y [*, K, h', w']

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cnncc.graph.ir import ShapeError
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Assign,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Nest,
    Ref,
    Statement,
    Value,
    Var,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, operator
from cnncc.ops.conv import ranges
from cnncc.ops.conv_channels import channels, check_groups, grouped
from cnncc.ops.strided_phases import of_phases, phase_channel, phased, taps_of
from cnncc.ops.sums import block_of, summed
from cnncc.ops.toom_cook import filtering, floats, parts, times, times_paired
from cnncc.tensor import DType, Extent, TensorType, evaluate

Pads = tuple[tuple[int, int], tuple[int, int]]


def tiles(extent: Extent, m: int) -> Extent:
    """Tiles of m outputs along an axis; the last may reach beyond it."""
    return (extent + (m - 1)) // m


@dataclass
class _Straight:
    """Statements that give each value a name of its own, `first` of which there are already."""

    first: int = 0
    statements: list[Statement] = field(default_factory=list)

    def __call__(self, value: Value) -> Value:
        if isinstance(value, Ref):
            return value
        name = f"v{self.first + len(self.statements)}"
        self.statements.append(Let(name, value))
        return Ref(name)


@operator("winograd_filter")
@dataclass(frozen=True)
class WinogradFilter(Op):
    """w [K, C, k, k] -> u [K, s s C, n n]: G w G^T of each of the s s phases, phases first."""

    m: int
    taps: int = 3
    stride: int = 1

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (w,) = types
        if w.batched or len(w.shape) != 4 or not self._fits(w):
            raise ShapeError("E0201", f"winograd_filter takes [K, C, k, k], but got {w}")
        k, c = w.shape[:2]
        return w.with_shape((k, self.stride**2 * c, filtering(self.m, self.taps).length ** 2))

    def _fits(self, w: TensorType) -> bool:
        down, along = w.shape[2:]
        return down == along and isinstance(down, int) and taps_of(down, self.stride) == self.taps

    def reference(self, *arrays: Array) -> Array:
        (w,) = arrays
        s, r = self.stride, self.taps
        k, c, size, _ = w.shape
        g = floats(filtering(self.m, r).g).astype(w.dtype)
        whole = np.pad(w, [(0, 0), (0, 0), *[(0, s * r - size)] * 2])
        phases = whole.reshape(k, c, r, s, r, s)
        u = np.einsum("ai,kcipjq,bj->kpqcab", g, phases, g)
        return np.asarray(u.reshape(k, s * s * c, -1))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n, f, name = NestBuilder(), filtering(self.m, self.taps), _Straight()
        r, s, size = self.taps, self.stride, types[0].shape[2]
        w = n.input("w", types[0], f"k c {size} {size}")
        channels = "c" if s == 1 else "phases"
        u = n.output("u", out, f"k {channels} {f.length**2}")
        k, c = Var("i_k"), Var("i_c")

        def tap(a: int, b: int) -> Value:
            at = (k, c, phased(a, "i_p", s), phased(b, "i_q", s))
            return name(w[at] if size == s * r else w.padded(at, 0.0))

        taps = [[tap(a, b) for b in range(r)] for a in range(r)]
        made = _transposed([times(f.g, column, name) for column in _transposed(taps)])
        rows = [times(f.g, row, name) for row in made]
        inputs = n.size("c", types[0].shape[1])
        stores = [
            u.store((k, phase_channel(inputs, s), a * f.length + b), v)
            for a, row in enumerate(rows)
            for b, v in enumerate(row)
        ]
        axes = [("i_k", n.size("k", out.shape[0])), ("i_c", inputs)]
        return n.nest(parallel(axes, *of_phases(s, *name.statements, *stores)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for m, size, stride in dict.fromkeys(case[:3] for case in CASES):
            w = TensorType(DType.F32, (5, 3, size, size), batched=False)
            taps = taps_of(size, stride)
            yield Sample(cls(m, taps, stride), (w,), exact=(m, taps) == (2, 3))


@operator("winograd_input")
@dataclass(frozen=True)
class WinogradInput(Op):
    """x [*, C, h, w] -> v [*, s s C, n n, tiles]: B^T d B of every tile of each of the s s phases,
    phases first, zeros outside x. `size`: taps of the window that the pads belong to.
    """

    m: int
    pads: Pads
    size: int = 3
    stride: int = 1

    linear = (0,)

    @property
    def taps(self) -> int:
        """Of a phase, along an axis."""
        return taps_of(self.size, self.stride)

    def extents(self, x: TensorType) -> tuple[Extent, ...]:
        """Of the convolution's result."""
        return tuple(
            (e + (sum(p) - self.size)) // self.stride + 1
            for e, p in zip(x.spatial, self.pads, strict=True)
        )

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not x.batched or x.rank != 2:
            raise ShapeError("E0201", f"winograd_input takes [*, C, h, w], but got {x}")
        h, w = (tiles(e, self.m) for e in self.extents(x))
        places = filtering(self.m, self.taps).length ** 2
        return x.with_shape((self.stride**2 * x.channels, places, h * w))

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        (x,) = arrays
        f, s = filtering(self.m, self.taps), self.stride
        h, w = (evaluate(tiles(e, self.m), {}) for e in self.extents(types[0]))
        seen = np.pad(x, [(0, 0), (0, 0), *self._outside(x.shape[2:], (h, w))])
        bt = floats(f.bt).astype(x.dtype)
        phases = []
        for p, q in np.ndindex(s, s):
            windows = np.lib.stride_tricks.sliding_window_view(
                seen[:, :, p::s, q::s], (f.length, f.length), (2, 3)
            )
            d = windows[:, :, : h * self.m : self.m, : w * self.m : self.m]
            phases.append(np.einsum("ai,nchwij,bj->ncabhw", bt, d, bt))
        v = np.concatenate(phases, axis=1)
        return np.asarray(v.reshape(*v.shape[:2], f.length**2, h * w))

    def _outside(self, extents: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
        """Positions before and behind each axis that the tiles read."""
        length = filtering(self.m, self.taps).length
        return [
            (lo, max(0, ((t - 1) * self.m + length) * self.stride - lo - e))
            for (lo, _), t, e in zip(self.pads, counts, extents, strict=True)
        ]

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n, f, s = NestBuilder(), filtering(self.m, self.taps), self.stride
        x, c = n.input("x", types[0], "n c s0 s1"), Var("i_c")
        v = n.output("v", out, f"n {'c' if s == 1 else 'phases'} {f.length**2} t")
        counts = [n.size(f"t{a}", tiles(e, self.m)) for a, e in enumerate(self.extents(types[0]))]
        lows = [n.size(f"lo{a}", lo) for a, (lo, _) in enumerate(self.pads)]
        starts = [Var(f"i_s{a}") * (self.m * s) + lows[a] * -1 for a in range(2)]

        def seen(a: int, b: int) -> Value:
            down, along = starts[0] + phased(a, "i_p", s), starts[1] + phased(b, "i_q", s)
            return x.padded((Var("i_n"), c, down, along), 0.0)

        inputs = n.size("c", types[0].channels)
        of_phase, tile = phase_channel(inputs, s), Var("i_s0") * counts[1] + Var("i_s1")
        d = [[seen(a, b) for b in range(f.length)] for a in range(f.length)]
        body: list[Statement] = []
        for part in parts(f.bt):
            name, some = _Straight(len(body)), tuple(f.bt[a] for a in part)
            made = [times(some, list(map(name, column)), name) for column in _transposed(d)]
            rows = [times(f.bt, row, name) for row in _transposed(made)]
            body += name.statements
            body += [
                v.store((Var("i_n"), of_phase, a * f.length + b, tile), value)
                for a, row in zip(part, rows, strict=True)
                for b, value in enumerate(row)
            ]
        axes = [("i_n", n.size("n", n.sizes["n"])), ("i_s0", counts[0]), ("i_s1", counts[1]),
                ("i_c", inputs)]  # fmt: skip
        return n.nest(parallel(axes, *of_phases(s, *body)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for m, size, stride, h, w, pads in CASES:
            x = TensorType(DType.F32, (3, h, w), batched=True)
            op = cls(m, pads, size, stride)
            yield Sample(op, (x,), exact=(m, op.taps) == (2, 3))


@operator("winograd_product")
@dataclass(frozen=True)
class WinogradProduct(Op):
    """v [*, C, n n, tiles], u [K, C / groups, n n] -> z [*, K, n n, tiles]: at each place the
    product over the channels of a group.
    """

    groups: int = 1

    linear = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        v, u = types
        check_groups(v.channels, u.shape[0], self.groups)
        if u.batched or u.shape[1:] != (v.channels // self.groups, v.shape[1]):
            raise ShapeError("E0201", f"winograd_product takes matching places: {v}, {u}")
        return v.with_shape((u.shape[0], *v.shape[1:]))

    def reference(self, *arrays: Array) -> Array:
        v, u = arrays
        g = self.groups
        z = np.einsum("ngcpt,gkcp->ngkpt", grouped(v, g), u.reshape(g, -1, *u.shape[1:]))
        return np.asarray(z.reshape(len(v), -1, *z.shape[3:]))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        over = channels(n, types[0].channels, out.channels, self.groups)
        v = n.input("v", types[0], f"n {over.x_axis} p t")
        u = n.input("u", types[1], f"{over.w_axes} p")
        z = n.output("z", out, f"n {over.y_axis} p t")
        sample, p, t = Var("i_n"), Var("i_p"), Var("i_t")
        loops, block = ranges(n, over.ins), block_of(types[1].shape[1])
        first: Index = Var("i_b") * block if block else Int(0)
        (k, c) = over.w
        factors = v[sample, over.x + first, p, t], u[k, c + first, p]
        add = Assign("acc", prim("fma", *factors, Ref("acc")))
        total: Statement = serial(loops, add) if loops else add
        if block:
            ((channel, _),) = loops
            parts = [("i_b", n.size("parts", types[1].shape[1] // block))]
            total = summed(parts, [(channel, block)], factors)
        return n.nest(
            parallel(
                ranges(n, ["n", *over.shared, *over.outs, "p", "t"]),
                Let("acc", Lit(0.0)),
                total,
                z.store((sample, over.y, p, t), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = out.elements * types[1].shape[1]
        return Cost(macs, 2 * macs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for groups, c, k, places, count in (
            (1, 3, 5, 4, 7), (1, 17, 33, 3, 2), (1, 2, 16, 2, 15), (1, 64, 17, 2, 9),
            (3, 6, 48, 3, 5), (2, 128, 34, 2, 3), (4, 4, 4, 2, 5),
        ):  # fmt: skip
            v = TensorType(DType.F32, (c, places, count), batched=True)
            u = TensorType(DType.F32, (k, c // groups, places), batched=False)
            yield Sample(cls(groups), (v, u))


@operator("winograd_output")
@dataclass(frozen=True)
class WinogradOutput(Op):
    """z [*, K, n n, tiles], bias [K] if any -> y [*, K, h, w]: A^T z A of every tile, plus bias."""

    m: int
    extents: tuple[Extent, Extent]
    taps: int = 3

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        z, *bias = types
        h, w = (tiles(e, self.m) for e in self.extents)
        if not z.batched or z.shape[1:] != (filtering(self.m, self.taps).length ** 2, h * w):
            raise ShapeError("E0201", f"winograd_output has no tiles of {self.extents} in {z}")
        if bias and (bias[0].batched or bias[0].shape != z.shape[:1]):
            raise ShapeError("E0201", f"winograd_output: the bias is [K], but got {bias[0]}")
        return z.with_shape((z.channels, *self.extents))

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        z, *bias = arrays
        f = filtering(self.m, self.taps)
        h, w = (evaluate(e, {}) for e in self.infer(types).spatial)
        down, right = (evaluate(tiles(e, self.m), {}) for e in (h, w))
        places = z.reshape(*z.shape[:2], f.length, f.length, down, right)
        at = floats(f.at).astype(z.dtype)
        y = np.einsum("ai,nkijhw,bj->nkhawb", at, places, at)
        y = y.reshape(*z.shape[:2], down * self.m, right * self.m)[:, :, :h, :w]
        return np.asarray(y + bias[0][:, None, None] if bias else y)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n, f, name = NestBuilder(), filtering(self.m, self.taps), _Straight()
        z = n.input("z", types[0], f"n k {f.length**2} t")
        bias = n.input("bias", types[1], "k") if len(types) > 1 else None
        y = n.output("y", out, "n k s0 s1")
        counts = [n.size(f"t{a}", tiles(e, self.m)) for a, e in enumerate(out.spatial)]
        sample: tuple[Index, ...] = (Var("i_n"), Var("i_k"))
        tile = Var("i_t0") * counts[1] + Var("i_t1")
        m = [
            [name(z[(*sample, a * f.length + b, tile)]) for b in range(f.length)]
            for a in range(f.length)
        ]
        made = _transposed([times_paired(f.at, column, name) for column in _transposed(m)])
        start = name(bias[Var("i_k")]) if bias else None
        stores: list[Statement] = []
        for a, row in enumerate(made):
            values = times_paired(f.at, row, name)
            if start is not None:
                values = [name(prim("add", value, start)) for value in values]
            places = [Var(f"i_t{k}") * self.m for k in range(2)]
            column: list[Statement] = []
            for b, value in enumerate(values):
                store = y.store((*sample, places[0] + a, places[1] + b), value)
                column += self._inside(out, 1, b, n, places[1], (store,))
            stores += self._inside(out, 0, a, n, places[0], tuple(column))
        axes = [("i_n", n.size("n", n.sizes["n"])), ("i_t0", counts[0]), ("i_t1", counts[1]),
                ("i_k", n.size("k", out.channels))]  # fmt: skip
        return n.nest(parallel(axes, *name.statements, *stores))

    def _inside(
        self, out: TensorType, axis: int, at: int, n: NestBuilder, start: Index,
        body: tuple[Statement, ...],
    ) -> tuple[Statement, ...]:  # fmt: skip
        """The body for positions of the result alone: the last tile may reach beyond it."""
        extent = out.spatial[axis]
        if at == 0 or (isinstance(extent, int) and extent % self.m == 0):
            return body
        return (Guard(test("<", start + at, n.size(f"s{axis}", extent)), body),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for m, size, stride, h, w, pads in CASES:
            v = WinogradInput(m, pads, size, stride)
            x = TensorType(DType.F32, (3, h, w), batched=True)
            extents = v.extents(x)
            z = v.infer((x,)).with_shape((5, *v.infer((x,)).shape[1:]))
            bias = TensorType(DType.F32, (5,), batched=False)
            op = cls(m, (extents[0], extents[1]), v.taps)
            yield Sample(op, (z,), exact=True)
            yield Sample(op, (z, bias), exact=True)


CASES: tuple[tuple[int, int, int, int, int, Pads], ...] = (  # m, size, stride, h, w, pads
    (2, 3, 1, 6, 8, ((1, 1), (1, 1))),
    (2, 3, 1, 7, 5, ((0, 0), (2, 1))),
    (4, 3, 1, 8, 12, ((1, 1), (1, 1))),
    (4, 3, 1, 7, 9, ((1, 1), (0, 2))),
    (2, 5, 1, 6, 9, ((2, 2), (1, 3))),
    (4, 3, 2, 11, 16, ((1, 1), (1, 0))),
    (4, 4, 2, 12, 13, ((1, 2), (0, 0))),
    (2, 7, 2, 13, 12, ((3, 3), (3, 2))),
    (3, 4, 1, 8, 9, ((1, 2), (0, 3))),
    (4, 11, 4, 27, 35, ((0, 0), (2, 1))),
)


def _transposed(rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
    return [list(column) for column in zip(*rows, strict=True)]
