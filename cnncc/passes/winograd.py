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
from cnncc.ops.toom_cook import POINTS, TAPS
from cnncc.ops.winograd import (
    WinogradFilter,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)

FEWEST_CHANNELS = 16  # of either side: below, the transforms take longer than they save
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
    """The m of F(m x m, 3 x 3) for every node that is to be replaced."""
    found = {node.name: chosen(node, graph) for node in graph.nodes}
    return {name: m for name, m in found.items() if m is not None}


def chosen(node: Node, graph: Graph) -> int | None:
    """The m of F(m x m, 3 x 3) for a node, None where it stays as it is."""
    op = node.op
    if not isinstance(op, Conv) or not node.type.batched or op.groups != 1 or op.tiles:
        return None
    axes = tuple(op.window)
    if len(axes) != 2 or any((a.size, a.stride, a.dilation) != (TAPS, 1, 1) for a in axes):
        return None
    _, w, *bias = graph.types(node)
    if bias and bias[0].shape != node.type.shape[:1]:
        return None
    extents = [e for e in (*w.shape[:2], *node.type.spatial) if isinstance(e, int)]
    if len(extents) < 4 or min(extents[:2]) < FEWEST_CHANNELS:
        return None
    k, c, h, width = extents
    if TAPS**2 * c * k * h * width < FEWEST:
        return None
    costs = {m: cost(c, k, h, width, m) for m in POINTS}
    best = min(costs, key=lambda m: costs[m])
    return best if costs[best] < GAIN * _products(TAPS**2 * c * k, h * width) else None


def cost(c: int, k: int, h: int, w: int, m: int) -> float:
    """Of one sample, in multiply-adds: the products, the weights that are read for them, and the
    transforms.
    """
    places, count = (m + TAPS - 1) ** 2, -(-h // m) * -(-w // m)
    return _products(places * c * k, count) + TRANSFORM * places * count * (c + k)


def _products(weights: int, positions: int) -> float:
    """Of every weight with as many numbers as there are positions."""
    return weights * (max(positions + READ, STREAM) if weights > CACHED else positions)


def _replaced(node: Node, graph: Graph, m: int) -> list[Node]:
    op = node.op
    assert isinstance(op, Conv)
    x, w, *bias = (graph[name] for name in node.inputs)
    first, second = op.window
    pads = ((first.lo, first.hi), (second.lo, second.hi))
    taken = {n.name for n in graph.nodes}

    def made(suffix: str, op: WinogradFilter | WinogradInput | WinogradProduct, *of: Node) -> Node:
        name = next(n for k in range(len(taken) + 1)
                    if (n := f"{node.name}.{suffix}{'_' * k}") not in taken)  # fmt: skip
        t = op.infer(tuple(n.type for n in of))
        return Node(name, op, tuple(n.name for n in of), t, node.origin)

    u = made("filter", WinogradFilter(m), w)
    v = made("tiles", WinogradInput(m, pads), x)
    z = made("product", WinogradProduct(), v, u)
    h, width = node.type.spatial
    result = replace(
        node, op=WinogradOutput(m, (h, width)), inputs=(z.name, *(b.name for b in bias))
    )
    return [u, v, z, result]
