"""The benchmarks' own parts: the module that other libraries convert computes the network, and runs
of peers.py and layers.py leave what the page of docs needs. No times are asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from bench import layers, peers
from bench.report import page
from bench.single import Layer
from bench.torch_module import NetworkModule
from cnncc import compiler
from tests.networks.distance import relative_l2
from tests.networks.sized import with_images_of
from tests.networks.twin import Twin
from tests.networks.values import inputs, parameters


@pytest.mark.parametrize(
    ("name", "size"), [("lenet5_modern", 0), ("cifar10", 0), ("resnet18", 64), ("googlenet", 64)]
)
def test_the_module_computes_the_network(name: str, size: int, tmp_path: Path) -> None:
    graph = compiler.front(with_images_of(name, size, tmp_path) if size else name).graph
    values, data = parameters(graph), inputs(graph, 2)
    (image,) = data.values()
    (expected,) = Twin(graph, values, torch.float64).run(data).values()
    with torch.inference_mode():
        got = NetworkModule(graph, values)(torch.from_numpy(image))
    assert relative_l2(got.numpy(), expected.numpy()) < 2e-6


def test_uneven_padding_becomes_a_layer_of_its_own() -> None:
    layer = "conv(3, 3x3, pad = (0, 1), stride = 2)"
    text = f"net a {{\n  input x: f32[2, 8, 8]\n  output y = x -> {layer}\n}}\n"
    graph = compiler.front(text).graph
    values, data = parameters(graph), inputs(graph, 1)
    (expected,) = Twin(graph, values).run(data).values()
    got = NetworkModule(graph, values)(torch.from_numpy(data["x"]))
    assert torch.allclose(got, expected, atol=1e-6)


def test_peers_leave_what_the_page_needs(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    words = ["lenet5_modern", "--batch", "1", "2", "--turns", "2", "--threads", "1"]
    words += ["--only", "cnncc", "PyTorch", "torch.compile", "--without", "torch.compile"]
    assert peers.main([*words, "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert [r["batch"] for r in record["peers"]] == [1, 2]
    for r in record["peers"]:
        assert [t["contestant"] for t in r["timings"]] == ["cnncc", "PyTorch"]
        assert all(t["low"] <= t["median"] <= t["high"] for t in r["timings"])
    text = page(record)
    assert "### Batch 2" in text
    assert "| network | cnncc | PyTorch | gain |" in text


def test_layers_leave_what_the_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LAYERS", (Layer(16, 24, 9, 3, 1, 1), Layer(40, 30)))
    path = tmp_path / "results.json"
    assert layers.main(["--turns", "1", "--threads", "1", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    conv, dense = record["layers"]
    assert conv["macs"] == 16 * 24 * 9 * 81
    assert dense["macs"] == 40 * 30
    for c in conv["contestants"].values():
        assert c["flops_per_second"] * c["seconds"] == pytest.approx(2 * conv["macs"])
        assert c["share"] == pytest.approx(c["flops_per_second"] / conv["peak_flops_per_second"])
    own = dense["contestants"]["exact"]
    rate = own["share"] * dense["bandwidth_bytes_per_second"]
    assert rate * own["seconds"] == pytest.approx(4 * dense["macs"])
    assert "| 3x3 16 to 24 at 9 |" in page(record)
