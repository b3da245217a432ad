"""The negative log-likelihood of class numbers under log-probabilities: maximum likelihood is its
minimum. Behind `log_softmax` it is the cross-entropy of the scores.

    nll   mean over samples and positions of -x_label
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Choose, Let, Lit, Nest, Ref, Var, prim, test
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.ops.loss import class_axis, label_at, label_axes, labels, mean
from cnncc.ops.softmax import at, positions, scores
from cnncc.tensor import DType, TensorType


@operator("nll")
@dataclass(frozen=True)
class NegativeLogLikelihood(Op):
    """(log-probabilities [*, K, s...], label [*, s...] or [*, 1]) -> [*, 1, s...]: -x[label].

    Labels are 0 to K - 1; the caller checks them where arrays enter.
    """

    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, label = types
        labels(scores(x, "nll"), label, "nll")
        return x.with_shape((1, *x.spatial))

    def reference(self, x: Array, label: Array) -> Array:  # type: ignore[override]
        return np.asarray(-np.take_along_axis(x, class_axis(x, label), axis=1))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, label = b[node.inputs[0]], b[node.inputs[1]]
        op = NegativeLogLikelihoodGrad(_classes(x.type))
        return (b.add(op, label, dy, name=f"{node.name}.dx"), None)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(types[0])
        x = n.input("x", types[0], " ".join(axes))
        n.input("label", types[1], label_axes(axes))
        y = n.output("y", out, " ".join("1" if a == "c" else a for a in axes))
        extents = n.buffers[0].extents
        k = Var("k_label")
        found = Choose(test("==", k, label_at(axes)), x[at(axes, k)], Ref("chosen"))
        return n.nest(
            parallel(
                positions(axes, extents),
                Let("chosen", Lit(0.0)),
                serial([("k_label", extents[1])], Assign("chosen", found)),
                parallel(
                    [("i_one", 1)], y.store(at(axes, Var("i_one")), prim("neg", Ref("chosen")))
                ),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5), (4, 6)]:
            types = (TensorType(DType.F32, shape), TensorType(DType.I64, shape[1:] or (1,)))
            yield Sample(cls(), types, low=0, high=shape[0] - 1, batch=3)


def _classes(x: TensorType) -> int:
    assert isinstance(x.channels, int)
    return x.channels


@operator("nll_grad")
@dataclass(frozen=True)
class NegativeLogLikelihoodGrad(Op):
    """(label, dy [*, 1, s...]) -> [*, classes, s...]: -dy at the label, 0 elsewhere."""

    classes: int
    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        label, dy = types
        x = dy.with_shape((self.classes, *dy.spatial))
        labels(x, label, "nll")
        return x

    def reference(self, label: Array, dy: Array) -> Array:  # type: ignore[override]
        classes = np.arange(self.classes).reshape(1, -1, *[1] * (dy.ndim - 2))
        return np.asarray(np.where(classes == class_axis(dy, label), -dy, 0).astype(dy.dtype))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        n.input("label", types[0], label_axes(axes))
        dy = n.input("dy", types[1], " ".join("1" if a == "c" else a for a in axes))
        dx = n.output("dx", out, " ".join(axes))
        extents = n.buffers[-1].extents
        c = Var("i_c")
        here = prim("neg", dy[at(axes, 0)])
        value = Choose(test("==", c, label_at(axes)), here, Lit(0.0))
        return n.nest(
            parallel(
                positions(axes, extents),
                parallel([("i_c", extents[1])], dx.store(at(axes, c), value)),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(5,), (3, 4, 5)]:
            label = TensorType(DType.I64, shape[1:] or (1,))
            dy = TensorType(DType.F32, (1, *shape[1:]))
            yield Sample(cls(shape[0]), (label, dy), low=0, high=shape[0] - 1)


@layer("nll", "loss")
def nll(b: LayerBuilder, x: Node, label: Node) -> Node:
    """The negative log-likelihood of class numbers, averaged over samples and positions; x holds
    log-probabilities, as `log_softmax` gives them.

    Targets are as in `cross_entropy`, which does both in one step and is preferable in training.
    Example: `loss = nll(y, label)` behind `output y = x -> dense(10) -> log_softmax`. PyTorch:
    `NLLLoss`, Keras: written out, ONNX: `NegativeLogLikelihoodLoss`.
    """
    return mean(b, b.add(NegativeLogLikelihood(), x, label, suffix=".each"))
