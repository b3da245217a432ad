"""The counter-based generator of `loops.random` in the vector's words: the same integers, for a
scalar or a vector counter.
"""

from __future__ import annotations

from typing import Any

from cnncc.loops.random import KEY_MULTIPLIERS, KEY_STEP
from cnncc.targets.cpu.compiled import inlined
from cnncc.targets.cpu.vector import (
    bit_xor,
    f32,
    f64,
    shift_left,
    shift_right,
    to_f32,
    to_f64,
    u64,
    wrap_add,
    wrap_mul,
)

__all__ = ["mixed_key", "uniform_f32", "uniform_f64"]

_STEP, _FIRST, _SECOND = u64(KEY_STEP), u64(KEY_MULTIPLIERS[0]), u64(KEY_MULTIPLIERS[1])


@inlined
def mixed_key(key: Any) -> Any:
    """The odd key of the generator for an integer key (`loops.random.mix_key`)."""
    k = wrap_add(u64(key), _STEP)
    k = wrap_mul(bit_xor(k, shift_right(k, u64(30))), _FIRST)
    k = wrap_mul(bit_xor(k, shift_right(k, u64(27))), _SECOND)
    k = bit_xor(k, shift_right(k, u64(31)))
    lowest = shift_right(shift_left(k, u64(63)), u64(63))
    return wrap_add(k, bit_xor(u64(1), lowest))  # k | 1


@inlined
def _rotated(x: Any) -> Any:
    return wrap_add(shift_right(x, u64(32)), shift_left(x, u64(32)))  # the halves do not overlap


@inlined
def _bits(key: Any, counter: Any) -> Any:
    """24 random bits (`loops.random.squares`, the lowest 8 of its 32 dropped)."""
    y = wrap_mul(counter, key)
    z = wrap_add(y, key)
    x = _rotated(wrap_add(wrap_mul(y, y), y))
    x = _rotated(wrap_add(wrap_mul(x, x), z))
    x = _rotated(wrap_add(wrap_mul(x, x), y))
    return shift_right(wrap_add(wrap_mul(x, x), z), u64(40))


@inlined
def uniform_f32(key: Any, counter: Any) -> Any:
    return to_f32(_bits(key, counter)) * f32(2.0**-24)


@inlined
def uniform_f64(key: Any, counter: Any) -> Any:
    return to_f64(_bits(key, counter)) * f64(2.0**-24)
