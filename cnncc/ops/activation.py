"""What activations have in common: scalar functions of one tensor, each with the operator of its
gradient.

The gradient reads the output where that is cheaper than the input, which then need not be kept. NaN
passes through all of them, as in PyTorch. The activations themselves are in `rectifier` and
`sigmoidal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.ir import Value, prim
from cnncc.ops.base import Pointwise, Sample
from cnncc.tensor import DType, TensorType


class Activation(Pointwise):
    """A function of one tensor of floats."""

    exact: ClassVar[bool] = False  # equals its oracle bit for bit on small integers
    from_output: ClassVar[bool] = True  # which value the gradient reads

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        if not x.dtype.is_float:
            raise ShapeError(
                "E0210",
                f"`{self.name}` works on floats",
                arithmetic=[f"the input is {x}"],
                fixes=["give the input `scale`, `mean` and `std`, or embed it"],
            )
        return x

    def derivative(self) -> Pointwise:
        """The operator of the gradient: (value that it reads, dy) -> dx."""
        raise NotImplementedError

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        value = node if self.from_output else b[node.inputs[0]]
        return (b.add(self.derivative(), value, dy, name=f"{node.name}.dx"),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in [(3, 4, 5), (5,)]:
            yield Sample(cls(), (TensorType(DType.F32, shape),), exact=cls.exact)


class Derivative(Pointwise):
    """dx of an activation from its output y or input x, and dy."""

    exact: ClassVar[bool] = False
    linear: ClassVar[tuple[int, ...]] = (1,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        t = TensorType(DType.F32, (3, 4, 5))
        yield Sample(cls(), (t, t), exact=cls.exact)


def where(
    op: str, a: Value | float, b: Value | float, then: Value | float, otherwise: Value | float
) -> Value:
    """then where `a op b` holds, else otherwise; op is lt or le, and a NaN in a or b means
    otherwise.
    """
    return prim("select", prim(op, a, b), then, otherwise)
