"""What windowed layers compute: published numbers, windows at random, symbolic extents, and corners
(ties, infinite weights, windows of zeros).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnncc.graph.layer import Pad
from cnncc.loops.verify import verify
from cnncc.ops.base import Array, Op
from cnncc.ops.conv import Conv, ConvDw, ConvDx
from cnncc.ops.pool_average import AvgPool, AvgPoolDx
from cnncc.ops.pool_global import GlobalMax, GlobalMaxAt
from cnncc.ops.pool_max import MaxPool, MaxPoolArgmax, MaxPoolDx, tap_type
from cnncc.ops.pool_norm import LpPool, LpPoolDx
from cnncc.tensor import DType, TensorType, evaluate, symbol
from cnncc.window import Axis, Window
from tests.ops.layers import Network, network
from tests.ops.nests import f32, run, square


def compute(net: Network, *values: Any) -> Array:
    """The layer's value for one sample per input."""
    names = [n.name for n in [*net.inputs, *net.parameters]]
    arrays = {n: np.asarray(v, np.float64)[None] for n, v in zip(names, values, strict=True)}
    return net.value({**arrays, "rng": np.array([0, 0])})[net.output.name][0]


# --- published numbers ---


def test_max_pooling_of_width_3_sees_minus_infinity_at_the_border() -> None:
    net = network("maxpool", f32(1, 4), size=square(3), stride=(1,), pad=Pad(1))
    assert compute(net, [[0.1, 1, 0.2, 0.1]]).tolist() == [[1, 1, 1, 0.2]]
    assert compute(net, [[0.3, 0.1, 1, 0.2]]).tolist() == [[0.3, 1, 1, 1]]
    assert compute(net, [[-3, -2, -2, -4]]).tolist() == [[-2, -2, -2, -2]]


def test_a_partial_window_keeps_the_last_maximum_and_floor_drops_it() -> None:
    x = [[0.1, 1, 0.2, 0.1, 0, 0.1]]
    for fit, expected in (("partial", [1, 0.2, 0.1]), ("floor", [1, 0.2])):
        net = network("maxpool", f32(1, 6), size=square(3), stride=(2,), fit=fit)
        assert compute(net, x).tolist() == [expected]


FOUR = [[[-2, 5, -2, 0], [2, 3, 1, 1], [4, 4, -2, 1], [4, 4, 3, 2]]]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("maxpool", [[5, 1], [4, 3]]),
        ("avgpool", [[2, 0], [4, 1]]),
        ("l2pool", [[42**0.5, 6**0.5], [8, 18**0.5]]),
    ],
)
def test_pooling_a_4x4_image_by_2x2(layer: str, expected: list[list[float]]) -> None:
    net = network(layer, f32(1, 4, 4), size=square(2, 2))
    np.testing.assert_allclose(compute(net, FOUR)[0], expected, rtol=1e-15)


def test_overlapping_average_of_a_4x4_image() -> None:
    net = network("avgpool", f32(1, 4, 4), size=square(3, 3), stride=(1,))
    ninths = np.round(9 * compute(net, FOUR)[0], 12)
    assert ninths.tolist() == [[13, 11], [23, 17]]


def test_ten_filters_on_a_50x50_image() -> None:
    net = network("conv", f32(3, 50, 50), out=10, size=square(5, 5), pad=Pad(2))
    assert net.output.type == f32(10, 50, 50)
    assert sum(p.type.elements for p in net.parameters) == 760
    cost = net.output.op.cost(net.graph.types(net.output), net.output.type)  # type: ignore[attr-defined]
    assert (cost.macs, cost.flops) == (1_875_000, 3_750_000)


def test_padding_solved_for_the_wanted_output() -> None:
    pad = Pad("solve", out=(3, 3))
    net = network("conv", f32(1, 7, 7), out=1, size=square(3, 3), stride=(3,), pad=pad)
    assert net.output.type == f32(1, 3, 3)
    assert net.output.op == Conv((Axis(3, 3, lo=1, hi=1, fit="exact"),) * 2)


def test_same_padding_puts_the_odd_position_where_it_says() -> None:
    for amount, pads in (("same", (2, 3)), ("same_lower", (3, 2))):
        net = network("conv", f32(1, 16), out=1, size=square(6), pad=Pad(amount))
        (axis,) = net.output.op.window  # type: ignore[attr-defined]
        assert (axis.lo, axis.hi) == pads
        assert net.output.type == f32(1, 16)


# --- windows at random ---


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, ...]]:
    """A window of rank 1 or 2 and extents; there is an output, and each sees some input."""
    axes, extents = [], []
    for _ in range(draw(st.integers(1, 2))):
        size, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        span = dilation * (size - 1) + 1
        lo, hi = draw(st.integers(0, span - 1)), draw(st.integers(0, span - 1))
        axis = Axis(size, draw(st.integers(1, 4)), dilation, lo, hi, draw(st.sampled_from(FITS)))
        n = draw(st.integers(max(dilation, span - lo - hi), 11))
        assume(axis.slack(n) >= 0)
        axes.append(axis)
        extents.append(n)
    return tuple(axes), tuple(extents)


