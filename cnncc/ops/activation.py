"""Activations: scalar functions of one tensor, each with the operator of its gradient.

The gradient is computed from the output where that is cheaper (relu, sigmoid, tanh, stanh, elu), so
that the input need not be kept. NaN passes through all of them, as in PyTorch.

    relu        0 > x ? 0 : x                           Nair and Hinton 2010
    leaky_relu  x > 0 ? x : slope * x                   Maas, Hannun and Ng 2013
    elu         x > 0 ? x : alpha * (exp(x) - 1)        Clevert, Unterthiner and Hochreiter 2016
    gelu        x * (1 + erf(x / sqrt(2))) / 2          Hendrycks and Gimpel 2016
    sigmoid     1 / (1 + exp(-x))
    tanh        (exp(x) - exp(-x)) / (exp(x) + exp(-x))
    stanh       1.7159 * tanh(2 / 3 * x)                LeCun, Bottou, Bengio and Haffner 1998
    softplus    log(1 + exp(x))                         Dugas et al. 2001
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Number
from cnncc.loops.ir import Value, prim
from cnncc.ops.base import Array, Pointwise, Sample, layer, operator
from cnncc.tensor import DType, TensorType

STANH_AMPLITUDE, STANH_SLOPE = 1.7159, 2.0 / 3.0
_erf = np.vectorize(math.erf, otypes=[np.float64])


class Activation(Pointwise):
    """A function of one tensor of floats."""

    exact: ClassVar[bool] = False  # equals its oracle bit for bit on small integers
    from_output: ClassVar[bool] = True  # which value the gradient reads

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not x.dtype.is_float:
            raise ShapeError(
                "E0210",
                f"`{self.name}` works on floats",
                arithmetic=[f"the input is {x}"],
                fixes=["give the input `scale`, `mean` and `std`, or embed it"],
            )
        return x

    def derivative(self) -> Pointwise:
        """The operator of the gradient: (value that it reads, dy) -> dx."""
        raise NotImplementedError

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        value = node if self.from_output else b[node.inputs[0]]
        return (b.add(self.derivative(), value, dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(3, 4, 5), (5,)]:
            yield Sample(cls(), (TensorType(DType.F32, shape),), exact=cls.exact)


class Derivative(Pointwise):
    """dx of an activation from its output y or input x, and dy."""

    exact: ClassVar[bool] = False
    linear: ClassVar[tuple[int, ...]] = (1,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(), (t, t), exact=cls.exact)


def where(
    op: str, a: Value | float, b: Value | float, then: Value | float, otherwise: Value | float
) -> Value:
    """then where `a op b` holds, else otherwise; op is lt or le, and a NaN in a or b means
    otherwise.
    """
    return prim("select", prim(op, a, b), then, otherwise)


# --- relu -----------------------------------------------------------------------------------------


@operator("relu")
@dataclass(frozen=True)
class Relu(Activation):
    """0 > x ? 0 : x."""

    exact = True

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.where(x < 0, np.zeros_like(x), x)

    def scalar(self, *args: Value) -> Value:
        return where("lt", args[0], 0.0, 0.0, args[0])

    def derivative(self) -> Pointwise:
        return ReluGrad()


@operator("relu_grad")
@dataclass(frozen=True)
class ReluGrad(Derivative):
    """y <= 0 ? 0 : dy."""

    exact = True

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.where(y <= 0, np.zeros_like(dy), dy)

    def scalar(self, *args: Value) -> Value:
        return where("le", args[0], 0.0, 0.0, args[1])


# --- leaky_relu -----------------------------------------------------------------------------------


@operator("leaky_relu")
@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x > 0 ? x : slope * x."""

    slope: float = 0.01
    from_output = False  # a negative slope would hide the sign

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.where(x > 0, x, x * self.slope).astype(x.dtype)

    def scalar(self, *args: Value) -> Value:
        (x,) = args
        return where("lt", 0.0, x, x, prim("mul", x, self.slope))

    def derivative(self) -> Pointwise:
        return LeakyReluGrad(self.slope)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(0.125), (t,))
        yield Sample(cls(), (t,), exact=False)
        yield Sample(cls(-0.5), (t,))


