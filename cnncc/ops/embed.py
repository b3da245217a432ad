"""Embedding: a learned vector for every token of a sequence.

Definition: y[n, e, l] = weight[token[n, l], e]: the vectors become the channels of a signal, so
that convolutions can follow. The weight is [vocabulary, width] as in PyTorch. A token outside 0 to
vocabulary - 1 reads zeros and learns nothing; the caller checks tokens where arrays enter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Count, Flag, Init, LayerBuilder, Weights
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Accumulate, Fetch, Guard, Lit, Nest, Var, all_of, test
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.tensor import DType, TensorType

NORMAL = Init("normal", (1.0,))
N, E, L, V = Var("i_n"), Var("i_e"), Var("i_l"), Var("i_v")
TOKEN = Fetch("tokens", (N, L))


@operator("embed")
@dataclass(frozen=True)
class Embed(Op):
    """(tokens i32 or i64 [*, L], weight [V, E]) -> [*, E, L]."""

    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        tokens, weight = types
        sequence(tokens)
        return TensorType(weight.dtype, (weight.shape[1], tokens.shape[0]))

    def reference(self, tokens: Array, weight: Array) -> Array:  # type: ignore[override]
        known = (tokens >= 0) & (tokens < len(weight))
        rows = weight[np.where(known, tokens, 0)] * known[..., None].astype(weight.dtype)
        return np.asarray(np.moveaxis(rows, -1, 1))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        tokens, weight = b[node.inputs[0]], b[node.inputs[1]]
        vocabulary = weight.type.shape[0]
        assert isinstance(vocabulary, int)
        return (None, b.add(EmbedDw(vocabulary), tokens, dy, name=f"{node.name}.dw"))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        n.input("tokens", types[0], "n l")
        weight = n.input("weight", types[1], "v e")
        y = n.output("y", out, "n e l")
        loops = [("i_n", n.size("n", n.sizes["n"])), ("i_e", n.size("e", n.sizes["e"]))]
        loops.append(("i_l", n.size("l", n.sizes["l"])))
        return n.nest(parallel(loops, y.store((N, E, L), weight.padded((TOKEN, E), 0.0))))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        weight = TensorType(DType.F32, (5, 3), batched=False)
        for dtype in (DType.I64, DType.I32):
            yield Sample(cls(), (TensorType(dtype, (7,)), weight), low=0, high=4)
        yield Sample(cls(), (TensorType(DType.I64, (9,)), weight), low=-2, high=6)


@operator("embed_dw")
@dataclass(frozen=True)
class EmbedDw(Op):
    """(tokens [*, L], dy [*, E, L]) -> [V, E]: dy summed over the places of a token, in order."""

    vocabulary: int
    linear: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return TensorType(types[1].dtype, (self.vocabulary, types[1].shape[0]), batched=False)

    def reference(self, tokens: Array, dy: Array) -> Array:  # type: ignore[override]
        dw = np.zeros((self.vocabulary, dy.shape[1]), dy.dtype)
        for n, place in np.ndindex(tokens.shape):
            if 0 <= tokens[n, place] < self.vocabulary:
                dw[tokens[n, place]] += dy[n, :, place]
        return dw

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (None, b.add(Embed(), b[node.inputs[0]], dy, name=f"{node.name}.ddy"))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        n.input("tokens", types[0], "n l")
        dy = n.input("dy", types[1], "n e l")
        dw = n.output("dw", out, "v e")
        size = {name: n.size(name, value) for name, value in list(n.sizes.items())}
        known = all_of(test("<=", 0, TOKEN), test("<", TOKEN, size["v"]))
        return n.nest(
            parallel(
                [("i_e", size["e"])],  # one owner per column, so tokens add up in order
                parallel([("i_v", size["v"])], dw.store((V, E), Lit(0.0))),
                serial(
                    [("i_n", size["n"]), ("i_l", size["l"])],
                    Guard(known, (Accumulate("dw", (TOKEN, E), dy[N, E, L]),)),
                ),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for low, high in [(0, 4), (-2, 6)]:
            types = (TensorType(DType.I64, (7,)), TensorType(DType.F32, (3, 7)))
            yield Sample(cls(5), types, low=low, high=high)


def sequence(tokens: TensorType) -> None:
    """Refuse anything but a sequence of tokens. Raises ShapeError."""
    if tokens.dtype in (DType.I32, DType.I64) and len(tokens.shape) == 1 and tokens.batched:
        return
    raise ShapeError(
        "E0210",
        "`embed` takes a sequence of token numbers",
        arithmetic=[f"the input is {tokens}"],
        fixes=["declare the input as i64[length]"],
    )


@layer("embed", "dense")
def embed(
    b: LayerBuilder,
    x: Node,
    vocabulary: Count,
    width: Count,
    *,
    weights: Weights | None = None,
    init: Init = NORMAL,
    frozen: Flag = False,
) -> Node:
    """A learned vector of `width` numbers for each token 0 to vocabulary - 1: i64[L] becomes
    f32[width, L].

    Example: `tokens -> embed(256, 16) -> conv(32, 5)`. PyTorch: `Embedding` (which puts the width
    last), Keras: `Embedding`, ONNX: `Gather`.
    """
    sequence(x.type)
    shape = (vocabulary, width)
    return b.add(Embed(), x, b.parameter("weight", shape, init, shared=weights, frozen=frozen))
