"""The model as its users have it: calls, gradients, parameters and files; and what it says when it
is used wrongly.
"""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import cnncc
from cnncc.compiler import front
from cnncc.io.safetensors import load_state, save_state
from cnncc.model import InputError
from cnncc.model.network import KEY, Network
from cnncc.passes.fuse import fuse
from cnncc.passes.training import training_graph
from cnncc.targets.interp.runtime import DictStore, InterpRuntime
from tests.train.small import CONVOLUTION, TWO_HEADS, blobs, perceptron, same_state

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((5, 2, 6, 6)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 2, 3])


@pytest.fixture(scope="module")
def model() -> cnncc.Model:
    """A network with batch norm, for inference and training, on the CPU."""
    return cnncc.compile(CONVOLUTION, train=True, seed=1)


@pytest.fixture(scope="module")
def lenet() -> cnncc.Model:
    return cnncc.compile("lenet_digits", seed=1, batch=4)


@pytest.fixture(scope="module")
def heads() -> cnncc.Model:
    return cnncc.compile(TWO_HEADS, target="interp", train=True)


def interpreted(text: str, **options: object) -> cnncc.Model:
    return cnncc.compile(text, target="interp", **options)  # type: ignore[arg-type]


def net(line: str, input: str = "x: f32[4]") -> str:
    return f"net n {{\n  input {input}\n  output y = x -> {line}\n}}\n"


# --- against PyTorch ---


def theirs(state: dict[str, NDArray[np.float32]], x, *, train: bool):  # type: ignore[no-untyped-def]
    """The scores of CONVOLUTION in PyTorch, with the parameters as leaves."""
    torch = pytest.importorskip("torch")
    p = {k: torch.tensor(v, requires_grad="running" not in k) for k, v in state.items()}
    y = torch.nn.functional.conv2d(x, p["c1.conv.weight"], padding=1)
    mean, var = p["c1.batchnorm.running_mean"], p["c1.batchnorm.running_var"]
    y = torch.nn.functional.batch_norm(
        y, mean, var, p["c1.batchnorm.weight"], p["c1.batchnorm.bias"], training=train
    )
    y = torch.relu(y).mean((2, 3))
    return y @ p["scores.weight"].T + p["scores.bias"], p


def test_inference_and_evaluation_equal_pytorch(model: cnncc.Model):
    torch = pytest.importorskip("torch")
    state = {k: v + 0.1 for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    scores, _ = theirs(state, torch.tensor(IMAGES), train=False)
    np.testing.assert_allclose(model(IMAGES), scores.detach(), rtol=1e-5, atol=1e-6)
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(CLASSES)).item()
    found = model.evaluate(IMAGES, CLASSES, batch=2)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    right = (scores.argmax(1).numpy() == CLASSES).mean()
    assert found["accuracy"] == pytest.approx(right)


def test_a_step_equals_pytorch(model: cnncc.Model):
    torch = pytest.importorskip("torch")
    fresh = cnncc.compile(CONVOLUTION, train=True, seed=1)
    state = fresh.state_dict()
    scores, p = theirs(state, torch.tensor(IMAGES), train=True)
    leaves = [v for v in p.values() if v.requires_grad]
    optimizer = torch.optim.SGD(leaves, lr=0.1, momentum=0.9, weight_decay=0.01)
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(CLASSES))
    loss.backward()
    optimizer.step()
    assert fresh.step(IMAGES, CLASSES) == pytest.approx(loss.item(), rel=1e-6)
    for name, value in fresh.state_dict().items():
        np.testing.assert_allclose(value, p[name].detach(), rtol=2e-5, atol=1e-6, err_msg=name)


