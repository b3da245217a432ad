"""The Numba type of a vector: an element type and a number of lanes, held in one LLVM vector.

A comparison of vectors gives a vector of booleans, a mask.  Vectors are values: they live in
registers, are assigned and passed like numbers, and reach memory only through the loads and stores
of memory.py.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import errors
from numba.extending import models, register_model

__all__ = [
    "ELEMENTS",
    "LANES",
    "Vector",
    "broadcast",
    "element_of",
    "iota",
    "ir_type",
    "llvm_name",
    "opaque",
    "same",
    "spread",
]

llvm.initialize_native_asmparser()  # for (empty) pieces of inline assembly

LANES = (2, 4, 8, 16)

_IR: dict[Any, ir.Type] = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.uint8: ir.IntType(8),
    types.uint16: ir.IntType(16),
    types.uint32: ir.IntType(32),
    types.uint64: ir.IntType(64),
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.boolean: ir.IntType(1),
}
ELEMENTS = tuple(_IR)
_NAMES = {element: element.name.replace("float", "f").replace("uint", "u") for element in ELEMENTS}


class Vector(types.Type):
    """`lanes` values of `element`; f32x16 is Vector(float32, 16)."""

    def __init__(self, element: Any, lanes: int) -> None:
        if element not in _IR or lanes not in LANES:
            raise ValueError(f"no vector of {lanes} x {element}")
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"{_NAMES[element]}x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_IR[vector.element], vector.lanes))


def element_of(t: Any) -> Any:
    """The element type of a vector, or a scalar's own type; TypingError for anything else."""
    t = types.unliteral(t)
    if isinstance(t, Vector):
        return t.element
    if t in _IR:
        return t
    raise errors.TypingError(f"a vector or a number was expected, but got {t}")


def shaped(element: Any, like: Any) -> Any:
    """`element` with the lanes of `like`: a vector type, or the element itself if `like` is a
    scalar."""
    return Vector(element, like.lanes) if isinstance(like, Vector) else element


def same(*operands: Any) -> Any:
    """The common type of the operands of one operation: a scalar is repeated to the vectors' lanes.

    Element types must agree, because a silent conversion would change bits; only integer scalars,
    which Numba widens to 64 bits by itself, adapt to the element type of integer vectors.
    """
    operands = tuple(types.unliteral(t) for t in operands)
    vectors = [t for t in operands if isinstance(t, Vector)]
    common = vectors[0] if vectors else operands[0]
    element = element_of(common)
    for t in operands:
        agrees = t == common if isinstance(t, Vector) else element_of(t) == element
        adapts = vectors and isinstance(t, types.Integer) and isinstance(element, types.Integer)
        if not agrees and not adapts:
            raise errors.TypingError(
                f"operands must have one type, but got {', '.join(map(str, operands))}"
            )
    return common


def ir_type(t: Any) -> ir.Type:
    """The LLVM type of a vector or scalar."""
    return ir.VectorType(_IR[t.element], t.lanes) if isinstance(t, Vector) else _IR[t]


def broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    vector = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def spread(builder: Any, value: Any, t: Any, to: Any) -> Any:
    """A value of type `t` as type `to`, which is `t` itself or a vector of it."""
    if isinstance(t, Vector) or not isinstance(to, Vector):
        return value
    wanted = _IR[to.element]
    if isinstance(wanted, ir.IntType) and value.type != wanted:
        value = (builder.trunc if wanted.width < value.type.width else builder.sext)(value, wanted)
    return broadcast(builder, value, to.lanes)


def llvm_name(stem: str, *kinds: ir.Type) -> str:
    """The overloaded name of an LLVM intrinsic, such as llvm.fma.v16f32 (llvmlite cannot spell
    vectors)."""

    def suffix(kind: ir.Type) -> str:
        if isinstance(kind, ir.VectorType):
            return f"v{kind.count}{suffix(kind.element)}"
        return {"float": "f32", "double": "f64"}.get(str(kind), f"i{getattr(kind, 'width', 0)}")

    return ".".join([f"llvm.{stem}", *map(suffix, kinds)])


def opaque(builder: Any, value: Any) -> Any:
    """A value of which LLVM cannot see what it is: that of an (empty) piece of assembly."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(ir.InlineAsm(kind, "", "=r,0"), [value])


def iota(element: ir.IntType, lanes: int) -> ir.Constant:
    """0, 1, 2, ... as a constant vector."""
    return ir.Constant(ir.VectorType(element, lanes), list(range(lanes)))
