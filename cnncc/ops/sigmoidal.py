"""Activations made of exponentials.

sigmoid     1 / (1 + exp(-x))
tanh        (exp(x) - exp(-x)) / (exp(x) + exp(-x))
stanh       1.7159 * tanh(2 / 3 * x)            LeCun, Bottou, Bengio and Haffner 1998
softplus    log(1 + exp(x))                     Dugas et al. 2001
gelu        x * (1 + erf(x / sqrt(2))) / 2      Hendrycks and Gimpel 2016
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.graph.ir import Node
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.ir import Value, prim
from cnncc.ops.activation import Activation, Derivative
from cnncc.ops.base import Array, Pointwise, layer, operator

STANH_AMPLITUDE, STANH_SLOPE = 1.7159, 2.0 / 3.0
_erf = np.vectorize(math.erf, otypes=[np.float64])

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


@layer("softplus", "activation")
def softplus(b: LayerBuilder, x: Node) -> Node:
    """log(1 + exp(x)).

    Example: `x -> softplus`. PyTorch: `Softplus`, Keras: `softplus`, ONNX: `Softplus`.
    """
    return b.add(Softplus(), x)


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


@layer("gelu", "activation")
def gelu(b: LayerBuilder, x: Node) -> Node:
    """x times the normal distribution function of x, the exact form.

    Example: `x -> gelu`. PyTorch: `GELU`, Keras: `gelu`, ONNX: `Gelu`.
    """
    return b.add(Gelu(), x)
