"""The counter-based generator: known answers, uniformity, independence of keys, equal bits."""

import numpy as np
import pytest

from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.interp import interpret
from cnncc.loops.ir import Size, Uniform, Var
from cnncc.loops.random import mix_key, squares, uniform
from cnncc.tensor import DType, TensorType

WRAP = 2**64


def plain_mix(key: int) -> int:
    """The text of the module, in Python's integers."""
    k = (key + 0x9E3779B97F4A7C15) % WRAP
    k = ((k ^ (k >> 30)) * 0xBF58476D1CE4E5B9) % WRAP
    k = ((k ^ (k >> 27)) * 0x94D049BB133111EB) % WRAP
    return (k ^ (k >> 31)) | 1


def plain_squares(counter: int, key: int) -> int:
    x = y = counter * key % WRAP
    z = (y + key) % WRAP
    for addend in (y, z, y):
        x = (x * x + addend) % WRAP
        x = ((x >> 32) | (x << 32)) % WRAP
    return ((x * x + z) % WRAP) >> 32


def test_splitmix_known_answers() -> None:
    """The first numbers of SplitMix64 from seed 0, as published with xoshiro."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    step = 0x9E3779B97F4A7C15
    assert [plain_mix(k * step % WRAP) for k in range(3)] == [p | 1 for p in published]


@pytest.mark.parametrize("key", [0, 1, 2, 12345, 2**40, -1, -(2**63), 2**63 - 1])
def test_numpy_equals_python_integers(key: int) -> None:
    counters = [0, 1, 2, 3, 1000, 2**31, 2**32 + 5, 2**62, -1]
    assert int(mix_key(key)) == plain_mix(key % WRAP)
    bits = squares(np.array(counters), mix_key(key))
    assert bits.tolist() == [plain_squares(c % WRAP, plain_mix(key % WRAP)) for c in counters]
    assert [int(squares(c, mix_key(key))) for c in counters] == bits.tolist()


def test_known_answers() -> None:
    """These bits are part of saved training runs: they must never change."""
    bits = squares(np.arange(4), mix_key(0))
    assert bits.tolist() == [0x1D20353B, 0x1F462CBA, 0x2B1B17B8, 0x12BA2C01]


def test_range_and_exactness() -> None:
    single, double = (uniform(7, np.arange(200_000), t) for t in (np.float32, np.float64))
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_array_equal(single.astype(np.float64), double)
    assert (double >= 0).all()
    assert (double < 1).all()
    np.testing.assert_array_equal(double * 2**24, np.floor(double * 2**24))


def chi_squared(observed: np.ndarray) -> float:
    """How many standard deviations chi squared is from its mean."""
    expected = observed.sum() / observed.size
    degrees = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


@pytest.mark.parametrize("key", [0, 1, 2, 3, 1000, 10**12])
def test_uniform_in_every_byte(key: int) -> None:
    bits = squares(np.arange(1 << 18), mix_key(key))
    for shift in (8, 16, 24):
        counts = np.bincount((bits >> np.uint64(shift)).astype(int) & 255, minlength=256)
        assert abs(chi_squared(counts)) < 5


def test_neighbours_are_independent() -> None:
    """Pairs of consecutive counters fill the square evenly; so do equal counters of two keys."""
    counters = np.arange(1 << 18)
    first = uniform(5, counters, np.float64)
    for second in (
        uniform(5, counters + 1, np.float64),
        uniform(6, counters, np.float64),
        uniform(5 + 2**32, counters, np.float64),
    ):
        cells = (first * 16).astype(int) * 16 + (second * 16).astype(int)
        assert abs(chi_squared(np.bincount(cells, minlength=256))) < 5
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(counters.size)


def test_keys_give_different_streams() -> None:
    starts = {tuple(squares(np.arange(4), mix_key(key)).tolist()) for key in range(2000)}
    assert len(starts) == 2000


def test_in_a_nest() -> None:
    """The number depends on key and counter only, not on how the loops run."""
    n = NestBuilder()
    y = n.output("y", TensorType(DType.F32, (3, 4), batched=False), "a b")
    i, j = Var("i"), Var("j")
    drawn = Uniform(Size("key"), i * Size("b") + j)
    n.size("key", 11)
    nest = n.nest(parallel([("i", Size("a")), ("j", Size("b"))], y.store((i, j), drawn)))
    result = np.empty((3, 4), np.float32)
    interpret(nest, {"y": result}, {"a": 3, "b": 4, "key": 11}, np.float32)
    np.testing.assert_array_equal(result.ravel(), uniform(11, np.arange(12), np.float32))
