"""`train`, `run` and `eval`: weights that fit the data, and a diagnostic for every wrong file."""

import json
import re

import numpy as np
import pytest

import cnncc
from cnncc.train.data import load

NET = """\
net dots(classes = 2) {
  input x: f32[1, 4, 4]
  output y = x -> conv(4, 3x3, pad = same) -> relu -> flatten -> dense(classes)
}

train dots {
  target label: class[classes]
  loss = cross_entropy(y, label)
  optimizer = sgd(lr = 0.1, momentum = 0.9)
  batch = 8
  epochs = 3
}
"""

TWO = """\
net two {
  input a: f32[3]
  input b: f32[3]
  output sum = a + b
  output product = a * b
}
"""


@pytest.fixture
def folder(tmp_path):
    """A network, and 60 samples in two classes that a line divides."""
    (tmp_path / "dots.cnn").write_text(NET)
    (tmp_path / "two.cnn").write_text(TWO)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 1, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "dots.npz", x=x, y=(x.mean((1, 2, 3)) > 0).astype(np.int64))
    return tmp_path


@pytest.fixture
def weights(folder):
    """Weights of the untrained network."""
    cnncc.compile(folder / "dots.cnn").save(folder / "w.safetensors")
    return folder / "w.safetensors"


# ---- train --------------------------------------------------------------------------------------


def test_training_ends_with_one_json_line(shell, folder):
    done = shell("train", "dots.cnn", "--data", "dots.npz", "--seed", 3, "--epochs", 20, "--json")
    assert done.code == 0
    result = json.loads(done.out.splitlines()[-1])
    assert (result["epochs"], result["seed"], result["name"]) == (20, 3, "dots")
    assert result["test_accuracy"] >= 0.8
    assert result["accuracy"] >= 0.95
    assert result["seconds"] > result["compile_seconds"] > 0
    assert {"loss", "test_loss"} <= result.keys()


def test_training_is_the_same_bits_again_and_other_bits_with_another_seed(shell, folder):
    def loss(*more):
        done = shell("train", "dots.cnn", "--data", "dots.npz", "--json", *more)
        return json.loads(done.out)["loss"]

    first = loss("--seed", 1)
    assert loss("--seed", 1) == first
    assert loss("--seed", 1, "--threads", 1) == first
    assert loss("--seed", 1, "--no-fuse") == first
    assert loss("--seed", 2) != first
    assert loss("--seed", 1, "--lr", "0.01") != first


def test_weights_are_saved_and_give_the_same_result_again(shell, folder):
    words = ["--data", "dots.npz", "--json"]
    trained = json.loads(shell("train", "dots.cnn", *words, "--save", "w.safetensors").out)
    again = json.loads(shell("eval", "dots.cnn", *words, "--weights", "w.safetensors").out)
    assert again["accuracy"] == trained["test_accuracy"]
    assert again["loss"] == trained["test_loss"]
    assert again["samples"] == 12
    train = shell("eval", "dots.cnn", *words, "--weights", "w.safetensors", "--split", "train")
    assert json.loads(train.out)["samples"] == 48


def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(shell, folder):
    words = ["train", "dots.cnn", "--data", "dots.npz", "--json"]
    whole = json.loads(shell(*words, "--epochs", 4, "--save", "whole.safetensors").out)
    shell(*words, "--epochs", 2, "--checkpoint", "run.ckpt", "--log", "run.jsonl")
    rest = [*words, "--epochs", 4, "--checkpoint", "run.ckpt", "--log", "run.jsonl"]
    resumed = shell(*rest, "--resume", "--save", "resumed.safetensors")
    assert json.loads(resumed.out)["loss"] == whole["loss"]
    assert (folder / "resumed.safetensors").read_bytes() == (
        folder / "whole.safetensors"
    ).read_bytes()
    assert len((folder / "run.jsonl").read_text().splitlines()) >= 4


def test_training_tells_a_person_what_it_did(shell, folder):
    done = shell("train", "dots.cnn", "--data", "dots.npz", "--save", "w.safetensors")
    assert re.search(r"after 3 epochs: loss \d\.\d{4}.*test accuracy", done.out)
    assert "weights are in w.safetensors" in done.out


