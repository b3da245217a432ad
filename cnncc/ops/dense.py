"""Dense layers: every output is a weighted sum of all inputs of a vector.

Definition: y[n, o] = bias[o] + sum over f of x[n, f] * w[o, f], weights [outputs, inputs] as in
PyTorch. The sum starts from the bias and runs over f in order, each step one fma. Its two gradients
are of the same family, so the three operators are closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Count, Flag, Init, Kernel, LayerBuilder, Transposed, Weights
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Let, Lit, Nest, Ref, Value, Var, prim
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.elementwise import Add
from cnncc.ops.reduce import channel_sum
from cnncc.tensor import DType, Extent, TensorType

F32 = DType.F32
HE, ZEROS = Init("he"), Init("zeros")
ROW, OUT, IN = Var("i_n"), Var("i_o"), Var("i_f")


def vector(x: TensorType, name: str = "dense") -> Extent:
    """The extent of a batched vector of floats, which the layer `name` takes. Raises ShapeError."""
    if not x.dtype.is_float:
        raise ShapeError(
            "E0210",
            f"`{name}` works on floats",
            arithmetic=[f"the input is {x}"],
            fixes=["give the input `scale`, `mean` and `std`, or embed it"],
        )
    if len(x.shape) != 1:
        raise ShapeError(
            "E0203",
            f"`{name}` takes a vector per sample",
            arithmetic=[f"the input {x} has {len(x.shape)} axes besides the batch"],
            fixes=[
                f"`-> flatten -> {name}(...)` makes it {x.elements} inputs",
                f"`-> globalavgpool -> {name}(...)` keeps one value per channel",
            ],
        )
    return x.shape[0]


@operator("dense")
@dataclass(frozen=True)
class Dense(Op):
    """(x [*, F], w [O, F], bias [O]?) -> [*, O]."""

    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, w = types[:2]
        inputs = vector(x)
        if len(w.shape) != 2 or w.shape[1] != inputs:
            raise ShapeError(
                "E0201",
                "the weights of `dense` have one column per input",
                arithmetic=[f"the input is {x}, so {inputs} inputs", f"the weights are {w}"],
            )
        if len(types) == 3 and types[2].shape != w.shape[:1]:
            raise ShapeError(
                "E0201",
                "the bias of `dense` has one entry per output",
                arithmetic=[f"the weights are {w}", f"the bias is {types[2]}"],
            )
        return x.with_shape(w.shape[:1])

    def reference(self, x: Array, w: Array, *bias: Array) -> Array:  # type: ignore[override]
        y = x @ w.T
        return y + bias[0] if bias else y

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, w = b[node.inputs[0]], b[node.inputs[1]]
        dx = b.add(DenseDx(), dy, w, name=f"{node.name}.dx")
        dw = b.add(DenseDw(), x, dy, name=f"{node.name}.dw")
        if len(node.inputs) == 2:
            return dx, dw
        return dx, dw, channel_sum(b, dy, name=f"{node.name}.dbias")

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x, w = n.input("x", types[0], "n f"), n.input("w", types[1], "o f")
        start: Value = Lit(0.0)
        if len(types) == 3:
            start = n.input("bias", types[2], "o")[OUT]
        y = n.output("y", out, "n o")
        rows, inputs = n.buffers[0].extents
        outputs = n.buffers[1].extents[0]
        return n.nest(
            parallel(
                [("i_n", rows), ("i_o", outputs)],
                Let("acc", start),
                serial([("i_f", inputs)], _step(x[ROW, IN], w[OUT, IN])),
                y.store((ROW, OUT), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        macs = types[1].elements
        return Cost(macs, 2 * macs + (out.elements if len(types) == 3 else 0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x, w = TensorType(F32, (7,)), TensorType(F32, (5, 7), batched=False)
        yield Sample(cls(), (x, w, TensorType(F32, (5,), batched=False)))
        yield Sample(cls(), (x, w), batch=3)
        yield Sample(
            cls(), (TensorType(F32, (1,)), TensorType(F32, (1, 1), batched=False)), batch=1
        )


@operator("dense_dx")
@dataclass(frozen=True)
class DenseDx(Op):
    """(dy [*, O], w [O, F]) -> [*, F]: the gradient for the input, summed over o in order."""

    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        dy, w = types
        if dy.shape != w.shape[:1]:
            raise ShapeError("E0201", "dense_dx: dy and w disagree", arithmetic=[f"{dy}, {w}"])
        return dy.with_shape(w.shape[1:])

    def reference(self, dy: Array, w: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy @ w)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        upstream, w = b[node.inputs[0]], b[node.inputs[1]]
        return (
            b.add(Dense(), dy, w, name=f"{node.name}.ddy"),
            b.add(DenseDw(), dy, upstream, name=f"{node.name}.dw"),
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        dy, w = n.input("dy", types[0], "n o"), n.input("w", types[1], "o f")
        dx = n.output("dx", out, "n f")
        rows, outputs = n.buffers[0].extents
        inputs = n.buffers[1].extents[1]
        return n.nest(
            parallel(
                [("i_n", rows), ("i_f", inputs)],
                Let("acc", Lit(0.0)),
                serial([("i_o", outputs)], _step(dy[ROW, OUT], w[OUT, IN])),
                dx.store((ROW, IN), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(types[1].elements, 2 * types[1].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (TensorType(F32, (5,)), TensorType(F32, (5, 7), batched=False)))


@operator("dense_dw")
@dataclass(frozen=True)
class DenseDw(Op):
    """(x [*, F], dy [*, O]) -> [O, F]: the gradient for the weights, summed over the samples in
    order.
    """

    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, dy = types
        return TensorType(x.dtype, (*dy.shape, *x.shape), batched=False)

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy.T @ x)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, upstream = b[node.inputs[0]], b[node.inputs[1]]
        return (
            b.add(DenseDx(), upstream, dy, name=f"{node.name}.dx"),
            b.add(Dense(), x, dy, name=f"{node.name}.ddy"),
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        x, dy = n.input("x", types[0], "n f"), n.input("dy", types[1], "n o")
        dw = n.output("dw", out, "o f")
        outputs, inputs = n.buffers[2].extents
        rows = n.buffers[0].extents[0]
        return n.nest(
            parallel(
                [("i_o", outputs), ("i_f", inputs)],
                Let("acc", Lit(0.0)),
                serial([("i_n", rows)], _step(x[ROW, IN], dy[ROW, OUT])),
                dw.store((OUT, IN), Ref("acc")),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(out.elements, 2 * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (TensorType(F32, (7,)), TensorType(F32, (5,))), batch=3)


def _step(x: Value, w: Value) -> Assign:
    return Assign("acc", prim("fma", x, w, Ref("acc")))


@layer("dense", "dense")
def dense(
    b: LayerBuilder,
    x: Node,
    out: Count,
    *,
    bias: Literal["tied", "none"] = "tied",
    weights: Kernel | None = None,
    init: Init = HE,
    frozen: Flag = False,
) -> Node:
    """Every output is a weighted sum of all inputs; weights [outputs, inputs], one bias per output.

    The input is a vector: `flatten` or a global pool comes before it. `weights = transpose(d)`
    uses the weights of the dense layer d from its outputs to its inputs.
    Example: `x -> flatten -> dense(84) -> relu -> dense(10)`. PyTorch: `Linear`, Keras: `Dense`,
    ONNX: `Gemm`.
    """
    inputs = vector(x.type)
    if isinstance(weights, Transposed):
        y = _transposed(b, x, out, weights, suffix="" if bias == "none" else ".sum")
        if bias == "none":
            return y
        return b.add(Add(), y, b.parameter("bias", (out,), ZEROS, frozen=frozen))
    shared = weights if isinstance(weights, Weights) else None
    given = weights if isinstance(weights, Init) else init
    w = b.parameter("weight", (out, inputs), given, shared=shared, frozen=frozen)
    if bias == "none":
        return b.add(Dense(), x, w)
    return b.add(Dense(), x, w, b.parameter("bias", (out,), ZEROS, frozen=frozen))


def _transposed(b: LayerBuilder, x: Node, out: int, of: Transposed, suffix: str) -> Node:
    """x times the weights of another dense layer. Raises ShapeError E0217 where none is meant, or
    its weights do not lead from x to `out` outputs.
    """
    found = [b.graph[name] for name in of.nodes if isinstance(b.graph[name].op, Dense | DenseDx)]
    if len(found) != 1:
        raise ShapeError(
            "E0217",
            f"`transpose({of.name})` needs one dense layer in `{of.name}`, but there are "
            f"{len(found)}",
            fixes=[f"name the dense layer alone: `{of.name} = x -> dense(...)`"],
            argument="weights",
        )
    (layer_,) = found
    w = b.graph[layer_.inputs[1]]
    turned = isinstance(layer_.op, Dense)
    ins, outs = w.type.shape if turned else reversed(w.type.shape)
    if (ins, outs) != (vector(x.type), out):
        raise ShapeError(
            "E0217",
            f"`transpose({of.name})` leads from {ins} to {outs} numbers, but this layer has "
            f"{vector(x.type)} and {out}",
            arithmetic=[f"the weights of `{of.name}` are {w.type}"],
            argument="weights",
        )
    return b.add(DenseDx() if turned else Dense(), x, w, suffix=suffix)
