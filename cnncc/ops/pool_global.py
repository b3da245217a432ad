"""Global pools: the mean or the largest element of each channel, [*, C, s...] -> [*, C].

The result is a vector of features, so that `dense` follows directly. The position of a maximum is
kept as one coordinate per axis: a coordinate passes through the compute type exactly (extents are
below 2^24), a linear index might not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Choose,
    Fetch,
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
from cnncc.ops.reduce import accumulate, count
from cnncc.ops.spatial import by, require_spatial
from cnncc.tensor import DType, Extent, TensorType, evaluate, product

LARGEST = 1 << 24  # integers up to here are exact in f32


def _images() -> Iterable[TensorType]:
    yield TensorType(DType.F32, (3, 4, 5))
    yield TensorType(DType.F32, (2, 7))
    yield TensorType(DType.F32, (2, 3, 2, 4))
    yield TensorType(DType.F32, (3, 4, 2), batched=False)


class GlobalFrame:
    """The loop axes of a nest between [*, C, s...] and [*, C]."""

    def __init__(self, n: NestBuilder, x: TensorType) -> None:
        self.names = axis_names(x)
        self.lead = self.names[: -x.rank]
        self.space = self.names[-x.rank :]
        extents: list[Extent] = [x.shape[0], *x.spatial]
        for name, extent in zip(self.names[-x.rank - 1 :], extents, strict=True):
            n.size(name, extent)
        self.n = n
        self.index = tuple(Var(f"i_{name}") for name in self.names)
        self.lead_index: tuple[Index, ...] = self.index[: len(self.lead)]
        self.place = self.index[len(self.lead) :]

    def loops(self, names: Iterable[str]) -> list[tuple[str, Index]]:
        return [(f"i_{name}", self.n.size(name, self.n.sizes[name])) for name in names]

    @property
    def positions(self) -> Index:
        return count(extent for _, extent in self.loops(self.space))


@operator("globalavgpool")
@dataclass(frozen=True)
class GlobalAverage(Op):
    """[*, C, s...] -> [*, C]: the sum over all positions, divided once."""

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        require_spatial("globalavgpool", types[0])
        return types[0].with_shape(types[0].shape[:1])

    def reference(self, *arrays: Array) -> Array:
        raise AssertionError("an array does not tell its batch axis; oracle does")

    def oracle(self, types: tuple[TensorType, ...], arrays: Iterable[Array]) -> Array:
        (x,), (t,) = tuple(arrays), types
        space = tuple(range(-t.rank, 0))
        return np.asarray(x.sum(axis=space) / x.dtype.type(np.prod(x.shape[-t.rank :])))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        op = GlobalAverageDx(b[node.inputs[0]].type.spatial)
        return (b.add(op, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x = n.input("x", types[0], " ".join(axis_names(types[0])))
        y = n.output("y", out, " ".join(axis_names(out)))
        f = GlobalFrame(n, types[0])
        return n.nest(
            parallel(
                f.loops(f.lead),
                *accumulate("acc", f.loops(f.space), lambda acc: prim("add", acc, x[f.index])),
                y.store(f.lead_index, prim("div", Ref("acc"), AsFloat(f.positions))),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(), (x,)) for x in _images())


@operator("globalavgpool_dx")
@dataclass(frozen=True)
class GlobalAverageDx(Op):
    """[*, C] -> [*, C, extents...]: dy / positions everywhere."""

    extents: tuple[Extent, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0].with_shape((*types[0].shape, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        positions = evaluate(product(self.extents), {})
        share = (dy / dy.dtype.type(positions)).reshape(*dy.shape, *[1] * len(self.extents))
        return np.broadcast_to(share, (*dy.shape, *(evaluate(e, {}) for e in self.extents))).copy()

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(GlobalAverage(), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        dy = n.input("dy", types[0], " ".join(axis_names(types[0])))
        dx = n.output("dx", out, " ".join(axis_names(out)))
        f = GlobalFrame(n, out)
        share = prim("div", dy[f.lead_index], AsFloat(f.positions))
        return n.nest(parallel(f.loops(f.names), dx.store(f.index, share)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x in _images():
            yield Sample(cls(x.spatial), (x.with_shape(x.shape[:1]),), exact=True)


@operator("globalmaxpool")
@dataclass(frozen=True)
class GlobalMax(Op):
    """[*, C, s...] -> [*, C]; a NaN is the maximum."""

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_spatial("globalmaxpool", x)
        if any(isinstance(e, int) and e > LARGEST for e in x.spatial):
            raise ShapeError(
                "E0205",
                f"globalmaxpool takes extents up to {LARGEST}",
                arithmetic=[f"input: {x}"],
                fixes=["maxpool first"],
            )
        return x.with_shape(x.shape[:1])

    def reference(self, *arrays: Array) -> Array:
        raise AssertionError("an array does not tell its batch axis; oracle does")

    def oracle(self, types: tuple[TensorType, ...], arrays: Iterable[Array]) -> Array:
        (x,), (t,) = tuple(arrays), types
        return np.asarray(x.max(axis=tuple(range(-t.rank, 0))))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        at = b.add(GlobalMaxAt(), x, name=f"{node.name}.at")
        return (b.add(GlobalMaxDx(x.type.spatial), dy, at, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x = n.input("x", types[0], " ".join(axis_names(types[0])))
        y = n.output("y", out, " ".join(axis_names(out)))
        f = GlobalFrame(n, types[0])
        step = Assign("best", prim("max", x[f.index], Ref("best")))
        return n.nest(
            parallel(
                f.loops(f.lead),
                Let("best", Lit(float("-inf"))),
                serial(f.loops(f.space), step),
                y.store(f.lead_index, Ref("best")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(), (x,)) for x in _images())


@operator("globalmaxpool_at")
@dataclass(frozen=True)
class GlobalMaxAt(Op):
    """[*, C, s...] -> i32 [*, C, axes]: the coordinates of the maximum.

    The first one in row-major order, or the last NaN.
    """

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        rank = require_spatial("globalmaxpool_at", x)
        return x.with_shape((x.channels, rank)).with_dtype(DType.I32)

    def reference(self, *arrays: Array) -> Array:
        raise AssertionError("an array does not tell its batch axis; oracle does")

    def oracle(self, types: tuple[TensorType, ...], arrays: Iterable[Array]) -> Array:
        (x,), (t,) = tuple(arrays), types
        space = x.shape[-t.rank :]
        flat = x.reshape(*x.shape[: -t.rank], -1)
        nan = np.isnan(flat)
        last_nan = flat.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        place = np.where(nan.any(axis=-1), last_nan, flat.argmax(axis=-1))
        return np.stack(np.unravel_index(place, space), axis=-1).astype(np.int32)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None,)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        names = axis_names(types[0])
        x = n.input("x", types[0], " ".join(names))
        f = GlobalFrame(n, types[0])
        at = n.output("at", out, " ".join([*f.lead, str(types[0].rank)]))
        seen, best = Ref("seen"), Ref("best")
        larger = prim("max", prim("lt", best, seen), prim("ne", seen, seen))
        rank = types[0].rank
        return n.nest(
            parallel(
                f.loops(f.lead),
                Let("best", Lit(float("-inf"))),
                *(Let(f"at{a}", Lit(0.0)) for a in range(rank)),
                serial(
                    f.loops(f.space),
                    Let("seen", x[f.index]),
                    Let("larger", larger),
                    *(
                        Assign(
                            f"at{a}",
                            prim("select", Ref("larger"), AsFloat(f.place[a]), Ref(f"at{a}")),
                        )
                        for a in range(rank)
                    ),
                    Assign("best", prim("max", seen, best)),
                ),
                *(at.store((*f.lead_index, Int(a)), Ref(f"at{a}")) for a in range(rank)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return (Sample(cls(), (x,)) for x in _images())


@operator("globalmaxpool_dx")
@dataclass(frozen=True)
class GlobalMaxDx(Op):
    """dy [*, C], coordinates [*, C, axes] -> dx [*, C, extents...]: dy there, 0 elsewhere."""

    extents: tuple[Extent, ...]

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, at = types
        if at.shape != (*dy.shape, len(self.extents)):
            raise ShapeError("E0201", f"globalmaxpool_dx: {dy} and {at} over {by(self.extents)}")
        return dy.with_shape((*dy.shape, *self.extents))

    def reference(self, *arrays: Array) -> Array:
        dy, at = arrays
        grid = np.indices([evaluate(e, {}) for e in self.extents])  # [axes, s...]
        rank = len(self.extents)
        here = np.ones((), bool)
        for a in range(rank):
            here = here & (at[..., a].reshape(*dy.shape, *[1] * rank) == grid[a])
        return np.where(here, dy.reshape(*dy.shape, *[1] * rank), dy.dtype.type(0))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        dy = n.input("dy", types[0], " ".join(axis_names(types[0])))
        f = GlobalFrame(n, out)
        n.input("at", types[1], " ".join([*f.lead, str(out.rank)]))
        dx = n.output("dx", out, " ".join(axis_names(out)))
        here = [
            test("==", Fetch("at", (*f.lead_index, Int(a))), f.place[a]) for a in range(out.rank)
        ]
        value = Choose(all_of(here[0], *here[1:]), dy[f.lead_index], Lit(0.0))
        return n.nest(parallel(f.loops(f.names), dx.store(f.index, value)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x in _images():
            at = GlobalMaxAt().infer((x,))
            yield Sample(cls(x.spatial), (x.with_shape(x.shape[:1]), at), low=0, high=2)


@layer("globalavgpool", "pooling")
def globalavgpool(b: LayerBuilder, x: Node) -> Node:
    """The mean of each channel over all positions: [C, s...] -> [C], ready for dense.

    Example: `x -> globalavgpool -> dense(10)`
    """
    return b.add(GlobalAverage(), x)


@layer("globalmaxpool", "pooling")
def globalmaxpool(b: LayerBuilder, x: Node) -> Node:
    """The largest element of each channel over all positions: [C, s...] -> [C], ready for dense.

    The gradient goes to the first maximum in row-major order.

    Example: `x -> globalmaxpool -> dense(10)`
    """
    return b.add(GlobalMax(), x)
