"""Kernels that are densities: not negative, and of sum 1 over all inputs and taps of an output.

Definition: w[k] = |v[k]| / sum |v[k]| for the stored v, so a v that is a density is its own kernel,
and a layer with such a kernel maps a constant to that constant. The gradient follows from those of
the three operators here; at v = 0 the one of |v| is taken as 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.ir import Value, prim
from cnncc.ops.base import Array, Pointwise, Sample, operator
from cnncc.ops.elementwise import Mul, Neg
from cnncc.ops.reduce import CHANNEL, Sum, sum_like
from cnncc.tensor import DType, TensorType

KERNEL = TensorType(DType.F32, (3, 2, 3), batched=False)


@operator("magnitude")
@dataclass(frozen=True)
class Magnitude(Pointwise):
    """|x|."""

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return np.asarray(np.abs(x))

    def scalar(self, *args: Value) -> Value:
        return prim("abs", args[0])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(MagnitudeGrad(), b[node.inputs[0]], dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (KERNEL,))
        yield Sample(cls(), (TensorType(DType.F32, (3, 4, 5)),))


@operator("magnitude_grad")
@dataclass(frozen=True)
class MagnitudeGrad(Pointwise):
    """dy with the sign of x, 0 where x is 0."""

    linear: ClassVar[tuple[int, ...]] = (1,)

    def reference(self, x: Array, dy: Array) -> Array:  # type: ignore[override]
        return np.asarray(np.where(x > 0, dy, np.where(x < 0, -dy, np.zeros_like(dy))))

    def scalar(self, *args: Value) -> Value:
        x, dy = args
        below = prim("select", prim("lt", x, 0.0), prim("neg", dy), 0.0)
        return prim("select", prim("lt", 0.0, x), dy, below)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        again = b.add(MagnitudeGrad(), b[node.inputs[0]], dy, name=f"{node.name}.ddy")
        return None, again

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (KERNEL, KERNEL))


@operator("quotient")
@dataclass(frozen=True)
class Quotient(Pointwise):
    """(a [K, ...], b [K] or of a's shape) -> a / b."""

    linear: ClassVar[tuple[int, ...]] = (0,)

    def reference(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.asarray(a / b)

    def scalar(self, *args: Value) -> Value:
        return prim("div", *args)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        below = b[node.inputs[1]]
        da = b.add(Quotient(), dy, below, name=f"{node.name}.da")
        products = b.add(Mul(), da, b[node.name], name=f"{node.name}.products")
        total = sum_like(b, products, below, name=f"{node.name}.sum")
        return da, b.add(Neg(), total, name=f"{node.name}.db")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        mass = TensorType(DType.F32, (3,), batched=False)
        yield Sample(cls(), (KERNEL, mass), exact=False, positive=(1,))
        yield Sample(cls(), (KERNEL, KERNEL), exact=False, positive=(1,))


def density(b: LayerBuilder, w: Node) -> Node:
    """Add the kernel [K, C, taps...] that is the density of the stored w."""
    size = b.add(Magnitude(), w, suffix=".magnitude")
    mass = b.add(Sum((CHANNEL,)), size, suffix=".mass")
    return b.add(Quotient(), size, mass, suffix=".density")
