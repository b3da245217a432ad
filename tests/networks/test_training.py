"""One training step of whole networks: the loss, every gradient, every running statistic and every
new parameter as in PyTorch.

The gradient of a rectifier jumps where its input changes sign, and that of a max pool where two
inputs are equal, so in a deep network two float32 computations of the same gradient may differ in
whole elements without either being wrong. The deep networks are therefore compared in two ways:

- as they are; PyTorch is told which elements cnncc's rectifiers let pass and which its pools chose
  (`decisions.py`), and it is counted that almost none of these decisions differ from PyTorch's own;
- with `elu` in the place of `relu` and the average in the place of the maximum, and nothing told.

The small networks, which have few such places, are compared as they are, with nothing told.

The gradients are read from the velocities of SGD, which start at zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cnncc import compiler
from cnncc.compiler import Checked
from cnncc.graph.ir import Node, TypedGraph
from cnncc.graph.module import Choice, Module
from cnncc.ops.pool_average import AvgPool
from cnncc.ops.pool_max import MaxPool
from cnncc.ops.rectifier import Elu, Relu
from cnncc.passes.fuse import fuse
from cnncc.passes.training import training_graph
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime
from tests.networks.decisions import decisions, flips, observed
from tests.networks.distance import FORWARD, GRADIENT, TIMES, Array, relative_l2
from tests.networks.sized import with_images_of
from tests.networks.twin import Twin
from tests.networks.values import inputs, parameters

DEEP = ("alexnet", "resnet18", "mobilenet", "googlenet")
RATE = 0.5
SGD = (("lr", RATE), ("momentum", 0.0), ("nesterov", False), ("weight_decay", 0.0))


@dataclass(frozen=True)
class Step:
    """What a training step leaves behind, by name."""

    outputs: dict[str, Array]  # the loss among them
    gradients: dict[str, Array]
    running: dict[str, Array]  # statistics of batch normalisation
    parameters: dict[str, Array]  # after the update


def own_step(
    graph: TypedGraph, module: Module, values: dict[str, Array], data: dict[str, Array]
) -> Step:
    step = training_graph(graph, module, Choice("sgd", SGD))
    store = Store()
    for node in step.graph.of("parameter"):
        zeros = np.zeros(node.type.dims(0), np.float32)  # of the optimizer's state
        store.write(node.name, values.get(node.name, zeros))
    fused = fuse(step.graph, phases=dict(step.phases))
    runtime = Runtime(fused, store=store, phases=step.phases, threads=2)
    numbers = {"rate": RATE, "momentum": 0.0, "decay": 0.0}
    rates = {f"step.{name}": np.array([value], np.float32) for name, value in numbers.items()}
    outputs = runtime.run({**data, **rates})
    trained = [n.name for n in graph.of("parameter") if n.op.trained]  # type: ignore[attr-defined]
    return Step(
        outputs,
        {name: store.read(f"{name}.velocity") for name in trained},
        {name: store.read(name) for name, _ in module.state_updates},
        {name: store.read(name) for name in trained},
    )


def twins_step(
    graph: TypedGraph,
    values: dict[str, Array],
    data: dict[str, Array],
    dtype: torch.dtype,
    decided: dict[str, Array] | None = None,
) -> Step:
    twin = Twin(graph, values, dtype, train=True, decisions=decided)
    outputs = twin.run(data)
    optimizer = torch.optim.SGD([twin.parameters[name] for name in twin.trained], RATE)
    outputs["loss"].sum().backward()  # type: ignore[no-untyped-call]
    gradients: dict[str, Array] = {}
    for name in twin.trained:
        gradient = twin.parameters[name].grad
        assert gradient is not None, name
        gradients[name] = gradient.numpy().copy()
    optimizer.step()
    return Step(
        {name: t.detach().numpy() for name, t in outputs.items()},
        gradients,
        {name: t.numpy() for name, t in twin.running.items()},
        {name: twin.parameters[name].detach().numpy() for name in twin.trained},
    )


def far(got: Array, single: Array, double: Array, bound: float) -> float:
    """The error in units of what is allowed; above 1 is too far."""
    own = relative_l2(got, double)
    return min(
        relative_l2(got, single) / bound, own / max(TIMES * relative_l2(single, double), 1e-300)
    )


def without_jumps(node: Node) -> Node:
    """The node, or one of the same type whose derivative is continuous."""
    match node.op:
        case Relu():
            return replace(node, op=Elu())
        case MaxPool(window):
            return replace(node, op=AvgPool(window))
        case _:
            return node


def compare(
    front: Checked, graph: TypedGraph, batch: int, decided: dict[str, Array] | None = None
) -> None:
    """Every tensor that a step leaves behind, against PyTorch's with the same decisions."""
    values, data = parameters(graph), inputs(graph, batch)
    got = own_step(graph, front.module, values, data)
    single = twins_step(graph, values, data, torch.float32, decided)
    double = twins_step(graph, values, data, torch.float64, decided)
    assert all(np.abs(g).max() > 0 for g in double.gradients.values()), "a gradient says nothing"
    wrong = []
    for part, bound in (
        ("outputs", FORWARD),
        ("gradients", GRADIENT),
        ("running", FORWARD),
        ("parameters", GRADIENT),
    ):
        own, one, two = (getattr(step, part) for step in (got, single, double))
        assert own.keys() == one.keys(), part
        distances = {name: far(own[name], one[name], two[name], bound) for name in one}
        wrong += [(part, name, round(d, 1)) for name, d in distances.items() if d > 1]
    assert not wrong


def check(name: str, batch: int, *, smooth: bool = False, **arguments: int) -> None:
    front = compiler.front(name, train=True, arguments=dict(arguments))
    graph = front.graph
    if smooth:
        graph = graph.with_nodes(without_jumps(n) for n in graph.nodes)
    compare(front, graph, batch)


def decided_by(graph: TypedGraph, batch: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """The decisions of cnncc's forward pass, and PyTorch's own in float32."""
    values, data = parameters(graph), inputs(graph, batch)
    seen = observed(graph)
    store = Store()
    for name, value in values.items():
        store.write(name, value)
    own = Runtime(fuse(seen), store=store, panels=False, threads=2).run(data)
    with torch.no_grad():
        theirs = Twin(seen, values, train=True).run(data)
    return decisions(graph, own), decisions(graph, {n: t.numpy() for n, t in theirs.items()})


def check_as_written(source: str | Path, batch: int) -> None:
    """The network as it is, with the decisions of cnncc's forward pass given to PyTorch.

    At most one in a hundred thousand of them may be another than PyTorch's own. In GoogLeNet with
    full images 6 of 9 287 264 are, and without being told PyTorch's gradients are then too far.
    """
    front = compiler.front(source, train=True)
    own, theirs = decided_by(front.graph, batch)
    different, total = flips(own, theirs)
    assert different <= total // 100_000, f"{different} of {total} decisions differ"
    compare(front, front.graph, batch, own)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("lenet5_modern", 4), ("lenet_digits", 4), ("cifar10", 4), ("text_1d", 4), ("volume_3d", 2)],
)
def test_small_network(name: str, batch: int) -> None:
    check(name, batch)


def test_unet() -> None:
    check("unet", 2, smooth=True, width=16, size=64)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("mobilenet", marks=pytest.mark.slow)])
def test_deep_network_with_small_images(name: str, tmp_path: Path) -> None:
    check_as_written(with_images_of(name, 64, tmp_path), 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_network(name: str) -> None:
    check_as_written(name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_network_without_jumps(name: str) -> None:
    check(name, 2, smooth=True)