def test_gradients_of_any_loss_equal_pytorch(model: cnncc.Model):
    torch = pytest.importorskip("torch")
    x = torch.tensor(IMAGES, requires_grad=True)
    scores, p = theirs(model.state_dict(), x, train=True)
    grad = RNG.standard_normal((5, 4)).astype(np.float32)
    scores.backward(torch.tensor(grad))
    found = model.forward(IMAGES)
    np.testing.assert_allclose(found, scores.detach(), rtol=1e-5, atol=1e-5)
    model.gradients.clear()
    gradients = model.backward(grad, inputs=True)
    np.testing.assert_allclose(gradients.pop("image"), x.grad, rtol=1e-4, atol=1e-5)
    assert set(gradients) == {k for k, v in p.items() if v.requires_grad}
    for name, value in gradients.items():
        np.testing.assert_allclose(value, p[name].grad, rtol=1e-4, atol=1e-5, err_msg=name)


# --- forward, backward, update ---


def test_the_phases_one_by_one_do_what_a_step_does():
    x, labels = blobs(8)
    one, other = (
        perceptron("sgd(lr = 0.1, momentum = 0.5)"),
        perceptron("sgd(lr = 0.1, momentum = 0.5)"),
    )
    for _ in range(2):
        scores = other.forward(x).astype(np.float64)
        share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        share[np.arange(8), labels] -= 1
        other.backward(share / 8)
        other.update()
        one.step(x, labels)
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value, other.state_dict()[name], rtol=1e-5, atol=1e-7)
    assert other.gradients == {}


NORMALISED = """
net small {
  input image: f32[2, 6, 6]
  c = image -> conv(3, 3x3, pad = same) -> batchnorm -> relu -> dropout(0.25)
  output scores = c -> flatten -> dense(4)
}
train small {
  target label: class[4]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.1, momentum = 0.5, weight_decay = 0.01)
}
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_leaves_the_bits_of_its_phases(threads: int):
    """The gradient of the scores, which the caller of `backward` gives, is the step's own."""
    one, other = (cnncc.compile(NORMALISED, train=True, num_threads=threads) for _ in range(2))
    checked = front(NORMALISED, train=True)
    assert checked.module.training is not None
    graph = training_graph(checked.graph, checked.module, checked.module.training.optimizer).graph
    graph = replace(graph, outputs=(*graph.outputs, ("seed", "loss.each.dx")), updates=())
    store = DictStore()
    for node in graph.of("parameter"):
        store.write(node.name, np.zeros(node.type.dims(0), np.float32))
    for number in range(2):
        for name, value in one.state_dict().items():
            store.write(name, value)
        given = {"image": IMAGES, "label": CLASSES[:, None]}
        given |= one.optimizer.numbers(number, 0.1)
        given |= {
            n.name: np.array([one.seed, number]) for n in graph.of("input") if n.op.role == "random"
        }
        seed = InterpRuntime(fuse(graph), store=store).run(given)["seed"]
        one.step(IMAGES, CLASSES)
        other.forward(IMAGES)
        other.backward(seed)
        other.update()
        expected = {name: value.tobytes() for name, value in one.state_dict().items()}
        assert {name: value.tobytes() for name, value in other.state_dict().items()} == expected


def test_gradients_add_up_until_the_update(model: cnncc.Model):
    grad = np.ones((5, 4), np.float32)
    model.gradients.clear()
    parts = []
    for _ in range(2):
        model.forward(IMAGES)
        parts.append(model.backward(grad))
    for name, value in model.gradients.items():
        assert np.array_equal(value, parts[0][name] + parts[1][name])
    before = model.state_dict()
    model.gradients["scores.bias"][:] = 0
    model.update(lr=0.25)
    moved = model.state_dict()
    decayed = before["scores.bias"] * np.float32(1 - 0.25 * 0.01)
    np.testing.assert_allclose(moved["scores.bias"], decayed, rtol=1e-5)
    assert not np.array_equal(moved["scores.weight"], before["scores.weight"])


def test_gradients_of_one_of_two_outputs(heads: cnncc.Model):
    a, b = RNG.standard_normal((2, 4, 3)).astype(np.float32)
    heads.forward(a, b)
    found = heads.backward({"gate": np.ones((4, 3))}, inputs=True)
    assert (found["sum.weight"] == 0).all()
    gate = 1 / (1 + np.exp(-(a + 2 * b)))
    np.testing.assert_allclose(found["a"], gate * (1 - gate), rtol=1e-5)
    np.testing.assert_allclose(found["b"], 2 * gate * (1 - gate), rtol=1e-5)


