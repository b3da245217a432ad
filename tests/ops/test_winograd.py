"""Winograd's minimal filtering is the convolution: exactly for F(2 x 2, 3 x 3) on whole numbers,
and with a small multiple of the direct kernel's rounding for F(4 x 4, 3 x 3).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cnncc.ops.conv import Conv
from cnncc.ops.toom_cook import POINTS, TAPS, filtering
from cnncc.ops.winograd import (
    CASES,
    Pads,
    WinogradFilter,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from cnncc.tensor import DType, TensorType
from cnncc.window import Axis, Window
from tests.ops.evaluate import run_nest


def chain(x: np.ndarray, w: np.ndarray, m: int, pads: Pads, dtype: type = np.float32) -> np.ndarray:
    """The four operators, one after the other, through the interpreter."""
    float_type = DType.F32
    tx = TensorType(float_type, x.shape[1:], batched=True)
    tw = TensorType(float_type, w.shape, batched=False)
    batch = len(x)
    v_op, u_op, product = WinogradInput(m, pads), WinogradFilter(m), WinogradProduct()
    tv, tu = v_op.infer((tx,)), u_op.infer((tw,))
    tz = product.infer((tv, tu))
    h, wide = v_op.extents(tx)
    v = run_nest(v_op, (tx,), [x], dtype, batch=batch)
    u = run_nest(u_op, (tw,), [w], dtype, batch=batch)
    z = run_nest(product, (tv, tu), [v, u], dtype, batch=batch)
    return run_nest(WinogradOutput(m, (h, wide)), (tz,), [z], dtype, batch=batch)


def direct(x: np.ndarray, w: np.ndarray, pads: Pads) -> np.ndarray:
    """In float64, by the definition."""
    window = Window(tuple(Axis(TAPS, lo=lo, hi=hi) for lo, hi in pads))
    return Conv(window).reference(x.astype(np.float64), w.astype(np.float64))


@pytest.mark.parametrize("m", POINTS)
def test_the_matrices_are_those_of_a_correlation(m: int) -> None:
    """sum over p of A[p, k] G[p, r] B[p, i] is 1 where i = k + r, else 0: no number is rounded."""
    f = filtering(m)
    for k in range(m):
        for r in range(TAPS):
            for i in range(f.length):
                total = sum(
                    (f.at[k][p] * f.g[p][r] * f.bt[p][i] for p in range(f.length)), Fraction(0)
                )
                assert total == (1 if i == k + r else 0)


@pytest.mark.parametrize("m", POINTS)
def test_entries_of_the_transforms_of_data_are_short_binary_numbers(m: int) -> None:
    f = filtering(m)
    for row in (*f.at, *f.bt):
        assert all(v * 256 == int(v * 256) for v in row)


@pytest.mark.parametrize(("m", "h", "w", "pads"), CASES)
def test_the_chain_is_the_convolution(m: int, h: int, w: int, pads: Pads) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 3, h, w)).astype(np.float32)
    kernel = rng.integers(-4, 5, (5, 3, TAPS, TAPS)).astype(np.float32)
    got, expected = chain(x, kernel, m, pads), direct(x, kernel, pads)
    assert got.shape == expected.shape
    if m == 2:
        assert np.array_equal(got, expected)
    assert np.allclose(got, expected, rtol=0, atol=1e-3)
    exact = chain(x.astype(np.float64), kernel.astype(np.float64), m, pads, np.float64)
    assert np.abs(exact - expected).max() < 1e-12
