"""Loads and stores of vectors and scalars, whole, partial and strided.

An address is a pointer (or a one-dimensional contiguous array) and an index in elements.  Unlike
Numba's own indexing a negative index does not wrap around.  No alignment beyond the element's is
assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.tile import Column, Tile, pack, parts, shape_of, tiled, with_arguments
from cnncc.targets.cpu.vector.types import (
    LANES,
    Vector,
    broadcast,
    element_of,
    iota,
    ir_type,
    llvm_name,
)

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


def first_lanes(builder: Any, count: Any, lanes: int) -> Any:
    """The mask of lanes below `count`, an i64 that may be negative or large."""
    count = _clamped(builder, count, lanes)
    return builder.icmp_signed(
        "<", iota(_I32, lanes), broadcast(builder, builder.trunc(count, _I32), lanes)
    )


def _first_lanes_by_bits(builder: Any, count: Any, lanes: int) -> Any:
    """As `first_lanes`, for loops: LLVM would take a comparison into the loop, and make the mask
    anew in every turn.
    """
    count = builder.trunc(_clamped(builder, count, lanes), _I32)
    bits = builder.not_(builder.shl(_I32(-1), count))
    return builder.bitcast(
        builder.trunc(bits, ir.IntType(lanes)), ir.VectorType(ir.IntType(1), lanes)
    )


def _clamped(builder: Any, count: Any, lanes: int) -> Any:
    low, high = _I64(0), _I64(lanes)
    count = builder.select(builder.icmp_signed("<", count, low), low, count)
    return builder.select(builder.icmp_signed("<", count, high), count, high)


def _masked_load(builder: Any, pointer: Any, mask: Any, vector: ir.VectorType, align: int) -> Any:
    name = f"{llvm_name('masked.load', vector)}.p0"
    prototype = ir.FunctionType(vector, [pointer.type, _I32, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, prototype, name)
    return builder.call(function, [pointer, _I32(align), mask, ir.Constant(vector, None)])


def _masked_store(builder: Any, value: Any, pointer: Any, mask: Any, align: int) -> None:
    name = f"{llvm_name('masked.store', value.type)}.p0"
    prototype = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _I32, mask.type])
    function = cgutils.get_or_insert_function(builder.module, prototype, name)
    builder.call(function, [value, pointer, _I32(align), mask])


# --- one vector or number ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Access:
    """How a word reaches the lanes: densely, `strided` or with one element between them (`second`),
    all of them or the first `count`.
    """

    strided: bool
    counted: bool
    second: bool = False

    def split(self, extra: Sequence[Any]) -> tuple[Any, Any]:
        """The stride and the count of a word's further arguments (None: it has none)."""
        rest = list(extra)
        stride = rest.pop(0) if self.strided else _SECOND if self.second else None
        return stride, rest.pop(0) if self.counted else None

    def of(self, builder: Any, extra: Sequence[Any], tile: Any, v: int) -> tuple[Any, Any]:
        """`split`, for a vector of a tile: the lanes of those in front of it count as well."""
        stride, count = self.split(extra)
        if v and count is not None:
            count = builder.sub(count, _I64(v * tile.part.lanes))
        return stride, count

    @property
    def extra(self) -> list[Any]:
        return [types.int64] * (self.strided + self.counted)

    @property
    def names(self) -> list[str]:
        return ["stride"] * self.strided + ["count"] * self.counted


_SECOND = object()  # in the place of a stride: 2, known when the code is made
_DENSE, _TAIL = _Access(False, False), _Access(False, True)
_STRIDED, _STRIDED_TAIL = _Access(True, False), _Access(True, True)
_EVERY_SECOND, _EVERY_SECOND_TAIL = _Access(False, False, True), _Access(False, True, True)


def _take(
    context: Any, builder: Any, kind: Any, array: Any, t: Any, index: Any, stride: Any, count: Any
) -> Any:
    """The value of type `t` at an index."""
    if not isinstance(t, Vector):
        value = builder.load(place(context, builder, kind, array, index))
        value.align = t.bitwidth // 8
        return value
    align = t.element.bitwidth // 8
    if stride is None:
        pointer = place(context, builder, kind, array, index, to=ir_type(t))
        if count is not None:
            mask = first_lanes(builder, count, t.lanes)
            return _masked_load(builder, pointer, mask, ir_type(t), align)
        value = builder.load(pointer)
        value.align = align
        return value
    if stride is _SECOND:
        return _take_second(context, builder, kind, array, t, index, count)
    if count is None:
        value = ir.Constant(ir_type(t), ir.Undefined)
        for lane in range(t.lanes):
            one = builder.load(place(context, builder, kind, array, index))
            value = builder.insert_element(value, one, _I32(lane))
            index = builder.add(index, stride)
        return value
    slot = cgutils.alloca_once_value(builder, ir.Constant(ir_type(t), None))
    with cgutils.for_range(builder, _clamped(builder, count, t.lanes)) as loop:
        at = builder.add(index, builder.mul(loop.index, stride))
        one = builder.load(place(context, builder, kind, array, at))
        builder.store(builder.insert_element(builder.load(slot), one, loop.index), slot)
    return builder.load(slot)