FITS = ("floor", "partial")


def integers(rng: np.random.Generator, *types: TensorType) -> list[Array]:
    return [rng.integers(-4, 5, t.dims(2)).astype(np.float32) for t in types]


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(0, 2**32 - 1))
def test_random_windows(case: tuple[Window, tuple[int, ...]], seed: int) -> None:
    """Nests equal oracles bit for bit on integers and stay in bounds; the convs are one form."""
    window, extents = case
    rng = np.random.default_rng(seed)
    x = f32(2, *extents)
    y = AvgPool(window).infer((x,))
    dy = f32(3, *y.spatial)
    w = TensorType(DType.F32, (3, 2, *(a.size for a in window)), batched=False)
    xs, ws, dys, pooled = integers(rng, x, w, dy, y)
    numbers = rng.integers(0, 4, y.dims(2)).astype(np.uint8)
    operands: list[tuple[Op, tuple[TensorType, ...], list[Array]]] = [
        (Conv(window), (x, w), [xs, ws]),
        (ConvDx(window, 1, extents), (dy, w), [dys, ws]),
        (ConvDw(window), (x, dy), [xs, dys]),
        (MaxPool(window), (x,), [xs]),
        (MaxPoolArgmax(window), (x,), [xs]),
        (MaxPoolDx(window, extents), (y, y.with_dtype(DType.U8)), [pooled, numbers]),
        (LpPool(window), (x,), [xs]),
        (AvgPool(window, True), (x,), [xs]),
        (AvgPool(window, False), (x,), [xs]),
    ]
    results = []
    for op, types, arrays in operands:
        verify(op.nest(types, op.infer(types)))
        result = run(op, types, arrays)
        np.testing.assert_array_equal(result, op.oracle(types, arrays), err_msg=str(op))
        results.append(result.astype(np.float64))
    forms = [np.sum(results[0] * dys), np.sum(results[1] * xs), np.sum(results[2] * ws)]
    assert forms[0] == forms[1] == forms[2]
    for include in (True, False):
        op = AvgPoolDx(window, include, extents)
        verify(op.nest((y,), x))
        np.testing.assert_allclose(
            run(op, (y,), [pooled]), op.oracle((y,), [pooled]), rtol=1e-5, atol=1e-5
        )


@settings(max_examples=60, deadline=None)
@given(windows())
def test_oracles_follow_the_window_relation(case: tuple[Window, tuple[int, ...]]) -> None:
    """The conv oracle against sums over `Axis.taps`, which enumerates the relation."""
    window, extents = case
    rng = np.random.default_rng(3)
    x, w = rng.integers(-4, 5, (1, 1, *extents)), rng.integers(-4, 5, [a.size for a in window])
    y = Conv(window).reference(x.astype(np.float64), w[None, None].astype(np.float64))[0, 0]
    for o in np.ndindex(*y.shape):
        total = 0
        for pairs in product(*(a.taps(i, n) for a, i, n in zip(window, o, extents, strict=True))):
            total += x[(0, 0, *(i for _, i in pairs))] * w[tuple(k for k, _ in pairs)]
        assert y[o] == total


# --- symbolic extents ---


def test_one_nest_serves_all_values_of_a_symbolic_extent() -> None:
    h = symbol("H")
    window = (Axis(3, 2, lo=1, hi=1), Axis(2, 2, lo=1, fit="partial"))
    w = TensorType(DType.F32, (4, 2, 3, 2), batched=False)
    loose = f32(2, h, h + 1)
    nest = Conv(window).nest((loose, w), Conv(window).infer((loose, w)))
    for height in (4, 5, 8):
        x = f32(2, height, height + 1)
        fixed = Conv(window).nest((x, w), Conv(window).infer((x, w)))
        assert nest.body == fixed.body
        known = {name: evaluate(e, {"*": 2, "H": height}) for name, e in nest.sizes.items()}
        assert known == {name: evaluate(e, {"*": 2}) for name, e in fixed.sizes.items()}
        xs, ws = integers(np.random.default_rng(height), x, w)
        expected = Conv(window).reference(xs, ws)
        np.testing.assert_array_equal(run(Conv(window), (loose, w), [xs, ws], H=height), expected)
        back = ConvDx(window, 1, loose.spatial)
        dy = Conv(window).infer((loose, w))
        dx = run(back, (dy, w), [expected, ws], H=height)
        fixed_back = ConvDx(window, 1, x.spatial)
        np.testing.assert_array_equal(dx, fixed_back.reference(expected, ws))