def test_net_arguments_reach_training(shell, folder):
    words = ["train", "dots.cnn", "--data", "dots.npz", "--arg", "classes=7"]
    assert shell(*words, "--save", "w.safetensors").code == 0
    assert cnncc.io.load_state(folder / "w.safetensors")[0]["y.dense.bias"].shape == (7,)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["dots.cnn", "--data", "missing.npz"], 1, "E0701"),
        (["dots.cnn", "--data", "digits"], 1, "E0802"),
        (["small.cnn", "--data", "dots.npz"], 1, "E0601"),
        (["two.cnn", "--data", "dots.npz"], 1, "E0601"),
        (["missing.cnn", "--data", "dots.npz"], 1, "E0401"),
        (["dots.cnn", "--data", "dots.npz", "--arg", "classes=1"], 1, "E0706"),
        (["dots.cnn", "--data", "dots.npz", "--lr", "1e30"], 1, "E0606"),
        (["dots.cnn", "--data", "dots.npz", "--max-memory", "1K"], 1, "E0801"),
        (["dots.cnn", "--data", "dots.npz", "--save", "."], 1, "E0710"),
        (["dots.cnn", "--data", "dots.npz", "--save", "dots.cnn/w.safetensors"], 1, "E0710"),
        (["dots.cnn", "--data", "dots.npz", "--checkpoint", "."], 1, "E0710"),
        (["dots.cnn", "--data", "dots.npz", "--log", "dots.cnn/x.csv"], 1, "E0710"),
        (["dots.cnn", "--data", "dots.npz", "--resume", "missing.ckpt"], 1, "E0701"),
        (["dots.cnn", "--data", "dots.npz", "--resume", "dots.npz"], 1, "E07"),
        (["dots.cnn", "--data", "dots.npz", "--resume"], 2, "--checkpoint"),
        (["dots.cnn", "--data", "dots.npz", "--log", "x.txt"], 2, ".jsonl"),
        (["dots.cnn", "--data", "dots.npz", "--epochs", "0"], 2, "positive"),
        (["dots.cnn"], 2, "--data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_in_training(words, code, says, shell, folder, small):
    done = shell("train", *words)
    assert done.code == code, done.err
    assert says in done.err


def test_a_net_with_two_inputs_is_not_trained_on_a_data_set(shell, folder):
    (folder / "pair.cnn").write_text(
        TWO
        + "train two {\n  target t: f32[3]\n  loss = mse(sum, t)\n  optimizer = sgd(lr = 0.1)\n}\n"
    )
    done = shell("train", "pair.cnn", "--data", "dots.npz")
    assert done.code == 1
    assert "2 inputs: a, b" in done.err


def test_bytes_go_to_networks_that_take_bytes(shell, folder):
    text = NET.replace("f32[1, 4, 4]", "u8[1, 4, 4] (scale = 0.0039)")
    (folder / "bytes.cnn").write_text(text)
    x = np.random.default_rng(1).integers(0, 256, (40, 1, 4, 4), np.uint8)
    np.savez(folder / "bytes.npz", x=x, y=np.arange(40) % 2)
    done = shell("train", "bytes.cnn", "--data", "bytes.npz", "--epochs", 1, "--json")
    assert done.code == 0, done.err


# ---- run ----------------------------------------------------------------------------------------


def test_run_gives_what_the_model_gives(shell, folder, weights):
    x = np.load(folder / "dots.npz")["x"]
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x)
    np.savez(folder / "any.npz", whatever=x)
    expected = cnncc.Model.load(weights)(x)
    for name in ("x.npy", "x.npz", "any.npz"):
        words = ["run", "dots.cnn", "--weights", weights, "--input", name, "--batch", 7]
        assert shell(*words, "--output", "y.npy").code == 0
        np.testing.assert_array_equal(np.load(folder / "y.npy"), expected)
    assert shell(*words, "--output", "new/y.npz").code == 0
    np.testing.assert_array_equal(np.load(folder / "new" / "y.npz")["y"], expected)
    printed = json.loads(shell(*words, "--json").out)["outputs"]["y"]
    np.testing.assert_array_equal(np.array(printed["values"], np.float32), expected)
    text = shell(*words).out
    assert "y: float32 60x2" in text
    assert f"  0: class {expected[0].argmax()}" in text
    assert "and 50 more samples" in text