def test_backward_goes_with_a_forward(heads: cnncc.Model):
    a = np.zeros((2, 3), np.float32)
    with pytest.raises(RuntimeError, match="call forward first"):
        heads.backward((np.ones((2, 2)), np.ones((2, 3))))
    heads.forward(a, a)
    with pytest.raises(TypeError, match="needs 2 gradients, of sum, gate"):
        heads.backward(np.ones((2, 2)))
    with pytest.raises(TypeError, match="no output 'gait'"):
        heads.backward({"gait": np.ones((2, 2))})
    with pytest.raises(InputError, match=r"but the output of forward had \(2, 2\)"):
        heads.backward({"sum": np.ones((3, 2))})
    heads.backward((np.ones((2, 2)), np.ones((2, 3))))
    heads.gradients.clear()
    with pytest.raises(RuntimeError, match="update needs the gradients"):
        heads.update()


def test_training_mode_is_for_calls(model: cnncc.Model):
    inferred = model(IMAGES)
    assert model.train() is model
    assert not np.array_equal(model(IMAGES), inferred), "statistics of the batch"
    assert np.array_equal(model.eval()(IMAGES), inferred)


def test_dropout_depends_on_seed_and_step():
    model = perceptron(dropout=True, seed=3)
    x, labels = blobs(8)
    first = model.forward(x)
    assert np.array_equal(model.forward(x), first)
    assert not np.array_equal(model(x), first), "inference drops nothing"
    model.step(x, labels, lr=1e-30)
    assert not np.array_equal(model.forward(x), first)
    assert not np.array_equal(perceptron(dropout=True, seed=4).forward(x), first)


def test_training_needs_a_model_for_it(lenet: cnncc.Model):
    for use in (
        lambda: lenet.step(None, None),
        lambda: lenet.fit(None, None),
        lambda: lenet.train(),
        lambda: lenet.gradients,
        lambda: lenet.optimizer,
    ):
        with pytest.raises(RuntimeError, match="train=True"):
            use()
    with pytest.raises(cnncc.SpecError, match="cannot be trained"):
        cnncc.compile(net("dense(3)"), target="interp", train=True)


# --- arrays in and out ---


def test_arrays_of_any_kind_go_in(lenet: cnncc.Model):
    torch = pytest.importorskip("torch")
    x = RNG.random((2, 1, 8, 8), dtype=np.float32)
    expected = lenet(x)
    for same in (
        torch.tensor(x),
        x.astype(np.float64),
        x.tolist(),
        np.asfortranarray(x),
        np.repeat(x, 2, 3)[..., ::2],
        np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
    ):
        assert np.array_equal(lenet(same), expected)
    assert np.array_equal(lenet(image=x), expected)
    assert np.array_equal(lenet.predict(np.repeat(x, 5, 0), batch=3), np.repeat(expected, 5, 0))


def test_several_inputs_and_outputs(heads: cnncc.Model):
    a, b = RNG.standard_normal((2, 4, 3)).astype(np.float32)
    found = heads(a, b)
    assert set(found) == {"sum", "gate"}
    np.testing.assert_allclose(found["gate"], 1 / (1 + np.exp(-(a + 2 * b))), rtol=1e-5)
    assert np.array_equal(heads(b=b, a=a)["sum"], found["sum"])
    assert np.array_equal(heads.predict(a, b=b, batch=3)["gate"], found["gate"])
    wanted, shut = np.zeros((4, 2)), np.zeros((4, 3))
    loss = (found["sum"] ** 2).mean() + 0.5 * (found["gate"] ** 2).mean()
    assert heads.step((a, b), (wanted, shut)) == pytest.approx(loss, rel=1e-5)
    measured = heads.evaluate({"a": a, "b": b}, {"open": shut, "wanted": wanted})
    assert list(measured) == ["loss"]
    with pytest.raises(TypeError, match=r"takes 2 inputs \(a, b\), but got 1 by position"):
        heads(a)
    with pytest.raises(TypeError, match="but got 2 by position, b"):
        heads(a, b, b=b)
    with pytest.raises(TypeError, match=r"needs 2 targets \(wanted, open\)"):
        heads.step((a, b), wanted)
    with pytest.raises(ValueError, match="4 of a, 3 of b"):
        heads(a, b[:3])


