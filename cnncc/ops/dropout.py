"""Dropout: in training every element becomes zero with probability p; the others are divided by
1 - p.

Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout" (2014), in the
inverted form that all frameworks use. The mask is a function of seed, step, layer and element
(`loops.random`), so the backward pass draws it again instead of storing it. At inference there is
no operator at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Number
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Fetch, Index, Int, Nest, Uniform, Var, mod, prim
from cnncc.loops.random import uniform
from cnncc.ops.base import Array, Op, Sample, axis_names, layer, operator
from cnncc.tensor import DType, TensorType

RNG = TensorType(DType.I64, (2,), batched=False)  # seed, step

# The key has 62 bits: seed, step and stream side by side, so different ones never share a mask.
SEEDS, STEPS, STREAMS = 2**22, 2**26, 2**14


@operator("dropout")
@dataclass(frozen=True)
class Dropout(Op):
    """(x, rng i64[2]) -> x * (u < p ? 0 : 1 / (1 - p)), u uniform in [0, 1).

    `stream` numbers the dropouts of a network. Seeds count modulo 2^22 and steps modulo 2^26. u is
    a multiple of 2^-24, and p is rounded up to one, so that f32 and f64 drop the same elements.
    """

    p: float
    stream: int = 0
    pointwise: ClassVar[bool] = True
    linear: ClassVar[tuple[int, ...]] = (0,)

    def __post_init__(self) -> None:
        if not (0 <= self.p < 1 and 0 <= self.stream < STREAMS):
            raise ValueError(f"dropout(p={self.p}, stream={self.stream}) is out of range")

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, rng = types
        if not x.dtype.is_float or rng != RNG:
            raise ShapeError(
                "E0210",
                "`dropout` works on floats",
                arithmetic=[f"the input is {x}", f"seed and step are {rng}"],
            )
        return x

    @property
    def threshold(self) -> float:
        return math.ceil(self.p * 2**24) / 2**24

    @property
    def growth(self) -> float:
        return 1 / (1 - self.p)

    def reference(self, x: Array, rng: Array) -> Array:  # type: ignore[override]
        seed, step = (int(v) for v in rng)
        key = (seed % SEEDS * STEPS + step % STEPS) * STREAMS + self.stream
        u = uniform(key, np.arange(x.size).reshape(x.shape), x.dtype.type)
        return np.asarray(x * np.where(u < self.threshold, 0, self.growth).astype(x.dtype))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(self, dy, b[node.inputs[1]], name=f"{node.name}.dx"), None)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join(axes))
        n.input("rng", types[1], "2")
        y = n.output("y", out, " ".join(axes))
        index = tuple(Var(f"i_{a}") for a in axes)
        extents = n.buffers[-1].extents
        element: Index = Int(0)
        for v, extent in zip(index, extents, strict=True):
            element = element * extent + v
        seed, step = (Fetch("rng", (Int(i),)) for i in range(2))
        stream = n.size("stream", self.stream)
        key = (mod(seed, SEEDS) * STEPS + mod(step, STEPS)) * STREAMS + stream
        dropped = prim("lt", Uniform(key, element), self.threshold)
        factor = prim("select", dropped, 0.0, self.growth)
        store = y.store(index, prim("mul", x[index], factor))
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], store))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(0.5), (image, RNG))
        yield Sample(cls(0.75, 3), (TensorType(DType.F32, (5,)), RNG), batch=3)
        yield Sample(cls(0.3, 1), (image, RNG), exact=False)
        yield Sample(cls(0.0), (image, RNG))


@layer("dropout", "regularisation")
def dropout(b: LayerBuilder, x: Node, p: Number = 0.5) -> Node:
    """In training, zero with probability p, else x / (1 - p); at inference, x itself.

    Example: `x -> dense(4096) -> relu -> dropout(0.5)`. PyTorch: `Dropout`, Keras: `Dropout`, ONNX:
    `Dropout`.
    """
    if not 0 <= p < 1:
        b.error(
            "E0213",
            f"`p` is a probability of at least 0 and less than 1, but got {p}",
            argument="p",
            fixes=[f"p = {p / 100:g}"] if 1 < p < 100 else [],
        )
    if not b.options.get("train", False):
        return x
    stream = sum(1 for node in b.graph.nodes if node.op.name == "dropout")
    return b.add(Dropout(p, stream), x, b.options["rng"])
