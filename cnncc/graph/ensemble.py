"""Networks that are the mean of several draws of themselves, as dropout with `mode = mc(T)` makes
them at inference.

A layer whose operator is `Drawn` adds draw 0. Once the net is complete, everything that depends on
one is copied for the other draws, with the same parameters, and each output that depends on one
becomes the mean of its copies. What does not depend on a draw is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from cnncc.graph.ir import Builder, Node, Operator


@runtime_checkable
class Drawn(Protocol):
    """An operator that is one of `draws` configurations, the one with the number `draw`."""

    draw: int
    draws: int

    def again(self, draw: int) -> Operator:
        """The same operator in another draw."""

    def mean(self, b: Builder, results: Sequence[Node]) -> Node:
        """Add the mean of the results of all draws to the graph."""


def average_draws(b: Builder, outputs: dict[str, Node]) -> dict[str, Node]:
    """Copy what depends on a draw; the outputs, of which those that do are means now.

    Requires: all draws of the graph have the same `draws`. Raises ShapeError (E0120) when the
    copies are too many nodes for a network.
    """
    drawn = [n for n in b.nodes if isinstance(n.op, Drawn)]
    if not drawn:
        return outputs
    first = cast(Any, drawn[0].op)
    depending: dict[str, Node] = {}
    for node in b.nodes:
        if isinstance(node.op, Drawn) or any(i in depending for i in node.inputs):
            depending[node.name] = node
    copies = [depending]
    for draw in range(1, first.draws):
        copy: dict[str, Node] = {}
        for name, node in depending.items():
            op = cast(Any, node.op).again(draw) if isinstance(node.op, Drawn) else node.op
            inputs = (copy[i] if i in copy else b[i] for i in node.inputs)
            copy[name] = b.add(op, *inputs, name=f"{name}.draw{draw}", origin=node.origin)
        copies.append(copy)
    return {
        public: first.mean(b, [copy[node.name] for copy in copies])
        if node.name in depending
        else node
        for public, node in outputs.items()
    }
