"""From statistics to the slope and offset that `affine` applies, with the gradients of that step.

Definition, per channel c with the statistics of its group: r = 1 / sqrt(variance + eps); slope =
weight * r; offset = bias - mean * slope. Statistics are [R, G] (rows mean, variance, possibly more;
running or of the batch) or [*, R, G] (each sample its own); G divides the C channels of weight and
bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import Handle, NestBuilder, parallel
from cnncc.loops.ir import Body, Index, Int, Let, Lit, Nest, Ref, Value, Var, ix, prim
from cnncc.ops.base import Array, Op, Sample, operator
from cnncc.ops.reduce import CHANNEL, Sum, accumulate, accumulate_all
from cnncc.tensor import DType, TensorType

F32 = DType.F32
N, C, G = Var("i_n"), Var("i_c"), Var("i_g")


def per_group(stats: TensorType, channels: TensorType) -> int:
    """Channels per group. Raises ShapeError."""
    groups, c = stats.shape[1], channels.shape[0]
    if isinstance(groups, int) and isinstance(c, int) and c % groups == 0:
        return c // groups
    raise ShapeError(
        "E0201",
        "the statistics' groups must divide the channels",
        arithmetic=[f"statistics: {stats}", f"per channel: {channels}"],
    )


def spread(stats: Array, channels: int) -> Array:
    """The statistics of every channel (last axis), from those of its group."""
    return np.repeat(stats, channels // stats.shape[-1], axis=-1)


class Columns:
    """How a nest reads statistics: the batch index in front if there is one, and the group of a
    channel.
    """

    def __init__(self, n: NestBuilder, types: tuple[TensorType, ...]) -> None:
        stats, weight = types[:2]
        self.batched = stats.batched
        self.lead: tuple[Index, ...] = (N,) if stats.batched else ()
        rows = stats.shape[0]
        self.stats = n.input("stats", stats, ("n " if self.batched else "") + f"{rows} g")
        self.weight = n.input("weight", weight, "c")
        self.size: Index = Int(1)
        self.single = stats.shape[1] == weight.shape[0]
        if not self.single:
            self.size = n.size("per_group", per_group(stats, weight))
        self.batch = n.size("n", n.sizes["n"]) if self.batched else None

    def loops(self, *inner: tuple[str, Index]) -> list[tuple[str, Index | int]]:
        return [*([("i_n", self.batch)] if self.batch is not None else []), *inner]

    def group(self, channel: Index) -> Index:
        return channel if self.single else channel // self.size

    def load(self, row: int, group: Index) -> Value:
        return self.stats[(*self.lead, ix(row), group)]

    def slope(self, eps: float, channel: Index) -> Body:
        """Statements that leave 1 / sqrt(variance + eps) in `r` and the slope in `slope`."""
        variance = self.load(1, self.group(channel))
        return (
            Let("r", prim("div", 1.0, prim("sqrt", prim("add", variance, eps)))),
            Let("slope", prim("mul", self.weight[channel], Ref("r"))),
        )


def samples_of() -> Iterable[tuple[TensorType, TensorType]]:
    """Statistics and a parameter per channel."""
    weight = TensorType(F32, (6,), batched=False)
    yield TensorType(F32, (2, 6), batched=False), weight
    yield TensorType(F32, (3, 6), batched=False), weight
    for groups in (6, 3, 1):
        yield TensorType(F32, (2, groups)), weight


@operator("norm_fold")
@dataclass(frozen=True)
class NormFold(Op):
    """(stats [.., R, G], weight [C], bias [C]) -> [.., 2, C]: slope and offset."""

    eps: float

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        stats, weight, _ = types
        per_group(stats, weight)
        return stats.with_shape((2, weight.shape[0]))

    def reference(self, stats: Array, weight: Array, bias: Array) -> Array:  # type: ignore[override]
        stats = spread(stats, len(weight))
        slope = weight / np.sqrt(stats[..., 1, :] + self.eps)
        return np.stack([slope, bias - stats[..., 0, :] * slope], axis=-2)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        stats, weight = b[node.inputs[0]], b[node.inputs[1]]
        name = node.name
        dstats = b.add(NormFoldDstats(self.eps), stats, weight, dy, name=f"{name}.dstats")
        dweight = b.add(NormFoldDweight(self.eps), stats, weight, dy, name=f"{name}.dweight")
        dbias = b.add(Row(1), dy, name=f"{name}.dbias")
        if dbias.type.batched:
            dbias = b.add(Sum((CHANNEL,)), dbias, name=f"{name}.dbias")
        return dstats, dweight, dbias

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        at = Columns(n, types)
        bias = n.input("bias", types[2], "c")
        fold = n.output("fold", out, ("n " if at.batched else "") + "2 c")
        mean = prim("neg", at.load(0, at.group(C)))
        return n.nest(
            parallel(
                at.loops(("i_c", n.size("c", n.sizes["c"]))),
                *at.slope(self.eps, C),
                fold.store((*at.lead, 0, C), Ref("slope")),
                fold.store((*at.lead, 1, C), prim("fma", mean, Ref("slope"), bias[C])),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for stats, weight in samples_of():
            yield Sample(cls(1e-5), (stats, weight, weight), exact=False, positive=(0,))


def _loads(at: Columns, dfold: Handle, channel: Index, group: Index) -> Value:
    """The whole derivative for the slope: the offset contains it, times -mean."""
    direct, through = dfold[(*at.lead, 0, channel)], dfold[(*at.lead, 1, channel)]
    return prim("fma", prim("neg", at.load(0, group)), through, direct)


@operator("norm_fold_dstats")
@dataclass(frozen=True)
class NormFoldDstats(Op):
    """(stats [.., R, G], weight [C], dfold [.., 2, C]) -> [.., R, G], zero below the variance.

    With ds = d_slope - mean * d_offset: d_mean = - sum over the group of slope * d_offset, and
    d_variance = - sum over the group of ds * slope * r^2 / 2.
    """

    eps: float
    linear: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, stats: Array, weight: Array, d: Array) -> Array:  # type: ignore[override]
        each = spread(stats, len(weight))
        r = 1 / np.sqrt(each[..., 1, :] + self.eps)
        ds = d[..., 0, :] - each[..., 0, :] * d[..., 1, :]
        dmean, dvariance = -weight * r * d[..., 1, :], -ds * weight * r**3 / 2
        grouped = (*stats.shape[:-2], stats.shape[-1], -1)
        result = np.zeros_like(stats, dtype=d.dtype)
        result[..., 0, :] = dmean.reshape(grouped).sum(axis=-1)
        result[..., 1, :] = dvariance.reshape(grouped).sum(axis=-1)
        return result

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        at = Columns(n, types)
        dfold = n.input("dfold", types[2], ("n " if at.batched else "") + "2 c")
        rows = out.shape[0]
        assert isinstance(rows, int)
        dstats = n.output("dstats", out, ("n " if at.batched else "") + f"{rows} g")
        k = Var("i_k")
        channel = G if at.single else G * at.size + k
        ds = _loads(at, dfold, channel, G)
        cube = prim("mul", prim("mul", Ref("slope"), Ref("r")), prim("mul", Ref("r"), -0.5))
        through = dfold[(*at.lead, 1, channel)]
        sums = accumulate_all(
            {
                "dmean": lambda acc: prim("fma", prim("neg", Ref("slope")), through, acc),
                "dvariance": lambda acc: prim("fma", ds, cube, acc),
            },
            [] if at.single else [("i_k", at.size)],
            *at.slope(self.eps, channel),
        )
        values: list[Value] = [Ref("dmean"), Ref("dvariance"), *[Lit(0.0)] * (rows - 2)]
        stores = [dstats.store((*at.lead, row, G), v) for row, v in enumerate(values)]
        return n.nest(parallel(at.loops(("i_g", n.size("g", n.sizes["g"]))), *sums, *stores))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for stats, weight in samples_of():
            dfold = TensorType(F32, (2, 6), stats.batched)
            yield Sample(cls(1e-5), (stats, weight, dfold), exact=False, positive=(0,))


@operator("norm_fold_dweight")
@dataclass(frozen=True)
class NormFoldDweight(Op):
    """(stats, weight, dfold [.., 2, C]) -> [C]: the sum over samples of (d_slope - mean * d_offset)
    * r.

    The values of the weight are not read.
    """

    eps: float
    linear: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[1]

    def reference(self, stats: Array, weight: Array, d: Array) -> Array:  # type: ignore[override]
        stats = spread(stats, len(weight))
        ds = d[..., 0, :] - stats[..., 0, :] * d[..., 1, :]
        dweight = ds / np.sqrt(stats[..., 1, :] + self.eps)
        return dweight if dweight.ndim == 1 else np.asarray(dweight.sum(axis=0))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        at = Columns(n, types)
        dfold = n.input("dfold", types[2], ("n " if at.batched else "") + "2 c")
        dweight = n.output("dweight", out, "c")
        ds = _loads(at, dfold, C, at.group(C))
        total = accumulate(
            "total",
            [("i_n", at.batch)] if at.batch is not None else [],
            lambda acc: prim("fma", ds, Ref("r"), acc),
            *at.slope(self.eps, C)[:1],
        )
        store = dweight.store((C,), Ref("total"))
        return n.nest(parallel([("i_c", n.size("c", n.sizes["c"]))], *total, store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for stats, weight in samples_of():
            dfold = TensorType(F32, (2, 6), stats.batched)
            yield Sample(cls(1e-5), (stats, weight, dfold), exact=False, positive=(0,))


@operator("row")
@dataclass(frozen=True)
class Row(Op):
    """[.., R, C] -> [.., C]: one row."""

    row: int
    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        return x.with_shape(x.shape[1:])

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(x[..., self.row, :])

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        lead, rows = ["n"] if out.batched else [], types[0].shape[0]
        x = n.input("x", types[0], " ".join([*lead, str(rows), "c"]))
        y = n.output("y", out, " ".join([*lead, "c"]))
        index = [Var(f"i_{a}") for a in [*lead, "c"]]
        loops = [(v.name, e) for v, e in zip(index, n.buffers[-1].extents, strict=True)]
        store = y.store(index, x[(*index[:-1], self.row, index[-1])])
        return n.nest(parallel(loops, store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1), (TensorType(F32, (2, 5)),))
        yield Sample(cls(2), (TensorType(F32, (3, 5), batched=False),))


@operator("stack")
@dataclass(frozen=True)
class Stack(Op):
    """(a [C], b [C]) -> [2, C], without batch: running mean and variance as statistics."""

    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        a, b = types
        if a != b or a.batched or len(a.shape) != 1:
            raise ShapeError("E0201", "rows must be of one type", arithmetic=[f"{a}, {b}"])
        return a.with_shape((2, *a.shape))

    def reference(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.stack([a, b])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return tuple(b.add(Row(i), dy, name=f"{node.name}.d{i}") for i in range(2))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        rows = [n.input(name, t, "c") for name, t in zip("ab", types, strict=True)]
        y = n.output("y", out, "2 c")
        stores = [y.store((i, C), row[C]) for i, row in enumerate(rows)]
        return n.nest(parallel([("i_c", n.size("c", n.sizes["c"]))], *stores))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(F32, (5,), batched=False)
        yield Sample(cls(), (t, t))


@operator("running_average")
@dataclass(frozen=True)
class RunningAverage(Op):
    """(old [C], stats [R, C]) -> momentum * stats[row] + (1 - momentum) * old."""

    momentum: float
    row: int
    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, old: Array, stats: Array) -> Array:  # type: ignore[override]
        return np.asarray(self.momentum * stats[self.row] + (1 - self.momentum) * old)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        old, stats = (
            n.input("old", types[0], "c"),
            n.input("stats", types[1], f"{types[1].shape[0]} c"),
        )
        new = n.output("new", out, "c")
        kept = prim("mul", old[C], 1 - self.momentum)
        store = new.store((C,), prim("fma", stats[self.row, C], self.momentum, kept))
        return n.nest(parallel([("i_c", n.size("c", n.sizes["c"]))], store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        types = (TensorType(F32, (5,), batched=False), TensorType(F32, (3, 5), batched=False))
        yield Sample(cls(0.125, 0), types)
        yield Sample(cls(0.1, 2), types, exact=False)
