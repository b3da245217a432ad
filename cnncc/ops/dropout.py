"""Dropout: in training every element becomes zero with probability p; the others are divided by
1 - p.

Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout" (2014), in the
inverted form that all frameworks use. The mask is a function of seed, step, layer and element
(`loops.random`), so the backward pass draws it again instead of storing it. At inference there is
no operator at all, or with `mode = mc(T)` one mask for each of T draws (`dropout_draw`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Natural, Number, Word
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Fetch, Index, Int, Nest, Uniform, Var, mod, prim
from cnncc.loops.random import uniform
from cnncc.ops.base import Array, Op, Sample, axis_names, layer, operator
from cnncc.ops.dropout_draw import MOST_DRAWS, DropoutDraw
from cnncc.ops.dropout_mask import SEEDS, STEPS, STREAMS, growth, threshold
from cnncc.tensor import DType, TensorType

RNG = TensorType(DType.I64, (2,), batched=False)  # seed, step


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
        return threshold(self.p)

    @property
    def growth(self) -> float:
        return growth(self.p)

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


MEAN = Word("mean")


@layer("dropout", "regularisation")
def dropout(
    b: LayerBuilder, x: Node, p: Number = 0.5, *, mode: Word = MEAN, seed: Natural = 0
) -> Node:
    """In training, zero with probability p, else x / (1 - p); at inference, by `mode`.

    `mode = mean` is x itself, the mean over all masks of a layer that is linear. `mode = mc(T)`
    keeps dropping: the outputs of the network are the means over T draws of masks, an estimate of
    the sum of Pr(d) Pr(y | x, d) over masks d; end such a network in softmax. The masks depend on
    `seed` and not on the sample, and all layers of a network have the same T.

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
    draws = _draws(b, mode)
    if seed >= SEEDS:
        b.error("E0213", f"`seed` is less than {SEEDS}, but got {seed}", argument="seed")
    if b.options.get("train", False):
        stream = sum(1 for node in b.graph.nodes if node.op.name == "dropout")
        return b.add(Dropout(p, stream), x, b.options["rng"])
    if draws == 1:
        return x
    stream = sum(1 for node in b.graph.nodes if node.op.name == "dropout_draw")
    return b.add(DropoutDraw(p, draws, stream=stream, seed=seed), x)


def _draws(b: LayerBuilder, mode: Word) -> int:
    """How many draws a mode takes at inference; 1 for none."""
    match mode:
        case Word("mean", (), ()):
            return 1
        case Word("mc", (int() as draws,), ()) if not isinstance(draws, bool):
            pass
        case _:
            b.error(
                "E0304",
                f"`mode` must be mean or mc(T), but got {mode}",
                argument="mode",
                fixes=["mode = mc(16)"],
            )
    if not 2 <= draws <= MOST_DRAWS:
        b.error(
            "E0213",
            f"mc takes the mean of 2 to {MOST_DRAWS} draws, but got {draws}",
            argument="mode",
            fixes=["mode = mc(16)"],
        )
    others = {n.op.draws for n in b.graph.nodes if isinstance(n.op, DropoutDraw)} - {draws}
    if others:
        b.error(
            "E0213",
            f"all layers of a network have the same number of draws, but got {draws} and "
            f"{others.pop()}",
            argument="mode",
        )
    return draws
