"""Reverse-mode differentiation: the gradient is more graph, built from each operator's own rule.

Reference: Griewank and Walther, Evaluating Derivatives (2008), chapter 3 (the adjoint of a
straight-line program).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Builder, Graph, Node
from cnncc.ops.base import Op
from cnncc.ops.elementwise import Add


def gradients(b: Builder, seeds: Mapping[str, Node], wanted: Iterable[str]) -> dict[str, Node]:
    """Add to `b` the gradients of sum_i <seed_i, node_i> with respect to the wanted nodes.

    Requires: every seed has the type of its node. Ensures: each wanted node that the seeds depend
    on has an entry; new nodes follow all old ones, contributions of several consumers are added in
    reverse order of the consumers.
    """
    wanted = tuple(dict.fromkeys(wanted))  # in order: texts that follow must not depend on hashing
    needed = _depends_on(b.nodes, set(wanted))
    flowing: dict[str, Node] = dict(seeds)
    for node in reversed(list(b.nodes)):
        dy = flowing.get(node.name)
        if dy is None or node.name not in needed or not node.inputs:
            continue
        if not isinstance(node.op, Op):
            raise CompilerBug(
                "differentiate", node.name, f"{node.op.name} has inputs but no gradient rule"
            )
        b.origin = node.origin
        for name, part in zip(node.inputs, node.op.gradient(b, node, dy), strict=True):
            if part is None or name not in needed:
                continue
            if name in flowing:
                part = b.add(
                    Add(), flowing[name], part, name=f"{name}.grad.sum", origin=node.origin
                )
            flowing[name] = part
    return {name: flowing[name] for name in wanted if name in flowing}


def _depends_on(nodes: Iterable[Node], roots: set[str]) -> set[str]:
    """Names of all nodes that depend on a root, roots included."""
    reached = set(roots)
    for n in nodes:
        if any(i in reached for i in n.inputs):
            reached.add(n.name)
    return reached


def prune(graph: Graph, keep: Iterable[str] = ()) -> Graph:
    """Drop nodes that no output, no update and no name in `keep` needs. Ensures: same results, same
    order.
    """
    live = {name for _, name in graph.outputs} | {new for _, new in graph.updates} | set(keep)
    for n in reversed(graph.nodes):
        if n.name in live:
            live.update(n.inputs)
    return graph.with_nodes(n for n in graph.nodes if n.name in live)
