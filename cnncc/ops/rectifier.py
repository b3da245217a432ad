"""Activations that are the identity on one side of zero.

relu        0 > x ? 0 : x                       Nair and Hinton 2010
leaky_relu  x > 0 ? x : slope * x               Maas, Hannun and Ng 2013
elu         x > 0 ? x : alpha * (exp(x) - 1)    Clevert, Unterthiner and Hochreiter 2016
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Node
from cnncc.graph.layer import LayerBuilder, Number
from cnncc.loops.ir import Value, prim
from cnncc.ops.activation import Activation, Derivative, where
from cnncc.ops.base import Array, Pointwise, Sample, layer, operator
from cnncc.tensor import DType, TensorType

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


@layer("relu", "activation")
def relu(b: LayerBuilder, x: Node) -> Node:
    """max(x, 0).

    Example: `x -> relu`. PyTorch: `ReLU`, Keras: `ReLU`, ONNX: `Relu`.
    """
    return b.add(Relu(), x)


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


@layer("leaky_relu", "activation")
def leaky_relu(b: LayerBuilder, x: Node, slope: Number = 0.01) -> Node:
    """x where x is positive, else slope * x.

    Example: `x -> leaky_relu(0.2)`. PyTorch: `LeakyReLU`, Keras: `LeakyReLU`, ONNX: `LeakyRelu`.
    """
    return b.add(LeakyRelu(slope), x)


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


@layer("elu", "activation")
def elu(b: LayerBuilder, x: Node, alpha: Number = 1.0) -> Node:
    """x where x is positive, else alpha * (exp(x) - 1).

    Example: `x -> elu`. PyTorch: `ELU`, Keras: `ELU`, ONNX: `Elu`.
    """
    if not 0 <= alpha < math.inf:
        b.error("E0213", f"`alpha` must be at least 0, but got {alpha}", argument="alpha")
    return b.add(Elu(alpha), x)
