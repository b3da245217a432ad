"""Register tiles in memory, of which a loop takes some positions after the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic, models, register_model

from cnncc.targets.cpu.vector.tile import (
    Column,
    Computed,
    Tile,
    element_in,
    pack,
    parts,
    shape_of,
    tiled,
)
from cnncc.targets.cpu.vector.types import ir_type

__all__ = ["blank", "from_memory", "in_memory", "put", "take"]

_I64 = ir.IntType(64)


class _Rows(types.Type):
    """A tile in memory."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        super().__init__(name=f"rows of {tile}")


@register_model(_Rows)
class _RowsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, rows: _Rows) -> None:
        tile = ir.ArrayType(ir_type(rows.tile.part), rows.tile.positions * rows.tile.vectors)
        super().__init__(manager, rows, tile.as_pointer())


@intrinsic
def in_memory(typing: Any, tile: Any) -> Any:
    if not isinstance(tile, Tile):
        raise errors.TypingError(f"a tile was expected, but got {tile}")
    if type(tile) is not Tile:  # numbers per position stay where they are
        return tile(tile), lambda context, builder, sig, arguments: arguments[0]

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once(builder, arguments[0].type)
        builder.store(arguments[0], slot)
        return slot

    return _Rows(tile)(tile), codegen


@intrinsic
def blank(typing: Any, shape: Any, like: Any) -> Any:
    t = tiled(element_in(like), shape_of(shape))

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return cgutils.alloca_once(builder, context.get_value_type(t))

    return _Rows(t)(shape, types.unliteral(like)), codegen


def _rows(t: Any) -> Tile:
    if not isinstance(t, _Rows):
        raise errors.TypingError(f"a tile in memory was expected, but got {t}")
    return t.tile


def _places(builder: Any, tile: Tile, positions: int, slot: Any, first: Any) -> list[Any]:
    """Where the vectors of so many positions lie, from a first one on."""
    start = builder.mul(first, _I64(tile.vectors))
    return [
        builder.gep(slot, [_I64(0), builder.add(start, _I64(i))], inbounds=True)
        for i in range(positions * tile.vectors)
    ]


@intrinsic
def take(typing: Any, shape: Any, rows: Any, position: Any) -> Any:
    wanted = shape_of(shape)
    if isinstance(rows, Tile):
        part, sub = _fewer(rows, wanted.positions)

        def numbers(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return sub(context, builder, arguments[1], arguments[2])

        return part(shape, rows, types.int64), numbers
    tile = _rows(rows)
    if (wanted.vectors, tile.positions % wanted.positions) != (tile.vectors, 0):
        raise errors.TypingError(f"{wanted} is no part of {tile}")
    result = Tile(tile.part, wanted.positions, tile.vectors)
    single = wanted.positions * tile.vectors == 1

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        places = _places(builder, tile, wanted.positions, *arguments[1:])
        made = [builder.load(place) for place in places]
        return made[0] if single else pack(builder, result, made)

    return (tile.part if single else result)(shape, rows, types.int64), codegen


def _fewer(t: Any, positions: int) -> tuple[Any, Callable[..., Any]]:
    """The type of so many positions of a tile of numbers, and the code that gives them from a first
    position on; one is a number.
    """
    if positions == 1:
        return t.part, lambda context, builder, value, first: parts(context, builder, t, value)(
            first, 0
        )
    if isinstance(t, Column):
        column = Column(t.part, positions)

        def moved(context: Any, builder: Any, value: Any, first: Any) -> Any:
            pointer, step = (builder.extract_value(value, i) for i in (0, 1))
            pointer = builder.gep(pointer, [builder.mul(step, first)], inbounds=True)
            return builder.insert_value(value, pointer, 0)

        return column, moved
    if not isinstance(t, Computed):
        return t, lambda context, builder, value, first: value  # the same for all positions
    of = [_fewer(o, positions) for o in t.operands]
    computed = Computed(t.word, tuple(o for o, _ in of), t.part, positions)

    def each(context: Any, builder: Any, value: Any, first: Any) -> Any:
        made = ir.Constant(context.get_value_type(computed), ir.Undefined)
        for i, (_, sub) in enumerate(of):
            operand = sub(context, builder, builder.extract_value(value, i), first)
            made = builder.insert_value(made, operand, i)
        return made

    return computed, each


@intrinsic
def put(typing: Any, rows: Any, position: Any, value: Any) -> Any:
    tile = _rows(rows)
    positions = value.positions if isinstance(value, Tile) else 1

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        slot, p, given = arguments
        part = parts(context, builder, value, given)
        for i, place in enumerate(_places(builder, tile, positions, slot, p)):
            builder.store(part(*divmod(i, tile.vectors)), place)
        return context.get_dummy_value()

    return types.void(rows, types.int64, value), codegen


@intrinsic
def from_memory(typing: Any, rows: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.load(arguments[0])

    return _rows(rows)(rows), codegen
