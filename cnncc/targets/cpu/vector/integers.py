"""Integer vectors: conversions between element types, and wrapping 32- and 64-bit arithmetic for
counter-based random numbers, under names that serve scalars too (Numba widens the scalar operators
to 64 bits)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.tile import elementwise
from cnncc.targets.cpu.vector.types import (
    Vector,
    broadcast,
    element_of,
    iota,
    ir_type,
    llvm_name,
    same,
    shaped,
    spread,
)


def _convert(builder: Any, value: Any, source: Any, target: Any, kind: ir.Type) -> Any:
    """`value` with elements of `source` as elements of `target`; kind is the LLVM type of the
    result."""
    if source == target:
        return value
    if isinstance(target, types.Float):
        if isinstance(source, types.Float):
            widens = target.bitwidth > source.bitwidth
            return (builder.fpext if widens else builder.fptrunc)(value, kind)
        signed = getattr(source, "signed", False)
        return (builder.sitofp if signed else builder.uitofp)(value, kind)
    if isinstance(source, types.Float):  # towards zero; saturates, and NaN gives 0
        stem = "fptosi.sat" if target.signed else "fptoui.sat"
        prototype = ir.FunctionType(kind, [value.type])
        name = llvm_name(stem, kind, value.type)
        function = cgutils.get_or_insert_function(builder.module, prototype, name)
        return builder.call(function, [value])
    width = {types.boolean: 1}.get(source) or source.bitwidth
    if target.bitwidth == width:
        return value
    if target.bitwidth < width:
        return builder.trunc(value, kind)
    return (builder.sext if getattr(source, "signed", False) else builder.zext)(value, kind)


def _conversion(element: Any) -> Any:
    def convert(typing: Any, x: Any) -> Any:
        x = types.unliteral(x)
        result = shaped(element, x)
        source = element_of(x)

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return _convert(builder, arguments[0], source, element, ir_type(result))

        return result(x), codegen

    convert.__name__ = f"to_{element}"
    return elementwise(convert)


to_f32, to_f64 = _conversion(types.float32), _conversion(types.float64)
to_u8, to_u16 = _conversion(types.uint8), _conversion(types.uint16)
to_u32, to_u64 = _conversion(types.uint32), _conversion(types.uint64)
to_i32, to_i64 = _conversion(types.int32), _conversion(types.int64)


_HALF = 0x7FFF  # with the last bit that stays: half a unit in it, ties to even
_QUIET = 1 << 22  # makes a NaN stay one without its lower bits


def _constant(kind: ir.Type, value: int) -> ir.Constant:
    """An integer, in every lane of a vector."""
    lanes = [value] * kind.count if isinstance(kind, ir.VectorType) else value
    return ir.Constant(kind, lanes)


@elementwise
def to_bf16(typing: Any, x: Any) -> Any:
    x = types.unliteral(x)
    source, result = element_of(x), shaped(types.uint16, x)
    if source not in (types.float32, types.float64):
        raise errors.TypingError(f"floats are rounded to bf16, not {x}")

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir_type(shaped(types.float32, x))
        wide = ir_type(shaped(types.uint32, x))
        value = _convert(builder, arguments[0], source, types.float32, kind)
        bits = builder.bitcast(value, wide)
        last = builder.and_(builder.lshr(bits, _constant(wide, 16)), _constant(wide, 1))
        near = builder.add(bits, builder.add(last, _constant(wide, _HALF)))
        quiet = builder.or_(bits, _constant(wide, _QUIET))
        near = builder.select(builder.fcmp_unordered("uno", value, value), quiet, near)
        return builder.trunc(builder.lshr(near, _constant(wide, 16)), ir_type(result))

    return result(x), codegen


@elementwise
def from_bf16(typing: Any, bits: Any) -> Any:
    bits = types.unliteral(bits)
    result = shaped(types.float32, bits)
    if element_of(bits) != types.uint16:
        raise errors.TypingError(f"bf16 are kept as 16 bits, not as {bits}")

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        wide = ir_type(shaped(types.uint32, bits))
        upper = builder.shl(builder.zext(arguments[0], wide), _constant(wide, 16))
        return builder.bitcast(upper, ir_type(result))

    return result(bits), codegen


def _wrapping(emit: Callable[..., Any]) -> Any:
    @intrinsic
    def operation(typing: Any, x: Any, y: Any) -> Any:
        t = same(x, y)
        if not isinstance(element_of(t), types.Integer):
            raise errors.TypingError(f"integer operands were expected, but got {t}")

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            pairs = zip(arguments, sig.args, strict=True)
            left, right = (spread(builder, value, kind, t) for value, kind in pairs)
            return emit(builder, element_of(t), left, right)

        return t(*map(types.unliteral, (x, y))), codegen

    return operation


def _shift_right(builder: Any, element: Any, left: Any, right: Any) -> Any:
    return (builder.ashr if element.signed else builder.lshr)(left, right)


wrap_add = _wrapping(lambda builder, element, a, b: builder.add(a, b))
wrap_mul = _wrapping(lambda builder, element, a, b: builder.mul(a, b))
bit_xor = _wrapping(lambda builder, element, a, b: builder.xor(a, b))
shift_left = _wrapping(lambda builder, element, a, b: builder.shl(a, b))
shift_right = _wrapping(_shift_right)


def _count(lanes: int) -> Any:
    @intrinsic
    def count(typing: Any, start: Any) -> Any:
        element = element_of(start)
        if not isinstance(element, types.Integer):
            raise errors.TypingError(f"lanes are counted in integers, not {element}")
        t = Vector(element, lanes)

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            step = iota(ir_type(element), lanes)
            return builder.add(broadcast(builder, arguments[0], lanes), step)

        return t(element), codegen

    return count


count2, count4, count8, count16 = map(_count, (2, 4, 8, 16))
