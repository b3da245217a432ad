"""Which weights `precision = "bf16"` rounds, and that nothing else changes: the bits are those of
the same network in float32 with rounded weights, on both targets, fused or not.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.cli import verbs
from cnncc.compiler import front, kernels, planned
from cnncc.graph.verify import verify
from cnncc.loops.numerics import from_bf16, to_bf16
from cnncc.model import programs
from cnncc.passes.bf16 import choices, with_bf16
from cnncc.passes.report_tables import fused_traffic

UNIT = 2.0**-8  # more than the relative error of a rounded number, which is at most 1 / 257


def net(layers: str, shape: str) -> str:
    return f"net n {{\n  input x: f32[{shape}]\n  output y = x -> {layers}\n}}\n"


HEAD = net("conv(20, 3x3) -> relu -> flatten -> dense(37) -> tanh -> dense(10)", "3, 8, 9")
WHOLE_WINDOW = net("conv(19, 4x5) -> relu -> conv(33, 1x1) -> softmax(axis = channel)", "3, 4, 5")
UNSHARED = net("conv(5, 3x3, share = none) -> relu -> flatten -> dense(3)", "2, 6, 7")
GROUPS = net("conv(12, 4x4, connect = groups(3)) -> relu -> conv(7, 1x1, bias = none)", "6, 4, 4")
TIED = """
net n {
  input x: f32[50]
  h = x -> dense(17)
  output y = h -> tanh -> dense(50, weights = transpose(h))
}
"""
SHARED = """
net n {
  weights W
  input x: f32[23]
  a = x -> dense(23, weights = W) -> relu
  output y = a -> dense(23, weights = W, bias = none)
}
"""
NETS = {
    "head": HEAD, "whole window": WHOLE_WINDOW, "unshared": UNSHARED, "groups": GROUPS,
    "tied": TIED, "shared": SHARED,
}  # fmt: skip


def halved(text: str) -> set[str]:
    return {c.weights.name for c in choices(front(text).graph) if c.halved}


def rounded(text: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state with the weights rounded that the compiler is to round."""
    names = halved(text)
    return {k: from_bf16(to_bf16(v)) if k in names else v for k, v in state.items()}


def inputs(text: str, batch: int = 3) -> np.ndarray:
    (node,) = front(text).graph.of("input")
    shape = node.type.dims(batch)
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


# --- which layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (HEAD, {"y.dense.weight", "y.dense_2.weight"}),
        (WHOLE_WINDOW, {"y.conv.weight", "y.conv_2.weight"}),
        (UNSHARED, {"y.conv.weight", "y.dense.weight"}),
        (GROUPS, {"y.conv.weight", "y.conv_2.weight"}),
        (TIED, {"h.weight"}),
        (SHARED, {"W"}),
        (net("conv(8, 3x3) -> maxpool(2x2) -> globalavgpool", "3, 8, 8"), set()),
        (net("conv(8, 3x3)", "3, H, W"), set()),
    ],
)
def test_weights_that_are_used_once_are_rounded(text: str, names: set[str]) -> None:
    assert halved(text) == names


def test_the_reason_is_the_number_of_products() -> None:
    found = {c.weights.name: c.reason for c in choices(front(HEAD).graph)}
    assert "in 42 products per sample" in found["y.conv.weight"]
    assert "in one product per sample" in found["y.dense.weight"]


def test_layers_that_share_weights_share_the_rounded_ones() -> None:
    graph = verify(with_bf16(front(SHARED).graph), "bf16")
    (node,) = graph.of("bf16")
    assert node.inputs == ("W",)
    assert [n.inputs[1] for n in graph.of("dense")] == [node.name] * 2


@pytest.mark.parametrize("text", NETS.values(), ids=NETS)
def test_names_types_and_outputs_stay(text: str) -> None:
    graph = front(text).graph
    after = verify(with_bf16(graph), "bf16")
    assert after.outputs == graph.outputs
    for node in graph.nodes:
        assert (after[node.name].type, after[node.name].op) == (node.type, node.op)


def test_a_graph_without_such_layers_is_the_same() -> None:
    graph = front(net("conv(8, 3x3)", "3, 8, 8")).graph
    assert with_bf16(graph) is graph


# --- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NETS.values(), ids=NETS)
def test_the_bits_are_those_of_rounded_weights(text: str) -> None:
    x = inputs(text)
    plain = cnncc.compile(text, num_threads=1)
    before = plain(x)
    state = plain.state_dict()
    plain.load_state_dict(rounded(text, state))
    expected = plain(x)
    assert not np.array_equal(before, expected)
    for target, fuse, threads in (
        ("cpu", True, 1), ("cpu", True, 2), ("cpu", False, 1), ("interp", True, None),
        ("interp", False, None),
    ):  # fmt: skip
        model = cnncc.compile(text, target=target, fuse=fuse, num_threads=threads, precision="bf16")
        assert np.array_equal(model(x), expected)
        kept = model.state_dict()
        assert all(np.array_equal(kept[name], state[name]) for name in state)


def test_outputs_beside_whole_blocks_of_lanes() -> None:
    counts = (1, 3, 7, 16, 17, 31, 32, 33, 48, 95, 96)
    lines = (f"  output y{n} = x -> dense({n}, bias = none)\n" for n in counts)
    text = f"net n {{\n  input x: f32[13]\n{''.join(lines)}}}\n"
    cpu, interp = (cnncc.compile(text, target=t, precision="bf16") for t in ("cpu", "interp"))
    for batch in (1, 4):
        x = inputs(text, batch)
        found, expected = cpu(x), interp(x)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    columns, weights = cpu(np.eye(13, dtype=np.float32)), cpu.state_dict()
    for n in counts:
        rows = from_bf16(to_bf16(weights[f"y{n}.weight"]))
        assert np.array_equal(columns[f"y{n}"].T, rows)


