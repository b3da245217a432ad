"""Putting pieces of an image side by side again: the tensors follow each other along one spatial
axis; channels and the other extents agree. The gradient of each piece is its part of the result's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Natural
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import For, Index, Int, Nest, Var
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.ops.crop import Crop
from cnncc.ops.spatial import axis_word, require_spatial
from cnncc.tensor import DType, Extent, TensorType


@operator("join")
@dataclass(frozen=True)
class Join(Op):
    """[*, C, ..., i1, ...], [*, C, ..., i2, ...], ... -> [*, C, ..., i1 + i2 + ..., ...]."""

    axis: int  # of the spatial ones

    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        if not types:
            raise ShapeError("E0215", "`join` puts at least one tensor together")
        first, total = types[0], _own(types[0], self.axis)
        for t in types[1:]:
            if _others(t, self.axis) != _others(first, self.axis):
                raise ShapeError(
                    "E0215",
                    f"`join` along the {axis_word(first.rank, self.axis)} needs tensors that agree "
                    "in all the rest",
                    arithmetic=[f"tensor {i + 1}: {t}" for i, t in enumerate(types)],
                )
            total = total + _own(t, self.axis)
        space = list(first.spatial)
        space[self.axis] = total
        return first.with_shape((first.channels, *space))

    def reference(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=2 + self.axis)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        gradients, start = [], 0
        total = _fixed(dy.type, self.axis)
        for i, name in enumerate(node.inputs):
            stop = start + _fixed(b[name].type, self.axis)
            amounts = [(0, 0)] * dy.type.rank
            amounts[self.axis] = (start, total - stop)
            gradients.append(b.add(Crop(tuple(amounts)), dy, name=f"{node.name}.dx{i}"))
            start = stop
        return tuple(gradients)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        own = f"s{self.axis}"
        sources = [
            n.input(f"x{i}", t, " ".join(f"{own}_{i}" if a == own else a for a in axes))
            for i, t in enumerate(types)
        ]
        y = n.output("y", out, " ".join(axes))
        parts: list[For] = []
        start: Index = Int(0)
        for source, buffer in zip(sources, n.buffers, strict=False):
            index = [Var(f"i_{a}") for a in axes]
            place = [v + start if a == own else v for v, a in zip(index, axes, strict=True)]
            loops = [(v.name, e) for v, e in zip(index, buffer.extents, strict=True)]
            parts.append(parallel(loops, y.store(place, source[tuple(index)])))
            start = start + buffer.extents[axes.index(own)]
        return n.nest(*parts)

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        cases: list[tuple[int, list[tuple[int, ...]]]] = [
            (0, [(3, 2, 5), (3, 4, 5), (3, 1, 5)]),
            (1, [(2, 3, 4), (2, 3, 1)]),
            (2, [(2, 3, 2, 1), (2, 3, 2, 4)]),
        ]
        for axis, shapes in cases:
            yield Sample(cls(axis), tuple(TensorType(DType.F32, shape) for shape in shapes))
        yield Sample(cls(0), (TensorType(DType.F32, (3, 4)), TensorType(DType.F32, (3, 2))))


def _own(t: TensorType, axis: int) -> Extent:
    if not 0 <= axis < t.rank:
        raise ShapeError(
            "E0203",
            f"`join` works along a spatial axis, 0 to {t.rank - 1}, but got {axis}",
            arithmetic=[f"input: {t}"],
            argument="axis",
        )
    return t.spatial[axis]


def _others(t: TensorType, axis: int) -> tuple[object, ...]:
    rest = [n for a, n in enumerate(t.spatial) if a != axis]
    return t.dtype, t.batched, t.channels, t.rank, *rest


def _fixed(t: TensorType, axis: int) -> int:
    n = t.spatial[axis]
    if isinstance(n, int):
        return n
    raise ShapeError("E0206", f"`join` is trained with fixed extents, but one is {n}")


@layer("join", "shape")
def join(b: LayerBuilder, *tensors: Node, axis: Natural = 0) -> Node:
    """Put tensors side by side along a spatial axis, 0 for the first: rows of an image.

    Example: `join(eyes, mouth, axis = 0)`. PyTorch: `cat(dim=2 + axis)`, Keras: `Concatenate`,
    ONNX: `Concat`.
    """
    for t in tensors:
        require_spatial("join", t.type)
    return b.add(Join(axis), *tensors)
