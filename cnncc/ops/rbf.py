"""Euclidean radial basis functions: how far a vector is from the code of each class, squared.

Definition: y[n, o] = sum over f of (x[n, f] - w[o, f])^2, codes [outputs, inputs]. The sum runs
over f in order, each step one fma of the difference. In LeNet-5 the codes are drawings of the
classes in numbers +1 and -1 that stay as they are. The gradients are products of matrices: with s
the sum of dy over o, dx = 2 (s x - w^T dy), and likewise for w. Source: LeCun, Bottou, Bengio and
Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), equation 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Count, Flag, Init, LayerBuilder, Weights
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Let, Lit, Nest, Ref, Var, prim
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.dense import DenseDw, DenseDx, vector
from cnncc.ops.elementwise import Mul, Scale, Sub
from cnncc.ops.reduce import SAMPLE, Sum, channel_sum
from cnncc.tensor import DType, TensorType

ROW, OUT, IN = Var("i_n"), Var("i_o"), Var("i_f")


@operator("rbf")
@dataclass(frozen=True)
class Rbf(Op):
    """(x [*, F], w [O, F]) -> [*, O]: squared Euclidean distances."""

    linear: ClassVar[tuple[int, ...]] = ()

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, w = types
        inputs = vector(x, "rbf")
        if len(w.shape) != 2 or w.shape[1] != inputs:
            raise ShapeError(
                "E0201",
                "the codes of `rbf` have one number per input",
                arithmetic=[f"the input is {x}, so {inputs} inputs", f"the codes are {w}"],
            )
        return x.with_shape(w.shape[:1])

    def reference(self, x: Array, w: Array) -> Array:  # type: ignore[override]
        return np.asarray(((x[:, None, :] - w) ** 2).sum(axis=2))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, w = (b[i] for i in node.inputs)
        own = node.name
        of_sample = b.add(Sum((SAMPLE,)), dy, name=f"{own}.dy_sample")
        of_code = channel_sum(b, dy, name=f"{own}.dy_code")
        return (
            _twice(b, x, of_sample, b.add(DenseDx(), dy, w, name=f"{own}.w_dy"), f"{own}.dx"),
            _twice(b, w, of_code, b.add(DenseDw(), x, dy, name=f"{own}.x_dy"), f"{own}.dw"),
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x, w = n.input("x", types[0], "n f"), n.input("w", types[1], "o f")
        y = n.output("y", out, "n o")
        rows, inputs = n.buffers[0].extents
        apart = Ref("apart")
        return n.nest(
            parallel(
                [("i_n", rows), ("i_o", n.buffers[1].extents[0])],
                Let("acc", Lit(0.0)),
                serial(
                    [("i_f", inputs)],
                    Let("apart", prim("sub", x[ROW, IN], w[OUT, IN])),
                    Assign("acc", prim("fma", apart, apart, Ref("acc"))),
                ),
                y.store((ROW, OUT), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(types[1].elements, 3 * types[1].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x, w = TensorType(DType.F32, (7,)), TensorType(DType.F32, (5, 7), batched=False)
        yield Sample(cls(), (x, w))
        yield Sample(cls(), (x, w), batch=3)
        one = TensorType(DType.F32, (1,))
        yield Sample(cls(), (one, TensorType(DType.F32, (1, 1), batched=False)), batch=1)


def _twice(b: Builder, own: Node, factor: Node, crossed: Node, name: str) -> Node:
    """2 (factor * own - crossed)."""
    drawn = b.add(Mul(), own, factor, name=f"{name}.own")
    return b.add(Scale(2.0), b.add(Sub(), drawn, crossed, name=f"{name}.half"), name=name)


HE = Init("he")


@layer("rbf", "dense")
def rbf(
    b: LayerBuilder,
    x: Node,
    out: Count,
    *,
    weights: Weights | None = None,
    init: Init = HE,
    frozen: Flag = False,
) -> Node:
    """The squared distance of a vector from each of `out` codes, sum (x - w)^2: small is near.

    The head of LeNet-5: with `init` the codes, in lists of one number per input, and `frozen =
    true`. A classifier by the largest score takes the negative. Parameter: `weight` [outputs,
    inputs].

    Example: `output scores = -(f6 -> rbf(10, init = codes, frozen = true))`. PyTorch: `cdist`
    squared, Keras, ONNX: written out.
    """
    shape = (out, vector(x.type, "rbf"))
    return b.add(Rbf(), x, b.parameter("weight", shape, init, shared=weights, frozen=frozen))
