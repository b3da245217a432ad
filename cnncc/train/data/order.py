"""Reproducible disorder: permutations and numbers that depend on nothing but their seeds.

Everything is computed from a counter by SplitMix64 (Steele, Lea and Flood, "Fast Splittable
Pseudorandom Number Generators", 2014). NumPy's generators would serve as well, but NumPy reserves
the right to change their streams between versions, and a resumed run must see the same batches.
"""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def random_bits(count: int, *seeds: int, first: int = 0) -> NDArray[np.uint64]:
    """`count` values of 64 random bits, the first of them number `first` of the seeds' sequence.
    The seeds are whole numbers; their order matters.
    """
    key = 0
    for seed in seeds:
        key = int(
            _mix(np.array([(key + _GOLDEN * (1 + seed % (_MASK + 1))) & _MASK], np.uint64))[0]
        )
    counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(counter + np.array([(key + first * _GOLDEN) & _MASK], np.uint64))


def random_order(count: int, *seeds: int) -> NDArray[np.intp]:
    """A permutation of 0 to count - 1: the indices, sorted by their random bits."""
    return np.argsort(random_bits(count, *seeds), kind="stable")


def random_floats(count: int, *seeds: int) -> NDArray[np.float32]:
    """`count` float32 numbers, uniform on the multiples of 2^-24 from 0 up to but not 1."""
    bits = random_bits(count, *seeds) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser. Unsigned arrays wrap, which is what it asks for."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
