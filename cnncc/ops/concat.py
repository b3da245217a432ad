"""Joining tensors along the channels, and the two operators its gradient needs: a slice, and a
slice put back among zeros. Each of the latter is the other's gradient.

Definition: the channels of the first tensor, then those of the second, and so on; all other extents
agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import For, Index, Int, Nest, Var
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
from cnncc.tensor import DType, Extent, TensorType


@operator("concat")
@dataclass(frozen=True)
class Concat(Op):
    """[*, C1, s...], [*, C2, s...], ... -> [*, C1 + C2 + ..., s...]."""

    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        if not types:
            raise ShapeError("E0215", "`concat` joins at least one tensor")
        first = types[0]
        channels: Extent = 0
        for t in types:
            if t.with_shape((0, *t.spatial)) != first.with_shape((0, *first.spatial)):
                raise ShapeError(
                    "E0215",
                    "`concat` joins channels, so all other extents must agree",
                    arithmetic=[f"tensor {i + 1}: {t}" for i, t in enumerate(types)],
                    fixes=[
                        "pad, crop, pool or upsample one of them to the other's extents",
                        "check stride and padding of the branches",
                    ],
                )
            channels = channels + t.channels
        return first.with_shape((channels, *first.spatial))

    def reference(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=1)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        gradients, start = [], 0
        for i, name in enumerate(node.inputs):
            stop = start + fixed(b[name].type.channels)
            part = SliceChannels(start, stop)
            gradients.append(b.add(part, dy, name=f"{node.name}.dx{i}"))
            start = stop
        return tuple(gradients)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        sources = [
            n.input(f"x{i}", t, " ".join(f"c{i}" if a == "c" else a for a in axes))
            for i, t in enumerate(types)
        ]
        y = n.output("y", out, " ".join(axes))
        parts: list[For] = []
        start: Index = Int(0)
        for source, buffer in zip(sources, n.buffers, strict=False):
            index = [Var(f"i_{a}") for a in axes]
            place = [v + start if a == "c" else v for v, a in zip(index, axes, strict=True)]
            extents = buffer.extents
            loops = [(v.name, e) for v, e in zip(index, extents, strict=True)]
            parts.append(parallel(loops, y.store(place, source[tuple(index)])))
            start = start + extents[axes.index("c")]
        return n.nest(*parts)

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for space in [(), (6,), (4, 5), (2, 3, 4)]:
            yield Sample(cls(), tuple(TensorType(DType.F32, (c, *space)) for c in (3, 1, 2)))
        yield Sample(cls(), (TensorType(DType.F32, (3, 4)),))


def fixed(channels: Extent) -> int:
    """A number of channels that must not depend on symbols. Raises ShapeError."""
    if isinstance(channels, int):
        return channels
    raise ShapeError("E0204", f"the number of channels must be fixed, but it is {channels}")


@operator("slice_channels")
@dataclass(frozen=True)
class SliceChannels(Op):
    """Channels start to stop - 1."""

    start: int
    stop: int
    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not 0 <= self.start < self.stop <= fixed(x.channels):
            raise ShapeError(
                "E0215",
                "the slice must lie inside",
                arithmetic=[f"{self.start} to {self.stop} of {x}"],
            )
        return x.with_shape((self.stop - self.start, *x.spatial))

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        return x[:, self.start : self.stop]

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        after = fixed(b[node.inputs[0]].type.channels) - self.stop
        return (b.add(PadChannels(self.start, after), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join("c_in" if a == "c" else a for a in axes))
        y = n.output("y", out, " ".join(axes))
        start = n.size("start", self.start)
        index = [Var(f"i_{a}") for a in axes]
        source = tuple(v + start if a == "c" else v for v, a in zip(index, axes, strict=True))
        extents = n.buffers[-1].extents
        loops = [(v.name, e) for v, e in zip(index, extents, strict=True)]
        return n.nest(parallel(loops, y.store(index, x[source])))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 3), (TensorType(DType.F32, (5, 4, 3)),))
        yield Sample(cls(0, 2), (TensorType(DType.F32, (3,)),))


@operator("pad_channels")
@dataclass(frozen=True)
class PadChannels(Op):
    """`before` channels of zeros, the input's channels, `after` channels of zeros."""

    before: int
    after: int
    linear: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        return x.with_shape((x.channels + (self.before + self.after), *x.spatial))

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        amounts = [(0, 0), (self.before, self.after), *[(0, 0)] * (x.ndim - 2)]
        return np.pad(x, amounts)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        stop = self.before + fixed(b[node.inputs[0]].type.channels)
        return (b.add(SliceChannels(self.before, stop), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        x = n.input("x", types[0], " ".join("c_in" if a == "c" else a for a in axes))
        y = n.output("y", out, " ".join(axes))
        before = n.size("before", self.before)
        index = [Var(f"i_{a}") for a in axes]
        source = [v + before * -1 if a == "c" else v for v, a in zip(index, axes, strict=True)]
        extents = n.buffers[-1].extents
        loops = [(v.name, e) for v, e in zip(index, extents, strict=True)]
        return n.nest(parallel(loops, y.store(index, x.padded(source, 0.0))))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(2, 1), (TensorType(DType.F32, (3, 4, 3)),))
        yield Sample(cls(0, 3), (TensorType(DType.F32, (2,)),))


@layer("concat", "shape")
def concat(b: LayerBuilder, *tensors: Node, axis: Literal["channel"] = "channel") -> Node:
    """The channels of all tensors, one tensor after the other.

    Example: `concat(a, b, c)`. PyTorch: `cat(dim=1)`, Keras: `Concatenate`, ONNX: `Concat`.
    """
    return b.add(Concat(), *tensors)
