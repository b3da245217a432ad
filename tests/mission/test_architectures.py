"""The networks of lectures and papers: what their shapes, counts and wiring must be. A test carries
the row of the lecture table that it checks.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front, kernels, planned
from cnncc.graph.locate import specs_folder
from cnncc.ops.base import Array
from cnncc.passes.count import count
from tests.mission.running import Run, integers

DATA_KINDS = {  # name: (spatial axes, channels), table 9.1
    "audio": (1, 1), "skeleton": (1, 48), "text_1d": (1, 64),
    "spectrogram": (2, 1), "colour_image": (2, 3), "ct_volume": (3, 1), "colour_video": (3, 3),
}  # fmt: skip


def spec(name: str) -> str:
    return (specs_folder() / f"{name}.cnn").read_text(encoding="utf-8")


def block(name: str, text: str) -> str:
    """The text of one block of a file."""
    start = text.index(f"block {name}(")
    return text[start : text.index("\n}\n", start) + 3]


def params(name: str, layer: str, **arguments: int) -> int:
    counts = count(front(name, arguments=dict(arguments)).graph)
    return sum(x.params for x in counts.layers if x.name.split(".")[0] == layer)


def operators(name: str) -> list[str]:
    return [n.op.name for n in front(name).graph.nodes]


def codes(text: str, **arguments: int) -> list[str]:
    with pytest.raises(cnncc.SpecError) as caught:
        front(text, arguments=dict(arguments))
    return [d.code for d in caught.value.diagnostics]


# --- the three classifiers of figure 9.11 ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "number"),
    [("flat", "scores", 16_385_000), ("grid", "scores", 577_000), ("average", "c3", 65_000)],
)
def test_s84_heads_of_figure_9_11(name: str, layer: str, number: int) -> None:
    assert params(f"classifier_{name}", layer) == number
    assert params(f"classifier_{name}", "c2") == params("classifier_flat", "c2")


@pytest.mark.parametrize("name", ["grid", "average"])
def test_s84_two_classifiers_take_images_of_any_size(name: str) -> None:
    text = spec("classifier_features").replace("conv(64", "conv(2") + spec(f"classifier_{name}")
    text = text.replace('import "classifier_features.cnn"\n', "").split("\ntrain ")[0]
    text = "\n".join(line for line in text.splitlines() if "expect" not in line)
    model = cnncc.compile(text + "\n" if text.endswith("}") else text + "}\n", target="interp")
    x = integers((1, 3, 32, 48))
    for rows, columns in ((32, 48), (32, 32), (16, 16)):
        assert model(x[:, :, :rows, :columns]).shape == (1, 1000)
    with pytest.raises(cnncc.SpecError):
        model(x[:, :, :3, :3])  # less than one window of the pools


def test_s84_the_flat_classifier_takes_one_size() -> None:
    assert codes(
        "net n {\n  input x: f32[3, H, W]\n"
        "  output y = x -> maxpool(4x4) -> flatten -> dense(9)\n}\n"
    ) == ["E0206"]


# --- networks from images to images ---------------------------------------------------------------


def test_s90_one_compiled_transducer_serves_all_sizes() -> None:
    model = cnncc.compile(spec("spatial_transducer").replace("width = 16", "width = 2"),
                          target="interp")  # fmt: skip
    x = integers((1, 3, 40, 36))
    whole, part = model(x), model(x[:, :, 5:22, 7:30])
    assert (whole.shape, part.shape) == ((1, 4, 40, 36), (1, 4, 17, 23))
    radius = 7  # of a field of 15
    inside = part[:, :, radius:-radius, radius:-radius]
    assert inside.size > 0
    assert np.array_equal(inside, whole[:, :, 5 + radius : 22 - radius, 7 + radius : 30 - radius])
    assert not np.array_equal(part, whole[:, :, 5:22, 7:30])  # the border is felt further out


def test_s91_strides_instead_of_pools_give_the_same_shapes() -> None:
    assert [name for name in operators("all_convolutional") if "pool" in name] == ["globalavgpool"]
    text = spec("all_convolutional").replace("params == 1_369_738, depth == 9", "depth == 9")
    pooled = text.replace(
        "stride = 2, pad = (1, 0)) -> relu", "pad = same) -> relu -> maxpool(2x2)"
    )
    assert pooled.count("maxpool") == 2
    shapes = [
        {x.name: x.type.shape for x in count(front(t).graph).layers if x.connections}
        for t in (text, pooled)
    ]
    assert shapes[0].keys() == shapes[1].keys()
    for name in ("c4", "c5", "c7", "c8", "c9"):
        assert shapes[0][name] == shapes[1][name]
    macs = [count(front(t).graph).macs for t in (text, pooled)]
    assert macs[0] < macs[1]  # what is pooled away was computed


@pytest.mark.parametrize(("steps", "weights"), [(1, 1_152), (2, 1_872), (3, 1_872), (7, 1_872)])
def test_s48_s92_steps_share_their_kernels(steps: int, weights: int) -> None:
    counts = count(front("recurrent_pixels", arguments={"steps": steps}).graph)
    assert counts.params == weights
    assert counts.depth == 2 * steps


UNROLLED = """
net unrolled {
  input image: f32[3, 4, 5]
  weights U1, U2, U3, V1, V2, V3, W2, W3
  h1 = image -> conv(2, 3x3, pad = same, weights = U1, bias = none)
  y1 = h1 -> conv(2, 3x3, pad = same, weights = V1, bias = none)
  b2 = y1 -> conv(2, 3x3, pad = same, weights = W2, bias = none)
  h2 = (image -> conv(2, 3x3, pad = same, weights = U2, bias = none)) + b2
  y2 = h2 -> conv(2, 3x3, pad = same, weights = V2, bias = none)
  b3 = y2 -> conv(2, 3x3, pad = same, weights = W3, bias = none)
  h3 = (image -> conv(2, 3x3, pad = same, weights = U3, bias = none)) + b3
  output y3 = h3 -> conv(2, 3x3, pad = same, weights = V3, bias = none)
}
"""


def test_s92_gradients_of_shared_kernels_sum_over_the_steps() -> None:
    text = spec("recurrent_pixels").replace("[3, rows, columns]", "[3, 4, 5]", 1)
    text = text.replace(" -> sigmoid", "").replace("= drive\n", "= drive -> crop(0)\n")
    text = text.replace("classes = 5, width = 16", "classes = 2, width = 2")
    text = text.split("\ntrain ")[0].replace(", rows, columns]", ", 4, 5]")
    shared = Run(text, dtype=np.float64)
    assert sorted(shared.parameters) == ["U", "V", "W"]
    apart = Run(
        UNROLLED,
        {k: shared.parameters[k[0]] for k in ("U1", "U2", "U3", "V1", "V2", "V3", "W2", "W3")},
        dtype=np.float64,
    )
    x, dy = integers((2, 3, 4, 5), 1), integers((2, 2, 4, 5), 2)
    assert np.array_equal(shared(x), apart(x))
    found, parts = shared.backward(x, dy), apart.backward(x, dy)
    for name in "UVW":
        steps = [v for k, v in parts.items() if k.startswith(name)]
        assert len(steps) == (2 if name == "W" else 3)
        assert np.array_equal(found[name], sum(steps))
        assert not np.array_equal(found[name], steps[-1])


def test_s92_every_pixel_has_probabilities_of_classes() -> None:
    text = spec("recurrent_pixels").replace(
        "output scores = labels", "output scores = labels -> softmax"
    )
    model = cnncc.compile(text.split("\ntrain ")[0], target="interp")
    p = model(np.random.default_rng(0).standard_normal((1, 3, 5, 6)).astype(np.float32))
    assert p.shape == (1, 5, 5, 6)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


# --- the large networks ---------------------------------------------------------------------------


def test_s93_inception_is_its_branches_side_by_side() -> None:
    text = block("inception", spec("googlenet")) + (
        "net n {\n  input x: f32[4, 5, 5]\n  output y = x -> inception(2, 3, 4, 1, 2, 3)\n}\n"
    )
    run = Run(text)
    x = integers((2, 4, 5, 5), 1)
    assert run.shape == (2 + 4 + 2 + 3, 5, 5)
    branches = {
        "direct": "conv(2, 1x1) -> relu",
        "medium": "conv(3, 1x1) -> relu -> conv(4, 3x3, pad = 1) -> relu",
        "large": "conv(1, 1x1) -> relu -> conv(2, 5x5, pad = 2) -> relu",
        "pool": "maxpool(3x3, stride = 1, pad = 1) -> conv(3, 1x1) -> relu",
    }
    parts = []
    for name, body in branches.items():
        own = [v for k, v in run.parameters.items() if f".{name}." in f".{k}"]
        single = Run(f"net n {{\n  input x: f32[4, 5, 5]\n  output y = x -> {body}\n}}\n")
        assert len(own) == len(single.parameters)
        single.parameters = dict(zip(single.parameters, own, strict=True))
        parts.append(single(x))
    assert np.array_equal(run(x), np.concatenate(parts, axis=1))


def test_s93_inception_costs_less_than_one_convolution_of_its_size() -> None:
    layers = [x for x in count(front("googlenet").graph).layers if x.name.startswith("i3a.")]
    assert sum(x.params for x in layers) == 163_696
    assert layers[-1].type.shape == (256, 28, 28)
    assert 7 * sum(x.macs for x in layers) < 28 * 28 * 256 * 192 * 25


def residual(blocks: int) -> str:
    return block("basic", spec("residual")) + (
        "block projection(x, width, stride) { return x -> conv(width, 1x1, stride = stride) }\n"
        "net n {\n  input x: f32[8, 12, 12]\n  y = x -> conv(8, 3x3, pad = 1)\n"
        f"  repeat {blocks} {{\n    y = basic(y, 8)\n  }}\n"
        "  output scores = y -> globalavgpool\n}\n"
    )


def test_s94_a_block_is_written_by_the_kernel_of_its_last_convolution() -> None:
    checked = front(residual(3))
    fused = kernels(checked.graph, checked.module)
    with_sum = [k for k in fused.kernels if any(n.op.name == "add" for n in k.nodes)]
    assert len(with_sum) == 3
    for kernel in with_sum:  # f(x) is never in memory apart from x + f(x)
        assert {"conv", "affine", "add", "relu"} <= {n.op.name for n in kernel.nodes}


def test_s94_buffers_are_updated_again_and_again() -> None:
    def activations(blocks: int) -> int:
        checked = front(residual(blocks))
        return planned(kernels(checked.graph, checked.module), batch=1).activations

    assert activations(12) == activations(3) == activations(2)


def test_s94_resnet_152() -> None:
    counts = count(front("resnet152").graph)
    assert counts.weight_layers == 1 + 3 * (3 + 8 + 36 + 3) + 1 == 152
    assert (counts.params, counts.macs) == (60_192_808, 11_513_626_624)


def test_s95_vgg_is_made_of_3x3_convolutions_and_2x2_pools() -> None:
    for name, numbers in (
        ("vgg19", (143_667_240, 19_632_062_464)),
        ("vgg16", (138_357_544, 15_470_264_320)),
    ):
        graph = front(name).graph
        counts = count(graph)
        assert (counts.params, counts.macs) == numbers
        sizes = {(n.op.name, tuple(a.size for a in n.op.window), n.op.window[0].stride)
                 for n in graph.nodes if hasattr(n.op, "window")}  # fmt: skip
        assert sizes == {("conv", (3, 3), 1), ("maxpool", (2, 2), 2)}


def test_s96_googlenet_with_and_without_auxiliary_heads() -> None:
    plain = count(front("googlenet").graph)
    both = count(front("googlenet", arguments={"auxiliary": True}, train=True).graph)
    assert (plain.params, plain.macs, plain.depth) == (6_998_552, 1_582_671_872, 22)
    assert both.params == 13_378_280
    heads = {
        name: sum(x.params for x in both.layers if x.name.startswith(f"{name}."))
        for name in ("near", "far")
    }
    assert heads == {"near": 3_188_840, "far": 3_190_888}
    assert sum(heads.values()) == both.params - plain.params


def test_s96_every_head_is_in_the_loss() -> None:
    graph = front("googlenet", arguments={"auxiliary": True}, train=True).graph
    scores = [n.inputs[0] for n in graph.nodes if n.op.name == "cross_entropy"]
    assert len(set(scores)) == 3
    plain = front("googlenet", train=True).graph
    assert [n.op.name for n in plain.nodes].count("cross_entropy") == 1


def test_s96_windows_at_the_border_are_partial() -> None:
    graph = front("googlenet").graph
    extents = [graph[n.name].type.shape[1] for n in graph.nodes
               if n.op.name == "maxpool" and n.op.window[0].stride == 2]  # fmt: skip
    assert extents == [56, 28, 14, 7]
    assert codes(spec("googlenet").replace("fit = partial", "fit = exact")) == ["E0202"]


def test_s97_the_first_layer_of_alexnet_does_not_fit_224() -> None:
    text = spec("alexnet")
    with pytest.raises(cnncc.SpecError, match=r"54\.25") as caught:
        front(text.replace("stride = 4, pad = (2, 1)", "stride = 4"))
    assert [d.code for d in caught.value.diagnostics] == ["E0202"]
    assert any("55x55" in h for h in caught.value.diagnostics[0].helps)


@pytest.mark.parametrize("name", ["224 padded", "227"])
def test_s97_s106_two_ways_to_55_positions(name: str) -> None:
    text = spec("alexnet")
    if name == "227":  # what the paper crops from images of 256
        text = text.replace("224, 224", "227, 227").replace(
            "stride = 4, pad = (2, 1)", "stride = 4"
        )
    graph = front(text).graph
    assert graph["c1"].type.shape == (96, 55, 55)
    weights = {k: graph[f"{k}.weight"].type.shape for k in ("c1", "c2", "c3", "c4", "c5")}
    assert weights == {
        "c1": (96, 3, 11, 11), "c2": (256, 48, 5, 5), "c3": (384, 256, 3, 3),
        "c4": (384, 192, 3, 3), "c5": (256, 192, 3, 3),
    }  # fmt: skip


def test_s97_response_normalisation_is_an_argument() -> None:
    plain = front("alexnet").graph
    with_norm = front("alexnet", arguments={"response_norm": True}).graph
    assert [n.op.name for n in plain.nodes].count("lrn_apply") == 0
    norms = [n for n in with_norm.nodes if n.op.name == "lrn_apply"]
    assert [n.type.shape for n in norms] == [(96, 55, 55), (256, 27, 27)]
    assert count(plain).params == count(with_norm).params


def test_s98_parameters_of_alexnet() -> None:
    parts = [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    names = ["c1", "c2", "c3", "c4", "c5", "f6", "f7", "scores"]
    assert [params("alexnet", name) for name in names] == parts
    assert sum(parts) == 60_965_224 == count(front("alexnet").graph).params
    text = "\n".join(x for x in spec("alexnet").splitlines() if "expect" not in x)
    assert count(front(text.replace(", connect = groups(2)", "")).graph).params == 62_378_344


# --- LeNets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numbers", "connections"),
    [
        ("lenet1989", (9_760, 9_760), 64_660),
        ("lenet1989_nips", (2_578, 2_578), 98_442),
        ("lenet5", (60_850, 60_850), 340_918),
        ("lenet5_1998", (60_840, 60_000), 340_908),
    ],
)
def test_s101_s102_s103_s104_built_in_lenets(name, numbers, connections) -> None:
    counts = count(front(name).graph)
    assert ((counts.params, counts.trained), counts.connections) == (numbers, connections)


def test_s103_the_head_measures_distances_from_drawings() -> None:
    text = spec("lenet5_1998")
    drawings = text[text.index("  drawings = ") : text.index("  distances")]
    body = f"net n {{\n  input f6: f32[84]\n{drawings}  output distances = "
    run = Run(body + "f6 -> rbf(10, init = drawings, frozen = true)\n}\n")
    (name,) = run.parameters
    model = cnncc.compile(run.text, target="interp")
    w = model.state_dict()[name]
    assert w.shape == (10, 7 * 12)
    assert set(np.unique(w)) == {-1, 1}
    d = model(w)
    assert np.array_equal(d, 4 * (w[:, None] != w).sum(axis=2))  # a wrong pixel is 2 off
    assert np.all(np.diag(d) == 0)
    assert np.all(d + 1000 * np.eye(10) > 40)  # no two drawings are alike
    x = integers((3, 84), 5)
    assert np.array_equal(model(x), ((x[:, None] - w) ** 2).sum(axis=2))


def test_s103_the_drawings_stay_and_a_step_moves_the_features_towards_theirs() -> None:
    text = """
    net n {
      input x: f32[6]
      f = x -> dense(4)
      output scores = -(f -> rbf(2, init = [[1, -1, 1, 1], [-1, -1, 1, -1]], frozen = true))
    }
    train n {
      target label: class[2]
      loss = cross_entropy(scores, label)
      optimizer = sgd(lr = 0.02)
    }"""
    model = cnncc.compile(text, target="interp", train=True)
    before = model.state_dict()["scores.weight"].copy()
    x, label = integers((8, 6)), np.arange(8) % 2
    losses = [model.step(x, label) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert np.array_equal(model.state_dict()["scores.weight"], before)


def test_s106_images_of_28_are_padded_to_32() -> None:
    text = (
        spec("lenet5")
        .replace("[1, 32, 32]", "[1, 28, 28]")
        .replace("(6, 5x5)", "(6, 5x5, pad = 2)")
    )
    graph = front(text.replace('import "lenet5_table.cnn"', spec("lenet5_table"))).graph
    assert graph["c1"].type.shape == (6, 28, 28) == front("lenet5").graph["c1"].type.shape
    assert front("lenet1989").graph["image"].type.shape == (1, 16, 16)


def test_s107_subsampling_is_one_weight_and_one_bias_per_map() -> None:
    layers = {x.name: x for x in count(front("lenet5").graph).layers}
    assert [(layers[k].params, layers[k].connections) for k in ("s2", "s4")] == [
        (12, 5_880), (32, 2_000),
    ]  # fmt: skip
    run = Run(
        "net n {\n  input x: f32[3, 4, 4]\n  output y = x -> avgpool(2x2, affine = per_map)\n}\n"
    )
    x = 4 * integers((2, 3, 4, 4))
    scale, bias = (run.parameters[k] for k in ("y.scale", "y.bias"))
    sums = x.reshape(2, 3, 2, 2, 2, 2).sum(axis=(3, 5))
    assert np.array_equal(run(x), sums / 4 * scale[:, None, None] + bias[:, None, None])


TABLE_I = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]


def test_s108_the_table_of_the_third_layer_is_table_i() -> None:
    text = spec("lenet5_table") + (
        "net n {\n  input x: f32[6, 5, 5]\n"
        "  output y = x -> conv(16, 5x5, connect = table(lenet5_c3), bias = none)\n}\n"
    )
    run = Run(text)
    assert run.parameters["y.weight"].shape == (60, 5, 5)
    run.parameters["y.weight"] = np.ones((60, 5, 5), np.float32)
    for row, marks in enumerate(TABLE_I):  # which maps of C3 see a map of S2
        x = np.zeros((1, 6, 5, 5), np.float32)
        x[0, row, 2, 2] = 1
        assert "".join(".X"[int(v)] for v in run(x).ravel()) == marks
    fans = [sum(m[k] == "X" for m in TABLE_I) for k in range(16)]
    assert fans == [3] * 6 + [4] * 9 + [6]


def test_s109_the_network_of_the_cifar10_exercise() -> None:
    text = """
    net exercise {
      input image: f32[3, 32, 32]
      p1 = image -> conv(6, 5x5) -> relu -> maxpool(2x2)
      p2 = p1 -> conv(16, 5x5) -> relu -> maxpool(2x2)
      f3 = p2 -> flatten -> dense(120) -> relu -> dense(84) -> relu
      output scores = f3 -> dense(10)
      expect params == 62_006
    }"""
    assert front(text).graph


def test_s109_the_main_loop_is_the_users() -> None:
    text = """
    net mlp {
      input image: f32[3, 2, 2]
      output scores = image -> flatten -> dense(5) -> relu -> dense(4)
    }
    train mlp {
      target label: class[4]
      loss = cross_entropy(scores, label)
      optimizer = sgd(lr = 0.1)
    }"""
    explicit, whole = (cnncc.compile(text, target="interp", train=True) for _ in range(2))
    x, label = integers((6, 3, 2, 2)), np.array([0, 1, 2, 3, 0, 1])
    for _ in range(3):
        scores = explicit.forward(x).astype(np.float64)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        explicit.backward(((p - np.eye(4)[label]) / len(x)).astype(np.float32))
        explicit.update()
        whole.step(x, label)
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(explicit.state_dict()[name], value, atol=1e-5)


def test_s111_every_layer_of_a_lenet_can_be_seen() -> None:
    model = cnncc.compile("lenet5", target="interp")
    found = model.activations(np.zeros((1, 1, 32, 32), np.float32))
    shapes = {k: found[k].shape[1:] for k in ("c1", "s2", "c3", "s4", "c5", "f6", "scores")}
    assert shapes == {
        "c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5),
        "c5": (120, 1, 1), "f6": (84,), "scores": (10,),
    }  # fmt: skip


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_s89a_gradient_descent_takes_the_steps_of_its_formula(momentum: float) -> None:
    text = f"""
    net line {{
      input x: f32[1]
      output y = x -> dense(1, bias = none)
    }}
    train line {{
      target t: f32[1]
      loss = mse(y, t)
      optimizer = sgd(lr = 0.125, momentum = {momentum})
    }}"""
    model = cnncc.compile(text, target="interp", train=True)
    model.load_state_dict({"y.weight": np.array([[5.0]], np.float32)})
    x = np.array([[1.0], [-1.0]], np.float32)
    w, v = 5.0, 0.0
    for k in range(6):
        model.step(x, 2 * x)  # loss (w - 2)^2, gradient 2 (w - 2)
        v = momentum * v + 2 * (w - 2)
        w -= 0.125 * v
        assert model.state_dict()["y.weight"].item() == w
        if momentum == 0:
            assert w == 2 + 3 * 0.75 ** (k + 1)


def test_s112_tied_weights_get_the_gradients_of_both_uses() -> None:
    text = spec("autoencoder").replace("width = 16, size = 8", "width = 2, size = 6")
    text = (
        text.split("\ntrain ")[0]
        .replace(" -> relu", "")
        .replace("code = e2", "code = e2 -> crop(0)")
    )
    tied = Run(text, dtype=np.float64)
    assert sorted(tied.parameters) == ["again.bias", "d2.bias", "e1.weight", "e2.weight"]
    free = text.replace("weights = transpose(e2)", "weights = D2")
    free = free.replace("weights = transpose(e1)", "weights = D1")
    free = free.replace("  e1 =", "  weights D1, D2\n  e1 =", 1)
    free = "\n".join(x for x in free.splitlines() if "params" not in x) + "\n"
    given = {
        **tied.parameters,
        "D1": tied.parameters["e1.weight"],
        "D2": tied.parameters["e2.weight"],
    }
    apart = Run(free, given, dtype=np.float64)
    x, dy = integers((2, 1, 6, 6), 1), integers((2, 1, 6, 6), 2)
    assert np.array_equal(tied(x), apart(x))
    found, parts = tied.backward(x, dy), apart.backward(x, dy)
    for k in "12":
        both = parts[f"e{k}.weight"] + parts[f"D{k}"]
        assert np.array_equal(found[f"e{k}.weight"], both)
        assert np.any(parts[f"D{k}"])


def test_s112_an_autoencoder_learns_without_labels() -> None:
    text = spec("autoencoder").replace("width = 16", "width = 4")
    model = cnncc.compile(text, target="interp", train=True)
    x = cnncc.load_data("digits", "train").x[:16].astype(np.float32)
    losses = [model.step(x, x, lr=0.01) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


# --- kinds of data --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA_KINDS)
def test_s20_s66_a_network_for_every_kind_of_data(name: str) -> None:
    graph = front(name).graph
    conv = next(n for n in graph.nodes if n.op.name == "conv")
    source = graph[conv.inputs[0]].type
    assert (len(source.spatial), source.shape[0]) == DATA_KINDS[name]


def test_s66_sound_of_any_length() -> None:
    model = cnncc.compile("audio", target="interp")
    wave = np.random.default_rng(0).standard_normal((1, 1, 1000)).astype(np.float32)
    assert model(wave).shape == model(wave[:, :, :408]).shape == (1, 10)


def test_s21_the_first_layer_of_gabor_functions_is_not_trained() -> None:
    graph = front("gabor").graph
    counts = count(graph)
    assert counts.params - counts.trained == 2 * 8 * 81
    model = cnncc.compile("gabor", target="interp")
    even, odd = (model.state_dict()[f"{k}.weight"][:, 0] for k in ("even", "odd"))
    turned = even[:, ::-1, ::-1]
    np.testing.assert_allclose(even, turned, atol=1e-6)  # cos of an even phase
    np.testing.assert_allclose(odd, -odd[:, ::-1, ::-1], atol=1e-6)


def test_s80_maxout_units_choose_among_their_pieces() -> None:
    for pieces in (2, 3):
        assert params("maxout", "m1", pieces=pieces) == 32 * pieces * 76
    assert front("maxout").graph["m1.maxout"].type.shape == (32, 32, 32)


def test_s09_s10_the_edges_of_figure_9_6() -> None:
    text = spec("edge_detection")
    small = text.split("\ntrain ")[0].replace("280, 320", "3, 4")
    small = "\n".join(x for x in small.splitlines() if "expect" not in x) + "\n"
    model = cnncc.compile(small, target="interp")
    x: Array = integers((1, 1, 3, 4))
    assert np.array_equal(model(x), x[..., 1:] - x[..., :-1])
