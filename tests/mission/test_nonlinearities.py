"""Rows S85 to S89b of the lecture table: detectors, softmax, likelihood, dropout, and rounding."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.graph.ir import Builder
from cnncc.graph.sources import Input
from cnncc.ops.base import Array
from cnncc.passes.differentiate import gradients
from cnncc.passes.fuse import fuse
from cnncc.targets.interp.program import run_interp
from cnncc.targets.interp.rounding import rounding
from tests.mission.running import Run, integers, net, slope

# --- S85: nonlinearities ---

FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "stanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_s85_value_and_slope_of_a_nonlinearity(name: str) -> None:
    run = Run(net([3, 5], name), dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    np.testing.assert_allclose(run(x), FUNCTIONS[name](x), rtol=1e-12)
    dy = np.random.default_rng(1).standard_normal(x.shape)
    np.testing.assert_allclose(run.backward(x, dy)["x"], slope(run, x, dy), rtol=1e-6, atol=1e-9)


def test_s85_the_scaled_tanh_of_LeNet_is_1_at_1() -> None:
    run = Run(net([3], "stanh"), dtype=np.float64)
    np.testing.assert_allclose(run.one([-1.0, 0.0, 1.0]), [-1, 0, 1], atol=1e-5)


# --- S86 and S87: softmax and likelihood ---

SCORES = [1.0, 2.0, 3.0]
PROBABILITIES = [0.09003057, 0.24472847, 0.66524096]


def test_s86_softmax_of_1_2_3() -> None:
    run = Run(net([3], "softmax"), dtype=np.float64)
    np.testing.assert_allclose(run.one(SCORES), PROBABILITIES, atol=5e-9)
    np.testing.assert_allclose(run.one(np.add(SCORES, 100.0)), run.one(SCORES), rtol=1e-13)


def test_s86_large_scores_do_not_overflow() -> None:
    x = [1e4, 0.0, -1e4]
    assert Run(net([3], "softmax")).one(x).tolist() == [1, 0, 0]
    assert Run(net([3], "log_softmax")).one(x).tolist() == [0, -1e4, -2e4]


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_s86_gradients_of_softmax_and_its_logarithm(name: str) -> None:
    run = Run(net([4, 3], name), dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    dy = np.random.default_rng(1).standard_normal(x.shape)
    np.testing.assert_allclose(run.backward(x, dy)["x"], slope(run, x, dy), rtol=1e-6, atol=1e-9)


def train(kind: str, loss: str) -> str:
    """A block that trains the net of `running.net`."""
    return f"train small {{\n target t: {kind}\n loss = {loss}\n optimizer = sgd(lr = 1)\n}}\n"


def loss_and_gradient(body: str, loss: str, x: Array, target: Array, kind: str) -> tuple[Any, Any]:
    """The loss of a net on one input and its gradient for that input, in float64."""
    shape = list(x.shape[1:])
    graph = front(net(shape, body) + train(kind, f"{loss}(y, t)"), train=True).graph
    b = Builder.of(graph)
    (name,) = (node for public, node in graph.outputs if public == "loss")
    seed = b.add(Input(graph[name].type), name="dy")
    dx = gradients(b, {name: seed}, ["x"])["x"]
    result = b.graph([("loss", b[name]), ("dx", dx)])
    given = {"x": x, "t": target, "dy": np.ones(1)}
    values = run_interp(fuse(result), given, len(x), np.float64)
    return float(values[name].item()), values[dx.name]


def test_s86_the_gradient_of_cross_entropy_is_p_minus_onehot() -> None:
    x, label = np.array([SCORES]), np.array([[1]])
    value, dx = loss_and_gradient("reshape(3)", "cross_entropy", x, label, "class[3]")
    assert value == pytest.approx(-np.log(PROBABILITIES[1]), rel=1e-7)
    np.testing.assert_allclose(dx[0], np.subtract(PROBABILITIES, [0, 1, 0]), atol=5e-9)


LOSSES = {
    "cross_entropy": ("reshape(4)", "class[4]"),
    "nll": ("log_softmax", "class[4]"),
    "mse": ("stanh", "f32[4]"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_s87_losses_have_the_slopes_of_their_values(name: str) -> None:
    body, kind = LOSSES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4))
    target = rng.standard_normal((3, 4)) if name == "mse" else np.array([[0], [3], [1]])
    _, dx = loss_and_gradient(body, name, x, target, kind)
    for at in np.ndindex(*x.shape):
        high, low = x.copy(), x.copy()
        high[at] += 1e-6
        low[at] -= 1e-6
        values = [loss_and_gradient(body, name, v, target, kind)[0] for v in (high, low)]
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(dx[at], rel=1e-6, abs=1e-9)


def test_s87_likelihood_behind_log_softmax_is_the_cross_entropy() -> None:
    x, label = np.random.default_rng(0).standard_normal((5, 4)), np.array([[0], [3], [1], [2], [2]])
    entropy = loss_and_gradient("reshape(4)", "cross_entropy", x, label, "class[4]")
    likelihood = loss_and_gradient("log_softmax", "nll", x, label, "class[4]")
    assert entropy[0] == pytest.approx(likelihood[0], rel=1e-14)
    np.testing.assert_allclose(entropy[1], likelihood[1], rtol=1e-12, atol=1e-15)


def test_s87_class_numbers_of_a_likelihood_are_checked_and_counted() -> None:
    text = net([4], "log_softmax") + train("class[4]", "nll(y, t)")
    model = cnncc.compile(text, target="interp", train=True)
    x = np.eye(4, dtype=np.float32)
    assert model.evaluate(x, np.array([0, 1, 2, 0]))["accuracy"] == 0.75
    with pytest.raises(cnncc.InputError, match="4"):
        model.evaluate(x, np.array([0, 1, 2, 4]))


def test_s87_a_class_per_position_has_a_likelihood_too() -> None:
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((2, 3, 2, 4)), rng.integers(0, 3, (2, 2, 4))
    value, dx = loss_and_gradient("log_softmax", "nll", x, label, "i64[2, 4]")
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    onehot = np.arange(3).reshape(1, 3, 1, 1) == label[:, None]
    assert value == pytest.approx(-np.log(p[onehot]).mean(), rel=1e-12)
    np.testing.assert_allclose(dx, (p - onehot) / label.size, rtol=1e-9, atol=1e-15)


# --- S88: dropout ---


def test_s88_the_mean_over_all_masks_of_a_linear_layer_is_half_of_it() -> None:
    text = """
