"""Arithmetic on vectors and, under the same names, on scalars.

The operators + - * /, the comparisons and - (negation) are taught to Numba for vectors; scalars
have them already. All else is a function that accepts both, so that one printed text serves a
kernel of any width.  No instruction carries a fast-math flag, so LLVM neither fuses, reorders nor
approximates.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from cnncc.targets.cpu.vector.tile import Tile, elementwise, lifted
from cnncc.targets.cpu.vector.types import (
    Vector,
    broadcast,
    element_of,
    ir_type,
    llvm_name,
    same,
    shaped,
    spread,
)

_I32 = ir.IntType(32)


def _is_float(t: Any) -> bool:
    return element_of(t) in (types.float32, types.float64)


def need_float(*operands: Any) -> Any:
    t = same(*operands)
    if not _is_float(t):
        raise errors.TypingError(f"floating-point operands were expected, but got {t}")
    return t


def constant(t: Any, value: float) -> ir.Constant:
    """`value` as a constant of type t, in every lane of a vector."""
    kind = ir_type(t)
    return ir.Constant(kind, [value] * t.lanes if isinstance(t, Vector) else value)


def _call_llvm(builder: Any, stem: str, *arguments: Any) -> Any:
    kind = arguments[0].type
    prototype = ir.FunctionType(kind, [kind] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, prototype, llvm_name(stem, kind))
    return builder.call(function, arguments)


# --- operators -----------------------------------------------------------------------------------


def _teach(symbol: Any, word: Callable[..., Any]) -> None:
    """Teach Numba the operator `symbol` on vectors and tiles, by the typing function of a word."""

    def made(operands: tuple[Any, ...]) -> tuple[Any, Any]:
        operands = tuple(map(types.unliteral, operands))
        on_tiles = lifted(word, operands)
        if on_tiles is not None:
            return on_tiles[0](*operands), on_tiles[1]
        signature, code = word(None, *operands)
        return signature, code

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or not any(isinstance(t, (Vector, Tile)) for t in args):
                return None
            return made(args)[0]

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return made(sig.args)[1](context, builder, sig, arguments)

    kinds = (Vector, Tile, types.Number)
    if word.__code__.co_argcount == 2:  # typing, x
        patterns: Iterable[tuple[Any, ...]] = ((Vector,), (Tile,))
    else:
        patterns = (p for p in product(kinds, kinds) if p != (types.Number, types.Number))
    for operands in patterns:
        lower_builtin(symbol, *operands)(lower)


def _binary(
    name: str, emit: Callable[[Any, Any, Any, Any], Any], *, compares: bool = False
) -> Callable[..., Any]:
    """The word of an operator on two operands."""

    def word(typing: Any, x: Any, y: Any) -> Any:
        common = same(x, y)
        result = shaped(types.boolean, common) if compares else common

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            pairs = zip(arguments, sig.args, strict=True)
            left, right = (spread(builder, value, t, common) for value, t in pairs)
            return emit(builder, element_of(common), left, right)

        return result(*map(types.unliteral, (x, y))), codegen

    word.__name__ = name
    return word


def _arithmetic(on_floats: str | None, on_integers: str | None) -> Callable[..., Any]:
    def emit(builder: Any, element: Any, left: Any, right: Any) -> Any:
        name = on_floats if isinstance(element, types.Float) else on_integers
        if name is None:
            raise errors.LoweringError(f"there is no such operator on {element}")
        return getattr(builder, name)(left, right)

    return emit


def _compare(sign: str) -> Callable[..., Any]:
    def emit(builder: Any, element: Any, left: Any, right: Any) -> Any:
        if isinstance(element, types.Float):
            # x != y is true when either is NaN, every other comparison is then false
            kind = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        else:
            signed = getattr(element, "signed", False)
            kind = builder.icmp_signed if signed else builder.icmp_unsigned
        return kind(sign, left, right)

    return emit


_teach(operator.add, _binary("add", _arithmetic("fadd", "add")))
_teach(operator.sub, _binary("sub", _arithmetic("fsub", "sub")))
_teach(operator.mul, _binary("mul", _arithmetic("fmul", "mul")))
_teach(operator.truediv, _binary("truediv", _arithmetic("fdiv", None)))
_teach(operator.and_, _binary("and_", _arithmetic(None, "and_")))
_teach(operator.or_, _binary("or_", _arithmetic(None, "or_")))
_teach(operator.xor, _binary("xor", _arithmetic(None, "xor")))
for _symbol, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _teach(_symbol, _binary(_symbol.__name__, _compare(_sign), compares=True))


def _negation(typing: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.fneg(arguments[0]) if _is_float(x) else builder.neg(arguments[0])

    return x(x), codegen


_teach(operator.neg, _negation)


# --- functions of floats -------------------------------------------------------------------------


def _unary(stem: str) -> Any:
    def function(typing: Any, x: Any) -> Any:
        t = need_float(x)

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return _call_llvm(builder, stem, *arguments)

        return t(t), codegen

    function.__name__ = stem
    return elementwise(function)


sqrt = _unary("sqrt")
floor = _unary("floor")
rint = _unary("roundeven")
absolute = _unary("fabs")


def on_common(operands: Any, emit: Callable[..., Any]) -> Any:
    """Signature and code of an operation whose operands and result share one floating type."""
    t = need_float(*operands)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pairs = zip(arguments, sig.args, strict=True)
        return emit(builder, *(spread(builder, value, kind, t) for value, kind in pairs))

    return t(*map(types.unliteral, operands)), codegen


@elementwise
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    return on_common((x, y, z), lambda builder, *values: _call_llvm(builder, "fma", *values))


@elementwise
def copysign(typing: Any, x: Any, sign: Any) -> Any:
    return on_common((x, sign), lambda builder, *values: _call_llvm(builder, "copysign", *values))


def _better(builder: Any, sign: str, a: Any, b: Any) -> Any:
    """a if it compares as `sign` with b or is NaN, else b; x86 has compare and select as one
    instruction. It stays one where NaN is put in by its bits: of two selects LLVM makes one by both
    conditions.
    """
    chosen = builder.select(builder.fcmp_ordered(sign, a, b), a, b)
    is_nan = builder.fcmp_unordered("uno", a, a)
    if not isinstance(a.type, ir.VectorType):
        return builder.select(is_nan, a, chosen)
    width = 64 if isinstance(a.type.element, ir.DoubleType) else 32
    bits = ir.VectorType(ir.IntType(width), a.type.count)
    nan = builder.or_(builder.bitcast(chosen, bits), builder.sext(is_nan, bits))
    return builder.bitcast(nan, a.type)


def _extreme(name: str, sign: str) -> Any:
    def function(typing: Any, x: Any, y: Any) -> Any:
        def emit(builder: Any, a: Any, b: Any) -> Any:
            return _better(builder, sign, a, b)

        return on_common((x, y), emit)

    function.__name__ = name
    return elementwise(function)


maximum = _extreme("maximum", ">")
minimum = _extreme("minimum", "<")


@elementwise
def relu(typing: Any, x: Any) -> Any:
    t = need_float(x)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        zero = constant(t, 0.0)
        return builder.select(builder.fcmp_ordered(">", zero, arguments[0]), zero, arguments[0])

    return t(t), codegen


# --- choice --------------------------------------------------------------------------------------


def _condition(builder: Any, t: Any, value: Any) -> Any:
    """A mask as it is; a number is true where it is not zero, NaN included."""
    if element_of(t) == types.boolean:
        return value
    return builder.fcmp_unordered("!=", value, constant(t, 0.0))


@elementwise
def select(typing: Any, condition: Any, x: Any, y: Any) -> Any:
    t = same(x, y)
    condition = types.unliteral(condition)
    if not _is_float(condition) and element_of(condition) != types.boolean:
        raise errors.TypingError(f"select takes a mask or a float as condition, not {condition}")
    if isinstance(condition, Vector):
        t = t if isinstance(t, Vector) else Vector(t, condition.lanes)
        if t.lanes != condition.lanes:
            raise errors.TypingError(f"select: {condition} cannot choose between values of {t}")

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        chosen, a, b = arguments
        a, b = spread(builder, a, sig.args[1], t), spread(builder, b, sig.args[2], t)
        return builder.select(_condition(builder, condition, chosen), a, b)

    return t(condition, types.unliteral(x), types.unliteral(y)), codegen


@elementwise
def flag(typing: Any, condition: Any, like: Any) -> Any:
    condition = types.unliteral(condition)
    t = shaped(element_of(need_float(like)), condition)
    if element_of(condition) != types.boolean:
        raise errors.TypingError(f"flag takes a mask, not {condition}")

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.uitofp(arguments[0], ir_type(t))

    return t(condition, types.unliteral(like)), codegen


# --- lanes ---------------------------------------------------------------------------------------


def _splat(lanes: int) -> Any:
    @intrinsic
    def splat(typing: Any, scalar: Any) -> Any:
        t = Vector(element_of(scalar), lanes)

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return broadcast(builder, arguments[0], lanes)

        return t(t.element), codegen

    return splat


splat2, splat4, splat8, splat16 = map(_splat, (2, 4, 8, 16))


def _fold(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def fold(typing: Any, x: Any) -> Any:
        t = need_float(x)
        if not isinstance(t, Vector):
            return t(t), lambda context, builder, sig, arguments: arguments[0]

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            (value,) = arguments
            lanes = t.lanes
            while lanes > 1:
                lanes //= 2
                halves = (
                    builder.shuffle_vector(
                        value,
                        ir.Constant(value.type, ir.Undefined),
                        ir.Constant(ir.VectorType(_I32, lanes), list(range(first, first + lanes))),
                    )
                    for first in (0, lanes)
                )
                value = emit(builder, *halves)
            return builder.extract_element(value, _I32(0))

        return t.element(t), codegen

    return fold


hsum = _fold(lambda builder, a, b: builder.fadd(a, b))
hmax = _fold(lambda builder, a, b: _better(builder, ">", a, b))
