"""Training graphs: their phases, every optimizer on both targets, and gradients as PyTorch's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cnncc.compiler import Checked, front
from cnncc.graph.sources import Parameter
from cnncc.graph.verify import verify
from cnncc.passes.fuse import fuse
from cnncc.passes.training import BACKWARD, UPDATE, StepGraph, seeded_graph, training_graph
from cnncc.targets.cpu.declare import WHOLE
from cnncc.targets.cpu.store import Store
from cnncc.targets.interp.runtime import DictStore, InterpRuntime
from cnncc.targets.runtime import Runtime, shape_of
from cnncc.train.optim import Optimizer
from tests.kernels.primitives import same_bits
from tests.networks.values import Array, inputs, parameters

BATCH = 3
OPTIMIZERS = (
    "sgd(lr = 0.1)",
    "sgd(lr = 0.1, momentum = 0.9, weight_decay = 0.01)",
    "sgd(lr = 0.1, momentum = 0.9, nesterov = true)",
    "adam(lr = 0.01, weight_decay = 0.01)",
    "adamw(lr = 0.01, weight_decay = 0.01)",
)
NET = """
net small(classes = 4) {
  input image: f32[2, 8, 8]
  a = image -> conv(6, 3x3, pad = same, bias = none) -> batchnorm -> relu
  b = a -> conv(6, 3x3, pad = same) -> dropout(0.25)
  c = relu(a + b) -> maxpool(2x2)
  d = concat(c, c -> conv(18, 1x1) -> gelu) -> avgpool(2x2)
  output scores = d -> flatten -> dense(classes)
}
"""


@cache
def network(optimizer: str) -> Checked:
    train = (
        f"loss = cross_entropy(scores, label)\n  optimizer = {optimizer}\n  batch = 4\n  epochs = 1"
    )
    text = f"{NET}train small {{\n  target label: class[classes]\n  {train}\n}}\n"
    return front(text, train=True)


def step_of(optimizer: str) -> StepGraph:
    checked = network(optimizer)
    assert checked.module.training is not None
    return training_graph(checked.graph, checked.module, checked.module.training.optimizer)


def start(step: StepGraph, seed: int = 0) -> dict[str, Array]:
    """Weights at random, optimizer state at zero."""
    values = parameters(step.graph, seed)
    for node in step.graph.of("parameter"):
        if node.name.endswith((".velocity", ".mean", ".square")):
            values[node.name] = np.zeros(node.type.dims(0), np.float32)
    return values


def targets(step: StepGraph, threads: int = 2, guard: str = "") -> tuple[Runtime, InterpRuntime]:
    phases = dict(step.phases)
    stores = Store(), DictStore()
    for name, value in start(step).items():
        for store in stores:
            store.write(name, value)
    cpu = Runtime(
        fuse(step.graph, phases=phases),
        store=stores[0],
        phases=phases,
        threads=threads,
        guard=guard,
    )
    alone = fuse(step.graph, enabled=False, phases=phases)
    return cpu, InterpRuntime(alone, store=stores[1], phases=phases, guard=guard)


def data(checked: Checked, number: int) -> dict[str, Array]:
    given = inputs(checked.graph, BATCH, seed=number)
    assert checked.module.training is not None
    return given | dict(Optimizer.of(checked.module.training).numbers(number, 0.05))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_have_the_same_bits_on_both_targets(optimizer: str) -> None:
    step, checked = step_of(optimizer), network(optimizer)
    cpu, interp = targets(step)
    losses = []
    for number in range(3):
        given = data(checked, number)
        given = {n.name: given[n.name] for n in step.graph.of("input")}
        a, b = cpu.run(given), interp.run(given)
        assert [n for n in b if not same_bits(a[n], b[n])] == []
        losses.append(float(a["loss"][0]))
    updated = [old for old, _ in step.graph.updates]
    changed = start(step)
    assert [n for n in updated if not same_bits(cpu.store.read(n), interp.store.read(n))] == []
    assert all(not np.array_equal(cpu.store.read(n), changed[n]) for n in updated)
    assert len(set(losses)) == 3


def test_phases_one_by_one_give_the_bits_of_all_at_once() -> None:
    step, checked = step_of(OPTIMIZERS[3]), network(OPTIMIZERS[3])
    given = {n.name: data(checked, 0)[n.name] for n in step.graph.of("input")}
    whole, apart = targets(step)[0], targets(step)[0]
    expected = whole.run(given)
    found: dict[str, Array] = {}
    with apart.session(shape_of(step.graph, given)) as session:
        for phase in (0, BACKWARD, UPDATE):
            found |= session.run(phase, given)
    assert [n for n in expected if not same_bits(found[n], expected[n])] == []
    for name, _ in step.graph.updates:
        assert same_bits(apart.store.read(name), whole.store.read(name)), name


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_one_entry_gives_the_bits_of_the_phases(threads: int) -> None:
    step, checked = step_of(OPTIMIZERS[1]), network(OPTIMIZERS[1])
    apart = targets(step)[0]
    whole = targets(step, threads, guard="loss")
    assert list(whole[0].program.entries) == [WHOLE], "a step is one run of the team"
    for number in range(2):
        given = {n.name: data(checked, number)[n.name] for n in step.graph.of("input")}
        expected = apart.run(given, phases=(0, BACKWARD, UPDATE))
        for runtime in whole:
            found = runtime.run(given)
            assert [n for n in expected if not same_bits(found[n], expected[n])] == []
    for name, _ in step.graph.updates:
        for runtime in whole:
            assert same_bits(apart.store.read(name), runtime.store.read(name)), name


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_step_whose_loss_is_not_finite_updates_nothing(wrong: float) -> None:
    step, checked = step_of(OPTIMIZERS[1]), network(OPTIMIZERS[1])
    given = {n.name: data(checked, 0)[n.name] for n in step.graph.of("input")}
    broken = {**given, "image": given["image"].copy()}
    broken["image"][0, 0, 0, 0] = wrong
    for runtime in targets(step, guard="loss"):
        outputs = runtime.run(broken)
        assert not np.isfinite(outputs["loss"]).any()
        for name, value in start(step).items():
            assert same_bits(runtime.store.read(name), value), name
        assert np.isfinite(runtime.run(given)["loss"]).all()
        changed = [n for n, v in start(step).items() if not same_bits(runtime.store.read(n), v)]
        assert set(changed) == {old for old, _ in step.graph.updates}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_step_graph_is_sound(optimizer: str) -> None:
    step = step_of(optimizer)
    verify(step.graph, "training")
    trained = {
        n.name for n in step.graph.of("parameter") if isinstance(n.op, Parameter) and n.op.trained
    }
    assert set(step.gradients) == trained
    assert trained <= {old for old, _ in step.graph.updates}
    order = {n.name: step.phases.get(n.name, 0) for n in step.graph.nodes}
    for node in step.graph.nodes:
        assert all(order[i] <= order[node.name] for i in node.inputs if step.graph[i].inputs), (
            node.name
        )
    assert {order[new] for _, new in step.graph.updates} == {UPDATE}
    assert all(order[name] <= BACKWARD for name in step.gradients.values())


def test_seeded_gradients_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    checked = front(
        "net plain {\n  input image: f32[3, 9, 9]\n"
        "  a = image -> conv(8, 3x3, pad = 1, stride = 2) -> relu\n"
        "  b = a -> conv(20, 3x3, pad = same, connect = groups(4)) -> sigmoid\n"
        "  output maps = b -> conv(5, 1x1)\n"
        "  output scores = b -> avgpool(5x5) -> flatten -> dense(7)\n}\n"
    )
    step = seeded_graph(checked.graph, checked.module)
    store = Store()
    values = parameters(step.graph)
    for name, value in values.items():
        store.write(name, value)
    cpu = Runtime(fuse(step.graph, phases=dict(step.phases)), store=store, phases=step.phases)
    given = inputs(step.graph, BATCH)
    found = cpu.run(given)

    t = {n: torch.from_numpy(v.copy()).requires_grad_() for n, v in (values | given).items()}
    convs = [n for n in checked.graph.nodes if n.op.name == "conv"]
    dense = next(n for n in checked.graph.nodes if n.op.name == "dense")
    first, second, third = ([t[i] for i in n.inputs[1:]] for n in convs)
    a = functional.relu(functional.conv2d(t["image"], *first, padding=1, stride=2))
    b = torch.sigmoid(functional.conv2d(a, *second, padding=1, groups=4))
    maps = functional.conv2d(b, *third)
    scores = functional.linear(
        functional.avg_pool2d(b, 5).flatten(1), *(t[i] for i in dense.inputs[1:])
    )
    total = sum(
        (y * t[step.seeds[p]].detach()).sum() for p, y in (("maps", maps), ("scores", scores))
    )
    total.backward()
    wanted = {n: x.grad.numpy() for n, x in t.items() if n in step.gradients}
    assert set(wanted) == set(step.gradients) == {"image", *values}
    for public, expected in (("maps", maps), ("scores", scores)):
        assert distance(found[public], expected.detach().numpy()) <= 1e-5
    for name, expected in wanted.items():
        assert distance(found[f"grad:{name}"], expected) <= 1e-5, name


def distance(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
