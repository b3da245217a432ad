"""Losses: the cross-entropy of class scores, and the mean squared error.

    cross_entropy   mean over samples and positions of log(sum over k of exp(x_k)) - x_label
    mse             mean over all elements of (x - target)^2

Each is an operator with one value per position, followed by sums and a `mean`, whose result is a
number without batch, f32[1]; weighted sums of losses are `add` and `mul` of such numbers.
Cross-entropy contains the softmax, so that neither log nor exp can overflow, and its gradient is
softmax - onehot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Assign,
    Choose,
    Fetch,
    Index,
    Int,
    Let,
    Lit,
    Nest,
    Ref,
    Value,
    Var,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Pointwise, Sample, axis_names, layer, operator
from cnncc.ops.reduce import CHANNEL, SAMPLE, Mean, Sum
from cnncc.ops.softmax import at, exponentials, positions, raised, scores, softmax_of
from cnncc.tensor import DType, TensorType, product


def labels(x: TensorType, label: TensorType, who: str = "cross_entropy") -> None:
    """Refuse labels that do not belong to the scores. Raises ShapeError."""
    wanted = x.spatial or (1,)
    if label.dtype in (DType.I32, DType.I64) and label.batched and label.shape == wanted:
        return
    text = "one class number per sample" if not x.spatial else "one class number per position"
    raise ShapeError(
        "E0211",
        f"`{who}` needs {text}",
        arithmetic=[f"the scores are {x}", f"the labels are {label}"],
        fixes=[f"declare the target as i64[{', '.join(map(str, wanted))}]"]
        if x.spatial
        else [f"declare the target as class[{x.channels}]", "-> flatten, or a global pool, before"],
    )


def label_at(axes: tuple[str, ...]) -> Fetch:
    inner: tuple[Index, ...] = tuple(Var(f"i_{a}") for a in axes[2:])
    return Fetch("label", (Var("i_n"), *(inner or (Int(0),))))


def label_axes(axes: tuple[str, ...]) -> str:
    return " ".join(["n", *(axes[2:] or ["1"])])


@operator("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Op):
    """(scores [*, K, s...], label [*, s...] or [*, 1]) -> [*, 1, s...]:
    -log(softmax(scores)[label]).

    Labels are 0 to K - 1; the caller checks them where arrays enter.
    """

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, label = types
        labels(scores(x, "cross_entropy"), label)
        return x.with_shape((1, *x.spatial))

    def reference(self, x: Array, label: Array) -> Array:  # type: ignore[override]
        top = x.max(axis=1, keepdims=True)
        log_mass = np.log(np.exp(x - top).sum(axis=1, keepdims=True))
        chosen = np.take_along_axis(x, class_axis(x, label), axis=1)
        return np.asarray(log_mass - (chosen - top))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, label = b[node.inputs[0]], b[node.inputs[1]]
        return (b.add(CrossEntropyGrad(), x, label, dy, name=f"{node.name}.dx"), None)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(types[0])
        x = n.input("x", types[0], " ".join(axes))
        n.input("label", types[1], label_axes(axes))
        y = n.output("y", out, " ".join("1" if a == "c" else a for a in axes))
        extents = n.buffers[0].extents
        k = Var("k_label")
        found = Choose(test("==", k, label_at(axes)), x[at(axes, k)], Ref("chosen"))
        loss = prim("sub", prim("log", Ref("mass")), prim("sub", Ref("chosen"), Ref("top")))
        return n.nest(
            parallel(
                positions(axes, extents),
                *exponentials(x, axes, extents[1]),
                Let("chosen", Lit(0.0)),
                serial([("k_label", extents[1])], Assign("chosen", found)),
                parallel([("i_one", 1)], y.store(at(axes, Var("i_one")), loss)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=4 * types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5), (4, 6)]:
            yield Sample(
                cls(),
                (TensorType(DType.F32, shape), TensorType(DType.I64, shape[1:] or (1,))),
                exact=False,
                low=0,
                high=shape[0] - 1,
                batch=3,
            )


@operator("cross_entropy_grad")
@dataclass(frozen=True)
class CrossEntropyGrad(Op):
    """(scores, label, dy [*, 1, s...]) -> dy * (softmax(scores) - onehot(label))."""

    linear: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, x: Array, label: Array, dy: Array) -> Array:  # type: ignore[override]
        classes = np.arange(x.shape[1]).reshape(1, -1, *[1] * (x.ndim - 2))
        onehot = (classes == class_axis(x, label)).astype(x.dtype)
        return np.asarray(dy * (softmax_of(x) - onehot))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join(axes))
        n.input("label", types[1], label_axes(axes))
        dy = n.input("dy", types[2], " ".join("1" if a == "c" else a for a in axes))
        dx = n.output("dx", out, " ".join(axes))
        extents = n.buffers[0].extents
        c = Var("i_c")
        onehot = Choose(test("==", c, label_at(axes)), Lit(1.0), Lit(0.0))
        share = prim("div", raised(x[at(axes, c)]), Ref("mass"))
        value = prim("mul", dy[at(axes, 0)], prim("sub", share, onehot))
        return n.nest(
            parallel(
                positions(axes, extents),
                *exponentials(x, axes, extents[1]),
                parallel([("i_c", extents[1])], dx.store(at(axes, c), value)),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=7 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5)]:
            yield Sample(
                cls(),
                (
                    TensorType(DType.F32, shape),
                    TensorType(DType.I64, shape[1:] or (1,)),
                    TensorType(DType.F32, (1, *shape[1:])),
                ),
                exact=False,
                low=0,
                high=shape[0] - 1,
            )


def class_axis(x: Array, label: Array) -> Array:
    """The labels with a channel axis of extent 1."""
    return label.reshape(x.shape[0], 1, *x.shape[2:])


@operator("squared_error")
@dataclass(frozen=True)
class SquaredError(Pointwise):
    """(x, target) -> (x - target)^2."""

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, target = types
        if x != target:
            raise ShapeError(
                "E0211",
                "`mse` compares tensors of the same type",
                arithmetic=[f"the output is {x}", f"the target is {target}"],
                fixes=[f"declare the target as {x.dtype}[{', '.join(map(str, x.shape))}]"],
            )
        return scores(x, "mse")

    def reference(self, x: Array, target: Array) -> Array:  # type: ignore[override]
        return np.asarray((x - target) ** 2)

    def scalar(self, *args: Value) -> Value:
        difference = prim("sub", *args)
        return prim("mul", difference, difference)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, target = b[node.inputs[0]], b[node.inputs[1]]
        return (
            b.add(SquaredErrorGrad(), x, target, dy, name=f"{node.name}.dx"),
            b.add(SquaredErrorGrad(), target, x, dy, name=f"{node.name}.dtarget"),
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5)]:
            yield Sample(cls(), (TensorType(DType.F32, shape),) * 2)


@operator("squared_error_grad")
@dataclass(frozen=True)
class SquaredErrorGrad(Pointwise):
    """(x, target, dy) -> 2 * (x - target) * dy."""

    linear: ClassVar[tuple[int, ...]] = (2,)

    def reference(self, x: Array, target: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(2 * (x - target) * dy)

    def scalar(self, *args: Value) -> Value:
        x, target, dy = args
        return prim("mul", prim("mul", prim("sub", x, target), 2.0), dy)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(), (t, t, t))


def mean(b: LayerBuilder, x: Node) -> Node:
    """Add the mean of all elements of a batch; a tensor with space is summed per sample and channel
    first.
    """
    if not x.type.spatial:
        return b.add(Mean(), x)
    rows = b.add(Sum((SAMPLE, CHANNEL)), x, suffix=".sums")
    return b.add(Mean(product(x.type.spatial)), rows)


@layer("cross_entropy", "loss")
def cross_entropy(b: LayerBuilder, x: Node, label: Node) -> Node:
    """The cross-entropy of class scores (before any softmax) and class numbers, averaged over
    samples and positions.

    Scores [K] take a target `class[K]`; scores [K, H, W] take i64[H, W], one class per position.
    Example: `loss = cross_entropy(scores, label)`. PyTorch: `CrossEntropyLoss`, Keras:
    `SparseCategoricalCrossentropy(from_logits=True)`, ONNX: `SoftmaxCrossEntropyLoss`.
    """
    return mean(b, b.add(CrossEntropy(), x, label, suffix=".each"))


@layer("mse", "loss")
def mse(b: LayerBuilder, x: Node, target: Node) -> Node:
    """The squared difference from the target, averaged over all elements.

    Example: `loss = mse(image, target)`. PyTorch: `MSELoss`, Keras: `MeanSquaredError`, ONNX:
    written out.
    """
    return mean(b, b.add(SquaredError(), x, target, suffix=".each"))
