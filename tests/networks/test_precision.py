"""How far the default precision is from float64, beside PyTorch's direct kernel, on sizes of layers
that published networks have; `python -m bench.errors` does so for every layer."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from bench.errors import MOST, error
from bench.single import Layer, convolutions
from cnncc import compiler

LAYERS = {
    "resnet50 3x3 at 56": (Layer(64, 64, 56, 3, 1, 1), "F(4x4,3x3)"),
    "resnet50 3x3 at 14": (Layer(256, 256, 14, 3, 1, 1), "F(4x4,3x3)"),
    "vgg19 3x3 at 14": (Layer(512, 512, 14, 3, 1, 1), "F(4x4,3x3)"),
    "resnet50 1x1": (Layer(512, 128, 28), "direct"),
    "resnet50 3x3/2": (Layer(128, 128, 56, 3, 2, 1), "direct"),
    "resnet50 7x7/2": (Layer(3, 64, 224, 7, 2, 3), "F(3x3,4x4)"),
    "alexnet 11x11/4": (Layer(3, 96, 227, 11, 4), "F(4x4,3x3)"),
    "vgg19 3x3 at 56": (Layer(128, 256, 56, 3, 1, 1), "F(4x4,3x3)"),
    "resnet50 3x3 at 28": (Layer(128, 128, 28, 3, 1, 1), "F(4x4,3x3)"),
    "resnet50 3x3 at 7": (Layer(512, 512, 7, 3, 1, 1), "F(2x2,3x3)"),
}


BOUNDS = {"direct": 5e-7, "F(2x2,3x3)": 4e-7, "F(3x3,4x4)": 6e-7, "F(4x4,3x3)": 1e-6}
"""Relative L2 error: standard normal inputs, weights of variance 1 / fan-in. Our bits are the same
on every machine, PyTorch's are not."""


@pytest.mark.parametrize(("layer", "algorithm"), LAYERS.values(), ids=LAYERS)
def test_the_error_is_small(layer: Layer, algorithm: str) -> None:
    found = error(layer)
    assert found.algorithm == algorithm
    assert (found.default == found.exact) == (algorithm == "direct")
    assert 0 < found.default <= BOUNDS[algorithm]


@pytest.mark.slow
@pytest.mark.parametrize("layer", [layer for layer, _ in LAYERS.values()], ids=LAYERS)
def test_the_error_is_near_that_of_a_direct_kernel(layer: Layer) -> None:
    assert 0 < error(layer).ratio <= MOST


@pytest.mark.parametrize(("name", "count"), [("vgg19", 16), ("resnet50", 53), ("mobilenet", 27)])
def test_layers_alone_have_the_sizes_that_they_have_in_the_network(name: str, count: int) -> None:
    graph = compiler.front(name).graph
    layers = convolutions(graph)
    assert len(layers) == count
    for node, layer in layers.items():
        alone = compiler.front(layer.text).graph
        (conv,) = alone.of("conv")
        assert convolutions(alone) == {conv.name: layer}
        assert conv.type == graph[node].type
        macs = conv.op.cost(alone.types(conv), conv.type).macs  # type: ignore[attr-defined]
        assert macs == layer.macs
