"""Which convolutions of a network are computed by Winograd's minimal filtering, and their
replacement in the graph.

A rule of shapes alone decides, so that a network has the same bits on every machine. Only
inference is rewritten. A result differs from the direct one by rounding, by a few times the error
that the direct one has itself; `precision = "exact"` leaves every convolution as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnncc.graph.ir import Graph, Node
from cnncc.ops.conv import Conv
from cnncc.ops.toom_cook import OUTPUTS
from cnncc.ops.winograd import (
    WinogradFilter,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)

FEWEST_CHANNELS = 16  # of a group's either side: below, the transforms take longer than they save
FEWEST = 1 << 20  # multiply-adds: three more kernels take as long as some hundred thousand
CACHED = 1 << 18  # from so many weights on they are not still in a cache of the core
READ = 8  # multiply-adds that a weight from further away costs, as it comes while others are used
STREAM = 22  # multiply-adds in the time in which a weight comes from memory: no product is faster
TRANSFORM = 12  # multiply-adds in the time in which one number of a tile is transformed
GAIN = 0.8  # the share of the direct time that is worth other bits


def with_winograd(graph: Graph, choice: Mapping[str, int] | None = None) -> Graph:
    """The graph with convolutions replaced, those of `choice` or where the rule finds that it pays.
    Names of tensors and their types stay.
    """
    choice = choices(graph) if choice is None else choice
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _replaced(node, graph, choice[node.name]) if node.name in choice else [node]
    return graph.with_nodes(nodes) if choice else graph


def choices(graph: Graph) -> dict[str, int]:
    """The m of F(m x m, r x r) for every node that is to be replaced."""
    found = {node.name: chosen(node, graph) for node in graph.nodes}
    return {name: m for name, m in found.items() if m is not None}


def chosen(node: Node, graph: Graph) -> int | None:
    """The m of F(m x m, r x r) for a node, None where it stays as it is."""
    op = node.op
    if not isinstance(op, Conv) or not node.type.batched or op.tiles:
        return None
    axes = tuple(op.window)
    taps = axes[0].size
    if len(axes) != 2 or any((a.size, a.stride, a.dilation) != (taps, 1, 1) for a in axes):
        return None
    if taps not in OUTPUTS:
        return None
    _, w, *bias = graph.types(node)
    if bias and bias[0].shape != node.type.shape[:1]:
        return None
    extents = [e for e in (*w.shape[:2], *node.type.spatial) if isinstance(e, int)]
    if len(extents) < 4:
        return None
    k, c, h, width = extents
    if min(c, k // op.groups) < FEWEST_CHANNELS or taps**2 * c * k * h * width < FEWEST:
        return None
    costs = {m: cost((k, c), op.groups, (h, width), m, taps) for m in OUTPUTS[taps]}
    best = min(costs, key=lambda m: costs[m])
    return best if costs[best] < GAIN * _products(taps**2 * c * k, h * width) else None


def cost(weights: tuple[int, int], groups: int, y: tuple[int, int], m: int, taps: int) -> float:
    """Of one sample, in multiply-adds: the products, the weights that are read for them, and the
    transforms. `weights`: outputs, and inputs of a group; `y`: the extents of the result.
    """
    (k, c), (h, w) = weights, y
    places, count = (m + taps - 1) ** 2, -(-h // m) * -(-w // m)
    return _products(places * c * k, count) + TRANSFORM * places * count * (c * groups + k)


def _products(weights: int, positions: int) -> float:
    """Of every weight with as many numbers as there are positions."""
    return weights * (max(positions + READ, STREAM) if weights > CACHED else positions)


def _replaced(node: Node, graph: Graph, m: int) -> list[Node]:
    op = node.op
    assert isinstance(op, Conv)
    x, w, *bias = (graph[name] for name in node.inputs)
    first, second = op.window
    taps = first.size
    pads = ((first.lo, first.hi), (second.lo, second.hi))
    taken = {n.name for n in graph.nodes}

    def made(suffix: str, op: WinogradFilter | WinogradInput | WinogradProduct, *of: Node) -> Node:
        name = next(n for k in range(len(taken) + 1)
                    if (n := f"{node.name}.{suffix}{'_' * k}") not in taken)  # fmt: skip
        t = op.infer(tuple(n.type for n in of))
        return Node(name, op, tuple(n.name for n in of), t, node.origin)

    u = made("filter", WinogradFilter(m, taps), w)
    v = made("tiles", WinogradInput(m, pads, taps), x)
    z = made("product", WinogradProduct(op.groups), v, u)
    h, width = node.type.spatial
    result = replace(
        node, op=WinogradOutput(m, (h, width), taps), inputs=(z.name, *(b.name for b in bias))
    )
    return [u, v, z, result]
