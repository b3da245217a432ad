"""Loads and stores of vectors and scalars, whole, partial and strided.

An address is a pointer (or a one-dimensional contiguous array) and an index in elements.  Unlike
Numba's own indexing a negative index does not wrap around.  No alignment beyond the element's is
assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.types import Vector, broadcast, element_of, iota, ir_type

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def element_at(a: Any) -> Any:
    """The element type behind a pointer or array type; TypingError for anything else."""
    if isinstance(a, types.CPointer):
        return a.dtype
    if isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C":
        return a.dtype
    raise errors.TypingError(f"a pointer or a contiguous array was expected, but got {a}")


def base_of(context: Any, builder: Any, t: Any, a: Any) -> Any:
    """The LLVM pointer to element 0."""
    return context.make_array(t)(context, builder, a).data if isinstance(t, types.Array) else a


def place(context: Any, builder: Any, t: Any, a: Any, index: Any, to: ir.Type | None = None) -> Any:
    """The LLVM pointer to element `index`, as a pointer to `to` if given."""
    pointer = builder.gep(base_of(context, builder, t, a), [index], inbounds=True)
    return pointer if to is None else builder.bitcast(pointer, to.as_pointer())


def _load(lanes: int) -> Any:
    @intrinsic
    def load(typing: Any, a: Any, i: Any) -> Any:
        element = element_at(a)
        t = Vector(element, lanes) if lanes > 1 else element

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index = arguments
            pointer = place(context, builder, signature.args[0], array, index, to=ir_type(t))
            value = builder.load(pointer)
            value.align = element.bitwidth // 8
            return value

        return t(a, types.int64), codegen

    return load


@intrinsic
def store(typing: Any, a: Any, i: Any, v: Any) -> Any:
    element = element_at(a)
    if element_of(v) != element:
        raise errors.TypingError(f"{v} cannot be stored where {element} is kept")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, value = arguments
        stored = builder.store(
            value, place(context, builder, signature.args[0], array, index, to=value.type)
        )
        stored.align = element.bitwidth // 8
        return context.get_dummy_value()

    return types.void(a, types.int64, types.unliteral(v)), codegen


def first_lanes(builder: Any, count: Any, lanes: int) -> Any:
    """The mask of lanes below `count`, an i64 that may be negative or large."""
    count = _clamped(builder, count, lanes)
    return builder.icmp_signed(
        "<", iota(_I32, lanes), broadcast(builder, builder.trunc(count, _I32), lanes)
    )


def _clamped(builder: Any, count: Any, lanes: int) -> Any:
    low, high = _I64(0), _I64(lanes)
    count = builder.select(builder.icmp_signed("<", count, low), low, count)
    return builder.select(builder.icmp_signed("<", count, high), count, high)


def _type_suffix(vector: ir.VectorType) -> str:
    element = vector.element
    letter = {"float": "f32", "double": "f64"}.get(str(element), f"i{getattr(element, 'width', 0)}")
    return f"v{vector.count}{letter}"


def _masked_load(builder: Any, pointer: Any, mask: Any, vector: ir.VectorType, align: int) -> Any:
    name = f"llvm.masked.load.{_type_suffix(vector)}.p0"
    prototype = ir.FunctionType(vector, [pointer.type, _I32, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, prototype, name)
    return builder.call(function, [pointer, _I32(align), mask, ir.Constant(vector, None)])


def _masked_store(builder: Any, value: Any, pointer: Any, mask: Any, align: int) -> None:
    name = f"llvm.masked.store.{_type_suffix(value.type)}.p0"
    prototype = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _I32, mask.type])
    function = cgutils.get_or_insert_function(builder.module, prototype, name)
    builder.call(function, [value, pointer, _I32(align), mask])


def _load_tail(lanes: int) -> Any:
    @intrinsic
    def load_tail(typing: Any, a: Any, i: Any, count: Any) -> Any:
        element = element_at(a)
        t = Vector(element, lanes)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, n = arguments
            pointer = place(context, builder, signature.args[0], array, index, to=ir_type(t))
            mask = first_lanes(builder, n, lanes)
            return _masked_load(builder, pointer, mask, ir_type(t), element.bitwidth // 8)

        return t(a, types.int64, types.int64), codegen

    return load_tail


@intrinsic
def store_tail(typing: Any, a: Any, i: Any, v: Any, count: Any) -> Any:
    element = element_at(a)
    if not isinstance(v, Vector) or v.element != element:
        raise errors.TypingError(f"{v} cannot be stored where {element} is kept")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, value, n = arguments
        pointer = place(context, builder, signature.args[0], array, index, to=value.type)
        mask = first_lanes(builder, n, v.lanes)
        _masked_store(builder, value, pointer, mask, element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(a, types.int64, v, types.int64), codegen


def _each_lane(
    builder: Any, index: Any, stride: Any, lanes: int, visit: Callable[..., None]
) -> None:
    """visit(lane, index + lane * stride) for every lane, in straight-line code."""
    for lane in range(lanes):
        visit(lane, index)
        index = builder.add(index, stride)


def _load_strided(lanes: int) -> Any:
    @intrinsic
    def load_strided(typing: Any, a: Any, i: Any, stride: Any) -> Any:
        t = Vector(element_at(a), lanes)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, step = arguments
            value = ir.Constant(ir_type(t), ir.Undefined)

            def take(lane: int, at: Any) -> None:
                nonlocal value
                one = builder.load(place(context, builder, signature.args[0], array, at))
                value = builder.insert_element(value, one, _I32(lane))

            _each_lane(builder, index, step, lanes, take)
            return value

        return t(a, types.int64, types.int64), codegen

    return load_strided


@intrinsic
def store_strided(typing: Any, a: Any, i: Any, stride: Any, v: Any) -> Any:
    element = element_at(a)
    if not isinstance(v, Vector) or v.element != element:
        raise errors.TypingError(f"{v} cannot be stored where {element} is kept")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, step, value = arguments

        def put(lane: int, at: Any) -> None:
            one = builder.extract_element(value, _I32(lane))
            builder.store(one, place(context, builder, signature.args[0], array, at))

        _each_lane(builder, index, step, v.lanes, put)
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64, v), codegen


def _load_strided_tail(lanes: int) -> Any:
    @intrinsic
    def load_strided_tail(typing: Any, a: Any, i: Any, stride: Any, count: Any) -> Any:
        t = Vector(element_at(a), lanes)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, step, n = arguments
            slot = cgutils.alloca_once_value(builder, ir.Constant(ir_type(t), None))
            with cgutils.for_range(builder, _clamped(builder, n, lanes)) as loop:
                at = builder.add(index, builder.mul(loop.index, step))
                one = builder.load(place(context, builder, signature.args[0], array, at))
                builder.store(builder.insert_element(builder.load(slot), one, loop.index), slot)
            return builder.load(slot)

        return t(a, types.int64, types.int64, types.int64), codegen

    return load_strided_tail


@intrinsic
def store_strided_tail(typing: Any, a: Any, i: Any, stride: Any, v: Any, count: Any) -> Any:
    element = element_at(a)
    if not isinstance(v, Vector) or v.element != element:
        raise errors.TypingError(f"{v} cannot be stored where {element} is kept")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, step, value, n = arguments
        with cgutils.for_range(builder, _clamped(builder, n, v.lanes)) as loop:
            at = builder.add(index, builder.mul(loop.index, step))
            one = builder.extract_element(value, loop.index)
            builder.store(one, place(context, builder, signature.args[0], array, at))
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64, v, types.int64), codegen


def _at(element: Any) -> Any:
    @intrinsic
    def at(typing: Any, address: Any, length: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], ir_type(element).as_pointer())

        return types.CPointer(element)(types.int64, types.int64), codegen

    return at


load1, load2, load4, load8, load16 = map(_load, (1, 2, 4, 8, 16))
load_tail2, load_tail4, load_tail8, load_tail16 = map(_load_tail, (2, 4, 8, 16))
load_strided2, load_strided4, load_strided8, load_strided16 = map(_load_strided, (2, 4, 8, 16))
load_strided_tail2, load_strided_tail4, load_strided_tail8, load_strided_tail16 = map(
    _load_strided_tail, (2, 4, 8, 16)
)
f32_at, f64_at = _at(types.float32), _at(types.float64)
u8_at, u16_at = _at(types.uint8), _at(types.uint16)
i32_at, i64_at = _at(types.int32), _at(types.int64)