WRONG = [
    (np.zeros((8, 8), np.float32), "E0802", r"\(8, 8\)"),
    (np.zeros((1, 8, 8), np.float32), "E0802", r"x\[np.newaxis\]"),
    (np.zeros((2, 8, 8), np.float32), "E0802", r"x\[:, np.newaxis\]"),
    (np.zeros((2, 8, 8, 1), np.float32), "E0802", r"x.transpose\(0, 3, 1, 2\)"),
    (np.zeros((0, 1, 8, 8), np.float32), "E0802", "at least one sample"),
    (np.zeros((2, 1, 8, 9), np.float32), "E0802", r"f32 of shape \(batch, 1, 8, 8\)"),
    (np.zeros((2, 1, 8, 8), np.uint8), "E0803", "/ 255"),
    (np.zeros((2, 1, 8, 8), np.int64), "E0803", "an array of int64"),
    (np.zeros((2, 1, 8, 8), bool), "E0803", "astype"),
    (np.zeros((2, 1, 8, 8), complex), "E0803", "complex128"),
]


@pytest.mark.parametrize(("array", "code", "text"), WRONG)
def test_arrays_that_do_not_fit(lenet: cnncc.Model, array: object, code: str, text: str):
    with pytest.raises(InputError, match=text) as caught:
        lenet(array)
    assert caught.value.diagnostics[0].code == code
    assert "`image`" in str(caught.value)


def test_what_is_no_array(lenet: cnncc.Model):
    torch = pytest.importorskip("torch")
    for wrong in (None, "image", object(), [[1], [2, 3]], np.array(["a"])):
        with pytest.raises((TypeError, InputError), match="image"):
            lenet(wrong)
    with pytest.raises(TypeError, match="cannot be read as an array"):
        lenet(torch.zeros(1, 1, 8, 8, requires_grad=True))


def test_whole_numbers_are_checked_for_their_range():
    pixels = interpreted(net("flatten -> dense(2)", "x: u8[1, 2, 2]"))
    x = np.array([[[[0, 255], [1, 2]]]])
    assert np.array_equal(pixels(x), pixels(x.astype(np.uint8)))
    with pytest.raises(InputError, match="holds 0 to 255, but the array has 0 to 256"):
        pixels(x + (x == 255))
    with pytest.raises(InputError, match=r"astype\(np.uint8\)"):
        pixels(x.astype(np.float32))
    words = interpreted(net("embed(10, 3) -> globalavgpool", "x: i64[5]"))
    assert words(np.array([[0, 1, 2, 3, 9]], np.int32)).shape[1] == 3
    with pytest.raises(InputError, match="`x` is 0 to 9, but sample 1 has 10"):
        words(np.array([[0] * 5, [0, 0, 10, 0, 0]]))


def test_labels_are_checked(model: cnncc.Model):
    with pytest.raises(InputError, match="a class of `label` is 0 to 3, but sample 2 has 4"):
        model.step(IMAGES, np.array([0, 1, 4, 0, 0]))
    with pytest.raises(InputError, match="argmax"):
        model.evaluate(IMAGES, np.eye(4, dtype=np.int64)[CLASSES])
    with pytest.raises(InputError, match="E0803"):
        model.step(IMAGES, CLASSES.astype(np.float32))
    with pytest.raises(ValueError, match="5 of image, 4 of label"):
        model.step(IMAGES, CLASSES[:4])
    with pytest.raises(TypeError, match="inputs with targets"):
        model.evaluate(IMAGES)


