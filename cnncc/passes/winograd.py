"""Which convolutions of a network are computed by Winograd's minimal filtering, and their
replacement in the graph.

A rule of shapes alone decides, so that a network has the same bits on every machine, unless what
was measured there (`Choices`) says otherwise. Only inference is rewritten. A result differs from
the direct one by rounding, by a few times the error that the direct one has itself; `precision =
"exact"` leaves every convolution as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod

from cnncc.graph.ir import Graph, Node
from cnncc.ops.conv import Conv
from cnncc.ops.toom_cook import POINTS, TAPS
from cnncc.ops.winograd import (
    WinogradFilter,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from cnncc.passes.choices import NONE, Choices, form

FEWEST_CHANNELS = 16  # of either side: below, the transforms take longer than they save
FEWEST = 1 << 20  # multiply-adds: three more kernels take as long as some hundred thousand
READ, CACHED = 7, 1 << 18  # multiply-adds in the time in which a weight comes from memory, and
# the number of weights from which on they are not still in a cache of the core
TRANSFORM = 14  # multiply-adds in the time in which one number of a tile is transformed; with READ
# within 10 % (root mean square) of the ratios that `cnncc tune` measures in four networks
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


def choices(graph: Graph, measured: Choices = NONE, fixed: Collection[str] = ()) -> dict[str, int]:
    """The m of F(m x m, 3 x 3) for every node that is to be replaced. What was measured decides
    where it can, but for `fixed` nodes.
    """
    found = {node.name: chosen(node, graph) for node in graph.nodes}
    if measured.algorithms:
        for node in graph.nodes:
            choice = measured.algorithms.get(form(node, graph))
            if choice and node.name not in fixed and choice.value in costs(node, graph):
                found[node.name] = choice.value
    return {name: m for name, m in found.items() if m}


def chosen(node: Node, graph: Graph) -> int | None:
    """The m of F(m x m, 3 x 3) for a node, None where it stays as it is."""
    sizes = _sizes(node, graph)
    if sizes is None or min(sizes[:2]) < FEWEST_CHANNELS or TAPS**2 * prod(sizes) < FEWEST:
        return None
    found = costs(node, graph)
    best = min(POINTS, key=lambda m: found[m])
    return best if found[best] < GAIN * found[0] else None


def costs(node: Node, graph: Graph) -> dict[int, float]:
    """What each way to compute a convolution costs by the model, in multiply-adds of one sample, by
    the m of F(m x m, 3 x 3), 0 for its definition; none where there is but one way.
    """
    sizes = _sizes(node, graph)
    if sizes is None:
        return {}
    k, c, h, width = sizes
    direct = _products(TAPS**2 * c * k, h * width)
    return {0: direct, **{m: cost(c, k, h, width, m) for m in POINTS}}


def _sizes(node: Node, graph: Graph) -> tuple[int, int, int, int] | None:
    """Output and input channels, height and width of a convolution that can be replaced."""
    op = node.op
    if not isinstance(op, Conv) or not node.type.batched or op.groups != 1 or op.tiles:
        return None
    axes = tuple(op.window)
    if len(axes) != 2 or any((a.size, a.stride, a.dilation) != (TAPS, 1, 1) for a in axes):
        return None
    _, w, *bias = graph.types(node)
    if bias and bias[0].shape != node.type.shape[:1]:
        return None
    match (*w.shape[:2], *node.type.spatial):
        case (int(k), int(c), int(h), int(width)):
            return k, c, h, width
    return None


def cost(c: int, k: int, h: int, w: int, m: int) -> float:
    """Of one sample, in multiply-adds: the products, the weights that are read for them, and the
    transforms.
    """
    places, count = (m + TAPS - 1) ** 2, -(-h // m) * -(-w // m)
    return _products(places * c * k, count) + TRANSFORM * places * count * (c + k)


def _products(weights: int, positions: int) -> float:
    """Of every weight with as many numbers as there are positions."""
    return weights * (positions + (READ if weights > CACHED else 0))


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
