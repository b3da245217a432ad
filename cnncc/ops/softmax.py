"""Softmax over the channels, and its logarithm.

Definition: y_c = exp(x_c - m) / sum over k of exp(x_k - m), with m the largest x_k, for every
sample and position by itself; subtracting m changes nothing mathematically and keeps exp from
overflowing. Log-softmax is x_c - m - log(that sum), which no small probability rounds to log(0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.build import Handle, NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Body, Index, Let, Lit, Nest, Ref, Value, Var, prim
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.tensor import DType, TensorType


def scores(x: TensorType, who: str) -> TensorType:
    """A batched tensor of floats. Raises ShapeError."""
    if x.batched and x.dtype.is_float:
        return x
    raise ShapeError(
        "E0210", f"`{who}` works on a batch of floats", arithmetic=[f"the input is {x}"]
    )


def positions(axes: tuple[str, ...], extents: tuple[Index, ...]) -> list[tuple[str, Index]]:
    """The loops over samples and space."""
    return [(f"i_{a}", e) for a, e in zip(axes, extents, strict=True) if a != "c"]


def at(axes: tuple[str, ...], channel: Index | int) -> tuple[Index | int, ...]:
    """The index of a channel at the current sample and position."""
    return tuple(channel if a == "c" else Var(f"i_{a}") for a in axes)


def exponentials(x: Handle, axes: tuple[str, ...], channels: Index) -> Body:
    """Statements that leave the largest score in `top`, the sum of exp(score - top) in `mass`."""
    first, second = x[at(axes, Var("k_max"))], x[at(axes, Var("k_sum"))]
    return (
        Let("top", x[at(axes, 0)]),
        serial([("k_max", channels)], Assign("top", prim("max", Ref("top"), first))),
        Let("mass", Lit(0.0)),
        serial([("k_sum", channels)], Assign("mass", prim("add", Ref("mass"), raised(second)))),
    )


def raised(score: Value) -> Value:
    """exp(score - top)."""
    return prim("exp", prim("sub", score, Ref("top")))


def softmax_of(x: Array) -> Array:
    """Softmax over axis 1 of an array."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@operator("softmax")
@dataclass(frozen=True)
class Softmax(Op):
    """[*, K, s...] -> the same shape; sums to 1 over K."""

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return scores(types[0], "softmax")

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return softmax_of(x)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(SoftmaxGrad(), node, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x, y = n.input("x", types[0], " ".join(axes)), n.output("y", out, " ".join(axes))
        extents = n.buffers[0].extents
        here = at(axes, Var("i_c"))
        share = prim("div", raised(x[here]), Ref("mass"))
        return n.nest(
            parallel(
                positions(axes, extents),
                *exponentials(x, axes, extents[1]),
                parallel([("i_c", extents[1])], y.store(here, share)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=6 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (1,), (4, 6), (3, 4, 5), (3, 2, 3, 2)]:
            yield Sample(cls(), (TensorType(DType.F32, shape),), exact=False)


@operator("softmax_grad")
@dataclass(frozen=True)
class SoftmaxGrad(Op):
    """(y, dy) -> y * (dy - sum over k of y_k dy_k)."""

    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(y * (dy - (y * dy).sum(axis=1, keepdims=True)))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        y, dy = (n.input(name, out, " ".join(axes)) for name in ("y", "dy"))
        dx = n.output("dx", out, " ".join(axes))
        extents = n.buffers[0].extents
        here, other = at(axes, Var("i_c")), at(axes, Var("k"))
        dot = prim("fma", y[other], dy[other], Ref("dot"))
        return n.nest(
            parallel(
                positions(axes, extents),
                Let("dot", Lit(0.0)),
                serial([("k", extents[1])], Assign("dot", dot)),
                parallel(
                    [("i_c", extents[1])],
                    dx.store(here, prim("mul", y[here], prim("sub", dy[here], Ref("dot")))),
                ),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=4 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5)]:
            t = TensorType(DType.F32, shape)
            yield Sample(cls(), (t, t))


@operator("log_softmax")
@dataclass(frozen=True)
class LogSoftmax(Op):
    """[*, K, s...] -> the same shape: the logarithms of softmax."""

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return scores(types[0], "log_softmax")

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        shifted = x - x.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(LogSoftmaxGrad(), node, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x, y = n.input("x", types[0], " ".join(axes)), n.output("y", out, " ".join(axes))
        extents = n.buffers[0].extents
        here = at(axes, Var("i_c"))
        value = prim("sub", prim("sub", x[here], Ref("top")), Ref("log_mass"))
        return n.nest(
            parallel(
                positions(axes, extents),
                *exponentials(x, axes, extents[1]),
                Let("log_mass", prim("log", Ref("mass"))),
                parallel([("i_c", extents[1])], y.store(here, value)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=5 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (4, 6), (3, 4, 5)]:
            yield Sample(cls(), (TensorType(DType.F32, shape),), exact=False)


@operator("log_softmax_grad")
@dataclass(frozen=True)
class LogSoftmaxGrad(Op):
    """(y, dy) -> dy - exp(y) * sum over k of dy_k."""

    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy - np.exp(y) * dy.sum(axis=1, keepdims=True))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        y, dy = (n.input(name, out, " ".join(axes)) for name in ("y", "dy"))
        dx = n.output("dx", out, " ".join(axes))
        extents = n.buffers[0].extents
        here, other = at(axes, Var("i_c")), at(axes, Var("k"))
        part = prim("fma", prim("neg", prim("exp", y[here])), Ref("total"), dy[here])
        return n.nest(
            parallel(
                positions(axes, extents),
                Let("total", Lit(0.0)),
                serial([("k", extents[1])], Assign("total", prim("add", Ref("total"), dy[other]))),
                parallel([("i_c", extents[1])], dx.store(here, part)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=4 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5)]:
            t = TensorType(DType.F32, shape)
            yield Sample(cls(), (t, t), exact=False)


@layer("softmax", "activation")
def softmax(b: LayerBuilder, x: Node, *, axis: Literal["channel"] = "channel") -> Node:
    """exp(x), divided by its sum over the channels: probabilities of the classes, at every position
    by itself.

    For training give the scores before the softmax to `cross_entropy`, which contains it.
    Example: `output p = x -> dense(10) -> softmax`. PyTorch: `Softmax(dim=1)`, Keras:
    `Softmax(axis=1)`, ONNX: `Softmax`.
    """
    return b.add(Softmax(), x)


@layer("log_softmax", "activation")
def log_softmax(b: LayerBuilder, x: Node) -> Node:
    """The logarithms of softmax, computed without its underflow; what `nll` takes.

    Example: `output p = x -> dense(10) -> log_softmax`. PyTorch: `LogSoftmax(dim=1)`, Keras:
    `log_softmax`, ONNX: `LogSoftmax`.
    """
    return b.add(LogSoftmax(), x)
