"""Kernels and operators taken out of their network, each with sources of its own, side by side in
one graph: one program then compiles and runs all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnncc.graph.ir import Graph, Node
from cnncc.graph.layer import Init
from cnncc.graph.sources import Input, Parameter, Source
from cnncc.loops.text import print_nest
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel


@dataclass(frozen=True)
class Piece:
    """One kernel of a network under names of its own. `sources` maps each new source to the tensor
    of the network in whose place it stands, `results` each result; `kernel` is the network's own
    nest.
    """

    graph: Graph
    kernel: Kernel
    sources: dict[str, str]
    results: dict[str, str]
    places: tuple[str, ...]

    @property
    def label(self) -> str:
        """The kernel as `cnncc explain` writes it."""
        return self.places[0]


def label(kernel: Kernel) -> str:
    """What a kernel is: its nodes in order."""
    return " + ".join(f"{n.name} ({n.op.name})" for n in kernel.nodes)


def pieces(graph: Graph, kernels: Sequence[Kernel], prefix: str) -> list[Piece]:
    """The kernels of a graph, equal ones once: of one nest, one chain of operators, and types."""
    groups: dict[tuple[object, ...], list[Kernel]] = {}
    for kernel in kernels:
        types = tuple(graph[t].type for t in kernel.tensors)
        ops = tuple(n.op for n in kernel.nodes)
        groups.setdefault((print_nest(kernel.nest), types, ops), []).append(kernel)
    return [
        _piece(graph, own[0], f"{prefix}{i}.", tuple(map(label, own)))
        for i, own in enumerate(groups.values())
    ]


def _piece(graph: Graph, kernel: Kernel, prefix: str, places: tuple[str, ...]) -> Piece:
    inside = {n.name for n in kernel.nodes}
    reads = dict.fromkeys(i for n in kernel.nodes for i in n.inputs if i not in inside)
    sources = [own_source(graph[name], prefix) for name in reads]
    nodes = [
        replace(n, name=prefix + n.name, inputs=tuple(prefix + i for i in n.inputs))
        for n in kernel.nodes
    ]
    outputs = tuple((prefix + t, prefix + t) for t in kernel.writes)
    own = Graph(graph.name, (*sources, *nodes), outputs)
    renamed = Kernel(tuple(nodes), kernel.nest, tuple(prefix + t for t in kernel.tensors))
    results = {prefix + t: t for t in kernel.writes}
    return Piece(own, renamed, {prefix + name: name for name in reads}, results, places)


def own_source(node: Node, prefix: str) -> Node:
    """Sources as they are; a tensor as an input, or as a parameter where it has no batch axis."""
    op = node.op
    if not isinstance(op, Source):
        op = Input(node.type) if node.type.batched else Parameter(node.type, Init("zeros"))
    return Node(prefix + node.name, op, (), node.type, node.origin)


def together(found: Sequence[Piece], name: str) -> tuple[Graph, Fused]:
    """One graph of all pieces, and its kernels: those of the pieces, to the letter."""
    nodes = tuple(n for p in found for n in p.graph.nodes)
    outputs = tuple(o for p in found for o in p.graph.outputs)
    graph = Graph(name, nodes, outputs)
    return graph, Fused(graph, tuple(p.kernel for p in found), ())
