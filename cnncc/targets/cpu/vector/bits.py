"""Words on the bits of floats: powers of two, exponents and mantissas."""

from __future__ import annotations

from typing import Any

from numba import types

from cnncc.targets.cpu.vector.arithmetic import constant, need_float, on_common
from cnncc.targets.cpu.vector.tile import elementwise
from cnncc.targets.cpu.vector.types import element_of, ir_type, shaped

_LAYOUT = {types.float32: (types.int32, 127, 23), types.float64: (types.int64, 1023, 52)}


@elementwise
def scale2(typing: Any, x: Any, n: Any) -> Any:
    t = need_float(x, n)
    integer, bias, width = _LAYOUT[element_of(t)]
    whole = shaped(integer, t)

    def emit(builder: Any, value: Any, power: Any) -> Any:
        power = _cut(builder, t, whole, power, 2 - 2 * bias, 2 * bias)
        half = builder.ashr(power, constant(whole, 1))
        for part in (half, builder.sub(power, half)):
            biased = builder.add(part, constant(whole, bias))
            bits = builder.shl(biased, constant(whole, width))
            value = builder.fmul(value, builder.bitcast(bits, ir_type(t)))
        return value

    return on_common((x, n), emit)


def _cut(builder: Any, t: Any, whole: Any, n: Any, lowest: int, highest: int) -> Any:
    """A whole number of float type t as an integer between the bounds; NaN gives the lowest."""
    low, high = constant(t, float(lowest)), constant(t, float(highest))
    n = builder.select(builder.fcmp_ordered(">", n, low), n, low)
    n = builder.select(builder.fcmp_ordered("<", n, high), n, high)
    return builder.fptosi(n, ir_type(whole))


@elementwise
def power2(typing: Any, n: Any) -> Any:
    t = need_float(n)
    integer, bias, width = _LAYOUT[element_of(t)]
    whole = shaped(integer, t)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        last = builder.fadd(arguments[0], constant(t, 1.5 * 2.0**width))  # n in its last bits
        bits = builder.shl(builder.bitcast(last, ir_type(whole)), constant(whole, width))
        return builder.bitcast(builder.add(bits, constant(whole, bias << width)), ir_type(t))

    return t(t), codegen


@elementwise
def exponent(typing: Any, x: Any) -> Any:
    t = need_float(x)
    integer, bias, width = _LAYOUT[element_of(t)]
    whole = shaped(integer, t)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir_type(whole))
        shifted = builder.lshr(bits, constant(whole, width))
        field = builder.and_(shifted, constant(whole, 2 * bias + 1))
        return builder.sitofp(builder.sub(field, constant(whole, bias)), ir_type(t))

    return t(t), codegen


@elementwise
def mantissa(typing: Any, x: Any) -> Any:
    t = need_float(x)
    integer, bias, width = _LAYOUT[element_of(t)]
    whole = shaped(integer, t)
    keep = -1 - ((2 * bias + 1) << width)  # sign and mantissa bits

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        bits = builder.and_(builder.bitcast(arguments[0], ir_type(whole)), constant(whole, keep))
        bits = builder.or_(bits, constant(whole, bias << width))
        return builder.bitcast(bits, ir_type(t))

    return t(t), codegen
