"""The random numbers of the loop IR: `Uniform(key, counter)`, a function without state.

A counter-based generator computes the number from a key (one per layer and step) and a counter (the
element), so that every thread, every target and the backward pass draw the same numbers without
storing them. The algorithm is Squares (Bernard Widynski, "Squares: A Fast Counter-Based RNG", 2020,
https://arxiv.org/abs/2004.06278), four rounds, in unsigned 64-bit integers that wrap around:

    x = y = counter * key_bits;  z = y + key_bits
    x = x * x + y;  x = (x >> 32) | (x << 32)
    x = x * x + z;  x = (x >> 32) | (x << 32)
    x = x * x + y;  x = (x >> 32) | (x << 32)
    bits = (x * x + z) >> 32

Its quality rests on the key's bits being irregular, and layers number their keys 0, 1, 2, ...; so
the key is mixed first (the output function of SplitMix64: Steele, Lea, Flood, "Fast Splittable
Pseudorandom Number Generators", 2014) and made odd:

    k = key + 0x9E3779B97F4A7C15
    k = (k ^ (k >> 30)) * 0xBF58476D1CE4E5B9
    k = (k ^ (k >> 27)) * 0x94D049BB133111EB
    key_bits = (k ^ (k >> 31)) | 1

The result is `(bits >> 8) * 2^-24`, which is exact in float32: f32 and f64 kernels draw equal
numbers. A printer for a target writes these lines with the constants below; the mixing of a key
that is the same for all elements can be done once, outside the loops.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

__all__ = ["KEY_MULTIPLIERS", "KEY_STEP", "mix_key", "squares", "uniform"]

KEY_STEP: Final = 0x9E3779B97F4A7C15
KEY_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

_HALF: Final = np.uint64(32)


def mix_key(key: Any) -> Any:
    """The odd 64-bit key of Squares for an integer key (an int or an int64 array), as uint64."""
    with np.errstate(over="ignore"):
        k = _unsigned(key) + np.uint64(KEY_STEP)
        k = (k ^ (k >> np.uint64(30))) * np.uint64(KEY_MULTIPLIERS[0])
        k = (k ^ (k >> np.uint64(27))) * np.uint64(KEY_MULTIPLIERS[1])
        return (k ^ (k >> np.uint64(31))) | np.uint64(1)


def squares(counter: Any, key_bits: Any) -> Any:
    """32 random bits, as uint64, of a counter under an irregular odd key (Widynski 2020, four
    rounds)."""
    key_bits = _unsigned(key_bits)
    with np.errstate(over="ignore"):
        y = _unsigned(counter) * key_bits
        z = y + key_bits
        x = y
        for addend in (y, z, y):
            x = x * x + addend
            x = (x >> _HALF) | (x << _HALF)
        return (x * x + z) >> _HALF


def uniform(key: Any, counter: Any, dtype: Any) -> Any:
    """Numbers in [0, 1), multiples of 2^-24, of the float type; `key` and `counter` broadcast.

    Negative integers and those above 2^63 count modulo 2^64.
    """
    bits = squares(counter, mix_key(key)) >> np.uint64(8)
    return bits.astype(dtype) * np.dtype(dtype).type(2.0**-24)


def _unsigned(integers: Any) -> Any:
    """Integers modulo 2^64: a NumPy scalar, or an array."""
    if isinstance(integers, int):
        return np.uint64(integers & 0xFFFF_FFFF_FFFF_FFFF)
    return np.asarray(integers).astype(np.uint64)[()]