def test_symbolic_extents():
    text = "net n {\n  input x: f32[1, H, W]\n  output y = x -> maxpool(2x2)\n}\n"
    model = interpreted(text)
    for size in ((2, 4), (6, 2)):
        x = RNG.random((3, 1, *size), dtype=np.float32)
        assert model(x).shape == (3, 1, size[0] // 2, size[1] // 2)
    with pytest.raises(cnncc.SpecError, match="E0804"):
        model(np.zeros((1, 1, 5, 4), np.float32))


def test_options_are_checked():
    for options, text in [
        ({"target": "cuda"}, "target is one of cpu, interp, but got 'cuda'"),
        ({"precision": "half"}, "precision is one of"),
        ({"num_threads": 0}, "num_threads must be"),
        ({"max_memory": -1}, "max_memory must be"),
        ({"batch": 1.5}, "batch must be"),
        ({"seed": -1}, "seed must be"),
    ]:
        with pytest.raises(ValueError, match=text):
            cnncc.compile(net("dense(2)"), **({"target": "interp"} | options))  # type: ignore[arg-type]
    with pytest.raises(cnncc.SpecError, match="no argument `colour`"):
        cnncc.compile("lenet_digits", colour=3)


# --- parameters and files ---


def test_parameters_have_the_names_and_shapes_of_pytorch(lenet: cnncc.Model):
    shapes = {name: value.shape for name, value in lenet.state_dict().items()}
    assert shapes["c2.weight"] == (32, 16, 3, 3)
    assert shapes["f4.weight"] == (64, 256)
    assert shapes["scores.bias"] == (10,)
    assert sum(value.size for _, value in lenet.named_parameters()) == 40_394


def test_running_statistics_are_state_but_no_parameters(model: cnncc.Model):
    named = {name for name, _ in model.named_parameters()}
    assert set(model.state_dict()) - named == {
        "c1.batchnorm.running_mean",
        "c1.batchnorm.running_var",
    }


def test_state_goes_in_all_or_not_at_all():
    model = perceptron(seed=1)
    before = model.state_dict()
    with pytest.raises(cnncc.SpecError, match=r"h.weight is .* but .* is needed"):
        model.load_state_dict(before | {"h.weight": np.zeros((8, 5)), "y.bias": np.ones(3)})
    with pytest.raises(cnncc.SpecError, match=r"y.bias .* is missing"):
        model.load_state_dict({k: v for k, v in before.items() if k != "y.bias"})
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())
    model.load_state_dict({"y.bias": [1, 2, 3.5], "z": np.ones(1)}, strict=False)
    assert model.state_dict()["y.bias"].tolist() == [1, 2, 3.5]
    other = perceptron(seed=2)
    other.load_state_dict(model.state_dict())
    assert same_state(model, other)


def test_copies_do_not_reach_the_model():
    model = perceptron()
    model.state_dict()["y.bias"][:] = 9
    assert (model.state_dict()["y.bias"] == 0).all()


@pytest.mark.parametrize("target", ["cpu", "interp"])
def test_a_saved_model_brings_its_network(tmp_path: Path, target: str):
    text = net("dense(width) -> relu").replace("net n", "net n(width = 3)")
    saved = cnncc.compile(text, target=target, seed=4, width=5)
    x = blobs(3)[0]
    saved.save(tmp_path / "m.safetensors")
    found = cnncc.load(tmp_path / "m.safetensors", target=target, batch=3)
    assert np.array_equal(found(x), saved(x))
    assert found(x).shape == (3, 5)
    weights = cnncc.compile(text, target=target, width=5)
    weights.load_weights(tmp_path / "m.safetensors")
    assert same_state(weights, saved)
    with pytest.raises(cnncc.SpecError, match="E0707"):
        cnncc.compile(text, target="interp").load_weights(tmp_path / "m.safetensors")


