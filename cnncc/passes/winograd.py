"""Which convolutions of a network are computed by Winograd's minimal filtering, and their
replacement in the graph.

A rule of shapes and of the samples in a call decides, so that a network has the same bits on every
machine, unless what was measured there (`Choices`) says otherwise. Only inference is rewritten. A
result differs from the direct one by rounding, by a few times the error that the direct one has
itself; `precision = "exact"` leaves every convolution as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cnncc.graph.ir import Graph, Node
from cnncc.ops.conv import Conv
from cnncc.ops.strided_phases import taps_of
from cnncc.ops.toom_cook import OUTPUTS
from cnncc.ops.winograd import (
    WinogradFilter,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from cnncc.passes.choices import NONE, Choices, form

FEWEST_CHANNELS = 12  # of a group's either side, phases too: below, transforms take what is saved
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
    choice = algorithms(graph) if choice is None else choice
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _replaced(node, graph, choice[node.name]) if node.name in choice else [node]
    return graph.with_nodes(nodes) if choice else graph


def algorithms(graph: Graph, choices: Choices = NONE) -> dict[str, int]:
    """The m of F(m x m, r x r) for every node that is to be replaced. What was measured decides
    where it can.
    """
    found = {node.name: chosen(node, graph, choices.batch) for node in graph.nodes}
    if choices.algorithms:
        for node in graph.nodes:
            choice = choices.algorithms.get(form(node, graph))
            if choice and choice.value in costs(node, graph):
                found[node.name] = choice.value
    return {name: m for name, m in found.items() if m}


def chosen(node: Node, graph: Graph, batch: int = 1) -> int | None:
    """The m of F(m x m, r x r) for a node in calls with so many samples, None where it stays as it
    is.
    """
    sizes = _sizes(node, graph)
    if sizes is None or sizes.fewest < FEWEST_CHANNELS or sizes.products < FEWEST:
        return None
    found = costs(node, graph, batch)
    best = min(OUTPUTS[sizes.taps], key=lambda m: found[m])
    return best if found[best] < GAIN * found[0] else None


def costs(node: Node, graph: Graph, batch: int = 1) -> dict[int, float]:
    """What each way to compute a convolution costs by the model, in multiply-adds per sample of a
    call, by the m of F(m x m, r x r), 0 for its definition; none where there is but one way.
    """
    sizes = _sizes(node, graph)
    if sizes is None:
        return {}
    return {0: sizes.direct(batch), **{m: sizes.cost(m, batch) for m in OUTPUTS[sizes.taps]}}


@dataclass(frozen=True)
class _Sizes:
    """Of a convolution that can be replaced: outputs, inputs of a group, extents of the result."""

    k: int
    c: int
    groups: int
    h: int
    w: int
    size: int  # of the window, along each axis
    stride: int

    @property
    def taps(self) -> int:
        """Of a phase, along each axis."""
        return taps_of(self.size, self.stride)

    @property
    def fewest(self) -> int:
        """Channels of a group on the side that has fewer."""
        return min(self.stride**2 * self.c, self.k // self.groups)

    @property
    def products(self) -> int:
        """Of the definition."""
        return self.size**2 * self.c * self.k * self.h * self.w

    def direct(self, batch: int) -> float:
        return _products(self.size**2 * self.c * self.k, self.h * self.w, batch)

    def cost(self, m: int, batch: int) -> float:
        """The products, the weights that are read for them, and the transforms."""
        places, count = (m + self.taps - 1) ** 2, -(-self.h // m) * -(-self.w // m)
        inputs = self.stride**2 * self.c
        transformed = places * count * (inputs * self.groups + self.k)
        return _products(places * inputs * self.k, count, batch) + TRANSFORM * transformed


def _sizes(node: Node, graph: Graph) -> _Sizes | None:
    op = node.op
    if not isinstance(op, Conv) or not node.type.batched or op.tiles:
        return None
    axes = tuple(op.window)
    size, stride = axes[0].size, axes[0].stride
    if len(axes) != 2 or any((a.size, a.stride, a.dilation) != (size, stride, 1) for a in axes):
        return None
    _, w, *bias = graph.types(node)
    if (stride > 1 and op.groups > 1) or taps_of(size, stride) not in OUTPUTS:
        return None  # the phases of all groups would lie beside each other
    if bias and bias[0].shape != node.type.shape[:1]:
        return None
    match (*w.shape[:2], *node.type.spatial):
        case (int(k), int(c), int(h), int(width)):
            return _Sizes(k, c, op.groups, h, width, size, stride)
    return None


def _products(weights: int, positions: int, batch: int) -> float:
    """Of every weight with as many numbers as there are positions; a weight is read once for all
    samples.
    """
    if weights <= CACHED:
        return weights * positions
    return weights * max(positions + READ / batch, STREAM / batch)


def _replaced(node: Node, graph: Graph, m: int) -> list[Node]:
    op = node.op
    assert isinstance(op, Conv)
    x, w, *bias = (graph[name] for name in node.inputs)
    first, second = op.window
    size, stride = first.size, first.stride
    taps = taps_of(size, stride)
    pads = ((first.lo, first.hi), (second.lo, second.hi))
    taken = {n.name for n in graph.nodes}

    def made(suffix: str, op: WinogradFilter | WinogradInput | WinogradProduct, *of: Node) -> Node:
        name = next(n for k in range(len(taken) + 1)
                    if (n := f"{node.name}.{suffix}{'_' * k}") not in taken)  # fmt: skip
        t = op.infer(tuple(n.type for n in of))
        return Node(name, op, tuple(n.name for n in of), t, node.origin)

    u = made("filter", WinogradFilter(m, taps, stride), w)
    v = made("tiles", WinogradInput(m, pads, size, stride), x)
    z = made("product", WinogradProduct(op.groups), v, u)
    h, width = node.type.spatial
    result = replace(
        node, op=WinogradOutput(m, (h, width), taps), inputs=(z.name, *(b.name for b in bias))
    )
    return [u, v, z, result]