def test_exact_fit_on_a_symbolic_extent_becomes_a_condition() -> None:
    h, w = symbol("H"), symbol("W")
    net = network("maxpool", f32(1, h, 2 * w), size=square(2, 2))
    assert [(str(c.extent), c.divisor) for c in net.conditions] == [("H - 2", 2)]  # type: ignore[attr-defined]
    assert network("conv", f32(1, h, w), out=1, size=square(3, 3)).conditions == []
    assert network("maxpool", f32(1, h, w), size=square(2, 2), fit="floor").conditions == []


def test_pools_over_symbolic_extents_have_oracle_values() -> None:
    h = symbol("H")
    net = network("adaptiveavgpool", f32(1, h), out=(3,))
    for height in (2, 3, 7, 8):
        x = np.random.default_rng(height).integers(-4, 5, (2, 1, height)).astype(np.float32)
        op: Any = net.output.op
        np.testing.assert_array_equal(run(op, (f32(1, h),), [x], H=height), op.reference(x))


# --- corners ---


def test_zeros_beyond_the_border_take_part_in_the_products() -> None:
    w = np.full((1, 1, 3), np.inf, np.float32)
    x = np.ones((1, 1, 3), np.float32)
    wt = TensorType(DType.F32, (1, 1, 3), batched=False)
    padded = (Axis(3, lo=1, hi=1),)
    forward = run(Conv(padded), (f32(1, 3), wt), [x, w])
    np.testing.assert_array_equal(forward, [[[np.nan, np.inf, np.nan]]])
    back = run(ConvDx(padded, 1, (3,)), (f32(1, 3), wt), [x, w])
    np.testing.assert_array_equal(back, [[[np.nan, np.inf, np.nan]]])


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    x = np.array([[[4, 4, 0, -0.0], [4, 4, -0.0, 0]]], np.float32)[:, None]
    window = (Axis(2, 2), Axis(2, 2))
    taps = run(MaxPoolArgmax(window), (f32(1, 2, 4),), [x])
    assert taps.tolist() == [[[[0, 0]]]]
    dx = run(MaxPoolDx(window, (2, 4)), (f32(1, 1, 2), f32(1, 1, 2).with_dtype(DType.U8)),
             [np.array([[[[2, 3]]]], np.float32), taps])  # fmt: skip
    assert dx.tolist() == [[[[2, 0, 3, 0], [0, 0, 0, 0]]]]
    signs = np.signbit(run(MaxPool(window), (f32(1, 2, 4),), [np.ascontiguousarray(x[..., ::-1])]))
    assert signs.tolist() == [[[[True, False]]]], "the first of +0 and -0 stays"


def test_tap_numbers_take_one_byte_up_to_256_taps() -> None:
    assert tap_type((Axis(16), Axis(16))) is DType.U8
    assert tap_type((Axis(257),)) is DType.U16
    assert tap_type((Axis(256), Axis(256))) is DType.U16


def test_the_gradient_of_an_l2_pool_is_zero_at_zero() -> None:
    x = np.array([[[0, 0, 3, 4]]], np.float32)
    window = (Axis(2, 2),)
    y = run(LpPool(window), (f32(1, 4),), [x])
    types = (f32(1, 4), f32(1, 2), f32(1, 2))
    dx = run(LpPoolDx(window), types, [x, y, np.array([[[7, 10]]], np.float32)])
    assert dx.tolist() == [[[0, 0, 6, 8]]]


def test_a_global_maximum_names_its_place() -> None:
    x = np.zeros((1, 3, 2, 3), np.float32)
    x[0, 0, 1, 2] = 5
    x[0, 1, 0, 1] = np.nan
    x[0, 2] = -np.inf
    types = (f32(3, 2, 3),)
    np.testing.assert_array_equal(run(GlobalMax(), types, [x]), [[5, np.nan, -np.inf]])
    assert run(GlobalMaxAt(), types, [x]).tolist() == [[[1, 2], [0, 1], [0, 0]]]


def test_convolutions_count_their_products() -> None:
    """Depthwise: taps per output; transposed: the products of the conv that it turns round."""
    x, w = f32(8, 6, 6), TensorType(DType.F32, (8, 1, 3, 3), batched=False)
    depthwise = Conv((Axis(3, lo=1, hi=1),) * 2, 8)
    assert depthwise.cost((x, w), depthwise.infer((x, w))).macs == 8 * 36 * 9
    window = (Axis(2, 2), Axis(2, 2))
    small, w = f32(8, 3, 3), TensorType(DType.F32, (8, 4, 2, 2), batched=False)
    transposed = ConvDx(window, 1, (6, 6))
    assert transposed.cost((small, w), transposed.infer((small, w))).macs == 8 * 9 * 4 * 4
    weights = ConvDw(window)
    assert weights.cost((f32(4, 6, 6), small), w).macs == 8 * 9 * 4 * 4
