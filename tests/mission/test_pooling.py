"""Rows S70 to S83 of the lecture table: pools over positions and over channels, what they do with
ties, borders and incomplete windows, and their gradients. Row S70, stages, is in test_stages.py.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.ops.base import Array
from cnncc.ops.pool_max import tap_type
from cnncc.tensor import DType
from cnncc.window import Axis
from tests.mission.running import Run, integers, net, slope

H = [0.1, 7, -1, 2, 3]
FOUR = [[-2, 5, -2, 0], [2, 3, 1, 1], [4, 4, -2, 1], [4, 4, 3, 2]]


def pooled(body: str, x: object) -> Array:
    """The value of a pipeline on one sample of one channel."""
    values = np.asarray(x, np.float32)[None]
    return Run(net(list(values.shape), body)).one(values)[0]


def code(shape: list[int], body: str) -> list[str]:
    with pytest.raises(SpecError) as refused:
        front(net(shape, body))
    return [d.code for d in refused.value.diagnostics]


# --- S71 to S76: the maximum ---


def test_s71_maximum_of_width_3_then_scale_then_nonlinearity() -> None:
    expected = [7, 7, 7, 3, 3]
    for pad in ("1", "replicate(1)"):
        assert pooled(f"maxpool(3, stride = 1, pad = {pad})", H).tolist() == expected
    negative = [-5, -1, -3, -4, -2]  # minus infinity stands at the border, not zero
    assert pooled("maxpool(3, stride = 1, pad = 1)", negative).tolist() == [-1, -1, -1, -2, -2]
    run = Run(net([1, 5], "maxpool(3, stride = 1, pad = 1, affine = per_map) -> relu"))
    run.parameters |= {
        next(p for p in run.parameters if p.endswith("scale")): np.array([2], np.float32),
        next(p for p in run.parameters if p.endswith("bias")): np.array([-7], np.float32),
    }
    assert run.one([H])[0].tolist() == [7, 7, 7, 0, 0]


def test_s72_a_shift_of_the_input_changes_half_of_the_outputs() -> None:
    body = "maxpool(3, stride = 1, pad = 1)"
    before, after = pooled(body, [0.1, 1, 0.2, 0.1]), pooled(body, [0.3, 0.1, 1, 0.2])
    np.testing.assert_array_equal(before, np.array([1, 1, 1, 0.2], np.float32))
    np.testing.assert_array_equal(after, np.array([0.3, 1, 1, 1], np.float32))
    assert np.sum(before != after) == 2


def test_s73_the_last_window_may_be_partial() -> None:
    x = [0.1, 1, 0.2, 0.1, 0, 0.1]
    for fit, expected in (("partial", [1, 0.2, 0.1]), ("floor", [1, 0.2])):
        result = pooled(f"maxpool(3, stride = 2, fit = {fit})", x)
        np.testing.assert_array_equal(result, np.array(expected, np.float32))
    assert code([1, 6], "maxpool(3, stride = 2)") == ["E0202"]


POOLS = ["maxpool({a})", "avgpool({a}, count_include_pad = false)", "l2pool({a})",
         "lppool({a}, p = 3)", "wavgpool({a}, kernel = binomial)",
         "wavgpool({a}, kernel = gauss(1))"]  # fmt: skip
WINDOWS = ["2, stride = 2", "3, stride = 2, fit = partial", "3, stride = 1, pad = 1",
           "3, stride = 2, pad = (0, 2), fit = partial", "2, stride = 1, dilation = 2, pad = 1",
           "2, stride = 3, fit = floor", "3, stride = 1, pad = reflect(1)"]  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
def test_s73_gradients_of_every_pool_over_every_kind_of_window(pool: str) -> None:
    x = np.random.default_rng(1).standard_normal((1, 2, 8))
    for window in WINDOWS:
        run = Run(net([2, 8], pool.format(a=window)), dtype=np.float64)
        dy = np.random.default_rng(2).standard_normal((1, *run.shape))
        expected = slope(run, x, dy)
        np.testing.assert_allclose(
            run.backward(x, dy)["x"], expected, rtol=1e-6, atol=1e-7, err_msg=window
        )


def test_s74_pooling_2x2_divides_the_neurons_by_4() -> None:
    run = Run(net([1, 4, 4], "maxpool(2x2)"))
    assert run.shape == (1, 2, 2)


def test_s75_the_4x4_example() -> None:
    assert pooled("maxpool(2x2)", FOUR).tolist() == [[5, 1], [4, 3]]
    assert pooled("avgpool(2x2)", FOUR).tolist() == [[2, 0], [4, 1]]
    np.testing.assert_allclose(
        pooled("l2pool(2x2)", FOUR), [[6.4807, 2.4495], [8, 4.2426]], rtol=1e-4
    )
    assert pooled("maxpool(3x3, stride = 1)", FOUR).tolist() == [[5, 5], [4, 4]]
    np.testing.assert_allclose(
        pooled("avgpool(3x3, stride = 1)", FOUR), [[1.4444, 1.2222], [2.5556, 1.8889]], rtol=1e-4
    )


def test_s75_a_tie_sends_the_gradient_to_the_first_in_row_major_order() -> None:
    run = Run(net([1, 4, 4], "maxpool(2x2)"))
    gradient = run.backward([[FOUR]], [[[[1, 10], [100, 1000]]]])["x"]
    assert gradient[0, 0].tolist() == [[0, 1, 0, 0], [0, 0, 10, 0], [100, 0, 0, 0], [0, 0, 1000, 0]]


def test_s76_max_pooling_works_on_each_map_by_itself() -> None:
    x = integers((2, 3, 4, 6))
    blocks = x.reshape(2, 3, 2, 2, 3, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(Run(net([3, 4, 6], "maxpool(2x2)"))(x), blocks)


# --- S77 to S79: averages and norms ---


def test_s77_whether_padding_counts_is_said() -> None:
    assert code([1, 5], "avgpool(3, stride = 1, pad = 1)") == ["E0304"]
    inside = pooled("avgpool(3, stride = 1, pad = 1, count_include_pad = false)", H)
    padded = pooled("avgpool(3, stride = 1, pad = 1, count_include_pad = true)", H)
    np.testing.assert_allclose(inside, [3.55, 2.03333, 2.66667, 1.33333, 2.5], rtol=1e-5)
    np.testing.assert_allclose(padded, [2.36667, 2.03333, 2.66667, 1.33333, 1.66667], rtol=1e-5)


def test_s77_trainable_subsampling_of_LeNet() -> None:
    text = net([6, 28, 28], "avgpool(2x2, affine = per_map) -> sigmoid\n  expect params == 12")
    run = Run(text, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 6, 28, 28))
    scale, bias = (run.parameters[k] for k in sorted(run.parameters, reverse=True))
    means = x.reshape(2, 6, 14, 2, 14, 2).mean(axis=(3, 5))
    expected = 1 / (1 + np.exp(-(means * scale[:, None, None] + bias[:, None, None])))
    np.testing.assert_allclose(run(x), expected, rtol=1e-12)
    dy = np.random.default_rng(1).standard_normal(expected.shape)
    upstream = dy * expected * (1 - expected)
    gradients = run.backward(x, dy)
    names = sorted(run.parameters, reverse=True)
    np.testing.assert_allclose(gradients[names[0]], (upstream * means).sum(axis=(0, 2, 3)))
    np.testing.assert_allclose(gradients[names[1]], upstream.sum(axis=(0, 2, 3)))


def test_s78_norms_are_not_divided_and_have_no_gradient_at_0() -> None:
    assert pooled("l2pool(2)", [3, 4, 0, 0]).tolist() == [5, 0]
    assert pooled("lppool(2, p = 1)", [3, -4, 0, 0]).tolist() == [7, 0]
    np.testing.assert_allclose(pooled("lppool(2, p = 3)", [3, -4]), [91 ** (1 / 3)], rtol=1e-6)
    for p in ("1", "1.5", "2", "3"):
        run = Run(net([1, 4], f"lppool(2, p = {p})"))
        gradient = run.backward([[[3, 4, 0, 0]]], [[[1, 1]]])["x"][0, 0]
        assert np.isfinite(gradient).all()
        assert gradient[2:].tolist() == [0, 0]
    assert code([1, 4], "lppool(2, p = 0.5)") == ["E0213"]


def test_s78_the_norm_for_2_is_l2pool_and_tends_to_the_largest_absolute_value() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 6)).astype(np.float32)
    l2, lp = Run(net([1, 6], "l2pool(3)")), Run(net([1, 6], "lppool(3, p = 2)"))
    np.testing.assert_array_equal(l2(x), lp(x))
    large = Run(net([1, 6], "lppool(3, p = 40)"))(x)
    np.testing.assert_allclose(large, np.abs(x).reshape(2, 1, 2, 3).max(axis=-1), rtol=0.03)


def test_s79_a_wide_gauss_is_the_average_and_a_binomial_window_is_121() -> None:
    x = integers((2, 1, 6, 5))
    wide = Run(net([1, 6, 5], "wavgpool(3x3, gauss(1e6), stride = 1)"))
    flat = Run(net([1, 6, 5], "avgpool(3x3, stride = 1)"))
    np.testing.assert_allclose(wide(x), flat(x), rtol=1e-6, atol=1e-7)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    binomial = Run(net([1, 6, 5], "wavgpool(3x3, binomial, stride = 1)"))
    np.testing.assert_array_equal(binomial(x), (windows * kernel).sum(axis=(4, 5)))


def test_s79_weights_fall_with_the_distance_from_the_centre() -> None:
    impulse = np.zeros((5, 5))
    impulse[2, 2] = 1
    for sigma in (0.7, 1.5):
        weights = pooled(f"wavgpool(5x5, gauss({sigma}), stride = 1, pad = circular(2))", impulse)
        d2 = np.add.outer(np.arange(-2, 3) ** 2, np.arange(-2, 3) ** 2)
        expected = np.exp(-d2 / (2 * sigma**2))
        np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5)


def test_s79_at_the_border_only_what_is_seen_is_weighted() -> None:
    result = pooled("wavgpool(3, binomial, stride = 1, pad = 1)", [4, 8, 12, 16])
    np.testing.assert_allclose(result, [(8 + 8) / 3, 8, 12, (12 + 32) / 3], rtol=1e-6)
    facts = "receptive_field(y) == 3, params == 0"
    assert Run(net([1, 4], f"wavgpool(3, binomial, stride = 1, pad = 1)\n  expect {facts}")).shape
    constant = pooled("wavgpool(3x3, gauss(0.8), stride = 2, pad = 1)", np.full((5, 7), 3.0))
    np.testing.assert_allclose(constant, 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("gauss(0)", "E0213"), ("gauss(0.01)", "E0213"), ("gauss", "E0304"), ("same", "E0304")],
)
def test_s79_kernels_that_cannot_be(kernel: str, expected: str) -> None:
    assert code([1, 6], f"wavgpool(3, {kernel})") == [expected]


# --- S80: across channels ---


def test_s80_maxout_of_three_channels_routes_the_gradient_to_the_largest() -> None:
    x, dy = integers((2, 6, 3, 2)), integers((2, 2, 3, 2), seed=3)
    run = Run(net([6, 3, 2], "maxout(3)"))
    groups = x.reshape(2, 2, 3, 3, 2)
    np.testing.assert_array_equal(run(x), groups.max(axis=2))
    expected = np.zeros_like(groups)
    first = groups.argmax(axis=2)[:, :, None]
    np.put_along_axis(expected, first, dy[:, :, None], axis=2)
    np.testing.assert_array_equal(run.backward(x, dy)["x"], expected.reshape(x.shape))


@pytest.mark.parametrize("shape", [[6], [6, 4], [6, 3, 2], [6, 2, 3, 2]])
def test_s80_norms_and_averages_across_channels(shape: list[int]) -> None:
    x = integers((2, *shape))
    groups = x.reshape(2, 3, 2, *shape[1:]).astype(np.float64)
    results = {
        "max": groups.max(axis=2),
        "avg": groups.mean(axis=2),
        "l2": np.sqrt((groups**2).sum(axis=2)),
    }
    for kind, expected in results.items():
        run = Run(net(shape, f"channelpool(2, kind = {kind})"))
        np.testing.assert_array_equal(run(x), expected.astype(np.float32))
    z = np.random.default_rng(4).standard_normal(x.shape)
    for kind in results:
        run = Run(net(shape, f"channelpool(2, kind = {kind})"), dtype=np.float64)
        dy = np.random.default_rng(5).standard_normal((2, *run.shape))
        np.testing.assert_allclose(
            run.backward(z, dy)["x"], slope(run, z, dy), rtol=1e-5, atol=1e-8
        )


def test_s80_maxout_joins_the_kernel_of_its_convolution() -> None:
    text = net([2, 6, 6], "conv(6, 3x3) -> maxout(3)")
    fused, unfused = Run(text), Run(text, fused=False)
    assert len(fused.kernels().kernels) == 1
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(fused(x), unfused(x))
    np.testing.assert_array_equal(fused.on_cpu(x)(x), fused(x))


@pytest.mark.parametrize(
    ("body", "expected"),
    [("maxout(4)", "E0204"), ("maxout(1)", "E0213"), ("channelpool(2, kind = sum)", "E0304")],
)
def test_s80_channels_that_cannot_be_pooled(body: str, expected: str) -> None:
    assert code([6, 5], body) == [expected]


# --- S81 to S83 ---


def test_s81_the_bins_of_64_positions_in_3() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 64, 64))
    bins = [(0, 22), (21, 43), (42, 64)]
    for name, reduce in (("adaptiveavgpool", np.mean), ("adaptivemaxpool", np.max)):
        run = Run(net([1, 64, 64], f"{name}(3x3)"), dtype=np.float64)
        expected = [[reduce(x[0, 0, a:b, c:d]) for c, d in bins] for a, b in bins]
        np.testing.assert_allclose(run(x)[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["adaptiveavgpool", "adaptivemaxpool"])
def test_s81_gradients_where_bins_overlap(name: str) -> None:
    for extents, out in (([7, 5], "3x2"), ([3, 4], "5x4"), ([6, 4], "3x2")):
        run = Run(net([2, *extents], f"{name}({out})"), dtype=np.float64)
        x = np.random.default_rng(0).standard_normal((2, 2, *extents))
        dy = np.random.default_rng(1).standard_normal((2, *run.shape))
        np.testing.assert_allclose(
            run.backward(x, dy)["x"], slope(run, x, dy), rtol=1e-6, atol=1e-8
        )


def test_s81_any_extent_is_pooled_to_the_grid() -> None:
    text = "net any { input x: f32[1, H, W]\n output y = x -> adaptivemaxpool(2x3) }"
    model = cnncc.compile(text, target="interp")
    for extents in ((2, 3), (5, 7), (6, 9)):
        assert model(integers((1, 1, *extents))).shape == (1, 1, 2, 3)


def test_s82_global_average_of_16x16x1000() -> None:
    run = Run(net([1000, 16, 16], "globalavgpool\n  expect params == 0"))
    assert run.shape == (1000,)
    small = Run(net([3, 4, 4], "globalavgpool"))
    x = integers((2, 3, 4, 4))
    np.testing.assert_array_equal(small(x), x.mean(axis=(2, 3)))


def test_s83_one_byte_says_where_the_maximum_was() -> None:
    assert tap_type((Axis(16), Axis(16))) is DType.U8
    assert tap_type((Axis(17), Axis(16))) is DType.U16
    assert tap_type((Axis(1), Axis(1)), 3) is DType.U8


def test_s83_unpooling_puts_every_gradient_where_its_maximum_was() -> None:
    x = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    for stride, pad in product((1, 2, 3), (0, 1)):
        run = Run(net([1, 6, 6], f"maxpool(3x3, stride = {stride}, pad = {pad}, fit = floor)"))
        y = run(x)
        expected = np.zeros_like(x)  # all elements differ, so the value tells the place
        np.add.at(expected.reshape(-1), y.astype(int).reshape(-1), 1)
        np.testing.assert_array_equal(run.backward(x, np.ones_like(y))["x"], expected)
