"""The page of `cnncc view`: its numbers are those of the model, in NumPy from the page's text and
in a real browser, where a digit is chosen, one is drawn, and units are pointed at.
"""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import cnncc
from cnncc.cli import main
from cnncc.errors import SpecError
from cnncc.graph.sources import Parameter
from cnncc.model.view import Sampling, drawn, make_page
from cnncc.passes.cone import cone
from tests.docs.browser import browser, executable
from tests.docs.page_oracle import OPERATORS, compute, contents

ROOT = Path(__file__).parents[2]
GALLERY_PAGE = ROOT / "docs/gallery/lenet_digits.html"
CLOSE = 1e-5

needs_browser = pytest.mark.skipif(
    executable() is None, reason="there is no browser (Debian: apt-get install chromium)"
)

EVERYTHING = """
net everything {
  input image: f32[1, 8, 8]
  a = image -> conv(4, 3x3, pad = same, share = symmetric) -> batchnorm -> relu
  b = a -> conv(4, 3x3, share = tiled(2), bias = untied) -> stanh
  c = b -> conv(4, 3x3, dilation = 2, pad = same, connect = groups(2)) -> tanh
  d = c -> conv(4, 2x3, stride = (2, 1), pad = (0, 1), bias = none, fit = floor) -> softplus
  e = d -> conv(4, 2x2, share = none) -> leaky_relu
  f = b -> avgpool(2x2, affine = per_map) -> sigmoid
  g = b -> avgpool(3x3, stride = 2, pad = 1, count_include_pad = false, fit = floor) -> elu
  h = a -> maxpool(3x3, stride = 2, pad = 1, fit = floor) -> maxout(2)
  i = concat(f, g) - 0.5 * concat(g, f)
  j = i * i + i
  k = concat(flatten(e), flatten(h), globalavgpool(j), globalmaxpool(j), flatten(softmax(j)))
  output scores = k -> dense(6)
  output chances = scores -> softmax
  output logs = scores -> log_softmax
}
"""


def parameters(model, seed):
    """Parameters of which none is 0 or the same as another, such that sums stay about as large as
    what they sum; variances are positive.
    """
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(0.5, 1.5, a.shape)
        if "var" in name
        else rng.normal(0, 1 / math.sqrt(math.prod(a.shape[1:])), a.shape)
        for name, a in model.state_dict().items()
    }


def page_of(source, seed, classes=2):
    """A model with parameters of a seed, samples, and its page."""
    model = cnncc.compile(source)
    model.load_state_dict(parameters(model, seed))
    data = cnncc.load_data("digits", "test")
    samples = Sampling.of(data.x, data.y, classes, (), "digits")
    net = drawn(model.network.inference.graph, model.state_dict())
    return model, make_page(net, samples, "a test")


@pytest.fixture(scope="module")
def everything():
    return page_of(EVERYTHING, 1)


@pytest.fixture(scope="module")
def lenet():
    return page_of("lenet_digits", 2, 10)


@pytest.fixture(scope="module")
def window():
    with browser() as opened:
        yield opened


def agree(found, model, x):
    """Every activation of the page equals the model's within 1e-5."""
    expected = model.activations(np.asarray(x, np.float32)[None])
    tensors = {n.name for n in model.network.inference.graph.nodes if n.type.batched and n.inputs}
    assert tensors == expected.keys() & found.keys(), "every tensor of the network is on the page"
    for name in tensors:
        np.testing.assert_allclose(
            np.asarray(found[name]).ravel(), expected[name].ravel(), CLOSE, CLOSE, err_msg=name
        )


# --- without a browser ----------------------------------------------------------------------------


def test_the_numbers_in_a_page_give_the_model(everything):
    model, page = everything
    facts, arrays = contents(page)
    assert {step["op"] for step in facts["steps"]} == {"input", *OPERATORS}
    samples = arrays[facts["samples"]["array"]].reshape(-1, 1, 8, 8)
    for x in samples:
        agree(compute(facts, arrays, x), model, x)


def test_the_numbers_of_a_lenet_give_the_model(lenet):
    model, page = lenet
    facts, arrays = contents(page)
    x = arrays[facts["samples"]["array"]].reshape(-1, 1, 8, 8)[7]
    assert facts["samples"]["classes"][7] == 3
    agree(compute(facts, arrays, x), model, x)


def test_a_page_needs_no_other_file(everything):
    page = everything[1]
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert links == ["data:,"]
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\b", page)


def test_texts_cannot_leave_their_place():
    model = cnncc.compile("net t { input x: f32[1, 2, 2]\n output y = x -> relu }")
    x, y = np.ones((1, 1, 2, 2), np.float32), np.zeros(1, np.int64)
    wild = "</script><script>@@TITLE@@"
    samples = Sampling.of(x, y, 1, [wild], wild)
    page = make_page(drawn(model.network.inference.graph, {}), samples, wild)
    assert page.count("</script>") == 3
    assert contents(page)[0]["samples"]["names"] == [wild]


