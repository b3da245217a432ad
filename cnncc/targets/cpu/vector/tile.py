"""The Numba type of a register tile: `positions` x `vectors` vectors (or numbers), and the lifting
of every word on vectors to tiles.

A kernel that computes several outputs together is written as if it computed one: in a 14 x 2 tile
`acc = fma(x, w, acc)` stands for all 28 operations, x having one number per position, w one vector
per block of lanes.  What has extent 1 along a dimension is repeated along it, as in NumPy.  A tile
is so many LLVM values, and a word emits its parts one by one.

Numbers per position (`lanes` = 1) are read, and what is computed of them alone is computed, only
when a word needs them: fourteen numbers that wait for their use would not fit beside 28
accumulators.  So a buffer that is read in this form must not be written in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import errors
from numba.core.imputils import lower_constant
from numba.core.typing.typeof import typeof_impl
from numba.extending import intrinsic, models, register_model

from cnncc.targets.cpu.tile_shape import Shape
from cnncc.targets.cpu.vector.types import Vector, ir_type, opaque, spread

__all__ = [
    "Column",
    "Near",
    "Tile",
    "anchored",
    "elementwise",
    "lifted",
    "pack",
    "part_of",
    "parts",
    "pick",
    "shape_of",
    "splat_tile",
    "tiled",
    "with_arguments",
]

_I64 = ir.IntType(64)
_NEAR = 4  # positions of a column that share a pointer


class Tile(types.Type):
    """`positions` x `vectors` values of type `part`, held as one LLVM array."""

    def __init__(self, part: Any, positions: int, vectors: int, name: str = "") -> None:
        self.part, self.positions, self.vectors = part, positions, vectors
        super().__init__(name=name or f"{positions}x{vectors}x{part}")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(
            manager, tile, ir.ArrayType(ir_type(tile.part), tile.positions * tile.vectors)
        )


class Column(Tile):
    """A number per position, `step` elements apart: a pointer and the step."""

    def __init__(self, element: Any, positions: int) -> None:
        super().__init__(element, positions, 1, f"column of {positions} {element}")


@register_model(Column)
class _ColumnModel(models.PrimitiveModel):
    def __init__(self, manager: Any, column: Column) -> None:
        pointer = ir_type(column.part).as_pointer()
        super().__init__(manager, column, ir.LiteralStructType([pointer, _I64]))


class Near(Tile):
    """As a column, `offset` elements behind one whose pointers wait in registers: a pointer for
    every few positions, and the step.
    """

    def __init__(self, element: Any, positions: int, offset: int = 0) -> None:
        self.offset = offset
        super().__init__(element, positions, 1, f"{offset} behind {positions} {element}")


@register_model(Near)
class _NearModel(models.PrimitiveModel):
    def __init__(self, manager: Any, near: Near) -> None:
        super().__init__(manager, near, _pointers_and_step(near))


def _pointers_and_step(near: Near) -> ir.Type:
    count = -(-near.positions // _NEAR)
    return ir.LiteralStructType([*[ir_type(near.part).as_pointer()] * count, _I64])


class Computed(Tile):
    """A number per position that a word computes of other columns and of numbers."""

    def __init__(self, word: Any, operands: tuple[Any, ...], part: Any, positions: int) -> None:
        self.word, self.operands = word, operands
        inner = ", ".join(map(str, operands))
        super().__init__(part, positions, 1, f"{word.__name__}({inner}) of {positions} {part}")


@register_model(Computed)
class _ComputedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, computed: Computed) -> None:
        values = [manager[t].get_value_type() for t in computed.operands]
        super().__init__(manager, computed, ir.LiteralStructType(values))


# --- shapes are constants of a kernel's module ---------------------------------------------------


class ShapeType(types.Dummy):
    """The type of one Shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        super().__init__(name=str(shape))


register_model(ShapeType)(models.OpaqueModel)


@typeof_impl.register(Shape)
def _type_of_shape(shape: Shape, context: Any) -> ShapeType:
    return ShapeType(shape)