def _take_second(
    context: Any, builder: Any, kind: Any, array: Any, t: Vector, index: Any, count: Any
) -> Any:
    """Every second element, of two vectors that have one element in common: so nothing is read
    behind the last.
    """
    halves = []
    for skipped in (0, t.lanes - 1):
        at = builder.add(index, _I64(skipped)) if skipped else index
        if count is None:
            halves.append(_take(context, builder, kind, array, t, at, None, None))
            continue
        left = builder.sub(builder.mul(count, _I64(2)), _I64(1 + skipped))  # up to the last lane's
        mask = _first_lanes_by_bits(builder, left, t.lanes)
        pointer = place(context, builder, kind, array, at, to=ir_type(t))
        align = t.element.bitwidth // 8
        halves.append(_masked_load(builder, pointer, mask, ir_type(t), align))
    places = [i if i < t.lanes else i + 1 for i in range(0, 2 * t.lanes, 2)]
    mask = ir.Constant(ir.VectorType(_I32, t.lanes), [_I32(i) for i in places])
    return builder.shuffle_vector(*halves, mask)


def _put(
    context: Any, builder: Any, kind: Any, array: Any, t: Any, value: Any, index: Any, stride: Any,
    count: Any,
) -> None:  # fmt: skip
    """Store a value of type `t` at an index."""
    if stride is None:
        pointer = place(context, builder, kind, array, index, to=value.type)
        align = element_of(t).bitwidth // 8
        if count is not None:
            mask = first_lanes(builder, count, t.lanes)
            _masked_store(builder, value, pointer, mask, align)
        else:
            builder.store(value, pointer).align = align
        return
    if count is None:
        for lane in range(t.lanes):
            one = builder.extract_element(value, _I32(lane))
            builder.store(one, place(context, builder, kind, array, index))
            index = builder.add(index, stride)
        return
    dense = builder.icmp_signed("==", stride, _I64(1))
    with builder.if_else(dense, likely=True) as (together, apart):
        with together:  # the one channel of an image lies as its pixels do
            _put(context, builder, kind, array, t, value, index, None, count)
        with apart, cgutils.for_range(builder, _clamped(builder, count, t.lanes)) as loop:
            at = builder.add(index, builder.mul(loop.index, stride))
            one = builder.extract_element(value, loop.index)
            builder.store(one, place(context, builder, kind, array, at))


def _load(lanes: int, access: _Access = _DENSE) -> Any:
    def load(typing: Any, a: Any, i: Any, *extra: Any) -> Any:
        element = element_at(a)
        t = Vector(element, lanes) if lanes > 1 else element

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, *more = arguments
            kind = signature.args[0]
            return _take(context, builder, kind, array, t, index, *access.split(more))

        return t(a, types.int64, *access.extra), codegen

    return intrinsic(with_arguments(load, "typing", "a", "i", *access.names))


def _store(access: _Access) -> Any:
    def store(typing: Any, a: Any, i: Any, *rest: Any) -> Any:
        # store(a, i, [stride,] v[, count])
        v = types.unliteral(rest[access.strided])
        element = element_at(a)
        if element_of(v) != element or (access != _DENSE and not isinstance(v, Vector)):
            raise errors.TypingError(f"{v} cannot be stored where {element} is kept")

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, *more = arguments
            value = more.pop(access.strided)
            stride, count = access.split(more)
            _put(context, builder, signature.args[0], array, v, value, index, stride, count)
            return context.get_dummy_value()

        kinds = access.extra
        kinds.insert(access.strided, v)
        return types.void(a, types.int64, *kinds), codegen

    names = access.names
    names.insert(access.strided, "v")
    return intrinsic(with_arguments(store, "typing", "a", "i", *names))


# --- tiles ---------------------------------------------------------------------------------------


