"""Winograd's minimal filtering is the convolution: exactly for F(2 x 2, 3 x 3) on whole numbers,
and with a small multiple of the direct kernel's rounding for F(4 x 4, 3 x 3) and F(2 x 2, 5 x 5).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cnncc.ops.conv import Conv
from cnncc.ops.toom_cook import OUTPUTS, filtering
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

FORMS = [(m, taps) for taps, outputs in OUTPUTS.items() for m in outputs]


def chain(
    x: np.ndarray,
    w: np.ndarray,
    m: int,
    pads: Pads,
    stride: int,
    groups: int,
    dtype: type = np.float32,
) -> np.ndarray:
    """The four operators, one after the other, through the interpreter."""
    float_type = DType.F32
    tx = TensorType(float_type, x.shape[1:], batched=True)
    tw = TensorType(float_type, w.shape, batched=False)
    batch = len(x)
    v_op = WinogradInput(m, pads, w.shape[-1], stride)
    u_op = WinogradFilter(m, v_op.taps, stride)
    product = WinogradProduct(groups)
    tv, tu = v_op.infer((tx,)), u_op.infer((tw,))
    tz = product.infer((tv, tu))
    h, wide = v_op.extents(tx)
    v = run_nest(v_op, (tx,), [x], dtype, batch=batch)
    u = run_nest(u_op, (tw,), [w], dtype, batch=batch)
    z = run_nest(product, (tv, tu), [v, u], dtype, batch=batch)
    return run_nest(WinogradOutput(m, (h, wide), v_op.taps), (tz,), [z], dtype, batch=batch)


def direct(x: np.ndarray, w: np.ndarray, pads: Pads, stride: int, groups: int) -> np.ndarray:
    """In float64, by the definition."""
    window = Window(tuple(Axis(w.shape[-1], stride, lo=lo, hi=hi) for lo, hi in pads))
    return Conv(window, groups).reference(x.astype(np.float64), w.astype(np.float64))


@pytest.mark.parametrize(
    ("m", "taps"), [(m, taps) for taps, all_m in OUTPUTS.items() for m in all_m]
)
def test_the_matrices_are_those_of_a_correlation(m: int, taps: int) -> None:
    """sum over p of A[p, k] G[p, r] B[p, i] is 1 where i = k + r, else 0: no number is rounded."""
    f = filtering(m, taps)
    for k in range(m):
        for r in range(taps):
            for i in range(f.length):
                total = sum(
                    (f.at[k][p] * f.g[p][r] * f.bt[p][i] for p in range(f.length)), Fraction(0)
                )
                assert total == (1 if i == k + r else 0)


@pytest.mark.parametrize(
    ("m", "taps"), [(m, taps) for taps, all_m in OUTPUTS.items() for m in all_m]
)
def test_entries_of_the_transforms_of_data_are_short_binary_numbers(m: int, taps: int) -> None:
    f = filtering(m, taps)
    for row in (*f.at, *f.bt):
        assert all(v * 256 == int(v * 256) for v in row)


@pytest.mark.parametrize(
    ("groups", "m", "size", "stride", "h", "w", "pads"),
    [(groups, *case) for case in CASES for groups in (1, 2) if groups == 1 or case[2] == 1],
)
def test_the_chain_is_the_convolution(
    groups: int, m: int, size: int, stride: int, h: int, w: int, pads: Pads
) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 6, h, w)).astype(np.float32)
    kernel = rng.integers(-4, 5, (4, 6 // groups, size, size)).astype(np.float32)
    got = chain(x, kernel, m, pads, stride, groups)
    expected = direct(x, kernel, pads, stride, groups)
    assert got.shape == expected.shape
    if (m, size, stride) == (2, 3, 1):
        assert np.array_equal(got, expected)
    assert np.allclose(got, expected, rtol=0, atol=1e-3)
    exact = chain(
        x.astype(np.float64), kernel.astype(np.float64), m, pads, stride, groups, np.float64
    )
    assert np.abs(exact - expected).max() < 1e-12
