"""Rows S30 to S48 of the lecture table: who is connected with whom, and who shares a weight."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front
from cnncc.ops.base import Array
from cnncc.passes.plan import prepared
from cnncc.targets.interp.program import run_interp
from tests.mission.running import Run, integers, net
from tests.mission.test_convolution import G, X, rounded, toeplitz

H = [0.1, 7, -1, 2, 3]


def checked(shape: list[int], body: str, expect: str) -> None:
    """The network fulfils what it expects; nothing is allocated."""
    front(net(shape, f"{body}\n  expect {expect}"))


def weight(shape: list[int], body: str) -> tuple[int, ...]:
    return Run(net(shape, body)).parameters["y.weight"].shape


def same(a: str, b: str, shape: tuple[int, ...]) -> None:
    """Two layers with the same stored weights give the same bits, forward and backward."""
    one, other = Run(net(shape, a)), Run(net(shape, b))
    assert {k: v.shape for k, v in one.parameters.items()} == {
        k: v.shape for k, v in other.parameters.items()
    }
    x, dy = integers((2, *shape), 5), integers((2, *one.shape), 6)
    assert np.array_equal(one(x), other(x))
    left, right = one.backward(x, dy), other.backward(x, dy)
    assert set(left) == set(right)
    for name in left:
        assert np.array_equal(left[name], right[name]), name


# --- S30 to S35: all, some, shared ---


def test_S30_images_become_vectors_without_biases() -> None:
    checked([1, 28, 28], "flatten -> dense(10, bias = none)", "params == 7840")
    checked([3, 64, 64], "flatten -> dense(1, bias = none)", "params == 12_288")


def test_S31_cost_of_dense_local_and_shared_connections() -> None:
    n = 40_000
    checked([n], f"dense({n}, bias = none)", "params == 1_600_000_000, macs == 1_600_000_000")
    local = "conv(1, 9, pad = circular, share = none, bias = none)"
    checked([1, n], local, "params == 360_000, macs == 360_000")
    shared = "conv(1, 9, pad = circular, bias = none)"
    checked([1, n], shared, "params == 9, macs == 360_000")


def test_S32_S33_what_cannot_be_allocated_is_still_counted() -> None:
    start = time.process_time()
    image = [1, 200, 200]
    checked(image, "flatten -> dense(40_000, bias = none)", "params == 1_600_000_000")
    checked(image, "flatten -> dense(40_000)", "params == 1_600_040_000")
    colour = [3, 200, 200]
    checked(colour, "flatten -> dense(40_000, bias = none)", "params == 4_800_000_000")
    local = "conv(1, 3x3, share = none, bias = none"
    checked(colour, f"{local}, pad = replicate(1))", "params == 1_080_000")
    checked(colour, f"{local}, pad = 1)", "params == 1_072_812")
    checked(colour, "conv(1, 3x3, pad = 1, bias = none)", "params == 27")
    assert time.process_time() - start < 30


def test_S34_sparsity_without_tying_is_a_local_layer() -> None:
    local = toeplitz(Run(net([1, 8], "conv(1, 3, share = none, bias = none)")), (1, 8))
    rows, columns = np.indices(local.shape)
    band = (columns - rows >= 0) & (columns - rows <= 2)
    assert not local[~band].any()
    other = Run(net([1, 8], "conv(1, 3, share = none, bias = none)"), seed=1)
    assert (np.abs(local) + np.abs(toeplitz(other, (1, 8))))[band].any()
    assert len(np.unique(local[band])) > 3  # not one kernel


@pytest.mark.parametrize("share", ["none", "tiled(2)", "symmetric"])
def test_S34a_sharing_saves_storage_and_stride_both(share: str) -> None:
    def macs(arguments: str) -> int:
        graph = front(net([3, 16, 16], f"conv(4, 3x3, {arguments}, bias = none)")).graph
        node = next(n for n in graph.nodes if n.op.name == "conv")
        return node.op.cost(graph.types(node), node.type).macs  # type: ignore[attr-defined]

    assert macs(f"pad = 1, share = {share}") == macs("pad = 1")
    assert weight([3, 16, 16], f"conv(4, 3x3, pad = 1, share = {share})") != (4, 3, 3, 3)
    assert 4 * macs(f"pad = (0, 1), stride = 2, share = {share}") == macs("pad = 1")


def test_S35_parameter_tying() -> None:
    a = toeplitz(Run(net([1, 8], "conv(1, 3, bias = none)"), {"y.weight": [[[4, 5, 6]]]}), (1, 8))
    assert set(np.unique(a)) == {0, 4, 5, 6}


# --- S36, S37: symmetric ---


def symmetric(share: str, h: list[float], c: list[float], arguments: str = "") -> list[float]:
    body = f"conv(1, {2 * len(c) - 1}, share = {share}, bias = none{arguments})"
    run = Run(net([1, len(h)], body), {"y.weight": [[c]]})
    return rounded(run.one([h])[0])


def test_S36_symmetric_taps_and_their_mean() -> None:
    assert symmetric("symmetric", H, [1, 2]) == [5.2, 17, 6]
    assert symmetric("symmetric(mean)", H, [1, 2]) == [6.1, 8, 4]


def test_S36_a_symmetric_weight_gets_the_sum_over_its_taps() -> None:
    taps = Run(net([2, 6, 7], "conv(3, 3x5, bias = none)"))
    x, dy = integers((2, 2, 6, 7), 1), integers((2, 3, 4, 3), 2)
    full = taps.backward(x, dy)["y.weight"]
    assert weight([2, 6, 7], "conv(3, 3x5, share = symmetric)") == (3, 2, 2, 3)
    for share, halves in (("symmetric", 1.0), ("symmetric(mean)", 0.5)):
        run = Run(net([2, 6, 7], f"conv(3, 3x5, share = {share}, bias = none)"))
        expected = np.zeros((3, 2, 2, 3))
        for i, j in np.ndindex(3, 5):
            factor = halves ** ((i != 1) + (j != 2))
            expected[:, :, abs(i - 1), abs(j - 2)] += factor * full[:, :, i, j]
        assert np.array_equal(run.backward(x, dy)["y.weight"], expected)


def test_S36_a_symmetric_kernel_has_no_direction() -> None:
    for share in ("symmetric", "symmetric(mean)"):
        layer = f"conv(3, 3x5, share = {share}"
        same(f"{layer})", f"{layer}, kind = convolution)", (2, 6, 7))


def test_S37_the_averaging_neuron() -> None:
    third = [1 / 3, 1 / 3]
    assert symmetric("symmetric", H, third) == [2.0333, 2.6667, 1.3333]
    zeros, ends = ", pad = same", ", pad = replicate"
    assert symmetric("symmetric", H, third, zeros) == [2.3667, 2.0333, 2.6667, 1.3333, 1.6667]
    assert symmetric("symmetric", H, third, ends) == [2.4, 2.0333, 2.6667, 1.3333, 2.6667]


# --- S38 to S40: local and tiled ---


def test_S38_figure_9_14() -> None:
    assert weight([1, 5], "conv(1, 2, share = none, pad = (0, 1), bias = none)") == (1, 1, 9)
    assert weight([1, 5], "conv(1, 2, pad = (0, 1), bias = none)") == (1, 1, 2)
    assert weight([5], "dense(5, bias = none)") == (5, 5)


def test_S38_every_connection_has_its_weight() -> None:
    run = Run(net([2, 5, 6], "conv(3, 2x3, share = none, bias = none)"))
    w = run.parameters["y.weight"].reshape(3, 2, 4, 2, 4, 3)  # [out, in, row, tap, column, tap]
    x = integers((1, 2, 5, 6), 4)
    expected = np.zeros((3, 4, 4), np.float32)
    for k, i, j in np.ndindex(3, 4, 4):
        seen = x[0, :, i : i + 2, j : j + 3]
        expected[k, i, j] = np.sum(seen * w[k, :, i, :, j])
    assert np.array_equal(run(x)[0], expected)


TILED = net([1, 5], "conv(1, 2, share = tiled(2), pad = (0, 1), bias = none)")


def test_S39_figure_9_16() -> None:
    run = Run(TILED, {"y.weight": [[[2, 3, 5, 7]]]})
    a, b, c, d = 2, 3, 5, 7
    x1, x2, x3, x4, x5 = X[0][0]
    expected = [a * x1 + b * x2, c * x2 + d * x3, a * x3 + b * x4, c * x4 + d * x5, a * x5]
    assert run.one(X[0])[0].tolist() == expected
    assert run.backward(X, G)["y.weight"].tolist() == [[[12, 10, -2, -3]]]


def test_S39_the_period_is_one_number_or_one_per_axis() -> None:
    shape = [2, 6, 7]
    assert weight(shape, "conv(3, 3x2, share = tiled(2))") == (3, 2, 6, 4)
    assert weight(shape, "conv(3, 3x2, share = tiled((1, 3)))") == (3, 2, 3, 6)
    same("conv(3, 3x2, share = tiled(2))", "conv(3, 3x2, share = tiled(2x2))", (2, 6, 7))


def test_S39_one_kernel_is_a_conv_and_one_per_output_a_local_layer() -> None:
    for pad in ("valid", "1", "reflect(1)"):
        layer = f"conv(3, 3x2, pad = {pad}"
        same(f"{layer}, share = tiled(1))", f"{layer})", (2, 6, 7))
        same(f"{layer}, share = tiled(9))", f"{layer}, share = none)", (2, 6, 7))


def test_S39_tiled_layers_work_on_any_extent() -> None:
    run = Run(
        "net t {\n  input x: f32[1, H, W]\n  output y = x -> conv(2, 3x3, share = tiled(2))\n}"
    )
    for height, width in ((5, 5), (6, 4), (9, 8)):
        x = integers((1, 1, height, width), height)
        given = {**run.parameters, run.input: x}
        symbols = {"H": height, "W": width}
        y = run_interp(run.kernels(), given, 1, np.float32, symbols)[run.output]
        fixed = Run(net([1, height, width], "conv(2, 3x3, share = tiled((2, 2)))"))
        fixed.parameters = dict(run.parameters)
        assert np.array_equal(y, fixed(x))


def test_S40_dead_taps_are_not_stored() -> None:
    layer = "conv(10, 5x5, share = none, bias = untied, pad = "
    checked([3, 50, 50], f"{layer}replicate(2))", "params == 1_900_000")
    checked([3, 50, 50], f"{layer}2)", "params == 1_811_080")
    assert weight([3, 50, 50], f"{layer}2)") == (10, 3, 244, 244)


def test_S40_without_dead_taps_the_layer_is_the_same() -> None:
    """The stored taps are those of the layer that reads zeros from a border instead."""
    live = Run(net([2, 4, 5], "conv(3, 3x3, share = none, pad = 1)"))
    full = Run(net([2, 4, 5], "pad(1) -> conv(3, 3x3, share = none)"))
    x, dy = integers((2, 2, 4, 5), 1), integers((2, 3, 4, 5), 2)
    names = {"y.weight": "y.weight", "y.bias": "y.bias"}
    assert full.parameters["y.weight"].shape == (3, 2, 12, 15)
    kept = [np.array([0 <= p + t - 1 < n for p in range(n) for t in range(3)]) for n in (4, 5)]
    at = np.ix_(range(3), range(2), *map(np.flatnonzero, kept))
    for name in names:
        live.parameters[name] = full.parameters[name]
    live.parameters["y.weight"] = full.parameters["y.weight"][at]
    assert np.array_equal(live(x), full(x))
    left, right = live.backward(x, dy), full.backward(x, dy)
    assert np.array_equal(left["x"], right["x"])
    assert np.array_equal(left["y.weight"], right["y.weight"][at])
    rest = right["y.weight"].copy()
    rest[at] = 0
    assert not rest.any()  # nothing is learnt about what is not stored


# --- S41, S42: between channels ---

LENET_C3 = """
table lenet5_c3 {
  [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 0], [5, 0, 1], [0, 1, 2, 3], [1, 2, 3, 4],
  [2, 3, 4, 5], [3, 4, 5, 0], [4, 5, 0, 1], [5, 0, 1, 2], [0, 1, 3, 4], [1, 2, 4, 5],
  [2, 3, 5, 0], [0, 1, 2, 3, 4, 5]
}
"""


def test_S41_figure_9_15_a_table_saves_weights_and_work() -> None:
    pairs = "conv(4, 3, connect = table([[0, 1], [0, 1], [2, 3], [2, 3]]), bias = none)"
    checked([4, 10], pairs, "params == 24, macs == 192")
    checked([4, 10], "conv(4, 3, bias = none)", "params == 48, macs == 384")
    some = "conv(4, 3, connect = table([[0, 2], [1, 3], [0, 3], [1, 2]]), bias = none)"
    checked([4, 10], some, "params == 24, macs == 192")


def test_S41_blocks_are_groups_and_a_full_table_is_none() -> None:
    blocks = "conv(4, 3, connect = table([[0, 1], [1, 0], [2, 3], [2, 3]]))"
    same(blocks, "conv(4, 3, connect = groups(2))", (4, 10))
    same("conv(2, 3, connect = table([[1, 0], [0, 1]]))", "conv(2, 3)", (2, 10))
    one = "conv(3, 3, connect = table([0, 1, 2]))"
    same(one, "conv(3, 3, connect = depthwise)", (3, 10))


def test_S42_the_third_layer_of_lenet5() -> None:
    layer = "conv(16, 5x5, connect = table(lenet5_c3))"
    front(net([6, 14, 14], f"{layer}\n  expect params == 1516, connections == 151_600", LENET_C3))
    run = Run(net([6, 14, 14], layer, LENET_C3))
    rows = run.graph.index["y.pairs"].op.value  # type: ignore[attr-defined]
    fan_in = [sum(entry >= 0 for entry in row) for row in rows]
    assert [fan_in.count(n) for n in (3, 4, 6)] == [6, 9, 1]
    assert run.parameters["y.weight"].shape == (60, 5, 5)


def test_S42_each_output_sums_its_own_maps() -> None:
    run = Run(net([3, 6, 6], "conv(4, 3x3, connect = table([[2, 0], [1], [0, 1, 2], [2]]))"))
    maps = [(0, 0), (0, 2), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2)]  # as they are stored
    single = Run(net([1, 6, 6], "conv(1, 3x3, bias = none)"))
    x, dy = integers((2, 3, 6, 6), 1), integers((2, 4, 4, 4), 2)
    expected = np.zeros((2, 4, 4, 4), np.float32) + run.parameters["y.bias"].reshape(-1, 1, 1)
    found = run.backward(x, dy)
    for number, (k, c) in enumerate(maps):
        single.parameters["y.weight"] = run.parameters["y.weight"][number].reshape(1, 1, 3, 3)
        expected[:, k] += single(x[:, c : c + 1])[:, 0]
        gradient = single.backward(x[:, c : c + 1], dy[:, k : k + 1])["y.weight"]
        assert np.array_equal(found["y.weight"][number], gradient[0, 0])
    assert np.array_equal(run(x), expected)


def test_S42_tables_are_imported(tmp_path: Path) -> None:
    (tmp_path / "tables.cnn").write_text(LENET_C3)
    (tmp_path / "main.cnn").write_text(
        'import "tables.cnn"\n' + net([6, 14, 14], "conv(16, 5x5, connect = table(lenet5_c3))")
    )
    graph = front(str(tmp_path / "main.cnn")).graph
    assert graph["y.weight"].type.shape == (60, 5, 5)


# --- S43 to S47 ---


@pytest.mark.parametrize("share", ["full", "none", "tiled(2)", "symmetric"])
def test_S43_a_unit_sees_as_many_inputs_as_its_kernel_has_taps(share: str) -> None:
    a = toeplitz(Run(net([1, 5], f"conv(1, 3, pad = 1, share = {share}, bias = none)")), (1, 5))
    weights = toeplitz(
        Run(net([1, 5], f"conv(1, 3, pad = 1, share = {share}, bias = none)"), seed=7), (1, 5)
    )
    reads = (a != 0) | (weights != 0)
    far = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) > 1
    assert not reads[far].any()


@pytest.mark.parametrize("share", ["full", "none", "tiled(2)", "symmetric"])
def test_S44_sharing_does_not_change_receptive_fields(share: str) -> None:
    layer = f"conv(2, 3, share = {share}"
    body = f"{layer}) -> {layer}, dilation = 2) -> {layer}, dilation = 4)"
    checked([1, 40], body, "receptive_field(y) == 15")


def test_S45_a_tiled_layer_is_equivariant_to_its_period() -> None:
    run = Run(net([2, 14], "conv(3, 3, share = tiled(3), bias = none)"))
    x = integers((1, 2, 14), 1)
    for shift in (3, 6):
        moved = np.roll(x, shift, axis=2)
        assert np.array_equal(run(moved)[:, :, shift:], run(x)[:, :, :-shift])
    assert not np.array_equal(run(np.roll(x, 1, axis=2))[:, :, 1:], run(x)[:, :, :-1])


def mosaic(w: Array, tiles: tuple[int, int]) -> Array:
    return np.tile(w, (1, 1, *tiles))


def test_S46_every_prior_is_a_special_case_of_the_next_weaker_one() -> None:
    """Symmetric, shared, tiled, local, dense: weights that are copied upward give the same bits."""
    shape, x = (2, 6, 6), integers((2, 2, 6, 6), 3)
    free = Run(net(shape, "conv(3, 3x3, share = symmetric)"))
    j = np.abs(np.arange(3) - 1)
    kernel = free.parameters["y.weight"][:, :, j][:, :, :, j]
    bias = free.parameters["y.bias"]
    expected = free(x)
    for share, w in {
        "full": kernel,
        "tiled(2)": mosaic(kernel, (2, 2)),
        "none": mosaic(kernel, (4, 4)),
    }.items():
        run = Run(net(shape, f"conv(3, 3x3, share = {share})"), {"y.weight": w, "y.bias": bias})
        assert np.array_equal(run(x), expected), share
    linear = Run(
        net(shape, "conv(3, 3x3, share = none, bias = none)"), {"y.weight": mosaic(kernel, (4, 4))}
    )
    dense = Run(net([72], "dense(48)"))
    dense.parameters["y.weight"] = toeplitz(linear, shape)
    dense.parameters["y.bias"] = np.repeat(bias, 16)
    assert np.array_equal(dense(x.reshape(2, 72)).reshape(expected.shape), expected)


def test_S47_each_pool_window_sees_every_detector_once() -> None:
    """A pool as large as the tile: its windows see all t * t kernels, each at one position."""
    tiled = Run(net([1, 8, 8], "conv(1, 1x1, share = tiled(2), bias = none)"))
    tiled.parameters["y.weight"] = np.array([[[[1, 2], [4, 8]]]], np.float32)
    detectors = tiled.one(np.ones((1, 8, 8)))[0]
    windows = detectors.reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(-1, 4)
    assert {tuple(sorted(w)) for w in windows.tolist()} == {(1, 2, 4, 8)}
    pooled = Run(net([1, 9, 9], "conv(2, 2x2, share = tiled(2)) -> maxpool(2x2)"))
    assert pooled.shape == (2, 4, 4)


# --- biases, and training ---


@pytest.mark.parametrize(
    "arguments",
    ["share = symmetric", "share = none, pad = 1", "connect = table([[0], [1], [0, 1]])",
     "kind = convolution", "constraint = density"],
)  # fmt: skip
def test_S35_kernels_are_made_once_from_what_is_stored(arguments: str) -> None:
    graph = front(net([2, 6, 6], f"conv(3, 3x3, {arguments})")).graph
    made = {n.name for n in graph.nodes if n.inputs} - {"y"}
    assert made
    assert prepared(graph) == made


def test_S101_biases_per_unit() -> None:
    layer = "conv(12, 5x5, stride = 2, pad = const(-1, (2, 1)), bias = untied)"
    checked([1, 16, 16], layer, "params == 1068, connections == 19_968")
    run = Run(net([1, 4, 4], "conv(2, 3x3, bias = untied)"))
    assert run.parameters["y.bias"].shape == (2, 2, 2)
    dy = integers((3, 2, 2, 2), 1)
    assert np.array_equal(run.backward(integers((3, 1, 4, 4)), dy)["y.bias"], dy.sum(axis=0))


NETWORK = """
table some { [0, 2], [1], [0, 1], [2] }
net mixed {
  input x: f32[2, 6, 6]
  a = x -> conv(3, 3x3, share = tiled(2)) -> relu
  b = a -> conv(3, 3x3, share = none, pad = 1, kind = convolution) -> tanh
  c = b -> conv(3, 3x3, share = symmetric(mean), pad = 1, bias = untied)
  d = c -> conv(4, 3x3, connect = table(some), kind = convolution, constraint = density) -> relu
  e = d -> conv_transpose(3, 3x3, share = tiled(2), bias = untied)
  f = e -> conv_transpose(3, 3x3, weights = transpose(b), pad = 1)
  output y = f -> flatten -> dense(3)
}
train mixed {
  target t: class[3]
  loss = cross_entropy(y, t)
  optimizer = sgd(lr = 0.1, momentum = 0.9)
}
"""


def test_S38_S39_S42_all_kinds_learn_with_the_same_bits_on_both_targets() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((8, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 8)
    losses, states = [], []
    for target in ("interp", "cpu"):
        model = cnncc.compile(NETWORK, target=target, seed=1, train=True)
        losses.append([float(model.step(x, t)) for _ in range(5)])
        states.append(model.state_dict())
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.95 * losses[0][0]
    for name, value in states[0].items():
        assert np.array_equal(value, states[1][name]), name


DIGITS = """
net places(classes = 10) {
  input image: f32[1, 8, 8]
  a = image -> conv(16, 3x3, pad = 1) -> relu
  b = a -> conv(32, 3x3, pad = 1, share = tiled(2)) -> relu -> maxpool(2x2)
  c = b -> conv(16, 3x3, pad = 1, share = none) -> relu
  output scores = c -> flatten -> dense(classes)
}
train places {
  target label: class[classes]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.05, momentum = 0.9)
  batch = 64
  epochs = 15
}
"""


@pytest.mark.slow
def test_S38_S39_tiled_and_local_layers_learn_the_digits() -> None:
    data, test = cnncc.load_data("digits", "train"), cnncc.load_data("digits", "test")
    accuracies = []
    for seed in range(5):
        model = cnncc.compile(DIGITS, train=True, seed=seed)
        model.fit(data)
        accuracies.append(model.evaluate(test)["accuracy"])
    assert np.median(accuracies) >= 0.97
