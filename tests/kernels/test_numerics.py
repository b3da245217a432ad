"""The NumPy definitions of the primitives, judged by exact rational arithmetic and by PyTorch."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnncc.loops import numerics

FLOATS = (np.float32, np.float64)
PRECISION = {
    np.float32: (24, -149, 128), np.float64: (53, -1074, 1024), "bf16": (8, -133, 128),
}  # fmt: skip


def rounded(exact: Fraction, dtype: type, form: type | str | None = None) -> np.floating:
    """The nearest number of dtype, or of another form as a number of dtype, ties to even, by the
    definition."""
    bits, lowest, top = PRECISION[form or dtype]
    if exact == 0:
        return dtype(0)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - bits + 1, lowest)
    value = round(size / unit) * unit  # Python rounds a Fraction's tie to even
    result = dtype(np.inf) if value >= Fraction(2) ** top else dtype(float(value))
    return -result if exact < 0 else result


def finite(dtype: type, *, normal: bool = False) -> st.SearchStrategy:
    """Every finite (or normal) number of dtype, put together from sign, exponent field and
    mantissa field."""
    integer, width, top = (np.uint32, 23, 254) if dtype is np.float32 else (np.uint64, 52, 2046)

    def build(sign: int, exponent: int, mantissa: int) -> np.floating:
        bits = ((sign * (top + 2) + exponent) << width) | mantissa
        return integer(bits).view(dtype)

    return st.builds(
        build, st.integers(0, 1), st.integers(int(normal), top), st.integers(0, 2**width - 1)
    )


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_fma_is_correctly_rounded(dtype, data):
    x, y, z = (data.draw(finite(dtype)) for _ in range(3))
    if data.draw(st.booleans()):  # nearly cancelling sums are the hard ones
        with np.errstate(all="ignore"):
            near = -(x * y)
        z = np.nextafter(near, dtype(data.draw(st.sampled_from([-1, 0, 1])))) if near != 0 else z
        z = z if np.isfinite(z) else dtype(1)
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    result = numerics.fma(x, y, z)
    assert isinstance(result, dtype)
    assert result == rounded(exact, dtype)
    if exact != 0:
        assert np.signbit(result) == (exact < 0)


@given(data=st.data())
def test_bf16_is_correctly_rounded(data):
    x = data.draw(finite(np.float32))
    if data.draw(st.booleans()):  # ties, and the numbers next to them
        tie = (int(x.view(np.uint32)) & 0xFFFF0000) | 0x8000
        x = np.uint32(tie + data.draw(st.sampled_from([-1, 0, 1]))).view(np.float32)
    bits = numerics.to_bf16(x)
    assert isinstance(bits, np.uint16)
    result = numerics.from_bf16(bits)
    assert isinstance(result, np.float32)
    assert result == rounded(Fraction(float(x)), np.float32, "bf16")
    assert np.signbit(result) == np.signbit(x)
    assert numerics.to_bf16(np.float64(x)) == bits


def test_bf16_are_those_of_torch():
    rng = np.random.default_rng(4)
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    theirs = torch.from_numpy(x).to(torch.bfloat16).to(torch.float32).numpy()
    ours = numerics.from_bf16(numerics.to_bf16(x))
    np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(ours).sum() == np.isnan(x).sum() > 100
    every = np.arange(2**16, dtype=np.uint16)
    number = ~np.isnan(numerics.from_bf16(every))
    np.testing.assert_array_equal(
        numerics.to_bf16(numerics.from_bf16(every))[number], every[number]
    )


def test_fma_where_rounding_twice_goes_wrong():
    # x * y is 2^-24 less a trifle, so the sum lies just below the midpoint of z and its successor.
    # Float64 loses the trifle, and the tie then goes up to the even neighbour.
    x, y = np.float32(1 + 2**-23), np.float32(2**-24 * (1 - 2**-23))
    z = np.float32(1 + 2**-23)
    assert np.float32(np.float64(x) * np.float64(y) + np.float64(z)) == np.float32(1 + 2**-22)
    assert numerics.fma(x, y, z) == z


@pytest.mark.parametrize("dtype", FLOATS)
def test_fma_of_zeros_infinities_and_nan(dtype):
    zero, one, infinity, nan = dtype(0), dtype(1), dtype(np.inf), dtype(np.nan)
    assert np.signbit(numerics.fma(-zero, one, -zero))
    assert not np.signbit(numerics.fma(-zero, one, zero))
    assert not np.signbit(numerics.fma(one, one, -one))
    assert numerics.fma(infinity, one, one) == infinity
    assert numerics.fma(one, one, -infinity) == -infinity
    assert np.isnan(numerics.fma(infinity, zero, one))
    assert np.isnan(numerics.fma(infinity, one, -infinity))
    assert np.isnan(numerics.fma(one, one, nan))
    largest = np.finfo(dtype).max
    assert numerics.fma(largest, dtype(2), -largest) == largest  # no overflow on the way
    assert numerics.fma(largest, dtype(2), zero) == infinity


def test_fma_broadcasts_and_keeps_its_dtype():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = numerics.fma(x, np.float32(2), x[0])
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, x * 2 + x[0])
    assert numerics.fma(np.float32(0.5), 2.0, 1).dtype == np.float32


def test_operands_must_be_floats():
    with pytest.raises(TypeError, match="float32 or float64"):
        numerics.fma(1, 2, 3)


NASTY = (0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e-42, -1e-42)


@pytest.mark.parametrize("dtype", FLOATS)
def test_maximum_minimum_and_relu_are_those_of_pytorch(dtype):
    x, y = (a.ravel().astype(dtype) for a in np.meshgrid(NASTY, NASTY))
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    np.testing.assert_array_equal(numerics.maximum(x, y), torch.maximum(tx, ty).numpy())
    np.testing.assert_array_equal(numerics.minimum(x, y), torch.minimum(tx, ty).numpy())
    np.testing.assert_array_equal(numerics.relu(x), torch.relu(tx).numpy())
    assert np.signbit(numerics.relu(dtype(-0.0)))


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_scale2_is_exact_where_the_result_is_normal(dtype, data):
    x = data.draw(finite(dtype))
    n = data.draw(st.integers(-2040, 2040) if dtype is np.float64 else st.integers(-250, 250))
    exact = Fraction(float(x)) * Fraction(2) ** n
    if abs(exact) >= Fraction(float(np.finfo(dtype).tiny)):
        assert numerics.scale2(x, dtype(n)) == rounded(exact, dtype)


def test_scale2_rounds_once_to_denormals_and_overflows_to_infinity():
    x, n = np.float32([1, 1.5, 1, -3]), np.float32([-149, -149, 300, 128])
    expected = np.float32([2.0**-149, 2.0**-148, np.inf, -np.inf])
    np.testing.assert_array_equal(numerics.scale2(x, n), expected)


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [(np.float32, -126, 127), (np.float64, -1022, 1023)]
)
def test_power2_is_exact_where_the_power_is_normal(dtype, least, most):
    n = np.arange(least, most + 1).astype(dtype)
    np.testing.assert_array_equal(numerics.power2(n), np.ldexp(dtype(1), n.astype(int)))
    odd = np.array([np.nan, -np.inf, np.inf, 1e30, least - 1, most + 1, 0.5], dtype)
    assert numerics.power2(odd).dtype == dtype
    assert numerics.power2(dtype(3)) == 8


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_exponent_and_mantissa_take_normal_numbers_apart(dtype, data):
    x = data.draw(finite(dtype, normal=True))
    mantissa, exponent = numerics.mantissa(x), numerics.exponent(x)
    assert 1 <= abs(mantissa) < 2
    assert exponent == round(exponent)
    assert Fraction(float(mantissa)) * Fraction(2) ** int(exponent) == Fraction(float(x))


def test_rint_rounds_ties_to_even():
    x = np.float32([0.5, 1.5, 2.5, -0.5, -2.5, 8388607.5])
    np.testing.assert_array_equal(numerics.rint(x), [0, 2, 2, 0, -2, 8388608])
    assert np.signbit(numerics.rint(np.float32(-0.5)))