def test_a_saved_network_may_come_from_a_file_of_any_name(tmp_path: Path):
    for file in (tmp_path / "net.txt", tmp_path / "a b.cnn"):
        file.write_text(net("dense(2)"))
        saved = cnncc.compile(file, target="interp")
        saved.save(tmp_path / "m.safetensors")
        assert same_state(cnncc.load(tmp_path / "m.safetensors", target="interp"), saved)


def test_a_saved_network_keeps_its_imports_and_its_choice(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "blocks.cnn").write_text("block twice(x) {\n  return x -> dense(4)\n}\n")
    main = tmp_path / "main.cnn"
    main.write_text(
        'import "parts/blocks.cnn"\n'
        + net("twice -> twice")
        + net("dense(1)").replace("net n", "net last")
    )
    saved = cnncc.compile(f"{main}:n", target="interp")
    saved.save(tmp_path / "m.safetensors")
    main.write_text("gone")
    found = cnncc.Model.load(tmp_path / "m.safetensors", target="interp")
    x = blobs(2)[0]
    assert np.array_equal(found(x), saved(x))
    again = Network.from_text(found.network.to_text(), "here")
    assert again.to_text() == saved.network.to_text() == found.network.to_text()


HOSTILE = [
    "",
    "[]",
    "{" * 100_000,
    '{"version": 2}',
    {"files": {}},
    {"files": {"../up.cnn": "net n {}", "m.cnn": "x"}},
    {"files": {"/etc/m.cnn": "net n {}", "m.cnn": "x"}},
    {"files": {"m.cnn": "x", "m.cnn/b.cnn": "y"}},
    {"files": {"m.cnn": 3}},
    {"files": {"m.cnn": "\ud800"}},
    {"main": "a/../m.cnn", "files": {"a/../m.cnn": "net n {}"}},
    {"main": ["m.cnn"]},
    {"net": None},
    {"arguments": {"a": "b"}},
    {"arguments": {"a": [1]}},
]


@pytest.mark.parametrize("facts", HOSTILE, ids=[str(i) for i in range(len(HOSTILE))])
def test_a_file_from_a_stranger_is_refused(tmp_path: Path, facts: str | dict[str, object]):
    if isinstance(facts, dict):
        sound = {"version": 1, "main": "m.cnn", "net": "n", "arguments": {}}
        facts = json.dumps({**sound, "files": {"m.cnn": net("relu")}, **facts})
    save_state(tmp_path / "m.safetensors", {"a": np.zeros(1)}, {KEY: facts})
    with pytest.raises(cnncc.SpecError, match="E0708"):
        cnncc.Model.load(tmp_path / "m.safetensors", target="interp")


def test_weights_without_a_network(tmp_path: Path):
    save_state(tmp_path / "m.safetensors", {"a": np.zeros(1)})
    with pytest.raises(cnncc.SpecError, match="load_weights"):
        cnncc.Model.load(tmp_path / "m.safetensors")
    model = perceptron()
    model.save(tmp_path / "p.safetensors")
    assert set(load_state(tmp_path / "p.safetensors")[0]) == set(model.state_dict())


# --- inside ---


def test_activations_are_those_of_the_fused_network(lenet: cnncc.Model):
    x = RNG.random((2, 1, 8, 8), dtype=np.float32)
    found = lenet.activations(x)
    assert list(found)[:2] == ["c1", "c1.relu"]
    assert np.array_equal(found["scores"], lenet(x))
    assert np.array_equal(found["c1.relu"], np.maximum(found["c1"], 0))
    lenet.load_state_dict({k: 0 * v for k, v in lenet.state_dict().items()})
    assert (lenet.activations(x)["scores"] == 0).all(), "they follow the parameters"


def test_unfused_and_threads_give_the_same_bits():
    x = RNG.random((3, 1, 8, 8), dtype=np.float32)
    expected = cnncc.compile("lenet_digits")(x)
    assert np.array_equal(cnncc.compile("lenet_digits", fuse=False)(x), expected)
    assert np.array_equal(cnncc.compile("lenet_digits", num_threads=3)(x), expected)


