"""Rounding to bfloat16, the upper half of a float32, in which weights take half the bytes.

Definition: the nearest bfloat16, ties to even, which keeps 8 bits of the significand (the first is
not stored) and the exponents of float32. `passes/bf16.py` puts the operator between weights and the
layers that are to read them so; these compute with the rounded numbers in float32, exactly as
without it. Denormals are kept, what is too large becomes infinite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnncc.graph.ir import ShapeError
from cnncc.loops.ir import Value
from cnncc.loops.numerics import from_bf16, to_bf16
from cnncc.ops.base import Array, Cost, Pointwise, Sample, operator
from cnncc.tensor import DType, TensorType


@operator("bf16")
@dataclass(frozen=True)
class Bf16(Pointwise):
    """w [...] of floats -> the same in bf16."""

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (w,) = types
        if not w.dtype.is_float:
            raise ShapeError("E0210", "`bf16` rounds floats", arithmetic=[f"the operand is {w}"])
        return w.with_dtype(DType.BF16)

    def reference(self, *arrays: Array) -> Array:
        (w,) = arrays
        return from_bf16(to_bf16(w)).astype(w.dtype)  # type: ignore[no-any-return]

    def scalar(self, *args: Value) -> Value:
        return args[0]  # storing rounds

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((5, 7), (33, 20), (3, 2, 3, 3), (1,)):
            yield Sample(cls(), (TensorType(DType.F32, shape, batched=False),))