net masked {
  input x: f32[3]
  input mask: f32[3]
  output y = x * mask -> dense(2, bias = none)
}
"""
    graph = front(text).graph
    weight, x = integers((2, 3), 1), integers((1, 3), 2)
    masks = np.array(list(product((0, 1), repeat=3)), np.float32)
    given = {"x": np.repeat(x, 8, axis=0), "mask": masks, "y.weight": weight}
    y = run_interp(fuse(graph), given, 8, np.float32)["y"]
    assert len({tuple(row) for row in y}) > 1
    np.testing.assert_array_equal(y.mean(axis=0), (x @ weight.T)[0] / 2)


def mc(draws: int, p: float = 0.5, seed: int = 0, last: str = "softmax") -> str:
    drop = f"dropout({p}, mode = mc({draws}), seed = {seed})"
    return net([6], f"dense(8) -> relu -> {drop} -> dense(5) -> {drop} -> {last}")


def test_s88_the_output_is_the_mean_over_the_draws() -> None:
    draws, x = 8, np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)
    run = Run(mc(draws))
    values = run_interp(fuse(run.graph), run._given(x), len(x), np.float32)
    (mean,) = run.graph.of("mean_of")
    each = [values[name] for name in mean.inputs]
    assert len(each) == draws
    assert len({a.tobytes() for a in each}) == draws  # different subnetworks
    total = each[0]
    for more in each[1:]:
        total = total + more
    np.testing.assert_array_equal(values[run.output], total / np.float32(draws))
    np.testing.assert_allclose(run(x).sum(axis=1), 1, rtol=1e-6)


def test_s88_what_no_mask_touches_is_computed_once_and_parameters_are_shared() -> None:
    run, plain = Run(mc(8)), Run(mc(8).replace(", mode = mc(8)", ""))
    assert set(run.parameters) == set(plain.parameters)
    dense = [n for n in run.graph.nodes if n.op.name == "dense"]
    assert len(dense) == 1 + 8  # the first layer stands before every mask
    masks = [n.op for n in run.graph.nodes if n.op.name == "dropout_draw"]
    assert len({op.key for op in masks}) == len(masks) == 16  # type: ignore[attr-defined]


def test_s88_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    run = Run(mc(4))
    whole = run(x)
    np.testing.assert_array_equal(run(x), whole)
    np.testing.assert_array_equal(np.concatenate([run(row[None]) for row in x]), whole)
    assert not np.array_equal(Run(mc(4, seed=1))(x), whole)
    np.testing.assert_array_equal(Run(mc(4), fused=False)(x), whole)
    np.testing.assert_array_equal(run.on_cpu(x)(x), whole)


def test_s88_many_draws_of_a_linear_layer_tend_to_its_mean() -> None:
    x = np.ones((1, 2000), np.float32)
    far, near = (
        np.abs(Run(net([2000], f"dropout(0.5, mode = mc({t}))"))(x) - 1).mean() for t in (4, 64)
    )
    # the mean of T values 0 or 2 has standard deviation 1 / sqrt(T)
    assert 0.3 < far < 0.5
    assert 0.07 < near < 0.13


def test_s88_in_training_the_mode_changes_nothing() -> None:
    training = train("class[5]", "cross_entropy(y, t)")
    names = []
    for text in (mc(4, last="reshape(5)"), mc(4, last="reshape(5)").replace(", mode = mc(4)", "")):
        names.append([n.op.name for n in front(text + training, train=True).graph.nodes])
    assert names[0] == names[1]
    assert names[0].count("dropout") == 2


def test_s88_a_loss_at_inference_is_that_of_the_mean() -> None:
    model = cnncc.compile(mc(4) + train("class[5]", "nll(y, t)"), target="interp", train=True)
    graph = model.network.evaluation.graph
    (loss,), (mean,) = graph.of("nll"), graph.of("mean_of")
    assert loss.inputs[0] == mean.name


@pytest.mark.parametrize(
    ("argument", "code"),
    [("mode = mc(1)", "E0213"), ("mode = mc(1000)", "E0213"), ("mode = mc", "E0304"),
     ("mode = same", "E0304"), ("seed = 5_000_000", "E0213")],
)  # fmt: skip
def test_s88_modes_that_cannot_be(argument: str, code: str) -> None:
    with pytest.raises(SpecError) as refused:
        front(net([3], f"dropout(0.5, {argument}) -> relu"))
    assert [d.code for d in refused.value.diagnostics] == [code]


def test_s88_all_layers_have_the_same_number_of_draws() -> None:
    with pytest.raises(SpecError) as refused:
        front(net([3], "dropout(0.5, mode = mc(2)) -> dropout(0.5, mode = mc(3))"))
    assert [d.code for d in refused.value.diagnostics] == ["E0213"]


# --- S89 and S89b ---


def test_s89_the_pyramid_is_flattened_before_its_dense_layers() -> None:
    body = "conv(4, 3x3) -> relu -> maxpool(2x2) -> conv(8, 3x3) -> relu -> flatten -> dense(16)"
    run = Run(net([1, 12, 12], f"{body} -> relu -> dense(10)"))
    shapes = [n.type.shape for n in run.graph.nodes if n.op.name in ("conv", "reshape", "dense")]
    assert shapes == [(4, 10, 10), (8, 3, 3), (72,), (16,), (10,)]
    with pytest.raises(SpecError):
        front(net([1, 12, 12], "conv(4, 3x3) -> dense(10)"))


def test_s89b_the_rounding_of_every_layer_is_reported_and_compounds() -> None:
    text = net([4, 12, 12], " -> ".join(["conv(4, 3x3, pad = same, bias = none) -> stanh"] * 8))
    run = Run(text)
    rng = np.random.default_rng(0)
    for name, array in run.parameters.items():
        run.parameters[name] = (rng.standard_normal(array.shape) / 3).astype(np.float32)
    x = rng.standard_normal((2, 4, 12, 12)).astype(np.float32)
    found = rounding(run.graph, run._given(x), 2)
    assert [r.name for r in found] == [n.name for n in run.graph.nodes if n.inputs]
    convs = [r for r in found if r.operator == "conv"]
    assert all(0 < r.ulps < 64 and 0 < r.relative < 1e-5 for r in convs)
    assert convs[-1].relative > 2 * convs[0].relative


def test_s89b_whole_numbers_are_not_rounded() -> None:
    run = Run(net([2, 6, 6], "conv(3, 3x3) -> relu -> maxpool(2x2)"))
    found = rounding(run.graph, run._given(integers((2, 2, 6, 6))), 2)
    assert {r.ulps for r in found} == {0.0}


def test_s89b_sums_of_gradients_round_less_than_one_long_sum() -> None:
    ours, naive = [], []
    run = Run(net([1, 48, 48], "conv(1, 1x1)"))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, dy = (rng.random((16, 1, 48, 48)).astype(np.float32) for _ in range(2))
        gradients = run.backward(x, dy)
        for name, terms in (("y.weight", x * dy), ("y.bias", dy)):
            exact = np.sum(terms, dtype=np.float64)
            ours.append(abs(gradients[name].item() - exact))
            naive.append(abs(np.cumsum(terms, dtype=np.float32)[-1] - exact))
    assert np.mean(ours) < np.mean(naive) / 2