def test_emitted_texts(lenet: cnncc.Model, model: cnncc.Model):
    texts = lenet.emitted
    assert "c1 = conv" in texts["inference"]
    kernels = [name for name in texts if name.startswith("cnncc_emitted.")]
    entries = "".join(text for name, text in texts.items() if name not in kernels)
    assert kernels
    assert all(name in entries for name in kernels)
    step = model.emitted["step"]
    before, update = step.split("if isfinite(guard[0]):")
    assert "= conv(" in before
    assert "= cross_entropy(" in before
    assert "= sgd_weight(" in before, "functions stand in front of the run that calls them"
    assert before.count("\ndef part_") == 2
    assert "part_1(job, control, tid, size)" in update


def test_a_claim_about_memory_holds_for_the_batch_that_is_known():
    """4 * 32 * 32 inputs and the 4 * 16 * 16 results of a sample, and no parameters. Between
    samples lies a line.
    """
    text = """net a {{
  input x: f32[4, 32, 32]
  output y = x -> maxpool(2x2)
  expect memory <= {}
}}
"""
    three = 3 * 20_480 + 2 * 64
    assert cnncc.compile(text.format(20_480)).peak_memory == 0, "nothing is bound yet"
    assert cnncc.compile(text.format(three), batch=3).peak_memory == three
    for options, claim in (({}, 20_479), ({"batch": 3}, three - 1)):
        for target in ("cpu", "interp"):
            with pytest.raises(cnncc.SpecError, match=r"E0501.* expected memory"):
                cnncc.compile(text.format(claim), target=target, **options)
        assert cnncc.compile(text.format(claim), fuse=False, **options).peak_memory >= 0


def test_required_fusions_are_those_of_inference():
    """In training batch normalisation needs the whole convolution first, so nothing is required."""
    text = """net a {{
  input x: f32[2, 8, 8]
  c = x -> conv(4, 3x3) -> batchnorm -> relu
  output y = c -> {} -> flatten -> dense(3)
  require fused({})
}}
train a {{
  target label: class[3]
  loss = cross_entropy(y, label)
  optimizer = sgd(lr = 0.1)
}}
"""
    model = cnncc.compile(text.format("tanh", "c"), target="interp", train=True)
    assert np.isfinite(model.step(np.zeros((2, 2, 8, 8), np.float32), np.array([0, 2])))
    with pytest.raises(cnncc.SpecError, match="E0503"):
        cnncc.compile(text.format("conv(3, 3x3)", "c, y"), target="interp", train=True)


def test_memory_is_planned_and_limited(lenet: cnncc.Model):
    assert lenet.peak_memory > 4 * 40_394
    small = lenet.peak_memory
    lenet(np.zeros((64, 1, 8, 8), np.float32))
    assert lenet.peak_memory > small
    with pytest.raises(cnncc.SpecError, match="E0801"):
        cnncc.compile("lenet_digits", batch=4, max_memory=1000)


def test_texts_for_people(lenet: cnncc.Model):
    assert repr(lenet).startswith("Model(lenet_digits: image f32[*, 1, 8, 8] -> scores f32[*, 10]")
    summary = lenet.summary()
    assert "16x8x8" in summary
    assert "40_394" in summary
    page = lenet._repr_html_()
    assert "-&gt;" in page
    assert page.count("<tr>") == 1 + 12, "a head, and the layers of lenet_digits"


# --- threads and processes ---


def test_eight_threads_call_one_model(lenet: cnncc.Model):
    model = cnncc.compile("lenet_digits", seed=2)
    batches = [RNG.random((n % 3 + 1, 1, 8, 8), dtype=np.float32) for n in range(8)]
    expected = [model(x) for x in batches]
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(200):
            if not np.array_equal(model(batches[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on(model: cnncc.Model):
    expected = model(IMAGES)
    child = os.fork()
    if child == 0:
        try:
            model.step(IMAGES, CLASSES)
            same = np.array_equal(model(IMAGES), expected)
        except BaseException:
            os._exit(2)
        os._exit(1 if same else 0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(model(IMAGES), expected), "the child trained a copy of its own"