def each_place(
    builder: Any, index: Any, down: Any, along: Any, positions: int, vectors: int
) -> Iterator[tuple[int, int, Any]]:
    """Position, vector and index of every part of a tile."""
    for p in range(positions):
        first = builder.add(index, builder.mul(down, _I64(p))) if p else index
        for v in range(vectors):
            yield p, v, builder.add(first, builder.mul(along, _I64(v))) if v else first


def _load_tile(access: _Access) -> Any:
    def load_tile(
        typing: Any, shape: Any, a: Any, i: Any, down: Any, along: Any, *extra: Any
    ) -> Any:
        wanted = shape_of(shape)
        element = element_at(a)
        kinds = (shape, a, *[types.int64] * 3, *access.extra)
        if wanted.lanes == 1:
            column = Column(element, wanted.positions)

            def numbers(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                _, array, index, step, *_ = arguments
                first = place(context, builder, signature.args[1], array, index)
                value = ir.Constant(context.get_value_type(column), ir.Undefined)
                return builder.insert_value(builder.insert_value(value, first, 0), step, 1)

            return column(*kinds), numbers
        t = tiled(element, wanted)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, array, index, down, along, *more = arguments
            kind = signature.args[1]
            return pack(
                builder,
                t,
                [
                    _take(
                        context, builder, kind, array, t.part, at, *access.of(builder, more, t, v)
                    )
                    for _, v, at in each_place(builder, index, down, along, t.positions, t.vectors)
                ],
            )

        return t(*kinds), codegen

    names = ["typing", "shape", "a", "i", "down", "along", *access.names]
    return intrinsic(with_arguments(load_tile, *names))


def _store_tile(access: _Access) -> Any:
    def store_tile(typing: Any, a: Any, i: Any, down: Any, along: Any, *rest: Any) -> Any:
        # store_tile(a, i, down, along, [stride,] v[, count])
        t = rest[access.strided]
        element = element_at(a)
        if not isinstance(t, Tile) or element_of(t.part) != element:
            raise errors.TypingError(f"{t} cannot be stored where {element} is kept")

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, index, down, along, *more = arguments
            given = parts(context, builder, t, more.pop(access.strided))
            kind = signature.args[0]
            for p, v, at in each_place(builder, index, down, along, t.positions, t.vectors):
                stride, count = access.of(builder, more, t, v)
                _put(context, builder, kind, array, t.part, given(p, v), at, stride, count)
            return context.get_dummy_value()

        kinds = access.extra
        kinds.insert(access.strided, t)
        return types.void(a, *[types.int64] * 3, *kinds), codegen

    names = access.names
    names.insert(access.strided, "v")
    return intrinsic(with_arguments(store_tile, "typing", "a", "i", "down", "along", *names))


def _at(element: Any) -> Any:
    @intrinsic
    def at(typing: Any, address: Any, length: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], ir_type(element).as_pointer())

        return types.CPointer(element)(types.int64, types.int64), codegen

    return at


load1, load2, load4, load8, load16 = map(_load, (1, 2, 4, 8, 16))
load_tail2, load_tail4, load_tail8, load_tail16 = (_load(n, _TAIL) for n in LANES)
load_strided2, load_strided4, load_strided8, load_strided16 = (_load(n, _STRIDED) for n in LANES)
load_strided_tail2, load_strided_tail4, load_strided_tail8, load_strided_tail16 = (
    _load(n, _STRIDED_TAIL) for n in LANES
)
load_second2, load_second4, load_second8, load_second16 = (_load(n, _EVERY_SECOND) for n in LANES)
load_second_tail2, load_second_tail4, load_second_tail8, load_second_tail16 = (
    _load(n, _EVERY_SECOND_TAIL) for n in LANES
)
store, store_tail = _store(_DENSE), _store(_TAIL)
store_strided, store_strided_tail = _store(_STRIDED), _store(_STRIDED_TAIL)
load_tile, load_tile_tail = _load_tile(_DENSE), _load_tile(_TAIL)
load_tile_strided, load_tile_strided_tail = _load_tile(_STRIDED), _load_tile(_STRIDED_TAIL)
load_tile_second, load_tile_second_tail = _load_tile(_EVERY_SECOND), _load_tile(_EVERY_SECOND_TAIL)
store_tile, store_tile_tail = _store_tile(_DENSE), _store_tile(_TAIL)
store_tile_strided, store_tile_strided_tail = _store_tile(_STRIDED), _store_tile(_STRIDED_TAIL)
f32_at, f64_at = _at(types.float32), _at(types.float64)
u8_at, u16_at = _at(types.uint8), _at(types.uint16)
bf16_at = u16_at
i32_at, i64_at = _at(types.int32), _at(types.int64)
