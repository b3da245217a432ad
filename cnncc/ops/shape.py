"""Other shapes for the same elements: reshape and flatten.

Definition: the elements of one sample, numbered in row-major order (channels outermost, last
spatial axis innermost), keep their numbers. The batch axis stays in front.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import Extents, LayerBuilder
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Index, Int, Load, Nest, Size, Store, Var
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.tensor import DType, Extent, TensorType, evaluate, product


@operator("reshape")
@dataclass(frozen=True)
class Reshape(Op):
    """One sample of any shape -> `shape`, the same elements in row-major order."""

    shape: tuple[Extent, ...]
    linear: ClassVar[tuple[int, ...]] = (0,)

    @property
    def reads_once(self) -> bool:
        """To a vector the loops are those of the input, so what computes that can store elsewhere
        at once; other shapes divide."""
        return len(self.shape) == 1

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if x.elements != product(self.shape):
            wanted = " * ".join(map(str, self.shape))
            raise ShapeError(
                "E0214",
                "reshape keeps the number of elements",
                arithmetic=[
                    f"the input has {' * '.join(map(str, x.shape))} = {x.elements} elements",
                    f"the wanted shape has {wanted} = {product(self.shape)}",
                ],
                fixes=[f"`reshape({x.elements})` or `flatten` makes a vector"],
            )
        return x.with_shape(self.shape)

    def reference(self, x: Array) -> Array:  # type: ignore[override]
        """For a batched array of concrete extents."""
        return x.reshape((x.shape[0], *(evaluate(e, {}) for e in self.shape)))

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        own = tuple(evaluate(e, {}) for e in self.shape)
        lead = arrays[0].shape[:1] if types[0].batched else ()
        return arrays[0].reshape((*lead, *own))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        return (b.add(Reshape(x.type.shape), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        (t,) = types
        n = NestBuilder()
        lead = ["n"] if out.batched else []
        x = n.input("x", t, " ".join([*lead, *(f"a{i}" for i in range(len(t.shape)))]))
        y = n.output("y", out, " ".join([*lead, *(f"b{i}" for i in range(len(out.shape)))]))
        index = [Var(f"i_{a}") for a in [*lead, *(f"b{i}" for i in range(len(out.shape)))]]
        if len(out.shape) == 1:
            return self._vector(n, t, index[: len(lead)])
        extents = n.buffers[-1].extents
        source = self._source(t, out, index[len(lead) :])
        store = y.store(index, x[(*index[: len(lead)], *source)])
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], store))

    @staticmethod
    def _vector(n: NestBuilder, t: TensorType, lead: list[Var]) -> Nest:
        """To a vector: loops over the input, because the number of an element needs no division.

        The channel's share of the number comes last, as that axis runs fastest in memory.
        """
        x, y = n.buffers
        index = [*lead, *(Var(f"i_a{i}") for i in range(len(t.shape)))]
        number: Index = Int(0)
        for i in range(1, len(t.shape)):
            number = number * Size(f"a{i}") + Var(f"i_a{i}")
        channel: Index = Var("i_a0")
        for i in range(1, len(t.shape)):
            channel = channel * Size(f"a{i}")
        loops = [(v.name, e) for v, e in zip(index, x.extents, strict=True)]
        store = Store(y.name, (*lead, number + channel), Load(x.name, tuple(index)))
        return n.nest(parallel(loops, store))

    @staticmethod
    def _source(t: TensorType, out: TensorType, index: list[Var]) -> list[Index]:
        """The input index of an output index: through the element's number, and apart again."""
        number: Index = Int(0)
        for i, v in enumerate(index):
            number = number * Size(f"b{i}") + v
        source: list[Index] = []
        for i in reversed(range(1, len(t.shape))):
            source.append(number % Size(f"a{i}"))
            number = number // Size(f"a{i}")
        return [number, *reversed(source)]

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((60,)), (TensorType(DType.F32, (3, 4, 5)),))
        yield Sample(cls((3, 4, 5)), (TensorType(DType.F32, (60,)),))
        yield Sample(cls((6, 2, 5)), (TensorType(DType.F32, (3, 4, 5)),))
        yield Sample(cls((2, 3, 2, 5)), (TensorType(DType.F32, (5, 12)),))
        yield Sample(cls((4, 3)), (TensorType(DType.F32, (3, 2, 2), batched=False),))
        yield Sample(cls((5,)), (TensorType(DType.F32, (5,)),))


@layer("reshape", "shape")
def reshape(b: LayerBuilder, x: Node, shape: Extents) -> Node:
    """The same elements in another shape, channels first, numbered in row-major order.

    Example: `x -> dense(98) -> reshape((2, 7, 7))`. PyTorch: `Tensor.reshape`, Keras: `Reshape`,
    ONNX: `Reshape`.
    """
    return b.add(Reshape(tuple(shape)), x)


@layer("flatten", "shape")
def flatten(b: LayerBuilder, x: Node) -> Node:
    """All elements of a sample as one vector: channels outermost, the last spatial axis innermost.

    Example: `x -> flatten -> dense(10)`. PyTorch: `Flatten`, Keras: `Flatten` (of channels-first
    data), ONNX: `Flatten`.
    """
    return b.add(Reshape((x.type.elements,)), x)
