"""Looking into networks: matrices of layers, cones of units, equivariance, differences. A test
carries the row of the lecture table that it is about.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnncc.cli import main
from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.passes.cone import cone
from cnncc.passes.linear import LinearLayer
from cnncc.passes.matrix import layer_matrix


def net(shape: str, body: str) -> str:
    return f"net n {{ input x: f32[{shape}]\n output y = x -> {body} }}\n"


@pytest.fixture
def said(capsys, tmp_path) -> Callable[..., str]:
    """What a command prints about the text of a network."""

    def run(verb: str, text: str, *words: str) -> str:
        path = tmp_path / "net.cnn"
        path.write_text(text, encoding="utf-8")
        capsys.readouterr()
        assert main([verb, str(path), *words]) == 0
        return capsys.readouterr().out

    return run


# --- matrices -------------------------------------------------------------------------------------


def test_s19_the_toeplitz_matrix_of_eight_inputs_and_three_taps(said) -> None:
    lines = said("matrix", net("1, 8", "conv(1, 3, bias = none)"), "y").splitlines()
    assert lines[3:9] == [
        "c1 c2 c3  .  .  .  .  .",
        " . c1 c2 c3  .  .  .  .",
        " .  . c1 c2 c3  .  .  .",
        " .  .  . c1 c2 c3  .  .",
        " .  .  .  . c1 c2 c3  .",
        " .  .  .  .  . c1 c2 c3",
    ]
    assert lines[10:] == [
        "c1 = y.weight[0, 0, 0]",
        "c2 = y.weight[0, 0, 1]",
        "c3 = y.weight[0, 0, 2]",
    ]


def test_s19_the_toeplitz_tensor_of_an_image() -> None:
    """h[i, j] = sum over m, n of x[m, n] K[i - m, j - n], with K the flipped kernel."""
    found = layer_matrix(front(net("1, 5, 4", "conv(1, 3x2, kind = convolution)")).graph, "y")
    kernel = np.arange(1.0, 7.0).reshape(3, 2)
    tensor = found.dense({"y.weight": kernel, "y.bias": [0.0]}).reshape(3, 3, 5, 4)
    for i, j, m, n in itertools.product(*map(range, tensor.shape)):
        a, b = i + 2 - m, j + 1 - n  # results are numbered from the first whole window
        inside = 0 <= a < 3 and 0 <= b < 2
        assert tensor[i, j, m, n] == (kernel[a, b] if inside else 0.0)


LAYERS = [
    *(
        f"conv(4, {size}, stride = {stride}, pad = {pad}, dilation = {dilation}, "
        f"connect = {connect}, fit = floor)"
        for size, stride, pad, dilation, connect in itertools.product(
            ("3x3", "2x3"), (1, 2), (0, "(1, 2)"), (1, 2), ("all", "groups(2)")
        )
    ),
    "conv(4, 3x3, pad = replicate)", "conv(4, 3x3, pad = circular, stride = 2, fit = floor)",
    "conv(4, 3x3, pad = reflect, dilation = 2)", "conv(4, 3x3, pad = const(-1.0))",
    "conv(4, 3x3, connect = table([[0], [1, 2], [3], [0, 1, 2, 3]]))",
    "conv(4, 3x3, share = tiled(2), pad = 1)", "conv(4, 3x3, share = none, pad = 1)",
    "conv(4, 3x3, share = symmetric)", "conv(4, 3x3, share = symmetric(mean))",
    "conv(4, 3x2, kind = convolution)", "conv(4, 3x3, bias = untied)",
    "conv_transpose(4, 3x3, stride = 2, pad = 1)", "avgpool(2x2, affine = per_map, fit = floor)",
    "flatten -> dense(5)", "pad(reflect(2))", "crop((1, 2))", "upsample(2)",
]  # fmt: skip


@pytest.mark.parametrize("body", LAYERS)
def test_s17_the_matrix_times_the_input_is_the_layer(body: str) -> None:
    graph = front(net("4, 7, 6", body)).graph
    found = layer_matrix(graph, "y")
    layer = LinearLayer.of(graph, "y")
    rng = np.random.default_rng(0)
    x = rng.integers(-5, 6, layer.source.type.dims(1)).astype(np.float64)
    weights = layer.stored.split(rng.integers(-5, 6, layer.stored.size).astype(np.float64))
    result = layer.apply(x, weights) - layer.apply(np.zeros_like(x), weights)
    assert np.array_equal(found.dense(weights) @ x.ravel(), result.ravel())


@pytest.mark.parametrize("target", ["interp", "cpu"])
def test_s17_the_matrix_times_the_input_is_what_the_compiled_layer_computes(target: str) -> None:
    import cnncc

    bodies = (
        "conv(3, 3x2, stride = 2, pad = (1, 0), fit = floor)",
        "conv(4, 3x3, dilation = 2, pad = 2, connect = groups(2))",
        "conv(2, 3x3, share = tiled(2), kind = convolution)",
        "flatten -> dense(5)",
    )
    lines = [f"output y{k} = x -> {body}" for k, body in enumerate(bodies)]
    text = "net n {\n  input x: f32[2, 6, 7]\n  " + "\n  ".join(lines) + "\n}\n"
    model = cnncc.compile(text, target=target)
    rng = np.random.default_rng(0)
    state = {
        name: rng.integers(-5, 6, v.shape).astype(np.float32) * (not name.endswith("bias"))
        for name, v in model.state_dict().items()
    }
    model.load_state_dict(state)
    x = rng.integers(-5, 6, (3, 2, 6, 7)).astype(np.float32)
    results = model(x)
    graph = front(text).graph
    for k in range(len(bodies)):
        matrix = layer_matrix(graph, f"y{k}").dense(state)
        assert np.array_equal(x.reshape(3, -1) @ matrix.T, results[f"y{k}"].reshape(3, -1))


def test_a_matrix_is_saved_term_by_term(said, tmp_path) -> None:
    text = net("2, 6", "conv(3, 3, share = symmetric, init = constant(2.0))")
    said("matrix", text, "y", "--save", str(tmp_path / "y.npz"))
    saved = np.load(tmp_path / "y.npz")
    found = layer_matrix(front(text).graph, "y")
    matrix = np.zeros(saved["shape"])
    np.add.at(matrix, (saved["rows"], saved["columns"]), saved["values"])
    assert np.array_equal(
        matrix, found.dense({"y.weight": np.full((3, 2, 2), 2.0), "y.bias": np.zeros(3)})
    )
    assert saved["names"][1] == "y.weight[0, 0, 1]"
    said("matrix", text, "y", "--save", str(tmp_path / "y.csv"))
    lines = (tmp_path / "y.csv").read_text().splitlines()
    assert lines[0] == "row,column,coefficient,weight,value"
    assert lines[1] == '0,0,1.0,"y.weight[0, 0, 1]",2.0'
    assert len(lines) == 1 + len(saved["rows"])


def test_a_matrix_shows_numbers_that_the_text_gives(said) -> None:
    body = "conv(1, 3, pad = same, bias = none, init = [[[1, -2, 1]]])"
    assert said("matrix", net("1, 4", body), "y").splitlines()[3:] == [
        "-2  1  .  .", " 1 -2  1  .", " .  1 -2  1", " .  .  1 -2",
    ]  # fmt: skip


def test_entries_that_sum_weights_show_them_all(said) -> None:
    text = net("1, 3", "conv(1, 3, pad = replicate, bias = none)")
    lines = said("matrix", text, "y").splitlines()
    assert [line.split() for line in lines[3:6]] == [
        ["c1+c2", "c3", "."], ["c1", "c2", "c3"], [".", "c1", "c2+c3"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "layer", "code"),
    [
        ("conv(4, 3x3)", "z", "E0810"),
        ("conv(4, 3x3) -> relu", "y.relu", "E0811"),
        ("maxpool(2x2)", "y", "E0811"),
        ("batchnorm", "y", "E0811"),
        ("conv(4, 3x3, constraint = density)", "y", "E0811"),
        ("flatten -> dense(200_000)", "y", "E0812"),
    ],
)
def test_layers_without_a_matrix(body: str, layer: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        layer_matrix(front(net("2, 8, 8", body)).graph, layer)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_symbolic_layer_has_no_matrix() -> None:
    with pytest.raises(SpecError, match="symbolic extents"):
        layer_matrix(front(net("1, L", "conv(1, 3)")).graph, "y")


# --- cones ----------------------------------------------------------------------------------------


def trace(said: Callable[..., str], text: str, unit: str) -> Any:
    return json.loads(said("trace", text, unit, "--json"))


def test_s43_an_input_feeds_three_units_and_a_unit_reads_three(said) -> None:
    text = net("1, 5", "conv(1, 3, pad = same)")
    (feeds,) = trace(said, text, "x[0, 2]")["feeds"]  # x3 feeds s2, s3, s4
    assert feeds["indices"] == [[0], [1, 2, 3]]
    (fed_by,) = trace(said, text, "y[0, 2]")["fed_by"]
    assert (fed_by["layer"], fed_by["indices"], fed_by["units"]) == ("x", [[0], [1, 2, 3]], 3)


def test_s43_a_dense_unit_reads_everything(said) -> None:
    (fed_by,) = trace(said, net("5", "dense(5)"), "y[2]")["fed_by"]
    assert fed_by["text"] == "[0..4]"


def test_s44_deeper_units_see_more(said) -> None:
    text = "net n { input x: f32[1, 5]\n h = x -> conv(1, 3, pad = same)\n"
    text += " output g = h -> conv(1, 3, pad = same) }\n"
    fed_by = {x["layer"]: x["indices"][1] for x in trace(said, text, "g[0, 2]")["fed_by"]}
    assert fed_by == {"x": [0, 1, 2, 3, 4], "h": [1, 2, 3]}


@pytest.mark.parametrize(("layers", "size"), [(1, 3), (2, 7), (3, 15)])
def test_s44_dilation_grows_the_cone_exponentially(layers: int, size: int) -> None:
    stages = " -> ".join(f"conv(1, 3, dilation = {2**k})" for k in range(layers))
    text = "net n { input x: f32[1, 64]\n y = x -> " + stages + "\n output z = relu(y) }\n"
    found = cone(front(text).graph, "z[0, 20]")
    assert found.backward["x"][1] == tuple(range(20, 20 + size))


SPECS = Path(__file__).parents[2] / "specs"


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("alexnet", "receptive_field(c5) == 163, jump(c5) == 16"),
        ("vgg16", "receptive_field(s5) == 212, jump(s5) == 32, start(s5) == 15.5"),
        ("resnet152", "receptive_field(layer4) == 1_451, jump(layer4) == 32"),
        ("vgg19", "receptive_field(s5) == 268, receptive_field(f6) == 460"),
        ("lenet5_modern", "jump(s4) == 4, start(s4) == 5.5, effective_padding(s4) == 2"),
    ],
)
def test_s44_size_jump_start_and_padding_are_asserted(name: str, facts: str, tmp_path) -> None:
    shutil.copytree(SPECS, tmp_path / "specs")
    spec = tmp_path / "specs" / f"{name}.cnn"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("  expect ", f"  expect {facts}, ", 1), encoding="utf-8")
    assert front(spec).graph
    spec.write_text(text.replace("  expect ", f"  expect not ({facts.split(',')[0]}), ", 1))
    with pytest.raises(SpecError) as caught:
        front(spec)
    assert [d.code for d in caught.value.diagnostics] == ["E0501"]


def test_a_unit_is_traced_through_a_table_of_connections(said) -> None:
    text = net("3, 4, 4", "conv(3, 3x3, connect = table([[0], [1, 2], [0, 2]]))")
    (fed_by,) = trace(said, text, "y[2, 1, 1]")["fed_by"]
    assert fed_by["text"] == "[{0, 2}, 1..3, 1..3]"
    (feeds,) = trace(said, text, "x[1, 0, 3]")["feeds"]
    assert feeds["text"] == "[1, 0, 1]"


# --- equivariance ---------------------------------------------------------------------------------


def test_s45_the_report_says_which_shifts_a_network_follows(said) -> None:
    text = net("1, 32, 32", "conv(2, 5x5) -> maxpool(2x2) -> conv(4, 3x3) -> maxpool(2x2)")
    assert "4 positions of the input move `y.maxpool_2` by 1, inside: 0..5, 0..5" in said(
        "report", text
    )
    report = json.loads(said("report", text, "--json"))
    (found,) = report["equivariance"]
    assert (found["shift"], found["step"]) == ([4, 4], [1, 1])


def test_s46_the_report_says_how_far_a_maximum_may_move(said) -> None:
    last = "maxpool(3x3, stride = 2, fit = floor)"
    text = net("1, 32, 32", f"conv(2, 5x5) -> maxpool(2x2) -> conv(4, 3x3) -> {last}")
    first, second = json.loads(said("report", text, "--json"))["pool_tolerance"]
    assert (first["positions"], first["inputs"]) == ([0, 0], [0, 0])
    assert (second["positions"], second["inputs"]) == ([1, 1], [2, 2])


def test_s45_a_dense_network_follows_none(said) -> None:
    assert "shifts" not in said("report", net("5", "dense(5)"))


# --- differences ----------------------------------------------------------------------------------

BASE = """net n {
  input x: f32[1, 8, 8]
  a = x -> conv(4, 3x3) -> relu
  b = a -> conv(4, 3x3, bias = none)
  output y = b -> flatten -> dense(10)
}
"""


@pytest.fixture
def difference(capsys, tmp_path) -> Callable[[str], Any]:
    def run(other: str) -> Any:
        paths = [tmp_path / "a.cnn", tmp_path / "b.cnn"]
        for path, text in zip(paths, (BASE, other), strict=True):
            path.write_text(text, encoding="utf-8")
        capsys.readouterr()
        assert main(["diff", *map(str, paths), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_n16_other_names_are_no_difference(difference) -> None:
    found = difference(BASE.replace("  a = x", "  first = x").replace("= a ->", "= first ->"))
    assert found["same"]
    assert found["renamed"] == {"a": "first", "a.relu": "first.relu"}
    assert found["weights"]["carried"]["a.weight"] == "first.weight"
    assert found["weights"]["left"] == []


def test_n16_the_same_text_is_the_same_network(difference) -> None:
    found = difference(BASE.replace("  b", "\n  # a comment\n  b"))
    assert found["same"]
    assert found["renamed"] == {}


def test_n16_arguments_shapes_and_counts(difference) -> None:
    found = difference(BASE.replace("conv(4, 3x3, bias = none)", "conv(4, 3x3, stride = 3)"))
    assert not found["same"]
    b, flat, y = found["changed"]
    assert [c["what"] for c in flat["changes"]] == ["shape", "result"]
    assert b["layer"] == "b"
    assert {c["what"]: (c["first"], c["second"]) for c in b["changes"]} == {
        "stride": ("1x1", "3x3"), "result": ("f32[*, 4, 4, 4]", "f32[*, 4, 2, 2]"),
        "params": ("144", "148"), "trained": ("144", "148"), "macs": ("2_304", "576"),
        "connections": ("2_304", "592"),
    }  # fmt: skip
    assert [c["what"] for c in y["changes"]] == ["params", "trained", "macs", "connections"]
    assert found["weights"]["left"] == ["b.bias", "y.weight"]
    totals = {c["what"]: (c["first"], c["second"]) for c in found["counts"]}
    assert totals["params"] == ("834", "358")
    assert found["memory"]["second"] < found["memory"]["first"]


def test_n16_receptive_fields_of_the_last_positions(difference) -> None:
    found = difference(BASE.replace("conv(4, 3x3, bias", "conv(4, 5x5, bias"))
    totals = {c["what"]: (c["first"], c["second"]) for c in found["counts"]}
    assert totals["receptive field of b"] == ("5x5", "7x7")


def test_n16_added_and_removed_layers(difference) -> None:
    found = difference(
        BASE.replace(" -> relu", " -> tanh -> maxpool(2x2)").replace(
            "conv(4, 3x3, ", "conv(4, 1x1, "
        )
    )
    assert found["removed"] == ["a.relu"]
    assert found["added"] == ["a.tanh", "a.maxpool"]
