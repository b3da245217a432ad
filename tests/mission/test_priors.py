"""Row S46 of the lecture table and the walk over the lattice of priors: a convolution is a tiled, a
local and a dense layer, with the same results; and weights go back by averaging.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cnncc
from cnncc.cli import main
from cnncc.cli.rewriting import relaxed
from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.passes.carry import carry

BODIES = {
    "conv": "conv(4, 3x3)",
    "padded": "conv(4, 3x3, pad = same)",
    "strided": "conv(4, 3x2, stride = 2, pad = (1, 0), fit = floor)",
    "dilated": "conv(4, 3x3, dilation = 2, pad = 1)",
    "groups": "conv(4, 3x3, connect = groups(2), pad = 1)",
    "table": "conv(3, 3x3, connect = table([[0], [0, 1], [1]]), pad = 1)",
    "flipped": "conv(4, 3x3, kind = convolution)",
    "reflect": "conv(4, 3x3, pad = reflect)",
    "constant": "conv(4, 3x3, pad = const(-1.0))",
    "untied": "conv(4, 3x3, bias = untied)",
    "no bias": "conv(4, 3x3, pad = 1, bias = none)",
    "transposed": "conv_transpose(4, 3x3, stride = 2)",
}


def net(body: str) -> str:
    return f"net n {{\n  input x: f32[2, 6, 7]\n  output y = x -> {body} -> relu\n}}\n"


def model_of(text: str, state: dict[str, np.ndarray] | None = None) -> cnncc.Model:
    model = cnncc.compile(text, target="interp")
    if state is not None:
        model.load_state_dict(state)
    return model


def drawn(model: cnncc.Model, *, whole: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(-5, 6, v.shape) if whole else rng.standard_normal(v.shape)).astype(
            np.float32
        )
        for name, v in model.state_dict().items()
    }


@pytest.mark.parametrize("prior", ["tiled(2)", "local", "dense"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_s46_a_relaxed_layer_computes_the_same_and_projects_back(body: str, prior: str) -> None:
    text = net(body)
    new = relaxed(text, prior, (), {})
    assert new.text != text
    model = model_of(text)
    state = drawn(model, whole=prior == "dense")  # a dense layer sums in another order
    up = carry(front(text).graph, new.graph, state)
    assert all(distance == 0 for distance, _ in up.distances.values())
    x = np.random.default_rng(1).integers(-5, 6, (2, 2, 6, 7)).astype(np.float32)
    before, after = model_of(text, state)(x), model_of(new.text, up.state)(x)
    assert np.array_equal(np.asarray(before), np.asarray(after))
    back = carry(new.graph, front(text).graph, up.state)
    # entries that sum several weights, at a reflecting border, are taken apart by least squares
    error = 1e-12 if "reflect" in body and prior == "dense" else 0.0
    for name, value in state.items():
        assert np.allclose(back.state[name], value, rtol=0, atol=error)
    assert back.distances.keys() == {"y"}
    assert back.distances["y"][0] <= 100 * error


@pytest.mark.parametrize("share", ["symmetric", "symmetric(mean)"])
@pytest.mark.parametrize("prior", ["full", "tiled(3)", "none"])
def test_s46_symmetric_kernels_are_kernels(share: str, prior: str) -> None:
    texts = [net(f"conv(4, 3x3, pad = 1, share = {s})") for s in (share, prior)]
    graphs = [front(text).graph for text in texts]
    state = drawn(model_of(texts[0]), whole=False)
    up = carry(*graphs, state)
    x = np.random.default_rng(1).standard_normal((2, 2, 6, 7)).astype(np.float32)
    before, after = model_of(texts[0], state)(x), model_of(texts[1], up.state)(x)
    assert np.array_equal(np.asarray(before), np.asarray(after))
    back = carry(*graphs[::-1], up.state)
    assert all(np.array_equal(back.state[name], value) for name, value in state.items())


def test_projecting_averages_and_tells_the_distance() -> None:
    local, shared = (net(f"conv(4, 3x3, share = {share})") for share in ("none", "full"))
    state = drawn(model_of(local), whole=True)
    found = carry(front(local).graph, front(shared).graph, state)
    kernels = state["y.weight"].reshape(4, 2, 4, 3, 5, 3)  # channels, position and tap per axis
    mean = kernels.mean(axis=(2, 4), dtype=np.float64)
    assert np.allclose(found.state["y.weight"], mean, rtol=1e-6)
    distance, norm = found.distances["y"]
    assert distance == pytest.approx(np.linalg.norm(kernels - mean[:, :, None, :, None]), rel=1e-6)
    assert norm == pytest.approx(np.linalg.norm(kernels), rel=1e-12)


def test_taps_in_the_padding_do_not_weigh() -> None:
    text = "net n {{ input x: f32[1, 5]\n output y = x -> conv(1, 3, pad = 1, bias = none{}) }}\n"
    local, shared = (front(text.format(s)).graph for s in (", share = none", ""))
    stored = np.arange(1.0, 14.0, dtype=np.float32)  # positions see 2, 3, 3, 3, 2 inputs
    found = carry(local, shared, {"y.weight": stored.reshape(1, 1, 13)})
    left, centre, right = [3, 6, 9, 12], [1, 4, 7, 10, 13], [2, 5, 8, 11]
    expected = [np.mean(left), np.mean(centre), np.mean(right)]
    assert np.array_equal(found.state["y.weight"].ravel(), np.float32(expected))


@pytest.mark.parametrize(
    ("text", "layers", "code"),
    [
        (net("conv(4, 3x3)"), ("z",), "E0810"),
        (net("conv(4, 3x3)").replace("x -> conv(4", "conv(x, 4"), (), "E0813"),
        (net("conv(4, 3x3)").replace("7]", "W]"), (), "E0813"),
        (
            "block b(x) { return x -> conv(2, 3x3, bias = none) }\n"
            "net n { input x: f32[2, 9, 9]\n output y = x -> b -> b }\n",
            (),
            "E0813",
        ),
    ],
)
def test_layers_that_cannot_become_dense(text: str, layers: tuple[str, ...], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        relaxed(text, "dense", layers, {})
    assert [d.code for d in caught.value.diagnostics] == [code]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("conv(4, 3x3)", "conv(4, 3x3, stride = 2, fit = floor)"),
        ("conv(4, 3x3)", "conv(4, 3x3, pad = 1)"),
        ("conv(4, 3x3)", "conv(4, 3x3) -> conv(4, 1x1)"),
        ("conv(4, 3x3)", "conv(5, 3x3, share = none)"),
        ("conv(4, 3x3)", "conv_transpose(4, 3x3)"),
        ("flatten -> dense(4)", "flatten -> dense(5)"),
    ],
)
def test_weights_of_other_networks_are_refused(first: str, second: str) -> None:
    state = drawn(model_of(net(first)), whole=True)
    with pytest.raises(SpecError) as caught:
        carry(front(net(first)).graph, front(net(second)).graph, state)
    assert [d.code for d in caught.value.diagnostics] == ["E0813"]


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) == 0
        return capsys.readouterr().out

    return run


def test_n11_a_network_walks_up_and_down_in_the_shell(shell) -> None:
    text = net("conv(4, 3x3, pad = same)").replace("\n}", "\n  expect params == 76\n}")
    Path("a.cnn").write_text(text, encoding="utf-8")
    model = model_of(text)
    model.load_state_dict(drawn(model, whole=False))
    model.save("a.npz")
    assert shell("relax", "a.cnn", "--to", "local", "--layer", "y").count("share = none") == 1
    words = ("--to", "local", "-o", "b.cnn", "--weights", "a.npz", "--save", "b.npz")
    assert shell("relax", "a.cnn", *words) == ""
    assert "expect" not in Path("b.cnn").read_text(encoding="utf-8")
    b = cnncc.compile("b.cnn", target="interp")
    b.load_weights("b.npz")
    x = np.random.default_rng(1).standard_normal((2, 2, 6, 7)).astype(np.float32)
    assert np.array_equal(np.asarray(b(x)), np.asarray(model(x)))
    told = shell("project", "b.cnn", "a.cnn", "--weights", "b.npz", "--save", "c.npz")
    assert told.startswith("y: distance 0 of ")
    model.load_weights("c.npz")
    assert np.array_equal(np.asarray(b(x)), np.asarray(model(x)))
