"""`bench`: equal bits first, then figures that belong together."""

import json

import numpy as np
import pytest

from cnncc.cli import benching
from cnncc.errors import CompilerBug
from cnncc.targets.cpu import memory


def test_bench_compares_and_measures(shell, small):
    done = shell("bench", small, "--seconds", "0.05", "--batch", 2, "--threads", 1, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    fused, unfused = found["fused"], found["unfused"]
    assert found["bit_equal"] is True
    assert found["rounds"] >= benching.LEAST_ROUNDS
    assert found["macs"] == 2 * (4 * 2 * 9 * 36 + 3 * 4 * 36)
    assert fused["kernels"] < unfused["kernels"]
    assert fused["traffic_bytes"] < unfused["traffic_bytes"]
    assert found["speedup"] == pytest.approx(unfused["median"] / fused["median"])
    for way in (fused, unfused):
        assert 0 < way["low"] <= way["median"] <= way["high"]
        assert way["flops_per_second"] == pytest.approx(2 * found["macs"] / way["median"])
        assert 0 < way["roofline_share"] < 1.5
    assert found["peak_flops_per_second"] > 1e9
    assert found["bandwidth_bytes_per_second"] > 1e8


def test_bench_prints_a_table(shell, small):
    lines = shell("bench", small, "--seconds", "0.05").out.splitlines()
    assert "outputs equal bit for bit" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["fused", "unfused"]
    assert "GFLOP/s" in lines[1]


TRAINED = """\
net small(classes = 3) {
  input x: f32[2, 6, 6]
  c = x -> conv(4, 3x3, pad = same) -> batchnorm -> relu
  output y = c -> flatten -> dropout(0.5) -> dense(classes)
}
train small {
  target label: class[classes]
  loss = cross_entropy(y, label)
  optimizer = adam(lr = 0.01)
}
"""


def test_bench_of_a_training_step(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text(TRAINED)
    done = shell("bench", path, "--train", "--seconds", "0.05", "--batch", 2, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["train"] is True
    # conv and dense, and their gradients; that of the input is asked for of the dense layer only
    conv, dense = 4 * 2 * 9 * 36, 3 * 4 * 36
    assert found["macs"] == 2 * (2 * conv + 3 * dense)
    assert found["fused"]["kernels"] < found["unfused"]["kernels"]
    assert found["fused"]["traffic_bytes"] < found["unfused"]["traffic_bytes"]


def test_bench_of_training_needs_a_train_block(shell, small):
    done = shell("bench", small, "--train", "--seconds", "0.05")
    assert done.code == 1
    assert "E0601" in done.err


def test_different_outputs_are_a_bug():
    x = np.array([0.0, np.nan], np.float32)
    benching._compare({"y": x}, {"y": x.copy()})
    with pytest.raises(CompilerBug, match="same bits"):
        benching._compare({"y": x}, {"y": np.array([-0.0, np.nan], np.float32)})


def test_bench_of_symbolic_extents_asks_for_them(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[1, H, W]\n  output y = x -> conv(2, 3x3)\n}\n")
    assert "--extent H=64 --extent W=64" in shell("bench", path).err
    words = ["--extent", "H=9", "--extent", "W=7", "--seconds", "0.05", "--json"]
    assert json.loads(shell("bench", path, *words).out)["macs"] == 2 * 9 * 7 * 5


def test_a_smaller_last_portion_moves_less(shell, small, monkeypatch):
    def traffic(batch):
        done = shell("bench", small, "--batch", batch, "--threads", 1, "--seconds", 0.01, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)["fused"]["traffic_bytes"]

    monkeypatch.setattr("cnncc.cli.benching._measure", lambda ways, *_: {w: [1.0] for w in ways})
    one, two = traffic(1), traffic(2)
    monkeypatch.setattr(memory, "samples_at_once", lambda traffic, batch, cache: 2)
    assert traffic(5) == 2 * two + one