def test_run_and_eval_round_weights_on_request(shell, folder, weights):
    x = np.load(folder / "dots.npz")["x"]
    np.save(folder / "x.npy", x)
    model = cnncc.compile(folder / "dots.cnn", precision="bf16")
    model.load_weights(weights)
    words = ["dots.cnn", "--weights", weights]
    done = shell("run", *words, "--input", "x.npy", "--output", "y.npy", "--precision", "bf16")
    assert done.code == 0
    found = np.load(folder / "y.npy")
    np.testing.assert_array_equal(found, model(x))
    assert not np.array_equal(found, cnncc.Model.load(weights)(x))
    losses = {
        json.loads(shell("eval", *words, "--data", "dots.npz", "--json", *more).out)["loss"]
        for more in ([], ["--precision", "bf16"])
    }
    assert len(losses) == 2


def test_several_inputs_and_outputs_go_by_name(shell, folder):
    cnncc.compile(folder / "two.cnn").save(folder / "none.safetensors")
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    np.savez(folder / "ab.npz", b=b, a=a, extra=a)
    words = ["run", "two.cnn", "--weights", "none.safetensors"]
    done = shell(*words, "--input", "ab.npz", "--output", "out.npz")
    assert done.code == 0, done.err
    results = np.load(folder / "out.npz")
    assert set(results) == {"sum", "product"}
    np.testing.assert_array_equal(results["sum"], a + b)
    assert shell(*words, "--input", "ab.npz", "--output", "out.npy").code == 2
    np.save(folder / "a.npy", a)
    assert "inputs a, b" in shell(*words, "--input", "a.npy").err
    np.savez(folder / "a.npz", a=a)
    assert "no array b" in shell(*words, "--input", "a.npz").err
    np.savez(folder / "uneven.npz", a=a, b=b[:1])
    assert "2 of a, 1 of b" in shell(*words, "--input", "uneven.npz").err


def save(path, array):
    np.save(path, array, allow_pickle=True)


BROKEN = {
    "missing.npy": lambda path: None,
    "folder.npy": lambda path: path.mkdir(),
    "text.npy": lambda path: path.write_text("hello"),
    "empty.npy": lambda path: path.write_bytes(b""),
    "pickle.npy": lambda path: save(path, np.array([{}], object)),
    "words.npy": lambda path: save(path, np.array(["a"])),
    "half.npy": lambda path: path.write_bytes(npy(np.zeros((9, 1, 4, 4), np.float32))[:-9]),
    "header.npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00" + b"{" * 16),
    "huge.npy": lambda path: path.write_bytes(
        npy(np.zeros((9, 1, 4, 4), np.float32)).replace(b"(9, 1, 4, 4)", b"(9**99,4, 4)")
    ),
    "large.npy": lambda path: path.write_bytes(
        npy(np.zeros((9, 1, 4, 4), np.float32)).replace(b"(9, 1, 4, 4), ", b"(999999999,4),")
    ),
    "rank.npy": lambda path: save(path, np.zeros((4, 4), np.float32)),
    "shape.npy": lambda path: save(path, np.zeros((2, 1, 4, 5), np.float32)),
    "bytes.npy": lambda path: save(path, np.zeros((2, 1, 4, 4), np.uint8)),
    "none.npy": lambda path: save(path, np.zeros((0, 1, 4, 4), np.float32)),
    "scalar.npy": lambda path: save(path, np.float32(1)),
    "text.npz": lambda path: path.write_text("hello"),
    "pickle.npz": lambda path: np.savez(path, x=np.array([{}], object)),
}


def npy(array) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("name", BROKEN)
def test_arrays_that_cannot_be_used_are_a_diagnostic(name, shell, folder, weights):
    BROKEN[name](folder / name)
    done = shell("run", "dots.cnn", "--weights", weights, "--input", name)
    assert (done.code, done.out) == (1, ""), done
    assert "error[E0" in done.err


@pytest.mark.parametrize("name", ["missing.safetensors", "dots.cnn", "dots.npz", ".", "other"])
def test_weights_that_do_not_belong_are_a_diagnostic(name, shell, folder):
    np.save(folder / "x.npy", np.zeros((1, 1, 4, 4), np.float32))
    if name == "other":
        cnncc.compile("lenet_digits").save(folder / "other")
    done = shell("run", "dots.cnn", "--weights", name, "--input", "x.npy")
    assert (done.code, done.out) == (1, "")
    assert "error[E07" in done.err


def test_run_says_before_it_works_when_it_cannot_write(shell, folder, weights):
    words = ["run", "dots.cnn", "--weights", weights, "--input", "missing.npy"]
    assert "E0710" in shell(*words, "--output", "dots.cnn/y.npy").err
    assert shell(*words, "--output", "y.txt").code == 2


def test_the_data_of_the_tests_are_what_they_claim():
    assert len(load("digits", "test")) == 360
