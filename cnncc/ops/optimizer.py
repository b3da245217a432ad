"""One step of the optimisers, element by element on tensors of a parameter's shape, as PyTorch
computes them.

    sgd      v' = momentum * v + (g + decay * w);  w' = w - rate * v'
    nesterov the same v';  w' = w - rate * ((g + decay * w) + momentum * v')
    adam     g' = g + decay * w
             m' = m + (1 - beta1) * (g' - m);  v' = beta2 * v + (1 - beta2) * g'^2
             w' = keep * w - step * m' / (sqrt(v') / root + eps)
             with step = rate / (1 - beta1^t), root = sqrt(1 - beta2^t), keep = 1
    adamw    the same with decay = 0 and keep = 1 - rate * decay

Sources: Robbins and Monro (1951), Sutskever et al. (2013, both momenta); Kingma and Ba (2015);
Loshchilov and Hutter (2019). All hyperparameters are run-time numbers, f32[1], so that a schedule
needs no new kernel; 1 - beta is one of its own, because in float32 it would lose its digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node
from cnncc.loops.ir import Value, prim
from cnncc.ops.base import Array, Pointwise, Sample, operator
from cnncc.tensor import DType, TensorType

WEIGHT = TensorType(DType.F32, (5, 3, 2, 2), batched=False)
NUMBER = TensorType(DType.F32, (1,), batched=False)


def _sum(w: Value, decay: Value, g: Value) -> Value:
    return prim("fma", decay, w, g)


class Step(Pointwise):
    """An operator on tensors of one parameter's shape, followed by numbers."""

    tensors: ClassVar[int]
    numbers: ClassVar[int]
    positive: ClassVar[tuple[int, ...]] = ()
    exact: ClassVar[bool] = True

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for t in (WEIGHT, NUMBER):
            types = (t,) * cls.tensors + (NUMBER,) * cls.numbers
            yield Sample(cls(), types, exact=cls.exact, positive=cls.positive)


@operator("sgd_velocity")
@dataclass(frozen=True)
class SgdVelocity(Step):
    """(v, g, w, momentum, decay) -> momentum * v + (g + decay * w)."""

    tensors, numbers = 3, 2

    def reference(self, v: Array, g: Array, w: Array, momentum: Array, decay: Array) -> Array:  # type: ignore[override]
        return np.asarray(momentum * v + (g + decay * w))

    def scalar(self, *args: Value) -> Value:
        v, g, w, momentum, decay = args
        return prim("fma", momentum, v, _sum(w, decay, g))


@operator("sgd_weight")
@dataclass(frozen=True)
class SgdWeight(Step):
    """(w, v, rate) -> w - rate * v."""

    tensors, numbers = 2, 1

    def reference(self, w: Array, v: Array, rate: Array) -> Array:  # type: ignore[override]
        return np.asarray(w - rate * v)

    def scalar(self, *args: Value) -> Value:
        w, v, rate = args
        return prim("fma", prim("neg", rate), v, w)


@operator("sgd_nesterov")
@dataclass(frozen=True)
class SgdNesterov(Step):
    """(w, v, g, momentum, decay, rate) -> w - rate * ((g + decay * w) + momentum * v), v the new
    velocity.
    """

    tensors, numbers = 3, 3

    def reference(  # type: ignore[override]
        self, w: Array, v: Array, g: Array, momentum: Array, decay: Array, rate: Array
    ) -> Array:
        return np.asarray(w - rate * ((g + decay * w) + momentum * v))

    def scalar(self, *args: Value) -> Value:
        w, v, g, momentum, decay, rate = args
        ahead = prim("fma", momentum, v, _sum(w, decay, g))
        return prim("fma", prim("neg", rate), ahead, w)


@operator("adam_mean")
@dataclass(frozen=True)
class AdamMean(Step):
    """(m, g, w, 1 - beta1, decay) -> m + (1 - beta1) * (g + decay * w - m)."""

    tensors, numbers = 3, 2

    def reference(self, m: Array, g: Array, w: Array, rest: Array, decay: Array) -> Array:  # type: ignore[override]
        return np.asarray(m + rest * (g + decay * w - m))

    def scalar(self, *args: Value) -> Value:
        m, g, w, rest, decay = args
        return prim("fma", rest, prim("sub", _sum(w, decay, g), m), m)


@operator("adam_square")
@dataclass(frozen=True)
class AdamSquare(Step):
    """(v, g, w, beta2, 1 - beta2, decay) -> beta2 * v + (1 - beta2) * (g + decay * w)^2."""

    tensors, numbers = 3, 3

    def reference(  # type: ignore[override]
        self, v: Array, g: Array, w: Array, beta: Array, rest: Array, decay: Array
    ) -> Array:
        return np.asarray(beta * v + rest * (g + decay * w) ** 2)

    def scalar(self, *args: Value) -> Value:
        v, g, w, beta, rest, decay = args
        gradient = _sum(w, decay, g)
        return prim("fma", prim("mul", rest, gradient), gradient, prim("mul", beta, v))


@operator("adam_weight")
@dataclass(frozen=True)
class AdamWeight(Step):
    """(w, m, v, keep, step, root, eps) -> keep * w - step * m / (sqrt(v) / root + eps)."""

    tensors, numbers = 3, 4
    positive, exact = (2, 5, 6), False

    def reference(  # type: ignore[override]
        self, w: Array, m: Array, v: Array, keep: Array, step: Array, root: Array, eps: Array
    ) -> Array:
        return np.asarray(keep * w - step * m / (np.sqrt(v) / root + eps))

    def scalar(self, *args: Value) -> Value:
        w, m, v, keep, step, root, eps = args
        below = prim("add", prim("div", prim("sqrt", v), root), eps)
        return prim("sub", prim("mul", keep, w), prim("div", prim("mul", step, m), below))


def sgd(
    b: Builder,
    w: Node,
    g: Node,
    v: Node,
    *,
    rate: Node,
    momentum: Node,
    decay: Node,
    nesterov: bool = False,
) -> tuple[Node, Node]:
    """Add a step of SGD with momentum and L2 decay: the new weight and velocity."""
    velocity = b.add(SgdVelocity(), v, g, w, momentum, decay, name=f"{w.name}.velocity")
    name = f"{w.name}.next"
    if nesterov:
        return b.add(SgdNesterov(), w, velocity, g, momentum, decay, rate, name=name), velocity
    return b.add(SgdWeight(), w, velocity, rate, name=name), velocity


@dataclass(frozen=True)
class AdamNumbers:
    """The run-time numbers of a step of Adam or AdamW, each f32[1]; the module's text says what
    they hold.
    """

    rest1: Node  # 1 - beta1
    beta2: Node
    rest2: Node  # 1 - beta2
    decay: Node
    keep: Node
    step: Node
    root: Node
    eps: Node


def adam(b: Builder, w: Node, g: Node, m: Node, v: Node, n: AdamNumbers) -> tuple[Node, Node, Node]:
    """Add a step of Adam or AdamW: the new weight, mean and mean square."""
    mean = b.add(AdamMean(), m, g, w, n.rest1, n.decay, name=f"{w.name}.mean")
    square = b.add(AdamSquare(), v, g, w, n.beta2, n.rest2, n.decay, name=f"{w.name}.square")
    new = b.add(AdamWeight(), w, mean, square, n.keep, n.step, n.root, n.eps, name=f"{w.name}.next")
    return new, mean, square