@lower_constant(ShapeType)
def _constant_shape(context: Any, builder: Any, t: Any, value: Any) -> Any:
    return context.get_dummy_value()


def shape_of(t: Any) -> Shape:
    """The shape that a type stands for; TypingError for anything else."""
    if not isinstance(t, ShapeType):
        raise errors.TypingError(f"a shape was expected, but got {t}")
    return t.shape


def tiled(element: Any, shape: Shape) -> Tile:
    """The type of a tile with that shape."""
    part = Vector(element, shape.lanes) if shape.lanes > 1 else element
    return Tile(part, shape.positions, shape.vectors)


# --- parts ---------------------------------------------------------------------------------------


def part_of(t: Any) -> Any:
    return t.part if isinstance(t, Tile) else t


@dataclass
class parts:
    """The parts of a value, each made at its first use: `part(p, v)`, repeated along dimensions of
    extent 1.
    """

    context: Any
    builder: Any
    type: Any
    value: Any

    def __post_init__(self) -> None:
        self._made: dict[tuple[int, int], Any] = {}
        self._operands: list[parts] | None = None
        self._pointers: dict[int, Any] = {}  # of every few positions of a column

    def __call__(self, p: Any, v: int) -> Any:
        t = self.type
        if not isinstance(t, Tile):
            return self.value
        if not isinstance(p, int):  # a position that is known when the kernel runs
            return self._make(p, v)
        at = (p if t.positions > 1 else 0, v if t.vectors > 1 else 0)
        if at not in self._made:
            self._made[at] = self._make(*at)
        return self._made[at]

    def _make(self, p: Any, v: int) -> Any:
        t, builder = self.type, self.builder
        if isinstance(t, (Column, Near)):
            number = builder.load(self._place(p) if isinstance(t, Column) else self._near(p))
            number.align = t.part.bitwidth // 8
            return number
        if isinstance(t, Computed):
            if self._operands is None:
                self._operands = [
                    parts(self.context, builder, o, builder.extract_value(self.value, i))
                    for i, o in enumerate(t.operands)
                ]
            sig, code = t.word(None, *map(part_of, t.operands))
            return code(self.context, builder, sig, [o(p, v) for o in self._operands])
        return builder.extract_value(self.value, p * t.vectors + v)

    def _near(self, p: int) -> Any:
        """The pointer to the number of a position, from the nearest one in front that waits."""
        builder, value = self.builder, self.value
        pointer, step = (builder.extract_value(value, i) for i in (p // _NEAR, _last(value)))
        behind = builder.gep(pointer, [builder.mul(step, _I64(p % _NEAR))], inbounds=True)
        return builder.gep(behind, [_I64(self.type.offset)], inbounds=True)

    def _place(self, p: Any) -> Any:
        """The pointer to a column's number.

        LLVM would step a pointer for every position through the loop: more than there are
        registers, and the spilled ones cost more loads than the numbers. So it is not shown where
        every fourth pointer comes from, each from the one before it, and those in between lie one
        to three steps behind it. A loop then keeps one pointer and the steps, which leaves
        registers for hints; without, LLVM would read all numbers before the first sum, and spill
        sums for them.
        """
        builder = self.builder
        first, step = (builder.extract_value(self.value, i) for i in (0, 1))
        if not isinstance(p, int):
            return builder.gep(first, [builder.mul(step, p)], inbounds=True)
        near = p % _NEAR
        if p - near not in self._pointers:
            known = self._pointers.get(p - near - _NEAR)
            behind = builder.mul(step, _I64(p - near if known is None else _NEAR))
            far = builder.gep(first if known is None else known, [behind], inbounds=True)
            self._pointers[p - near] = opaque(builder, far)
        behind = builder.mul(step, _I64(near))
        return builder.gep(self._pointers[p - near], [behind], inbounds=True)


def anchored(builder: Any, t: Near, first: Any, step: Any) -> Any:
    """The LLVM value of numbers near pointers, of which LLVM does not see where they come from."""
    value = ir.Constant(_pointers_and_step(t), ir.Undefined)
    pointer = first
    for i in range(-(-t.positions // _NEAR)):
        far = builder.gep(pointer, [builder.mul(step, _I64(_NEAR))], inbounds=True) if i else first
        pointer = opaque(builder, far)
        value = builder.insert_value(value, pointer, i)
    return builder.insert_value(value, step, _last(value))


def _last(value: Any) -> int:
    return len(value.type.elements) - 1


def pack(builder: Any, t: Tile, values: list[Any]) -> Any:
    """The LLVM value of a tile from its parts, position by position."""
    tile = ir.Constant(ir.ArrayType(ir_type(t.part), len(values)), ir.Undefined)
    for i, value in enumerate(values):
        tile = builder.insert_value(tile, value, i)
    return tile


# --- words ---------------------------------------------------------------------------------------


def lifted(word: Callable[..., Any], operands: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Result type and codegen of a word on operands of which some are tiles (None: none is)."""
    tiles = [t for t in operands if isinstance(t, Tile)]
    if not tiles:
        return None
    positions, vectors = max(t.positions for t in tiles), max(t.vectors for t in tiles)
    for t in tiles:
        if t.positions not in (1, positions) or t.vectors not in (1, vectors):
            raise errors.TypingError(f"tiles of different shapes: {', '.join(map(str, operands))}")
    on_parts, code = word(None, *map(part_of, operands))
    part = on_parts.return_type
    if not isinstance(part, Vector) and vectors == 1:
        result: Tile = Computed(word, tuple(map(types.unliteral, operands)), part, positions)

        def later(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            kind = context.get_value_type(result)
            value = ir.Constant(kind, ir.Undefined)
            for i, a in enumerate(arguments):
                value = builder.insert_value(value, a, i)
            return value

        return result, later
    result = Tile(part, positions, vectors)

    def each(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pairs = zip(operands, arguments, strict=True)
        taken = [parts(context, builder, t, a) for t, a in pairs]
        made = [
            code(context, builder, on_parts, [t(p, v) for t in taken])
            for p in range(positions)
            for v in range(vectors)
        ]
        return pack(builder, result, made)

    return result, each


def elementwise(word: Callable[..., Any]) -> Any:
    """Decorate the typing function of a word on vectors and numbers, as `intrinsic` does: it also
    takes tiles, part by part.
    """

    def on_tiles(typing: Any, *operands: Any) -> Any:
        made = lifted(word, operands)
        if made is None:
            return word(typing, *operands)
        result, code = made
        return result(*map(types.unliteral, operands)), code

    return intrinsic(with_arguments(on_tiles, *signature(word).parameters))


def with_arguments(word: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """A typing function of any number of arguments, declared to take these: Numba would hand it a
    tuple for a starred one.
    """
    word.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return word


@intrinsic(prefer_literal=True)
def pick(typing: Any, shape: Any, tile: Any, first: Any, step: Any) -> Any:
    wanted = shape_of(shape)
    begin, apart = first.literal_value, step.literal_value
    t = tiled(element_in(tile), wanted)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        given = parts(context, builder, tile, arguments[1])
        made = [
            given(begin + p * apart, v)
            for p in range(wanted.positions)
            for v in range(wanted.vectors)
        ]
        return pack(builder, t, made)

    return t(shape, tile, first, step), codegen


@intrinsic
def splat_tile(typing: Any, shape: Any, value: Any) -> Any:
    t = tiled(element_in(value), shape_of(shape))

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        given = parts(context, builder, sig.args[1], arguments[1])
        source = part_of(sig.args[1])
        made = [
            spread(builder, given(p, v), source, t.part)
            for p in range(t.positions)
            for v in range(t.vectors)
        ]
        return pack(builder, t, made)

    return t(shape, types.unliteral(value)), codegen


def element_in(t: Any) -> Any:
    part = part_of(types.unliteral(t))
    return part.element if isinstance(part, Vector) else part
