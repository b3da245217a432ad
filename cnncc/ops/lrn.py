"""Local response normalisation across neighbouring channels, as in AlexNet.

Definition: y_c = x_c * d_c^-beta, d_c = k + alpha / size * (sum of x_j^2 over the `size` channels j
around c, those outside counting as zero). Source: Krizhevsky, Sutskever and Hinton (2012), with
alpha divided by size as PyTorch and Caffe do; an even window has its extra channel before c. Two
operators: the denominators d, and their use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Count, LayerBuilder, Number
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Assign, Index, Let, Lit, Nest, Ref, Value, Var, prim
from cnncc.ops.base import Array, Cost, Op, Pointwise, Sample, axis_names, layer, operator
from cnncc.tensor import DType, TensorType

F32 = DType.F32
SHAPES = [(5, 3, 4), (7,), (4, 6)]


def window_sum(x: Array, before: int, after: int) -> Array:
    """The sum of channels c - before to c + after at every channel c."""
    padded = np.pad(x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    width = before + after + 1
    return np.asarray(sum(padded[:, j : j + x.shape[1]] for j in range(width)))


@operator("lrn_scale")
@dataclass(frozen=True)
class LrnScale(Op):
    """x -> d = k + alpha / size * sum of x^2, channels c - size // 2 to c + (size - 1) // 2."""

    size: int
    alpha: float
    k: float

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        if not types[0].dtype.is_float:
            raise ShapeError(
                "E0210", "`lrn` works on floats", arithmetic=[f"the input is {types[0]}"]
            )
        return types[0]

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        squares = window_sum(x * x, self.size // 2, (self.size - 1) // 2)
        return np.asarray(self.k + self.alpha / self.size * squares)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        back = LrnScaleDx(self.size, self.alpha)
        return (b.add(back, b[node.inputs[0]], dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x, d = n.input("x", types[0], " ".join(axes)), n.output("d", out, " ".join(axes))
        near = x.padded(shifted(axes, -(self.size // 2)), 0.0)
        scaled = prim("fma", Ref("acc"), self.alpha / self.size, self.k)
        index = [Var(f"i_{a}") for a in axes]
        return n.nest(
            parallel(
                [(v.name, e) for v, e in zip(index, n.buffers[0].extents, strict=True)],
                Let("acc", Lit(0.0)),
                serial(
                    [("j", self.size)],
                    Let("near", near),
                    Assign("acc", prim("fma", Ref("near"), Ref("near"), Ref("acc"))),
                ),
                d.store(index, scaled),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=(2 * self.size + 2) * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in SHAPES:
            yield Sample(cls(5, 0.625, 2.0), (TensorType(F32, shape),))
        yield Sample(cls(4, 0.5, 1.0), (TensorType(F32, (5, 3, 4)),))
        yield Sample(cls(5, 1e-4, 2.0), (TensorType(F32, (5, 3, 4)),), exact=False)


def shifted(axes: tuple[str, ...], first: int) -> list[Index]:
    """The index of channel c + first + j."""
    return [Var("i_c") + Var("j") + first if a == "c" else Var(f"i_{a}") for a in axes]


@operator("lrn_scale_dx")
@dataclass(frozen=True)
class LrnScaleDx(Op):
    """(x, dd) -> 2 * alpha / size * x * sum of dd over the channels whose windows contain c."""

    size: int
    alpha: float
    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return types[0]

    def reference(self, x: Array, dd: Array) -> Array:  # type: ignore[override]
        total = window_sum(dd, (self.size - 1) // 2, self.size // 2)
        return np.asarray(2 * self.alpha / self.size * x * total)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x, dd = n.input("x", out, " ".join(axes)), n.input("dd", out, " ".join(axes))
        dx = n.output("dx", out, " ".join(axes))
        near = dd.padded(shifted(axes, -((self.size - 1) // 2)), 0.0)
        index = tuple(Var(f"i_{a}") for a in axes)
        factor = prim("mul", x[index], 2 * self.alpha / self.size)
        return n.nest(
            parallel(
                [(v.name, e) for v, e in zip(index, n.buffers[0].extents, strict=True)],
                Let("acc", Lit(0.0)),
                serial([("j", self.size)], Assign("acc", prim("add", Ref("acc"), near))),
                dx.store(index, prim("mul", factor, Ref("acc"))),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=(self.size + 2) * out.elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(F32, (5, 3, 4))
        yield Sample(cls(5, 0.625), (t, t))
        yield Sample(cls(4, 0.5), (t, t))


@operator("lrn_apply")
@dataclass(frozen=True)
class LrnApply(Pointwise):
    """(x, d) -> x * d^-beta."""

    beta: float
    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, x: Array, d: Array) -> Array:  # type: ignore[override]
        return np.asarray(x * d**-self.beta)

    def scalar(self, *args: Value) -> Value:
        x, d = args
        return prim("div", x, power(d, self.beta))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x, d = b[node.inputs[0]], b[node.inputs[1]]
        return (
            b.add(self, dy, d, name=f"{node.name}.dx"),
            b.add(LrnApplyDd(self.beta), x, d, dy, name=f"{node.name}.dd"),
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(F32, (5, 3, 4))
        for beta in (1.0, 0.75, 0.5, 0.6):
            yield Sample(cls(beta), (t, t), exact=False, positive=(1,))


@operator("lrn_apply_dd")
@dataclass(frozen=True)
class LrnApplyDd(Pointwise):
    """(x, d, dy) -> -beta * x * dy * d^-(beta + 1)."""

    beta: float
    linear: ClassVar[tuple[int, ...]] = (2,)

    def reference(self, x: Array, d: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(-self.beta * x * dy * d ** -(self.beta + 1))

    def scalar(self, *args: Value) -> Value:
        x, d, dy = args
        upper = prim("mul", prim("mul", x, dy), -self.beta)
        return prim("div", upper, prim("mul", d, power(d, self.beta)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(F32, (5, 3, 4))
        for beta in (0.75, 0.6):
            yield Sample(cls(beta), (t, t, t), exact=False, positive=(1,))


def power(d: Value, beta: float) -> Value:
    """d^beta for d > 0; square roots for the usual exponents, exp and log for the rest."""
    root = prim("sqrt", d)
    usual = {1.0: d, 0.5: root, 0.75: prim("mul", root, prim("sqrt", root))}
    return usual.get(beta) or prim("exp", prim("mul", prim("log", d), beta))


@layer("lrn", "normalisation")
def lrn(
    b: LayerBuilder,
    x: Node,
    size: Count = 5,
    *,
    alpha: Number = 1e-4,
    beta: Number = 0.75,
    k: Number = 1.0,
) -> Node:
    """Local response normalisation: every value is divided by a power of the squares in `size`
    neighbouring channels.

    AlexNet uses `lrn(5, alpha = 5e-4, k = 2)`: here alpha is divided by size, as in PyTorch and
    Caffe.
    Example: `x -> conv(96, 11x11, stride = 4) -> relu -> lrn(5)`. PyTorch: `LocalResponseNorm`,
    Keras: written out, ONNX: `LRN`.
    """
    if not (k > 0 and alpha >= 0):
        b.error(
            "E0213",
            f"`lrn` needs k > 0 and alpha >= 0, but got k = {k} and alpha = {alpha}",
            argument="k" if k <= 0 else "alpha",
        )
    return b.add(LrnApply(beta), x, b.add(LrnScale(size, alpha, k), x, suffix=".scale"))
