"""Cropping: removes positions at both ends of the spatial axes. The adjoint of zero padding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad
from cnncc.loops.ir import Nest
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.grid import GridNest
from cnncc.ops.pad import BorderPad
from cnncc.ops.spatial import Pairs, axis_word, pad_pairs, require_rank, require_spatial
from cnncc.tensor import DType, TensorType


@operator("crop")
@dataclass(frozen=True)
class Crop(Op):
    """[*, C, i...] -> [*, C, i - lo - hi ...]; `amounts` are (lo, hi) per spatial axis."""

    amounts: Pairs

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("crop", x, len(self.amounts))
        for a, (n, (lo, hi)) in enumerate(zip(x.spatial, self.amounts, strict=True)):
            if isinstance(n, int) and n <= lo + hi:
                raise ShapeError(
                    "E0209",
                    f"the crop leaves nothing of the {axis_word(x.rank, a)}",
                    arithmetic=[f"{axis_word(x.rank, a)}: {n} - {lo} - {hi} = {n - lo - hi}"],
                    fixes=[f"crop at most {n - 1} positions"],
                    argument="amount",
                )
        kept = (n - (lo + hi) for n, (lo, hi) in zip(x.spatial, self.amounts, strict=True))
        return x.with_shape((x.channels, *kept))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        rank = len(self.amounts)
        kept: list[Any] = [...]
        for n, (lo, hi) in zip(x.shape[-rank:], self.amounts, strict=True):
            kept.append(slice(lo, n - hi))
        return np.asarray(x[tuple(kept)])

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(BorderPad(self.amounts), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        place = (
            i + (g.n.size(f"lo{a}", lo) if lo else 0)
            for a, (i, (lo, _)) in enumerate(zip(g.place, self.amounts, strict=True))
        )
        return g.each(g.at(tuple(place)))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(((1, 2), (0, 3))), (TensorType(DType.F32, (3, 6, 7)),))
        yield Sample(cls(((2, 0),)), (TensorType(DType.F32, (2, 5)),))
        yield Sample(cls(((1, 1), (2, 0), (0, 1))), (TensorType(DType.F32, (2, 5, 6, 4)),))
        yield Sample(cls(((1, 1), (1, 0))), (TensorType(DType.F32, (2, 4, 4), batched=False),))


@layer("crop", "shape")
def crop(b: LayerBuilder, x: Node, amount: Pad) -> Node:
    """Remove positions around the spatial axes: one number, one (lo, hi) pair, or a pair per axis.

    Example: `x -> crop(((1, 1), (2, 3)))`
    """
    require_spatial("crop", x.type)
    if amount.mode != "zero" or isinstance(amount.amount, str):
        b.error(
            "E0304",
            "`amount` of a crop must be a number, a (lo, hi) pair, or a pair per axis",
            argument="amount",
            fixes=["crop(1)", "crop((1, 2))"],
        )
    return b.add(Crop(pad_pairs("amount", amount, x.type)), x)
