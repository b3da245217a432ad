"""Whole networks, full size, with given batch-norm statistics: the same outputs as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cnncc import compiler
from cnncc.graph.ir import Graph
from cnncc.passes.fuse import fuse
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime
from tests.networks.distance import FORWARD, TIMES, Array, relative_l2
from tests.networks.twin import Twin
from tests.networks.values import inputs, parameters


def own_outputs(graph: Graph, values: dict[str, Array], data: dict[str, Array]) -> dict[str, Array]:
    store = Store()
    for name, value in values.items():
        store.write(name, value)
    return Runtime(fuse(graph), store=store, threads=2).run(data)


def twins_outputs(
    graph: Graph, values: dict[str, Array], data: dict[str, Array], dtype: torch.dtype
) -> dict[str, Array]:
    with torch.inference_mode():
        results = Twin(graph, values, dtype).run(data)
    return {name: result.numpy() for name, result in results.items()}


def check(name: str, batch: int, **arguments: int) -> None:
    """Every output within FORWARD of PyTorch's, or within TIMES PyTorch's distance from float64."""
    graph = compiler.front(name, arguments=dict(arguments)).graph
    values, data = parameters(graph), inputs(graph, batch)
    got = own_outputs(graph, values, data)
    single = twins_outputs(graph, values, data, torch.float32)
    double = twins_outputs(graph, values, data, torch.float64)
    assert got.keys() == single.keys()
    for output, expected in single.items():
        assert np.linalg.norm(expected) > 0.01 * expected.size**0.5, "the output says nothing"
        allowed = TIMES * relative_l2(expected, double[output])
        error = relative_l2(got[output], expected)
        assert error <= FORWARD or relative_l2(got[output], double[output]) <= allowed, error


@pytest.mark.parametrize(
    "name", ["lenet5_modern", "lenet_digits", "cifar10", "text_1d", "volume_3d", "alexnet"]
)
def test_network(name: str) -> None:
    check(name, batch=2)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "googlenet"])
def test_deep_network(name: str) -> None:
    check(name, batch=2)


def test_small_unet() -> None:
    check("unet", batch=2, width=16, size=64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "resnet50"])
def test_large_network(name: str) -> None:
    check(name, batch=1)


def test_a_batch_of_another_size_needs_no_other_code() -> None:
    graph = compiler.front("cifar10").graph
    values = parameters(graph)
    store = Store()
    for name, value in values.items():
        store.write(name, value)
    runtime = Runtime(fuse(graph), store=store, threads=2)
    seventeen = inputs(graph, 17)
    whole = runtime.run(seventeen)["scores"]
    alone = [
        runtime.run({n: a[i : i + 1] for n, a in seventeen.items()})["scores"] for i in (0, 16)
    ]
    assert np.array_equal(whole[[0, 16]], np.concatenate(alone)), "a sample depends on the others"
    expected = twins_outputs(graph, values, seventeen, torch.float32)["scores"]
    assert relative_l2(whole, expected) <= FORWARD