def test_weights_that_bf16_holds_give_the_bits_of_float32() -> None:
    rng = np.random.default_rng(2)
    whole = {
        "y.weight": rng.integers(-128, 129, (21, 40)).astype(np.float32),
        "y.bias": rng.standard_normal(21).astype(np.float32),
    }
    text = net("dense(21)", "40")
    x = inputs(text)
    results = []
    for precision in ("default", "bf16"):
        model = cnncc.compile(text, precision=precision)
        model.load_state_dict(whole)
        results.append(model(x))
    assert np.array_equal(*results)


def test_new_weights_are_rounded_anew() -> None:
    x = inputs(HEAD)
    model, other = (cnncc.compile(HEAD, precision="bf16", seed=s) for s in (0, 1))
    first = model(x)
    model.load_state_dict(other.state_dict())
    assert np.array_equal(model(x), other(x))
    assert not np.array_equal(model(x), first)


def test_special_weights() -> None:
    """Denormals count, what is too large is infinite, NaN stays NaN."""
    rows = np.array([1e-40, -1e-45, 3.4e38, -3.4e38, np.nan, np.inf, 3.38e38, -0.0], np.float32)
    text = net("dense(8, bias = none)", "1")
    for target in ("cpu", "interp"):
        model = cnncc.compile(text, target=target, precision="bf16")
        model.load_state_dict({"y.weight": rows[:, None]})
        y = model(np.ones((1, 1), np.float32))[0]
        assert np.array_equal(y, from_bf16(to_bf16(rows)) + np.float32(0), equal_nan=True)
        assert y[0] != 0
        assert list(np.isinf(y)) == [False, False, True, True, False, True, False, False]


def test_activations_and_evaluation_round_too() -> None:
    text = HEAD.replace("output y", "y").replace("}", "  output y\n}\n") + (
        "train n {\n  target t: class[10]\n  loss = cross_entropy(y, t)\n"
        "  optimizer = sgd(lr = 0.1)\n}\n"
    )
    x, labels = inputs(text), np.array([1, 2, 3])
    plain, model = (cnncc.compile(text, precision=p) for p in ("default", "bf16"))
    plain.load_state_dict(rounded(text, plain.state_dict()))
    assert plain.evaluate(x, labels) == model.evaluate(x, labels)
    found, expected = model.activations(x), plain.activations(x)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


# --- errors ---------------------------------------------------------------------------------------


def exact_and_error(inputs: int, outputs: int, batch: int = 2) -> tuple[np.ndarray, ...]:
    """Of a dense layer with He's weights: float64's results, ours less these, and the sums of the
    products' magnitudes."""
    text = net(f"dense({outputs}, bias = none)", str(inputs))
    model = cnncc.compile(text, precision="bf16")
    x = np.random.default_rng(3).standard_normal((batch, inputs)).astype(np.float32)
    y = model(x)
    w = model.state_dict()["y.weight"]
    exact = np.concatenate([x.astype(np.float64) @ part.T for part in np.array_split(w, 16)], 1)
    sums = np.concatenate([np.abs(x) @ np.abs(part).T for part in np.array_split(w, 16)], 1)
    return exact, y - exact, sums


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(4096, 4096), (4096, 1000), pytest.param(25088, 4096, marks=pytest.mark.slow)],
    ids=["4096x4096", "vgg19 scores", "vgg19 first"],
)
def test_the_error_of_dense_layers_is_bounded(inputs: int, outputs: int) -> None:
    """Each weight is off by less than UNIT of itself, each float32 sum by rounding beside it.
    Rounding errors of independent weights cancel like the weights: the error in L2 is below half a
    UNIT.
    """
    exact, error, sums = exact_and_error(inputs, outputs)
    assert np.all(np.abs(error) <= (UNIT + inputs * 2.0**-24) * sums)
    relative = np.linalg.norm(error) / np.linalg.norm(exact)
    assert UNIT / 8 < relative < UNIT / 2


# --- bytes ----------------------------------------------------------------------------------------


def test_traffic_counts_half_the_bytes() -> None:
    checked = front(net("dense(64, bias = none)", "100"))
    plain, half = (
        fused_traffic(kernels(checked.graph, checked.module, bf16=b)) for b in (False, True)
    )
    assert plain - half == 2 * 64 * 100


def test_the_plan_holds_both() -> None:
    """The rounded weights lie beside those that state_dict gives back."""
    checked = front(net("dense(64, bias = none)", "100"))
    plain, half = (
        planned(kernels(checked.graph, checked.module, bf16=b)).parameters for b in (False, True)
    )
    assert half - plain == 2 * 64 * 100
    model = cnncc.compile(checked_text := net("dense(64, bias = none)", "100"), precision="bf16")
    model(inputs(checked_text, 1))
    assert model.peak_memory >= half


# --- refusals -------------------------------------------------------------------------------------


def test_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"precision bf16 is for inference.*float32"):
        cnncc.compile("lenet_digits", train=True, precision="bf16")


def test_the_shell_knows_the_same_precisions() -> None:
    assert verbs.PRECISIONS == programs.PRECISIONS


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="precision is one of default, exact, bf16, but got 'f16'"):
        cnncc.compile("lenet_digits", precision="f16")
