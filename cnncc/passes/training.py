"""The graph of a training step: forward and loss, gradients, optimiser updates, each in its phase.

    phase 0  forward    outputs, loss, and what backward needs
    phase 1  backward   gradients of every trained parameter
    phase 2  update     new parameters, optimiser state and running statistics

The phases are cuts through one graph with one memory plan, so calling them one by one gives the
bits of calling them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.layer import Init
from cnncc.graph.module import Choice, Module
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.ops.elementwise import Add
from cnncc.ops.optimizer import AdamNumbers, adam, sgd
from cnncc.passes.differentiate import gradients, prune
from cnncc.tensor import DType, TensorType

FORWARD, BACKWARD, UPDATE = 0, 1, 2
INPUT_GRADIENTS = 2  # of a seeded graph, which has no updates of parameters

NUMBER = TensorType(DType.F32, (1,), batched=False)

# run-time numbers of a step, per optimizer: inputs `step.<name>` of the graph
NUMBERS = {
    "sgd": ("rate", "momentum", "decay"),
    "adam": ("rest1", "beta2", "rest2", "decay", "keep", "step", "root", "eps"),
    "adamw": ("rest1", "beta2", "rest2", "decay", "keep", "step", "root", "eps"),
}


@dataclass(frozen=True)
class StepGraph:
    """The graph with the phase of every node that does not belong to FORWARD, and the names of its
    gradients.
    """

    graph: Graph
    phases: Mapping[str, int]
    gradients: Mapping[str, str]  # parameter (or wanted input) -> gradient node
    seeds: Mapping[
        str, str
    ]  # public output -> input node that holds its gradient; empty with a loss


def training_graph(graph: Graph, module: Module, optimizer: Choice) -> StepGraph:
    """Gradients of the output `loss` and one step of the optimizer for every trained parameter.

    Requires: a graph elaborated for training, whose last output is `loss`. Ensures: updates for
    trained parameters, optimiser state (parameters named `<parameter>.velocity`, `.mean`,
    `.square`) and running statistics.
    """
    b = Builder.of(graph)
    forward = {n.name for n in b.nodes}
    loss = graph[dict(graph.outputs)["loss"]]
    one = b.add(Constant(NUMBER, 1.0), name="loss.seed")
    trained = [
        n.name for n in graph.of("parameter") if isinstance(n.op, Parameter) and n.op.trained
    ]
    found = gradients(b, {loss.name: one}, trained)
    backward = {n.name for n in b.nodes} - forward
    updates = list(module.state_updates)
    updates += _updates(b, optimizer, {p: found[p] for p in trained if p in found})
    phases = {n.name: UPDATE for n in b.nodes if n.name not in forward and n.name not in backward}
    phases |= dict.fromkeys(backward, BACKWARD)
    phases |= dict.fromkeys((new for _, new in module.state_updates), UPDATE)
    whole = Graph(graph.name, tuple(b.nodes), graph.outputs, graph.conditions, tuple(updates))
    kept = prune(whole)
    names = {p: g.name for p, g in found.items()}
    return StepGraph(kept, {n: p for n, p in phases.items() if n in kept.index}, names, {})


def seeded_graph(graph: Graph, module: Module) -> StepGraph:
    """Forward, and backward from gradients of the outputs that the caller gives (any loss of the
    user's).

    Gradients of trained parameters and of float inputs become outputs `grad:<name>`. What only the
    latter need has a phase of its own, INPUT_GRADIENTS, so that nobody pays for it who does not
    ask.
    """
    b = Builder.of(graph)
    forward = {n.name for n in b.nodes}
    seeds = {}
    for public, name in graph.outputs:
        seeds[public] = b.add(Input(graph[name].type, "target"), name=f"grad.{public}")
    wanted = [n.name for n in graph.of("parameter") if isinstance(n.op, Parameter) and n.op.trained]
    wanted += [n.name for n in graph.of("input") if n.type.dtype.is_float]
    by_node: dict[str, Node] = {}
    for public, name in graph.outputs:
        known = by_node.get(name)
        by_node[name] = seeds[public] if known is None else b.add(Add(), known, seeds[public])
    found = gradients(b, by_node, wanted)
    phases = {n.name: BACKWARD for n in b.nodes if n.name not in forward}
    phases |= dict.fromkeys((new for _, new in module.state_updates), BACKWARD)
    outputs = (*graph.outputs, *((f"grad:{n}", g.name) for n, g in found.items()))
    whole = Graph(graph.name, tuple(b.nodes), outputs, graph.conditions, module.state_updates)
    kept = prune(whole, [n.name for n in seeds.values()])
    of_parameters = [(n, g.name) for n, g in found.items() if isinstance(graph[n].op, Parameter)]
    wanted_first = prune(
        replace(whole, outputs=(*graph.outputs, *of_parameters)), [n.name for n in seeds.values()]
    ).index
    phases |= {n.name: INPUT_GRADIENTS for n in kept.nodes if n.name not in wanted_first}
    names = {n: g.name for n, g in found.items()}
    return StepGraph(
        kept,
        {n: p for n, p in phases.items() if n in kept.index},
        names,
        {p: n.name for p, n in seeds.items()},
    )


def update_graph(graph: Graph, trained: Iterable[str], optimizer: Choice) -> Graph:
    """One step of the optimizer from gradients that the caller gives, inputs
    `gradient.<parameter>`.

    Updates, state and numbers are those of `training_graph`, and so are the bits. It has no
    outputs.
    """
    b = Builder(graph.name)
    found = {}
    for name in trained:
        node = graph[name]
        w = b.add(node.op, name=name, origin=node.origin)
        found[name] = b.add(Input(w.type, "target"), name=f"gradient.{name}", origin=node.origin)
    updates = _updates(b, optimizer, found)
    return Graph(graph.name, tuple(b.nodes), (), (), tuple(updates))


def _updates(b: Builder, optimizer: Choice, found: Mapping[str, Node]) -> list[tuple[str, str]]:
    numbers = {
        name: b.add(Input(NUMBER, "target"), name=f"step.{name}")
        for name in NUMBERS[optimizer.name]
    }
    updates: list[tuple[str, str]] = []
    for parameter, gradient in found.items():
        w = b[parameter]
        b.origin = replace(w.origin)

        def state(suffix: str, w: Node = w) -> Node:
            return b.add(Parameter(w.type, Init("zeros"), "state"), name=f"{w.name}.{suffix}")

        if optimizer.name == "sgd":
            v = state("velocity")
            new, velocity = sgd(
                b, w, gradient, v,
                rate=numbers["rate"], momentum=numbers["momentum"], decay=numbers["decay"],
                nesterov=bool(optimizer["nesterov"]),
            )  # fmt: skip
            updates += [(v.name, velocity.name), (w.name, new.name)]
            continue
        m, v = state("mean"), state("square")
        new, mean, square = adam(b, w, gradient, m, v, AdamNumbers(**numbers))
        updates += [(m.name, mean.name), (v.name, square.name), (w.name, new.name)]
    return updates