@operator("leaky_relu_grad")
@dataclass(frozen=True)
class LeakyReluGrad(Derivative):
    """x > 0 ? dy : slope * dy."""

    slope: float = 0.01

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.where(x > 0, dy, dy * self.slope).astype(dy.dtype)

    def scalar(self, *args: Value) -> Value:
        x, dy = args
        return where("lt", 0.0, x, dy, prim("mul", dy, self.slope))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(0.125), (t, t))


# --- elu ------------------------------------------------------------------------------------------


@operator("elu")
@dataclass(frozen=True)
class Elu(Activation):
    """x > 0 ? x : alpha * (exp(x) - 1), for alpha >= 0."""

    alpha: float = 1.0

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype)

    def scalar(self, *args: Value) -> Value:
        (x,) = args
        return where("lt", 0.0, x, x, prim("mul", prim("expm1", x), self.alpha))

    def derivative(self) -> Pointwise:
        return EluGrad(self.alpha)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield from super().samples()
        yield Sample(cls(0.3), (TensorType(DType.F32, (3, 7)),), exact=False)


@operator("elu_grad")
@dataclass(frozen=True)
class EluGrad(Derivative):
    """y > 0 ? dy : dy * (y + alpha)."""

    alpha: float = 1.0

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.where(y > 0, dy, dy * (y + self.alpha)).astype(dy.dtype)

    def scalar(self, *args: Value) -> Value:
        y, dy = args
        return where("lt", 0.0, y, dy, prim("mul", dy, prim("add", y, self.alpha)))


# --- gelu -----------------------------------------------------------------------------------------


@operator("gelu")
@dataclass(frozen=True)
class Gelu(Activation):
    """x * Phi(x), Phi the distribution function of the standard normal distribution."""

    from_output = False

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(x * _normal_cdf(x), x.dtype)

    def scalar(self, *args: Value) -> Value:
        (x,) = args
        return prim("mul", x, _cdf(x))

    def derivative(self) -> Pointwise:
        return GeluGrad()


@operator("gelu_grad")
@dataclass(frozen=True)
class GeluGrad(Derivative):
    """dy * (Phi(x) + x * phi(x)), phi the density of the standard normal distribution."""

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return np.asarray(dy * (_normal_cdf(x) + x * density), dy.dtype)

    def scalar(self, *args: Value) -> Value:
        x, dy = args
        bell = prim("exp", prim("mul", prim("mul", x, x), -0.5))
        density = prim("mul", bell, 1 / math.sqrt(2 * math.pi))
        return prim("mul", dy, prim("fma", x, density, _cdf(x)))


def _normal_cdf(x: Array) -> Any:
    return (1 + _erf(x / math.sqrt(2.0))) / 2


def _cdf(x: Value) -> Value:
    return prim("fma", prim("erf", prim("mul", x, math.sqrt(0.5))), 0.5, 0.5)


# --- sigmoid, tanh, stanh -------------------------------------------------------------------------


@operator("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-x)))

    def scalar(self, *args: Value) -> Value:
        return prim("sigmoid", args[0])

    def derivative(self) -> Pointwise:
        return SigmoidGrad()


@operator("sigmoid_grad")
@dataclass(frozen=True)
class SigmoidGrad(Derivative):
    """dy * (1 - y) * y."""

    exact = True

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy * (1 - y) * y)

    def scalar(self, *args: Value) -> Value:
        y, dy = args
        return prim("mul", prim("mul", dy, prim("sub", 1.0, y)), y)


@operator("tanh")
@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(np.tanh(x))

    def scalar(self, *args: Value) -> Value:
        return prim("tanh", args[0])

    def derivative(self) -> Pointwise:
        return TanhGrad()


@operator("tanh_grad")
@dataclass(frozen=True)
class TanhGrad(Derivative):
    """dy * (1 - y * y)."""

    exact = True

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy * (1 - y * y))

    def scalar(self, *args: Value) -> Value:
        y, dy = args
        return prim("mul", dy, prim("fma", prim("neg", y), y, 1.0))


@operator("stanh")
@dataclass(frozen=True)
class Stanh(Activation):
    """1.7159 * tanh(2 / 3 * x): its value at 1 is 1, and its second derivative is largest there."""

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(STANH_AMPLITUDE * np.tanh(STANH_SLOPE * x))

    def scalar(self, *args: Value) -> Value:
        return prim("mul", prim("tanh", prim("mul", args[0], STANH_SLOPE)), STANH_AMPLITUDE)

    def derivative(self) -> Pointwise:
        return StanhGrad()


