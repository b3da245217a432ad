"""What networks are made of, against the numbers of lectures, papers and textbooks. A test carries
the row of the lecture table that its numbers come from.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cnncc.cli import main
from cnncc.compiler import front
from cnncc.passes.count import Counts, LayerCount, count

EIGHT_OF_TWELVE = [
    [*range(8)], [*range(8)], [*range(8)], [*range(8)],
    [*range(4, 12)], [*range(4, 12)], [*range(4, 12)], [*range(4, 12)],
    [*range(4), *range(8, 12)], [*range(4), *range(8, 12)],
    [*range(4), *range(8, 12)], [*range(4), *range(8, 12)],
]  # fmt: skip

LENET_1989 = f"""net lenet1989 {{
  input image: f32[1, 16, 16]
  h1 = image -> conv(12, 5x5, stride = 2, pad = const(-1.0, (2, 1)), bias = untied) -> stanh
  h2 = h1 -> conv(12, 5x5, stride = 2, pad = const(-1.0, (2, 1)), bias = untied,
                  connect = table({EIGHT_OF_TWELVE})) -> stanh
  h3 = h2 -> flatten -> dense(30) -> stanh
  output scores = h3 -> dense(10)
}}
"""

TWENTY_KERNELS = [
    [0], [0, 1], [0, 1], [1], [1, 2], [1, 2], [2], [2, 3], [2, 3], [3], [0, 3], [0, 3],
]  # fmt: skip

LENET_1989_NIPS = f"""net lenet1989_nips {{
  input image: f32[1, 28, 28]
  h1 = image -> conv(4, 5x5) -> stanh
  h2 = h1 -> avgpool(2x2, affine = per_map) -> stanh
  h3 = h2 -> conv(12, 5x5, connect = table({TWENTY_KERNELS})) -> stanh
  h4 = h3 -> avgpool(2x2, affine = per_map) -> stanh
  output scores = h4 -> flatten -> dense(10)
}}
"""

C3 = [
    *([k, (k + 1) % 6, (k + 2) % 6] for k in range(6)),
    *([k, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6] for k in range(6)),
    [0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5],
    [0, 1, 2, 3, 4, 5],
]  # fmt: skip

LENET_1998 = f"""net lenet1998 {{
  input image: f32[1, 32, 32]
  c1 = image -> conv(6, 5x5) -> stanh
  s2 = c1 -> avgpool(2x2, affine = per_map) -> sigmoid
  c3 = s2 -> conv(16, 5x5, connect = table({[sorted(row) for row in C3]})) -> stanh
  s4 = c3 -> avgpool(2x2, affine = per_map) -> sigmoid
  c5 = s4 -> conv(120, 5x5) -> stanh
  f6 = c5 -> flatten -> dense(84) -> stanh
  output scores = f6 -> dense(10)
}}
"""

EDGES = "net edges { input x: f32[1, 280, 320]\n output y = x -> conv(1, 1x2, bias = none) }\n"
COLOUR = "net n {{ input x: f32[3, 200, 200]\n output y = x -> {} }}\n"
GREY = "net n {{ input x: f32[1, 200, 200]\n output y = x -> {} }}\n"


def counts(text: str) -> Counts:
    return count(front(text).graph)


def layer(text: str, name: str = "y") -> LayerCount:
    return next(x for x in counts(text).layers if x.name == name)


def numbers(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def file(tmp_path) -> Callable[[str], str]:
    def written(text: str) -> str:
        path = tmp_path / "net.cnn"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


# --- stored floats and operations -----------------------------------------------------------------


def test_s10_edges_of_an_image_as_layer_and_as_matrices(capsys, file) -> None:
    (found,) = numbers(capsys, "report", file(EDGES))["layers"]
    assert found["params"] == 2
    assert found["storage"]["floats"] == {
        "layer": 2, "local": 178_640, "sparse": 178_640, "dense": 8_003_072_000,
    }  # fmt: skip
    assert found["storage"]["operations"] == {
        "layer": 267_960, "sparse": 267_960, "dense": 16_006_054_680,
    }  # fmt: skip
    floats, operations = (found["storage"][what] for what in ("floats", "operations"))
    assert floats["dense"] / floats["layer"] == 4_001_536_000
    assert round(operations["dense"] / operations["layer"]) == 59_733


def test_s10_a_layer_without_sharing_stores_what_the_sparse_matrix_does() -> None:
    local = layer(EDGES.replace("bias = none", "bias = none, share = none"))
    assert (local.params, local.operations) == (178_640, 267_960)
    dense = layer(EDGES.replace("conv(1, 1x2,", "flatten -> dense(89_320,"))
    assert (dense.params, dense.operations) == (8_003_072_000, 16_006_054_680)


def test_s31_dense_local_and_conv_of_40000_units() -> None:
    dense = layer(GREY.format("flatten -> dense(40_000, bias = none)"))
    local = layer(GREY.format("conv(1, 3x3, pad = same, share = none, bias = none)"))
    conv = layer(GREY.format("conv(1, 3x3, pad = same, bias = none)"))
    assert (dense.params, dense.macs) == (1_600_000_000, 1_600_000_000)
    assert (local.macs, conv.macs, conv.params) == (360_000, 360_000, 9)
    assert local.params == conv.storage.sparse == 598 * 598  # 360 000 less the taps in the padding
    assert conv.storage.local == 360_000


def test_s32_200_by_200_grey_pixels() -> None:
    assert layer(GREY.format("flatten -> dense(40_000)")).params == 1_600_040_000


def test_s33_200_by_200_colour_pixels_are_counted_and_not_allocated(capsys, file) -> None:
    text = COLOUR.format("flatten -> dense(40_000, bias = none)")
    found = numbers(capsys, "report", file(text))
    assert found["params"] == 4_800_000_000
    assert found["parameter_bytes"] == 19_200_000_000
    assert found["layers"][-1]["storage"]["floats"]["sparse"] == 4_800_000_000
    conv = layer(COLOUR.format("conv(1, 3x3, pad = same, bias = none)"))
    assert (conv.params, conv.storage.local, conv.storage.sparse) == (27, 1_080_000, 1_072_812)


@pytest.mark.parametrize("size", ["3x3", "5x5", "2x3"])
def test_s34a_what_each_prior_saves(size: str) -> None:
    image = "net n {{ input x: f32[4, 64, 64]\n output y = x -> {} }}\n"
    conv, local, strided = (
        layer(image.format(f"conv(8, {size}, bias = none{more})"))
        for more in ("", ", share = none", ", stride = 2, fit = floor")
    )
    assert conv.macs == local.macs  # sharing saves storage alone
    assert conv.params < local.params == conv.macs
    assert strided.params == conv.params  # a stride saves work
    assert 4 * strided.macs == pytest.approx(conv.macs, rel=0.1)
    dense = conv.storage.dense  # sparsity saves both
    assert local.params < dense
    assert local.macs < dense


def test_s34_zeros_repeat_along_the_diagonals() -> None:
    from cnncc.passes.matrix import layer_matrix

    text = "net n {{ input x: f32[1, 9]\n output y = x -> conv(1, 3, bias = none{}) }}\n"
    for share in ("", ", share = none"):
        found = layer_matrix(front(text.format(share)).graph, "y")
        pattern = found.dense({"y.weight": [1.0] * found.stored.size})
        assert pattern.shape == (7, 9)
        assert (pattern[1:, 1:] == pattern[:-1, :-1]).all()
        assert pattern.sum() == 21


# --- networks -------------------------------------------------------------------------------------


def test_s99_units_of_alexnet(capsys) -> None:
    found = numbers(capsys, "report", "alexnet", "--units", "output")
    assert found["units"] == 658_272
    assert found["counted_units"] == {"which": "output", "units": 659_272}
    assert found["input_units"] == 3 * 224 * 224


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("connections(layers = conv, bias = no) == 665_784_864", True),
        ("macs(layers = conv) == 665_784_864", True),
        ("macs == 724_406_816", True),
        ("connections(layers = conv) == 665_784_864", False),
    ],
)
def test_s100_connections_of_alexnet(condition: str, holds: bool) -> None:
    from pathlib import Path

    from cnncc.errors import SpecError

    spec = Path(__file__).parents[2] / "specs" / "alexnet.cnn"
    text = spec.read_text(encoding="utf-8").replace("  expect ", f"  expect {condition}, ", 1)
    if holds:
        assert front(text).graph
        return
    with pytest.raises(SpecError) as caught:
        front(text)
    assert [d.code for d in caught.value.diagnostics] == ["E0501"]


def test_s101_lenet_1989() -> None:
    found = counts(LENET_1989)
    rows = {x.name: (x.params, x.connections) for x in found.layers if x.connections}
    assert rows == {
        "h1": (1_068, 19_968), "h2": (2_592, 38_592), "h3": (5_790, 5_790), "scores": (310, 310),
    }  # fmt: skip
    assert (found.params, found.connections) == (9_760, 64_660)
    assert found.input_units + found.units + found.output_units == 1_256
    tied = counts(LENET_1989.replace("bias = untied", "bias = tied"))
    assert tied.params == 8_824


def test_s102_lenet_1989_of_the_other_paper() -> None:
    found = counts(LENET_1989_NIPS)
    rows = {x.name: (x.params, x.connections) for x in found.layers if x.connections}
    assert rows == {
        "h1": (104, 59_904), "h2": (8, 2_880), "h3": (512, 32_768), "h4": (24, 960),
        "scores": (1_930, 1_930),
    }  # fmt: skip
    assert (found.params, found.connections) == (2_578, 98_442)
    assert found.input_units + found.units + found.output_units == 4_634


def test_s103_s104_lenet_1998_without_its_output_layer() -> None:
    found = counts(LENET_1998)
    hidden = [x for x in found.layers if x.name != "scores"]
    assert sum(x.params for x in hidden) == 60_000
    assert sum(x.connections for x in hidden) == 340_068
    assert {x.name: x.params for x in hidden if x.params} == {
        "c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164,
    }  # fmt: skip
    assert (found.units, found.units + found.output_units) == (8_084, 8_094)
    assert found.params == 60_850


@pytest.mark.parametrize(
    ("words", "operations", "lecture"),
    [
        (("--examples", "7291", "--epochs", "23", "--backward", "no"),
         10_843_029_380, 11e9),
        (("--examples", "60000", "--epochs", "20", "--backward", "no", "--count", "344000"),
         412_800_000_000, 412e9),
        (("--examples", "1200000", "--epochs", "90", "--backward", "no", "--count", "652000000"),
         70_416_000_000_000_000, 70e15),
        (("--examples", "1_200_000", "--epochs", "90", "--count", "652_000_000"),
         211_248_000_000_000_000, 200e15),
    ],
)  # fmt: skip
def test_s105_operations_of_a_training(capsys, file, words, operations, lecture) -> None:
    found = numbers(capsys, "cost", file(LENET_1989), *words)
    assert found["operations"] == operations
    assert found["operations"] == pytest.approx(lecture, rel=0.06)


@pytest.mark.parametrize(
    ("name", "depth"), [("alexnet", 8), ("vgg19", 19), ("googlenet", 22), ("resnet152", 152)]
)
def test_s110_weight_layers(name: str, depth: int) -> None:
    assert count(front(name).graph).weight_layers == depth


# --- the border and symbols -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "3x3", "3x2, pad = 1", "3x3, pad = same, dilation = 2", "3x3, stride = 2, fit = floor",
        "3x3, pad = replicate", "3x3, pad = reflect, stride = 2", "3x3, pad = circular",
        "3x3, pad = const(1.0, 2)", "3x3, pad = 2, connect = groups(2)", "2x2, share = tiled(2)",
        "3x3, pad = 1, share = none", "3x3, share = symmetric", "3x3, kind = convolution, pad = 1",
    ],
)  # fmt: skip
def test_sparse_floats_are_the_nonzeros_of_the_matrix(arguments: str) -> None:
    from cnncc.passes.matrix import layer_matrix

    text = (
        f"net n {{ input x: f32[2, 7, 7]\n output y = x -> conv(4, {arguments}, bias = none) }}\n"
    )
    assert layer_matrix(front(text).graph, "y").nonzeros == layer(text).storage.sparse


def test_symbolic_extents_have_symbolic_counts() -> None:
    text = "net n {{ input x: f32[3, H, W]\n output y = x -> conv(8, 3x3{}) }}\n"
    valid, same = layer(text.format("")), layer(text.format(", pad = same"))
    assert str(valid.storage.sparse) == str(valid.macs)
    assert same.storage.sparse is None
    assert str(same.storage.local) == "216 * H * W"
