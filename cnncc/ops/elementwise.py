"""Element by element: sums, differences, products and multiples of tensors, and the normalisation
of pixels.

Definitions: add a + b, sub a - b, mul a * b, scale f * a, neg -a; normalize (x * scale - mean) /
std per channel. In the binary operators one operand may be smaller and is repeated: a number, one
value per channel, or one value per sample and channel (`ops.base.operand_axes` has the rules); its
gradient is a sum over the axes along which it was repeated. A bias is `add` with an operand [C].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Number, Numbers
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Choose, Index, Lit, Nest, Value, Var, prim, test
from cnncc.ops.base import Array, Op, Pointwise, Sample, axis_names, layer, operand_axes, operator
from cnncc.ops.reduce import sum_like
from cnncc.tensor import DType, TensorType

F32 = DType.F32


class Binary(Pointwise):
    """A pointwise operator of two operands, either of which may be the repeated one."""

    function: ClassVar[str]  # the primitive
    sign: ClassVar[str]  # how the language writes it

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        a, b = types
        if a.dtype == b.dtype and a.dtype.is_float:
            if operand_axes(b, a) is not None:
                return a
            if operand_axes(a, b) is not None:
                return b
        raise ShapeError(
            "E0201",
            f"`{self.sign}` needs tensors of one shape, or one value per channel on one side",
            arithmetic=[f"left: {a}", f"right: {b}"],
            fixes=[_remedy(a, b)],
        )

    def scalar(self, *args: Value) -> Value:
        return prim(self.function, *args)

    def _operands(self, b: Builder, node: Node) -> tuple[Node, Node]:
        return b[node.inputs[0]], b[node.inputs[1]]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(F32, (3, 4, 5))
        others = [
            (image, image),
            (TensorType(F32, (5,)), TensorType(F32, (5,))),
            (TensorType(F32, (3, 2, 3, 4)), TensorType(F32, (3,), batched=False)),
            (image, TensorType(F32, (3,), batched=False)),
            (TensorType(F32, (3, 7)), TensorType(F32, (3,))),
            (image, TensorType(F32, (1,), batched=False)),
            (TensorType(F32, (1,)), image),
            (TensorType(F32, (3, 4, 5), batched=False), image),
            (image, TensorType(F32, (3, 1, 1), batched=False)),
        ]
        return (Sample(cls(), types) for types in others)


def _remedy(a: TensorType, b: TensorType) -> str:
    if a.dtype != b.dtype or not a.dtype.is_float:
        return "give integer inputs `scale`, `mean` and `std`, or embed them"
    if len(a.shape) != len(b.shape):
        return "reshape or flatten one of them"
    if a.shape[1:] == b.shape[1:]:
        return "give one the other's channels with a 1x1 convolution, or join them with `concat`"
    return "pad, crop or pool one of them to the other's extents"


@operator("add")
@dataclass(frozen=True)
class Add(Binary):
    """a + b."""

    function, sign = "add", "+"
    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def reference(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.asarray(a + b)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        left, right = self._operands(b, node)
        return (
            sum_like(b, dy, left, name=f"{node.name}.da"),
            sum_like(b, dy, right, name=f"{node.name}.db"),
        )


@operator("sub")
@dataclass(frozen=True)
class Sub(Binary):
    """a - b."""

    function, sign = "sub", "-"
    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def reference(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.asarray(a - b)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        left, right = self._operands(b, node)
        total = sum_like(b, dy, right, name=f"{node.name}.sum")
        return (
            sum_like(b, dy, left, name=f"{node.name}.da"),
            b.add(Neg(), total, name=f"{node.name}.db"),
        )


@operator("mul")
@dataclass(frozen=True)
class Mul(Binary):
    """a * b."""

    function, sign = "mul", "*"
    linear: ClassVar[tuple[int, ...]] = (0, 1)

    def reference(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.asarray(a * b)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        left, right = self._operands(b, node)
        da = b.add(Mul(), dy, right, name=f"{node.name}.dy_b")
        db = b.add(Mul(), dy, left, name=f"{node.name}.dy_a")
        return (
            sum_like(b, da, left, name=f"{node.name}.da"),
            sum_like(b, db, right, name=f"{node.name}.db"),
        )


@operator("scale")
@dataclass(frozen=True)
class Scale(Pointwise):
    """factor * x for a compile-time number."""

    factor: float
    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(x * self.factor)

    def scalar(self, *args: Value) -> Value:
        return prim("mul", args[0], self.factor)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.5), (TensorType(F32, (3, 4, 5)),))
        yield Sample(cls(-3.0), (TensorType(F32, (5,)),))


@operator("neg")
@dataclass(frozen=True)
class Neg(Pointwise):
    """-x."""

    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(-x)

    def scalar(self, *args: Value) -> Value:
        return prim("neg", args[0])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (TensorType(F32, (3, 4, 5)),))


@operator("normalize")
@dataclass(frozen=True)
class Normalize(Op):
    """(x * scale - mean) / std per channel, from pixels of any type to floats of type `to`.

    `mean` and `std` have one entry, or one per channel. Computed as fma(x, scale / std, -mean /
    std), the two constants rounded once.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    to: str = "f32"
    pointwise: ClassVar[bool] = True

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        for label, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, x.channels):
                raise ShapeError(
                    "E0212",
                    f"`{label}` takes one number, or one per channel",
                    arithmetic=[f"{len(values)} numbers for the {x.channels} channels of {x}"],
                    fixes=[f"give 1 or {x.channels} numbers"],
                    argument=label,
                )
        if not all(s > 0 for s in self.std):
            raise ShapeError(
                "E0213", "`std` must be positive", arithmetic=[f"std = {self.std}"], argument="std"
            )
        return x.with_dtype(DType(self.to))

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        floats = x if x.dtype.kind == "f" else x.astype(np.float64)
        column = (-1, *[1] * (x.ndim - 2))
        mean = np.asarray(self.mean, floats.dtype).reshape(column)
        std = np.asarray(self.std, floats.dtype).reshape(column)
        return np.asarray((floats * self.scale - mean) / std)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        if not b[node.inputs[0]].type.dtype.is_float:
            return (None,)
        return (
            b.add(Normalize(self.scale, (0.0,), self.std, self.to), dy, name=f"{node.name}.dx"),
        )

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join(axes))
        y = n.output("y", out, " ".join(axes))
        index = tuple(Var(f"i_{a}") for a in axes)
        entries = max(len(self.mean), len(self.std))
        mean, std = (v if len(v) == entries else v * entries for v in (self.mean, self.std))
        c = Var("i_c")
        factor = per_channel([self.scale / s for s in std], c)
        offset = per_channel([-m / s for m, s in zip(mean, std, strict=True)], c)
        body = y.store(index, prim("fma", x[index], factor, offset))
        extents = n.buffers[-1].extents
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], body))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        pixels = TensorType(DType.U8, (3, 4, 5))
        colours = cls(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        yield Sample(colours, (pixels,), exact=False, low=0, high=255)
        yield Sample(colours, (TensorType(F32, (3, 4, 5)),), exact=False)
        yield Sample(cls(0.5, (1.0,), (2.0,)), (TensorType(DType.U8, (1, 7)),), low=0, high=255)
        yield Sample(cls(1.0, (0.0,), (1.0, 2.0)), (TensorType(DType.I32, (2, 3)),))


def per_channel(values: list[float], channel: Index, first: int = 0) -> Value:
    """The constant of a channel: a tree of comparisons over first, first + 1, ..."""
    if len(set(values)) == 1:
        return Lit(values[0])
    half = len(values) // 2
    return Choose(
        test("<", channel, first + half),
        per_channel(values[:half], channel, first),
        per_channel(values[half:], channel, first + half),
    )


@layer("add", "arithmetic")
def add(b: LayerBuilder, x: Node, y: Node) -> Node:
    """The sum of two tensors of one shape, or of a tensor and one value per channel. Also written
    `x + y`.

    Example: `relu(x + y)`. PyTorch: `+`, Keras: `Add`, ONNX: `Add`.
    """
    return b.add(Add(), x, y)


@layer("sub", "arithmetic")
def sub(b: LayerBuilder, x: Node, y: Node) -> Node:
    """The difference of two tensors. Also written `x - y`.

    Example: `x - y`. PyTorch: `-`, Keras: `Subtract`, ONNX: `Sub`.
    """
    return b.add(Sub(), x, y)


@layer("mul", "arithmetic")
def mul(b: LayerBuilder, x: Node, y: Node) -> Node:
    """The elementwise product, for gates: of one shape, or one value per sample and channel. Also
    written `x * y`.

    Example: `x * (x -> globalavgpool -> dense(64) -> sigmoid)`. PyTorch: `*`, Keras: `Multiply`,
    ONNX: `Mul`.
    """
    return b.add(Mul(), x, y)


@layer("normalize", "arithmetic")
def normalize(
    b: LayerBuilder,
    x: Node,
    *,
    scale: Number = 1.0,
    mean: Numbers = (0.0,),
    std: Numbers = (1.0,),
) -> Node:
    """(x * scale - mean) / std with one mean and std, or one per channel; the result is f32.

    Inputs of pixels do it by themselves: `input image: u8[3, 32, 32] (scale = 0.004, std = 0.25)`.

    Example: `x -> normalize(mean = (0.5, 0.4, 0.3), std = 0.2)`. PyTorch: `transforms.Normalize`,
    Keras: `Normalization`, ONNX: written out.
    """
    return b.add(Normalize(scale, tuple(mean), tuple(std)), x)