@operator("stanh_grad")
@dataclass(frozen=True)
class StanhGrad(Derivative):
    """dy * 2 / 3 * (A - y * y / A), A = 1.7159."""

    def reference(self, y: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy * STANH_SLOPE * (STANH_AMPLITUDE - y * y / STANH_AMPLITUDE))

    def scalar(self, *args: Value) -> Value:
        y, dy = args
        curve = prim("mul", y, -STANH_SLOPE / STANH_AMPLITUDE)
        return prim("mul", dy, prim("fma", curve, y, STANH_SLOPE * STANH_AMPLITUDE))


# --- softplus -------------------------------------------------------------------------------------


@operator("softplus")
@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|)), which cannot overflow."""

    from_output = False

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))

    def scalar(self, *args: Value) -> Value:
        (x,) = args
        tail = prim("log1p", prim("exp", prim("neg", prim("abs", x))))
        return prim("add", prim("max", x, 0.0), tail)

    def derivative(self) -> Pointwise:
        return SoftplusGrad()


@operator("softplus_grad")
@dataclass(frozen=True)
class SoftplusGrad(Derivative):
    """dy * sigmoid(x)."""

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(dy * Sigmoid().reference(x))

    def scalar(self, *args: Value) -> Value:
        x, dy = args
        return prim("mul", dy, prim("sigmoid", x))


# --- layers ---------------------------------------------------------------------------------------


@layer("relu", "activation")
def relu(b: LayerBuilder, x: Node) -> Node:
    """max(x, 0).

    Example: `x -> relu`. PyTorch: `ReLU`, Keras: `ReLU`, ONNX: `Relu`.
    """
    return b.add(Relu(), x)


@layer("leaky_relu", "activation")
def leaky_relu(b: LayerBuilder, x: Node, slope: Number = 0.01) -> Node:
    """x where x is positive, else slope * x.

    Example: `x -> leaky_relu(0.2)`. PyTorch: `LeakyReLU`, Keras: `LeakyReLU`, ONNX: `LeakyRelu`.
    """
    return b.add(LeakyRelu(slope), x)


@layer("elu", "activation")
def elu(b: LayerBuilder, x: Node, alpha: Number = 1.0) -> Node:
    """x where x is positive, else alpha * (exp(x) - 1).

    Example: `x -> elu`. PyTorch: `ELU`, Keras: `ELU`, ONNX: `Elu`.
    """
    if not 0 <= alpha < math.inf:
        b.error("E0213", f"`alpha` must be at least 0, but got {alpha}", argument="alpha")
    return b.add(Elu(alpha), x)


@layer("gelu", "activation")
def gelu(b: LayerBuilder, x: Node) -> Node:
    """x times the normal distribution function of x, the exact form.

    Example: `x -> gelu`. PyTorch: `GELU`, Keras: `gelu`, ONNX: `Gelu`.
    """
    return b.add(Gelu(), x)


@layer("sigmoid", "activation")
def sigmoid(b: LayerBuilder, x: Node) -> Node:
    """1 / (1 + exp(-x)).

    Example: `x -> sigmoid`. PyTorch: `Sigmoid`, Keras: `sigmoid`, ONNX: `Sigmoid`.
    """
    return b.add(Sigmoid(), x)


@layer("tanh", "activation")
def tanh(b: LayerBuilder, x: Node) -> Node:
    """The hyperbolic tangent.

    Example: `x -> tanh`. PyTorch: `Tanh`, Keras: `tanh`, ONNX: `Tanh`.
    """
    return b.add(Tanh(), x)


@layer("stanh", "activation")
def stanh(b: LayerBuilder, x: Node) -> Node:
    """The scaled hyperbolic tangent of LeNet-5, 1.7159 * tanh(2 / 3 * x).

    Example: `x -> stanh`. PyTorch, Keras, ONNX: written out.
    """
    return b.add(Stanh(), x)


@layer("softplus", "activation")
def softplus(b: LayerBuilder, x: Node) -> Node:
    """log(1 + exp(x)).

    Example: `x -> softplus`. PyTorch: `Softplus`, Keras: `softplus`, ONNX: `Softplus`.
    """
    return b.add(Softplus(), x)
