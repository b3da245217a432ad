"""Rows S01 to S23 of the lecture table: convolution, its adjoints, and what "convolution" means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front
from cnncc.graph.ir import Builder
from cnncc.graph.sources import Input
from cnncc.ops.base import Array
from cnncc.passes.differentiate import gradients
from cnncc.targets.interp.program import run_interp
from tests.mission.running import Run, integers, net

H = [0.1, 7, -1, 2, 3]
IMAGE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
CORNER = [[1, 0], [2, -1]]
BINARY = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
SOBEL = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]


def literal(kernel: Any) -> str:
    return str(np.asarray(kernel).tolist())


def filtered(image: Any, kernel: Any, arguments: str = "") -> Array:
    """One channel of a signal or an image through one fixed kernel."""
    x, w = np.asarray(image, np.float32), np.asarray(kernel)
    size = "x".join(map(str, w.shape))
    fixed = f"conv(1, {size}, weights = {literal(w)}, frozen = true, bias = none"
    run = Run(net([1, *x.shape], f"{fixed}{', ' + arguments if arguments else ''})"))
    run.parameters["y.weight"] = w.reshape(1, 1, *w.shape).astype(np.float32)
    return run.one(x[None])[0]


def rounded(values: Array) -> list[Any]:
    return np.round(values.astype(np.float64), 4).tolist()  # type: ignore[no-any-return]


def toeplitz(run: Run, shape: tuple[int, ...]) -> Array:
    """The matrix of a linear layer, from the images of the unit vectors."""
    units = np.eye(int(np.prod(shape)), dtype=np.float32).reshape(-1, *shape)
    return run(units).reshape(len(units), -1).T


def test_S01_a_density_keeps_a_constant() -> None:
    body = "conv(2, 3x3, constraint = density, bias = none)"
    run = Run(net([3, 6, 6], body), {"y.weight": np.arange(1, 55).reshape(2, 3, 3, 3) - 27})
    np.testing.assert_allclose(run.one(np.full((3, 6, 6), 5.0)), 5.0, rtol=1e-6)
    given = Run(net([1, 5], "conv(1, 3, constraint = density, bias = none)"))
    given.parameters["y.weight"] = np.array([[[0.25, 0.5, 0.25]]], np.float32)
    assert given.one([[0, 0, 4, 0, 8]]).tolist() == [[1, 2, 3]]  # a density is its own kernel


def test_S01_the_gradient_of_a_density_is_a_slope() -> None:
    rng = np.random.default_rng(0)
    body = "conv(2, 3x3, constraint = density, share = symmetric, bias = none)"
    run = Run(net([2, 5, 5], body), dtype=np.float64)
    w = rng.standard_normal((2, 2, 2, 2)).astype(np.float32).astype(np.float64)
    x, dy = rng.standard_normal((2, 2, 5, 5)), rng.standard_normal((2, 2, 3, 3))
    run.parameters["y.weight"] = w
    found = run.backward(x, dy)["y.weight"]
    for at in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[at] = 1e-6
        values = []
        for sign in (1, -1):
            run.parameters["y.weight"] = w + sign * step
            values.append(float(np.sum(run(x) * dy)))
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(found[at], rel=1e-5, abs=1e-7)


def test_S02_discrete_convolution_turns_the_kernel_round() -> None:
    centred = "pad = same, kind = convolution"
    assert rounded(filtered(H, [1, 2, 3], centred)) == [7.2, 13.3, 21, 4, 12]


def test_S03_convolution_of_an_image() -> None:
    full = [[1, 2, 3, 0], [6, 8, 10, -3], [15, 14, 16, -6], [14, 9, 10, -9]]
    assert filtered(IMAGE, CORNER, "kind = convolution, pad = 1").tolist() == full
    assert filtered(IMAGE, CORNER, "kind = convolution").tolist() == [[8, 10], [14, 16]]


def test_S04_full_convolution_commutes() -> None:
    image, kernel = integers((4, 5), 1), integers((3, 2), 2)
    one = filtered(image, kernel, "kind = convolution, pad = ((2, 2), (1, 1))")
    other = filtered(kernel, image, "kind = convolution, pad = ((3, 3), (4, 4))")
    assert np.array_equal(one, other)
    assert one.any()


def test_S05_cross_correlation_does_not_turn_it() -> None:
    assert filtered(IMAGE, CORNER).tolist() == [[4, 6], [10, 12]]


def test_S06_figure_9_1() -> None:
    letters = np.arange(1, 13).reshape(3, 4)
    expected = [[6521, 7632, 8743], [10965, 12076, 13187]]
    assert filtered(letters, [[1, 10], [100, 1000]]).tolist() == expected


def test_S07_a_kernel_that_looks_the_same_turned_round() -> None:
    kernel, expected = [[1, 0, 1], [0, 1, 0], [1, 0, 1]], [[4, 3, 4], [2, 4, 3], [2, 3, 4]]
    assert filtered(BINARY, kernel).tolist() == expected
    assert filtered(BINARY, kernel, "kind = convolution").tolist() == expected


def test_S08_the_sign_of_sobel_tells_the_two_apart() -> None:
    expected = [[-3, 0, 3], [-4, -3, 2], [-4, -2, 3]]
    assert filtered(BINARY, SOBEL).tolist() == expected
    turned = filtered(BINARY, SOBEL, "kind = convolution")
    assert turned.tolist() == (-np.array(expected)).tolist()


def test_S09_edges_are_differences_of_neighbours() -> None:
    image = integers((280, 320))
    edges = image[:, 1:] - image[:, :-1]
    assert np.array_equal(filtered(image, [[-1, 1]]), edges)
    assert np.array_equal(filtered(image, [[1, -1]], "kind = convolution"), edges)
    assert edges.shape == (280, 319)


@pytest.mark.parametrize(
    ("share", "params"), [("full", 2), ("none", 178_640)], ids=["shared", "local"]
)
def test_S10_stored_weights_of_the_edge_detector(share: str, params: int) -> None:
    body = f"conv(1, 1x2, bias = none, share = {share})"
    expects = f"expect params == {params}, macs == {2 * 280 * 319}"
    front(net([1, 280, 320], f"{body}\n  {expects}"))


def test_S11_the_transpose_of_a_product() -> None:
    body = "dense(3, bias = none) -> dense(2, bias = none)"
    run = Run(net([4], body))
    b, a = (run.parameters[f"y.dense{n}.weight"] for n in ("", "_2"))
    assert np.array_equal(toeplitz(run, (4,)), a @ b)
    dy = integers((1, 2), 9)
    assert np.array_equal(run.backward(integers((1, 4)), dy)["x"], dy @ a @ b)


def test_S12_a_layer_is_three_operators() -> None:
    for share in ("full", "tiled(2)", "none", "symmetric"):
        run = Run(net([2, 6, 6], f"conv(3, 3x3, pad = 1, share = {share}) -> relu"))
        used = {n.op.name for n in run.kernels().graph.nodes} - {"input", "parameter", "constant"}
        assert used - {"relu", "arrange"} == {"conv"}
        b = Builder.of(run.graph)
        seed = b.add(Input(run.graph[run.output].type), name="dy")
        gradients(b, {run.output: seed}, [run.input, *run.parameters])
        new = {n.op.name for n in b.nodes} - {n.op.name for n in run.graph.nodes}
        assert new - {"relu_grad", "sum", "arrange_dw"} == {"conv_dx", "conv_dw"}


LOCAL = net([1, 5], "conv(1, 2, share = none, pad = (0, 1), bias = none)")
SHARED = net([1, 5], "conv(1, 2, pad = (0, 1), bias = none)")
X, G = [[[1, 2, 3, 4, 5]]], [[[1, -1, 2, 0, 1]]]


def test_S13_backpropagation_without_sharing() -> None:
    run = Run(LOCAL)
    assert run.parameters["y.weight"].shape == (1, 1, 9)
    gradient = run.backward(X, G)["y.weight"]
    assert gradient.tolist() == [[[1, 2, -2, -3, 6, 8, 0, 0, 5]]]


def test_S14_backpropagation_with_sharing() -> None:
    run = Run(SHARED, {"y.weight": [[[2, 3]]]})
    found = run.backward(X, G)
    assert found["y.weight"].tolist() == [[[10, 7]]]
    assert found["x"].tolist() == [[[2, 1, 1, 6, 2]]]


def test_S16_a_transposed_conv_says_which_extents_it_means() -> None:
    small = "conv_transpose(1, 3x3, stride = 2, pad = 1"
    assert Run(net([1, 12, 12], small + ")")).shape == (1, 23, 23)
    assert Run(net([1, 12, 12], small + ", out = (24, 24))")).shape == (1, 24, 24)
    with pytest.raises(cnncc.SpecError, match="possible along the height: 23, 24"):
        front(net([1, 12, 12], small + ", out = (25, 24))"))


def test_S16_tied_autoencoder_sums_both_uses() -> None:
    text = """
    net auto {
      input x: f32[2, 6, 6]
      code = x -> conv(3, 3x3, share = tiled(2), bias = none)
      output y = code -> conv_transpose(2, 3x3, weights = transpose(code), bias = none)
    }"""
    run = Run(text)
    assert list(run.parameters) == ["code.weight"]
    x, dy = integers((2, 2, 6, 6), 1), integers((2, 2, 6, 6), 2)
    w = run.parameters["code.weight"]
    encoder = Run(net([2, 6, 6], "conv(3, 3x3, share = tiled(2), bias = none)"), {"y.weight": w})
    y = encoder(x)
    assert np.sum(run(x) * dy) == np.sum(y * encoder(dy))
    both = run.backward(x, dy)["code.weight"]
    assert np.array_equal(
        both,
        encoder.backward(x, encoder(dy))["y.weight"] + encoder.backward(dy, y)["y.weight"],
    )


@pytest.mark.parametrize("share", ["full", "none", "tiled(2)", "symmetric"])
def test_S17_S19_a_layer_is_a_matrix(share: str) -> None:
    body = f"conv(1, 3, share = {share}, bias = none)"
    run = Run(net([1, 8], body))
    a = toeplitz(run, (1, 8))
    x = integers((1, 1, 8), 3)
    assert np.array_equal(a @ x[0, 0], run(x)[0, 0])
    rows, columns = np.nonzero(a)
    assert set(columns - rows) <= {0, 1, 2}


def test_S18_S19_the_matrix_of_three_taps_is_a_band_of_equal_rows() -> None:
    run = Run(net([1, 8], "conv(1, 3, bias = none)"), {"y.weight": [[[1, 2, 3]]]})
    a = toeplitz(run, (1, 8))
    for i, row in enumerate(a):
        assert row.tolist() == [0] * i + [1, 2, 3] + [0] * (5 - i)


def test_S20_convolution_over_the_words_of_a_text() -> None:
    text = "net t {\n  input w: i64[7]\n  output y = w -> embed(9, 4) -> conv(2, 3, bias = none)\n}"
    run = Run(text)
    table = run.parameters["y.embed.weight"]
    words = np.array([[1, 5, 5, 0, 8, 5, 1]])
    signal = Run(net([4, 7], "conv(2, 3, bias = none)"))
    signal.parameters["y.weight"] = run.parameters["y.conv.weight"]
    assert np.array_equal(run_words(run, words), signal(np.moveaxis(table[words], -1, 1)))


def run_words(run: Run, words: Array) -> Array:
    given = {**run.parameters, run.input: words}
    return run_interp(run.kernels(), given, len(words), np.float32)[run.output]


def test_S21_gabor_functions() -> None:
    numbers = (
        "alpha = 2, beta_x = 0.1, beta_y = 0.2, f = 0.7, phi = 0.3, x0 = 1, y0 = -1, tau = 0.4"
    )
    model = cnncc.compile(net([3, 9, 9], f"conv(2, 5x5, init = gabor({numbers}))"), target="interp")
    w = model.state_dict()["y.weight"]
    assert w[0, 0, 2 - 1, 2 + 1] == np.float32(2 * np.cos(0.3))  # at (x0, y0)
    for i, j in np.ndindex(5, 5):
        x, y = j - 2 - 1, i - 2 + 1
        along = x * np.cos(0.4) + y * np.sin(0.4)
        across = -x * np.sin(0.4) + y * np.cos(0.4)
        value = 2 * np.exp(-0.1 * along**2 - 0.2 * across**2) * np.cos(0.7 * along + 0.3)
        assert w[1, 2, i, j] == pytest.approx(value, rel=1e-6)


def test_S21_a_bank_of_gabor_functions_has_all_directions() -> None:
    model = cnncc.compile(
        net([1, 9, 9], "conv(4, 7x7, init = gabor(beta_x = 0.2))"), target="interp"
    )
    w = model.state_dict()["y.weight"][:, 0]
    np.testing.assert_allclose(w[2], w[0].T, atol=1e-6)  # turned by a right angle
    assert np.abs(w[1] - w[0]).max() > 0.1


def test_S22_fixed_kernels_get_no_gradient() -> None:
    text = net([1, 5, 5], f"conv(1, 3x3, weights = {literal(SOBEL)}, frozen = true, bias = none)")
    text = text.replace("output y =", "e =").rstrip().removesuffix("}")
    text += "  output y = e -> flatten -> dense(2)\n}\n"
    text += "train small {\n  target t: class[2]\n  loss = cross_entropy(y, t)\n"
    text += "  optimizer = sgd(lr = 0.5)\n}\n"
    model = cnncc.compile(text, target="interp", train=True)
    before = model.state_dict()["e.weight"].copy()
    assert before.tolist() == [[np.array(SOBEL, np.float32).tolist()]]
    x, t = integers((4, 1, 5, 5)), np.array([0, 1, 0, 1])
    first = model.state_dict()["y.weight"].copy()
    model.step(x, t)
    assert np.array_equal(model.state_dict()["e.weight"], before)
    assert not np.array_equal(model.state_dict()["y.weight"], first)
    assert "e.weight" not in model.gradients


def test_S22_a_kernel_of_the_taps_alone_is_for_every_connection() -> None:
    blur = net([3, 5, 5], "conv(3, 3x3, connect = depthwise, weights = [[1,2,1],[2,4,2],[1,2,1]])")
    model = cnncc.compile(blur, target="interp")
    assert model.state_dict()["y.weight"].tolist() == [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]] * 3


def test_S23_the_channel_axis_is_in_every_type() -> None:
    run = Run(net([3, 6, 7], "conv(4, 3x3)"))
    assert run.parameters["y.weight"].shape == (4, 3, 3, 3)
    assert run.shape == (4, 4, 5)
