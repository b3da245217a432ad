"""Which layers read their weights in bf16 with `precision = "bf16"`, and the graph that says so.

A layer in which every weight takes part in one product per sample, such as a dense one, is bound by
reading weights where few samples run at a time: half the bytes are half the time. Elsewhere weights
stay in a cache while they are used again, and rounding them would cost digits and gain nothing.
A rule of shapes alone decides, so that bits depend neither on the machine nor on the batch.
Only inference is rewritten. Activations, biases and sums stay float32: the results are those of the
unchanged network with rounded weights, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Parameter
from cnncc.ops.base import Op
from cnncc.ops.bf16 import Bf16
from cnncc.ops.conv import Conv
from cnncc.ops.dense import Dense, DenseDx
from cnncc.passes.plan import prepared
from cnncc.tensor import Extent


@dataclass(frozen=True)
class Choice:
    """Whether a layer that multiplies data with weights reads them in bf16, and why."""

    node: Node
    weights: Node
    halved: bool
    reason: str


def choices(graph: Graph) -> tuple[Choice, ...]:
    """One for every layer of the graph that multiplies data with weights, in order."""
    fixed = {n.name for n in graph.nodes if isinstance(n.op, Parameter)} | prepared(graph)
    return tuple(
        _choice(graph, node, graph[node.inputs[1]])
        for node in graph.nodes
        if _multiplies(node) and node.type.batched and node.inputs[1] in fixed
    )


def with_bf16(graph: Graph) -> Graph:
    """The graph with weights rounded in front of the layers that `choices` finds. Names of tensors
    and their types stay; layers that share weights share the rounded ones.
    """
    chosen = {c.node.name for c in choices(graph) if c.halved}
    if not chosen:
        return graph
    return graph.with_nodes(_nodes(graph, chosen))


def _nodes(graph: Graph, chosen: set[str]) -> Iterator[Node]:
    taken = {n.name for n in graph.nodes}
    rounded: dict[str, str] = {}
    for node in graph.nodes:
        if node.name not in chosen:
            yield node
            continue
        x, w, *bias = node.inputs
        if w not in rounded:
            name = f"{w}.bf16"
            while name in taken:
                name += "_"
            taken.add(name)
            rounded[w] = name
            op = Bf16()
            yield Node(name, op, (w,), op.infer((graph[w].type,)), node.origin)
        yield replace(node, inputs=(x, rounded[w], *bias))


def _multiplies(node: Node) -> bool:
    """Whether the second operand of a node, if it is of weights, is multiplied with the first."""
    return isinstance(node.op, Op) and {0, 1} <= set(node.op.linear) and len(node.inputs) > 1


def _choice(graph: Graph, node: Node, w: Node) -> Choice:
    assert isinstance(node.op, Op)
    macs = node.op.cost(graph.types(node), node.type).macs
    if not isinstance(node.op, Dense | DenseDx | Conv):
        return Choice(node, w, False, f"{node.op.name} reads weights in float32 only")
    if macs == w.type.elements:
        why = "each weight takes part in one product per sample: reading it takes the time"
        return Choice(node, w, True, why)
    times = _times(macs, w.type.elements)
    why = f"each weight takes part in {times} products per sample: they take the time"
    return Choice(node, w, False, why)


def _times(macs: Extent, weights: Extent) -> str:
    """Products for each weight."""
    if isinstance(macs, int) and isinstance(weights, int):
        return str(macs // weights) if macs % weights == 0 else f"{macs / weights:.1f}"
    return f"{macs} / {weights}"