REFUSED = {
    "a page has one input, but t has 2: x, y": (
        "input x: f32[1, 4, 4]\n input y: f32[1, 4, 4]\n output z = x + y",
        None,
    ),
    "a page draws an f32 image of known extents, but the input is f32[*, 1, 4]": (
        "input x: f32[1, 4]\n output z = x -> relu",
        (2, 2),
    ),
    "a page draws an f32 image of known extents, but the input is f32[*, 1, H, W]": (
        "input x: f32[1, H, W]\n output z = x -> relu",
        (2, 2),
    ),
    "the page does not know the operator gelu of `z` (f32[*, 1, 4, 4])": (
        "input x: f32[1, 4, 4]\n output z = x -> gelu",
        (3, 18),
    ),
    "a page shows at most 4194304 weights, but t has 16789506": (
        "input x: f32[1, 64, 64]\n output z = x -> flatten -> dense(4096) -> dense(2)",
        None,
    ),
    "a page shows at most 262144 units, but t has 524288": (
        "input x: f32[1, 512, 512]\n output z = x -> relu",
        None,
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_page_cannot_show(message):
    body, place = REFUSED[message]
    graph = cnncc.compile(f"net t {{\n {body} }}", target="interp").network.inference.graph
    state = {
        n.name: np.zeros(n.type.dims(0)) for n in graph.nodes if isinstance(n.op, Parameter)
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        drawn(graph, state)
    (mistake,) = caught.value.diagnostics
    assert (mistake.code, mistake.message) == ("E0820", message)
    assert (mistake.span and (mistake.span.line, mistake.span.column)) == place


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_page(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["view", "lenet_digits", "--data", "digits", "-o", str(path)]) == 0
    facts, arrays = contents(path.read_text(encoding="utf-8"))
    assert facts["note"] == "initial parameters, not trained"
    assert facts["samples"]["classes"] == sorted(list(range(10)) * 2)
    weights = tmp_path / "w.safetensors"
    model = cnncc.compile("lenet_digits", target="interp", seed=5)
    model.save(weights)
    options = ["--weights", str(weights), "-o", str(path)]
    assert main(["view", "lenet_digits", *options]) == 0
    other, changed = contents(path.read_text(encoding="utf-8"))
    assert other["samples"] is None
    assert other["note"] == "weights of w.safetensors"
    first = other["steps"][1]["weight"]
    np.testing.assert_array_equal(changed[first], model.state_dict()["c1.weight"].ravel())
    assert not np.array_equal(changed[first], arrays[first])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lenet_digits", "-o", "page.txt"], 2, "--output is an .html file, but got page.txt"),
        (["unet", "-o", "page.html"], 1, "error[E0820]"),
        (["lenet_digits", "--data", "synthetic:blobs", "-o", "page.html"], 1, "error[E07"),
        (["lenet5_modern", "--data", "digits", "-o", "page.html"], 1, "digits is 1x8x8"),
    ],
)  # fmt: skip
def test_mistakes_of_the_command(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["view", *words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


# --- in a browser ---------------------------------------------------------------------------------


def opened(window, page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    window.problems.clear()
    window.open(path)


def settled(window):
    assert window.problems == []
    return window.ask("cnncc.activations()")


def shape_of_input(window, model):
    source = model.network.inference.graph.of("input")
    return np.reshape(window.ask("cnncc.input()"), next(iter(source)).type.shape)


def ring(window):
    """Draw a ring with the mouse, on a pad wiped before."""
    window.click(*window.middle("#clear"))
    x, y = window.middle("#pad")
    turns = np.linspace(0, 2 * math.pi, 25)
    window.drag([(x + 45 * math.cos(t), y + 75 * math.sin(t)) for t in turns])


@needs_browser
def test_a_digit_that_is_chosen(window, lenet, tmp_path):
    model, page = lenet
    opened(window, page, tmp_path)
    window.click(*window.middle("#samples button:nth-child(8)"))
    facts, arrays = contents(page)
    x = arrays[facts["samples"]["array"]].reshape(-1, 1, 8, 8)[7]
    np.testing.assert_array_equal(shape_of_input(window, model), x)
    assert window.ask("document.querySelectorAll('[aria-pressed=true]').length") == 1
    agree(settled(window), model, x)


@needs_browser
def test_a_digit_that_is_drawn(window, lenet, tmp_path):
    model, page = lenet
    opened(window, page, tmp_path)
    ring(window)
    x = shape_of_input(window, model)
    assert np.array_equal(x * 16, np.round(x * 16))
    assert x.max() > 0.5
    assert 0 < x[0, 3:5, 3:5].sum() + (x[0] == 0).sum() < 50
    agree(settled(window), model, x)
    filled = x[0]
    window.click(*window.middle("#fit"))
    assert shape_of_input(window, model)[0].sum() != filled.sum(), "the pad as it is"
    window.click(*window.middle("#clear"))
    assert not shape_of_input(window, model).any()
    agree(settled(window), model, np.zeros((1, 8, 8)))


@needs_browser
def test_every_operator_in_the_browser(window, everything, tmp_path):
    model, page = everything
    opened(window, page, tmp_path)
    for number in (1, 3):
        window.click(*window.middle(f"#samples button:nth-child({number})"))
        agree(settled(window), model, shape_of_input(window, model))


@needs_browser
def test_a_unit_under_the_pointer(window, lenet, tmp_path):
    model, page = lenet
    opened(window, page, tmp_path)
    window.click(*window.middle("#samples button:nth-child(1)"))
    unit = (5, 3, 4)
    number = (5 * 8 + 3) * 8 + 4
    window.mouse("mouseMoved", *window.ask(f"cnncc.place('c2', {number})"))
    found = window.ask("cnncc.pointed()")
    assert (found["layer"], found["unit"]) == ("c2", number)

    def expected(layer, boxes):
        shape = model.network.inference.graph[layer].type.shape
        places = np.ix_(*[list(axis) for axis in boxes[layer]])
        return set(np.arange(math.prod(shape)).reshape(shape)[places].ravel().tolist())

    boxes = cone(model.network.inference.graph, "c2[5, 3, 4]").backward
    assert {s["unit"] for s in found["sources"]} == expected("c1.relu", boxes)
    assert len(found["sources"]) == 16 * 9
    assert set(found["cone"]) == expected("image", boxes)
    kernel = model.state_dict()["c2.weight"][5].transpose(1, 2, 0)
    weights = {s["unit"]: s["weight"] for s in found["sources"]}
    assert sorted(weights.values()) == sorted(map(float, kernel.ravel()))
    text = window.ask("document.querySelector('#unit .value').textContent")
    values = settled(window)["c2"]
    assert text == f"c2[{', '.join(map(str, unit))}] = {values[number]:.4f}".replace("-", "−")
    assert window.ask("document.querySelectorAll('#links line').length") == 16


@needs_browser
def test_a_unit_is_kept_by_a_click(window, lenet, tmp_path):
    opened(window, lenet[1], tmp_path)
    window.click(*window.ask("cnncc.place('f4', 3)"))
    window.mouse("mouseMoved", *window.ask("cnncc.place('scores', 0)"))
    assert window.ask("cnncc.pointed().layer") == "f4"
    for kind in ("keyDown", "keyUp"):
        window.send("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape")
    assert window.ask("cnncc.pointed()") is None
    assert settled(window)


@needs_browser
def test_products_and_bias_make_every_weighted_unit(window, everything, tmp_path):
    page = everything[1]
    opened(window, page, tmp_path)
    values = settled(window)
    for layer in ("a.conv", "a.batchnorm", "b", "c", "d", "e", "f.pool", "f.scaled", "f", "scores"):
        size = len(values[layer])
        for unit in (0, size // 2, size - 1):
            x, y = window.ask(f"cnncc.place('{layer}', {unit})")
            window.mouse("mouseMoved", x, y)
            found = window.ask("cnncc.pointed()")
            assert (found["layer"], found["unit"]) == (layer, unit)
            products = [s["weight"] * values[s["layer"]][s["unit"]] for s in found["sources"]]
            total = sum(products) + found["offset"]
            assert total == pytest.approx(values[layer][unit], abs=CLOSE), (layer, unit)


@needs_browser
def test_the_page_of_the_gallery_reads_what_is_drawn(window, tmp_path):
    window.problems.clear()
    window.open(GALLERY_PAGE)
    ring(window)
    assert int(np.argmax(settled(window)["scores"])) == 0
    window.click(*window.middle("#clear"))
    x, y = window.middle("#pad")
    window.drag([(x, y - 70), (x, y - 20), (x, y + 70)])
    assert int(np.argmax(settled(window)["scores"])) == 1


# --- with the scripts alone -----------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js")
def test_the_forward_pass_without_a_browser(everything, tmp_path):
    model, page = everything
    facts, arrays = contents(page)
    x = arrays[facts["samples"]["array"]][:64]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "arrays.bin").write_bytes(np.concatenate(arrays).tobytes())
    (tmp_path / "x.json").write_text(json.dumps(x.tolist()))
    script = (ROOT / "cnncc/model/view/forward.js").read_text() + (
        "\nconst fs = require('fs');"
        "const net = JSON.parse(fs.readFileSync('facts.json'));"
        "const raw = fs.readFileSync('arrays.bin');"
        "const bytes = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length);"
        "const x = Float32Array.from(JSON.parse(fs.readFileSync('x.json')));"
        "const found = Forward.run(net, Forward.unpack(net.sizes, bytes), x);"
        "const named = net.steps.map((s, n) => [s.name, Array.from(found[n])]);"
        "console.log(JSON.stringify(Object.fromEntries(named)));"
    )
    (tmp_path / "run.js").write_text(script)
    done = subprocess.run(
        ["node", "run.js"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    agree(json.loads(done.stdout), model, x.reshape(1, 8, 8))
