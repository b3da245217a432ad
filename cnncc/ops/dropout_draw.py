"""Dropout that stays at inference: a network is a distribution over its subnetworks, and its output
the mean over T of them (Srivastava and others 2014, section 7.5; Gal and Ghahramani 2016).

Here a mask belongs to a draw, not to a sample: all samples of a batch go through the same
subnetwork, so a result does not depend on what else is in the batch, nor on the call. Masks come
from the generator of `dropout` under a key of layer, seed and draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Index, Int, Nest, Uniform, Value, Var, prim
from cnncc.loops.random import uniform
from cnncc.ops.base import Array, Op, Pointwise, Sample, axis_names, operator
from cnncc.ops.dropout_mask import SEEDS, STEPS, STREAMS, growth, threshold
from cnncc.tensor import DType, TensorType

MOST_DRAWS = 256


@operator("dropout_draw")
@dataclass(frozen=True)
class DropoutDraw(Op):
    """x [*, C, s...] -> x * (u < p ? 0 : 1 / (1 - p)), u uniform in [0, 1) for each of [C, s...].

    One of `draws` masks, the one with the number `draw`; `stream` numbers the layers of a network.
    """

    p: float
    draws: int
    draw: int = 0
    stream: int = 0
    seed: int = 0
    pointwise: ClassVar[bool] = True
    linear: ClassVar[tuple[int, ...]] = (0,)

    def __post_init__(self) -> None:
        known = 0 <= self.stream < STREAMS and 0 <= self.seed < SEEDS
        if not (0 <= self.p < 1 and 0 <= self.draw < self.draws <= MOST_DRAWS and known):
            raise ValueError(f"{self} is out of range")

    def again(self, draw: int) -> DropoutDraw:
        return replace(self, draw=draw)

    def mean(self, b: Builder, results: Sequence[Node]) -> Node:
        return b.add(MeanOf(), *results, name=f"{results[0].name}.mean", origin=results[0].origin)

    @property
    def key(self) -> int:
        return (self.seed * STEPS + self.draw) * STREAMS + self.stream

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not x.dtype.is_float:
            raise ShapeError("E0210", "`dropout` works on floats", arithmetic=[f"the input is {x}"])
        return x

    def reference(self, *arrays: Array) -> Array:
        raise AssertionError("an array does not tell its batch axis; oracle does")

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        (x,), (t,) = arrays, types
        shape = x.shape[1:] if t.batched else x.shape
        u = uniform(self.key, np.arange(int(np.prod(shape))).reshape(shape), x.dtype.type)
        return np.asarray(x * np.where(u < threshold(self.p), 0, growth(self.p)).astype(x.dtype))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x, y = n.input("x", types[0], " ".join(axes)), n.output("y", out, " ".join(axes))
        index = tuple(Var(f"i_{a}") for a in axes)
        extents = n.buffers[-1].extents
        element: Index = Int(0)
        for v, extent in list(zip(index, extents, strict=True))[1 if out.batched else 0 :]:
            element = element * extent + v
        dropped = prim("lt", Uniform(n.size("key", self.key), element), threshold(self.p))
        factor = prim("select", dropped, 0.0, growth(self.p))
        store = y.store(index, prim("mul", x[index], factor))
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(0.5, 4, 2, 1), (image,))
        yield Sample(cls(0.75, 2, seed=9), (TensorType(DType.F32, (5,)),), batch=3)
        yield Sample(cls(0.3, 8, 7), (image,), exact=False)
        yield Sample(cls(0.5, 2), (TensorType(DType.F32, (2, 3), batched=False),))


@operator("mean_of")
@dataclass(frozen=True)
class MeanOf(Pointwise):
    """T tensors of one type -> their sum in order, divided by T once."""

    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, *arrays: Array) -> Array:
        total = arrays[0]
        for more in arrays[1:]:
            total = total + more
        return np.asarray(total / total.dtype.type(len(arrays)))

    def scalar(self, *args: Value) -> Value:
        total = args[0]
        for more in args[1:]:
            total = prim("add", total, more)
        return prim("div", total, float(len(args)))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        share = b.add(ShareOf(len(node.inputs)), dy, name=f"{node.name}.dx")
        return (share,) * len(node.inputs)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(), (t, t))
        yield Sample(cls(), (t, t, t))


@operator("share_of")
@dataclass(frozen=True)
class ShareOf(Pointwise):
    """dy -> dy / draws: the gradient of a mean for each of its operands."""

    draws: int
    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        return np.asarray(dy / dy.dtype.type(self.draws))

    def scalar(self, *args: Value) -> Value:
        return prim("div", args[0], float(self.draws))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(4), (TensorType(DType.F32, (3, 4, 5)),))
        yield Sample(cls(3), (TensorType(DType.F32, (5,)),))
