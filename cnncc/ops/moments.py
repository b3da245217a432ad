"""Mean and variance of the channels, from which all normalisations are made.

`moments` reduces the space of one sample and channel; batch and group normalisation merge the
results (`batch_moments`, `group_moments`) by the parallel form of Chan, Golub and LeVeque (1983):
the variance of a union is the mean of variance + (mean - mean of the union)^2 over its equally
large parts. Each part is two-pass, so that no large numbers cancel, and samples and channels are
independent, so that any number of threads gives the same bits. A pair of rows (mean, variance) is
one tensor, [*, 2, C].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import AsFloat, Index, Let, Nest, Ref, Value, Var, prim
from cnncc.ops.affine import Affine
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, operator
from cnncc.ops.reduce import accumulate, count
from cnncc.tensor import DType, Extent, TensorType, evaluate, product

F32 = DType.F32
N, C = Var("i_n"), Var("i_c")


@operator("moments")
@dataclass(frozen=True)
class Moments(Op):
    """[*, C, s...] -> [*, 2, C]: mean and (biased) variance over the space of each sample and
    channel.
    """

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not (x.batched and x.dtype.is_float):
            raise ShapeError(
                "E0210",
                "normalisation works on a batch of floats",
                arithmetic=[f"the input is {x}"],
            )
        return x.with_shape((2, x.channels))

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        flat = x.reshape(*x.shape[:2], -1)
        return np.stack([flat.mean(axis=2), flat.var(axis=2)], axis=1)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        fold = MomentsFold(product(x.type.spatial))
        line = b.add(fold, node, dy, name=f"{node.name}.dfold")
        return (b.add(Affine(), x, line, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(types[0])
        x, m = n.input("x", types[0], " ".join(axes)), n.output("m", out, "n 2 c")
        extents = n.buffers[0].extents
        number = AsFloat(count(extents[2:]))

        def space(prefix: str) -> list[tuple[str, Index]]:
            return [(f"{prefix}_{a}", e) for a, e in zip(axes[2:], extents[2:], strict=True)]

        def here(prefix: str) -> Value:
            return x[(N, C, *(Var(f"{prefix}_{a}") for a in axes[2:]))]

        off = Ref("off")
        return n.nest(
            parallel(
                [("i_n", extents[0]), ("i_c", extents[1])],
                *accumulate("sum", space("i"), lambda acc: prim("add", acc, here("i"))),
                Let("mean", prim("div", Ref("sum"), number)),
                *accumulate(
                    "squares",
                    space("j"),
                    lambda acc: prim("fma", off, off, acc),
                    Let("off", prim("sub", here("j"), Ref("mean"))),
                ),
                m.store((N, 0, C), Ref("mean")),
                m.store((N, 1, C), prim("div", Ref("squares"), number)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=4 * types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        # powers of two: the quotients of small integers are exact
        for shape in [(5,), (3, 8), (3, 4, 2), (3, 2, 2, 4)]:
            yield Sample(cls(), (TensorType(F32, shape),))
        yield Sample(cls(), (TensorType(F32, (3, 5, 7)),), exact=False)


@operator("moments_fold")
@dataclass(frozen=True)
class MomentsFold(Op):
    """(m [*, 2, C], dm [*, 2, C]) -> [*, 2, C]: slope and offset of dx = slope * x + offset, the
    gradient of `moments`.

    With S positions: dx = dm_mean / S + dm_variance * 2 * (x - mean) / S.
    """

    positions: Extent

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[1]

    def reference(self, m: Array, dm: Array) -> Array:  # type: ignore[override]
        s = evaluate(self.positions, {})
        slope = 2 * dm[:, 1] / s
        return np.stack([slope, dm[:, 0] / s - slope * m[:, 0]], axis=1)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        m, dm = n.input("m", types[0], "n 2 c"), n.input("dm", types[1], "n 2 c")
        fold = n.output("fold", out, "n 2 c")
        extents = n.buffers[0].extents
        number = AsFloat(n.size("positions", self.positions))
        slope = prim("div", prim("mul", dm[N, 1, C], 2.0), number)
        constant = prim("div", dm[N, 0, C], number)
        return n.nest(
            parallel(
                [("i_n", extents[0]), ("i_c", extents[2])],
                Let("slope", slope),
                fold.store((N, 0, C), Ref("slope")),
                fold.store((N, 1, C), prim("fma", prim("neg", Ref("slope")), m[N, 0, C], constant)),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        m = TensorType(F32, (2, 3))
        yield Sample(cls(8), (m, m))
        yield Sample(cls(5), (m, m), exact=False)


@operator("batch_moments")
@dataclass(frozen=True)
class BatchMoments(Op):
    """[*, 2, C] -> [3, C]: mean, biased and unbiased variance of the batch, each sample having
    `positions` elements.

    The unbiased variance of a single element is 0 (PyTorch refuses to train on one).
    """

    positions: Extent

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (m,) = types
        return TensorType(m.dtype, (3, m.shape[1]), batched=False)

    def reference(self, m: Array) -> Array:  # type: ignore[override]
        mean = m[:, 0].mean(axis=0)
        variance = (m[:, 1] + (m[:, 0] - mean) ** 2).mean(axis=0)
        return np.stack([mean, variance, variance * self._unbiased(len(m))])

    def _unbiased(self, batch: int) -> float:
        elements = batch * evaluate(self.positions, {})
        return elements / max(elements - 1, 1)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        m = b[node.inputs[0]]
        back = BatchMomentsGrad(self.positions)
        return (b.add(back, m, node, dy, name=f"{node.name}.dm"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        m, stats = n.input("m", types[0], "n 2 c"), n.output("stats", out, "3 c")
        batch, _, channels = n.buffers[0].extents
        number = AsFloat(batch)
        again, off = Var("j_n"), Ref("off")
        return n.nest(
            parallel(
                [("i_c", channels)],
                *accumulate("sum", [("i_n", batch)], lambda acc: prim("add", acc, m[N, 0, C])),
                Let("mean", prim("div", Ref("sum"), number)),
                *accumulate(
                    "spread",
                    [("j_n", batch)],
                    lambda acc: prim("add", acc, prim("fma", off, off, m[again, 1, C])),
                    Let("off", prim("sub", m[again, 0, C], Ref("mean"))),
                ),
                Let("variance", prim("div", Ref("spread"), number)),
                stats.store((0, C), Ref("mean")),
                stats.store((1, C), Ref("variance")),
                stats.store((2, C), prim("mul", Ref("variance"), self._correction(n, batch))),
            )
        )

    def _correction(self, n: NestBuilder, batch: Index) -> Value:
        return unbiased(batch * n.size("positions", self.positions))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        m = TensorType(F32, (2, 3))
        yield Sample(cls(20), (m,), exact=False, batch=3)
        yield Sample(cls(1), (m,), exact=False, batch=1)


def unbiased(elements: Index) -> Value:
    """n / (n - 1), or 1 for a single element."""
    return prim("div", AsFloat(elements), prim("max", AsFloat(elements - 1), 1.0))


@operator("batch_moments_grad")
@dataclass(frozen=True)
class BatchMomentsGrad(Op):
    """(m [*, 2, C], stats [3, C], dstats [3, C]) -> dm [*, 2, C].

    With B samples and dv = d_biased + d_unbiased * n / (n - 1):
    dm_mean = d_mean / B + 2 * dv * (mean - mean of the batch) / B, dm_variance = dv / B.
    """

    positions: Extent

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, m: Array, stats: Array, d: Array) -> Array:  # type: ignore[override]
        elements = len(m) * evaluate(self.positions, {})
        dv = (d[1] + d[2] * (elements / max(elements - 1, 1))) / len(m)
        dmean = d[0] / len(m) + 2 * dv * (m[:, 0] - stats[0])
        return np.stack([dmean, np.broadcast_to(dv, dmean.shape)], axis=1)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        m, stats = n.input("m", types[0], "n 2 c"), n.input("stats", types[1], "3 c")
        d, dm = n.input("d", types[2], "3 c"), n.output("dm", out, "n 2 c")
        batch, _, channels = n.buffers[0].extents
        number, factor = AsFloat(batch), unbiased(batch * n.size("positions", self.positions))
        dv = prim("div", prim("fma", d[2, C], factor, d[1, C]), number)
        off = prim("sub", m[N, 0, C], stats[0, C])
        dmean = prim("div", d[0, C], number)
        return n.nest(
            parallel(
                [("i_n", batch), ("i_c", channels)],
                Let("dv", dv),
                dm.store((N, 0, C), prim("fma", prim("mul", Ref("dv"), 2.0), off, dmean)),
                dm.store((N, 1, C), Ref("dv")),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        m, stats = TensorType(F32, (2, 3)), TensorType(F32, (3, 3), batched=False)
        yield Sample(cls(20), (m, stats, stats), exact=False, batch=3)


def _divisors(channels: Extent, wanted: int) -> list[str]:
    """The two numbers of groups that divide the channels and are nearest to the wanted one."""
    if not isinstance(channels, int):
        return []
    fitting = (g for g in range(1, channels + 1) if channels % g == 0)
    nearest = sorted(fitting, key=lambda g: abs(g - wanted))[:2]
    return [f"{g} group{'s' if g > 1 else ''} of {channels // g} channels" for g in nearest]


@operator("group_moments")
@dataclass(frozen=True)
class GroupMoments(Op):
    """[*, 2, C] -> [*, 2, groups]: mean and biased variance over `groups` equal groups of
    neighbouring channels.
    """

    groups: int

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (m,) = types
        if not isinstance(m.shape[1], int) or m.shape[1] % self.groups:
            raise ShapeError(
                "E0204",
                "the number of groups must divide the channels",
                arithmetic=[f"{m.shape[1]} channels, {self.groups} groups"],
                fixes=_divisors(m.shape[1], self.groups),
                argument="groups",
            )
        return m.with_shape((2, self.groups))

    def reference(self, m: Array) -> Array:  # type: ignore[override]
        parts = m.reshape(len(m), 2, self.groups, -1)
        mean = parts[:, 0].mean(axis=2)
        variance = (parts[:, 1] + (parts[:, 0] - mean[..., None]) ** 2).mean(axis=2)
        return np.stack([mean, variance], axis=1)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        m = b[node.inputs[0]]
        return (b.add(GroupMomentsGrad(self.groups), m, node, dy, name=f"{node.name}.dm"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        m, stats = n.input("m", types[0], "n 2 c"), n.output("stats", out, "n 2 g")
        channels = types[0].shape[1]
        assert isinstance(channels, int)
        per_group = n.size("per_group", channels // self.groups)
        number, g = AsFloat(per_group), Var("i_g")
        first, second = g * per_group + Var("i_k"), g * per_group + Var("j_k")
        off = Ref("off")
        return n.nest(
            parallel(
                [("i_n", n.buffers[0].extents[0]), ("i_g", n.buffers[1].extents[2])],
                *accumulate(
                    "sum", [("i_k", per_group)], lambda acc: prim("add", acc, m[N, 0, first])
                ),
                Let("mean", prim("div", Ref("sum"), number)),
                *accumulate(
                    "spread",
                    [("j_k", per_group)],
                    lambda acc: prim("add", acc, prim("fma", off, off, m[N, 1, second])),
                    Let("off", prim("sub", m[N, 0, second], Ref("mean"))),
                ),
                stats.store((N, 0, g), Ref("mean")),
                stats.store((N, 1, g), prim("div", Ref("spread"), number)),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        m = TensorType(F32, (2, 6))
        for groups in (1, 2, 3, 6):
            yield Sample(cls(groups), (m,), exact=False)


@operator("group_moments_grad")
@dataclass(frozen=True)
class GroupMomentsGrad(Op):
    """(m [*, 2, C], stats [*, 2, G], dstats [*, 2, G]) -> dm [*, 2, C], as `batch_moments_grad`
    with C / G parts.
    """

    groups: int

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, m: Array, stats: Array, d: Array) -> Array:  # type: ignore[override]
        k = m.shape[2] // self.groups
        stats, d = np.repeat(stats, k, axis=2), np.repeat(d, k, axis=2)
        dv = d[:, 1] / k
        return np.stack([d[:, 0] / k + 2 * dv * (m[:, 0] - stats[:, 0]), dv], axis=1)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        m, stats = n.input("m", types[0], "n 2 c"), n.input("stats", types[1], "n 2 g")
        d, dm = n.input("d", types[2], "n 2 g"), n.output("dm", out, "n 2 c")
        batch, _, channels = n.buffers[0].extents
        assert isinstance(types[0].shape[1], int)
        per_group = n.size("per_group", types[0].shape[1] // self.groups)
        g, number = C // per_group, AsFloat(per_group)
        off = prim("sub", m[N, 0, C], stats[N, 0, g])
        dmean = prim("div", d[N, 0, g], number)
        return n.nest(
            parallel(
                [("i_n", batch), ("i_c", channels)],
                Let("dv", prim("div", d[N, 1, g], number)),
                dm.store((N, 0, C), prim("fma", prim("mul", Ref("dv"), 2.0), off, dmean)),
                dm.store((N, 1, C), Ref("dv")),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for groups in (1, 3):
            stats = TensorType(F32, (2, groups))
            yield Sample(cls(groups), (TensorType(F32, (2, 6)), stats, stats), exact=False)
