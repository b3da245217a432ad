"""What a linear layer stores and computes: as the layer that it is, with a weight of its own for
every connection (local), as a sparse matrix, and as a dense one.

- layer: the stored weights, each once however often it is used; the biases are left out.
- local: one weight per connection, connections into the padding included.
- sparse: the pairs of a result and an input that it depends on, so padding is left out. This is
  what a sparse matrix stores of the linear map.
- dense: inputs times results.

Operations are multiplications and additions for one sample, without biases: a result that sums k
products takes k multiplications and k - 1 additions (Goodfellow, Bengio and Courville, "Deep
Learning" (2016), section 9.2: 319 * 280 * 3 = 267960 for the edges of an image of 280 x 320).
Nothing is allocated, whatever the sizes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Parameter
from cnncc.ops.base import Op
from cnncc.tensor import Extent
from cnncc.window import Window

MOST_PAIRS = 1 << 20
"""Pairs of output and tap along an axis that are listed to see which fall together."""


@dataclass(frozen=True)
class Storage:
    """Stored floats of a layer in four forms, and its results. `sparse` is None where it depends
    on a symbolic extent or on what an operator does not say.
    """

    layer: Extent
    local: Extent
    sparse: Extent | None
    dense: Extent
    results: Extent

    @property
    def operations(self) -> Mapping[str, Extent | None]:
        """Multiplications and additions of the forms that compute differently."""

        def of(products: Extent) -> Extent:
            return 2 * products - self.results

        sparse = None if self.sparse is None else of(self.sparse)
        return {"layer": of(self.local), "sparse": sparse, "dense": of(self.dense)}


def storage(graph: Graph, nodes: Iterable[Node]) -> Storage | None:
    """The storage of a layer, whose nodes these are; None unless it has one operator that
    multiplies weights with data and is linear in the data.
    """
    own = list(nodes)
    heavy = [n for n in own if macs(graph, n) != 0]
    if len(heavy) != 1 or len(heavy[0].inputs) < 2:
        return None
    (node,) = heavy
    if not (isinstance(node.op, Op) and 0 in node.op.linear):
        return None  # distances from codes have no matrix
    data = graph[node.inputs[0]]
    padded = data in own and data.op.name == "pad"
    source = graph[data.inputs[0]] if padded else data
    return Storage(
        weights(graph, node),
        macs(graph, node),
        _links(graph, node, data if padded else None),
        source.type.elements * node.type.elements,
        node.type.elements,
    )


def macs(graph: Graph, node: Node) -> Extent:
    """Multiply-accumulates of one sample; connections that a table leaves out are no work."""
    if not isinstance(node.op, Op):
        return 0
    full = node.op.cost(graph.types(node), node.type).macs
    if full == 0 or len(node.inputs) < 2:
        return full
    kept, every = kept_weights(graph, node.inputs[1]), graph[node.inputs[1]].type.elements
    if kept == every:
        return full
    assert isinstance(every, int), "weights have known extents"
    return full * kept // every


def kept_weights(graph: Graph, name: str) -> Extent:
    """Entries of a weight that are not zero by construction."""
    node = graph[name]
    if not isinstance(node.op, Op):
        return node.type.elements
    return node.op.nonzeros(graph.types(node), node.type)


def weights(graph: Graph, node: Node) -> Extent:
    """Stored floats that the second operand of a node is made of."""
    waiting, found = [node.inputs[1]], dict[str, Extent]()
    while waiting:
        source = graph[waiting.pop()]
        if isinstance(source.op, Parameter):
            found[source.name] = source.type.elements
        elif not source.type.batched:
            waiting += source.inputs
    total: Extent = 0
    for elements in found.values():
        total = total + elements
    return total


# --- pairs of results and inputs ------------------------------------------------------------------


def _links(graph: Graph, node: Node, border: Node | None) -> Extent | None:
    """Pairs of a result and an input (in front of `border`, if there is one) that it reads."""
    window: Window | None = getattr(node.op, "window", None)
    work = macs(graph, node)
    if window is None:
        return work
    spatial = getattr(node.op, "extents", None) or graph[node.inputs[0]].type.spatial
    amounts = border.op.amounts if border else None  # type: ignore[attr-defined]
    mode = border.op.mode if border else "zero"  # type: ignore[attr-defined]
    pairs: Extent = 1
    every: Extent = 1
    for a, (axis, extent) in enumerate(zip(window, spatial, strict=True)):
        lo, hi = amounts[a] if amounts else (0, 0)
        every = every * (axis.out(extent) * axis.size)
        if mode in ("zero", "const"):
            moved = replace(axis, lo=axis.lo + lo, hi=axis.hi + hi)
            found = _inside(moved, extent - (lo + hi))
        else:
            found = _distinct(axis, extent, mode, lo, hi)
        if found is None:
            return None
        pairs = pairs * found
    return work if pairs == every else _share(work, pairs, every)


def _share(work: Extent, pairs: Extent, every: Extent) -> Extent | None:
    """work * pairs / every, which is whole: the channels' part of the work has no positions."""
    if isinstance(work, int) and isinstance(pairs, int) and isinstance(every, int):
        return work * pairs // every
    return None


def _inside(axis: Any, n: Extent) -> Extent | None:
    if isinstance(n, int):
        return int(axis.inside(n))
    whole = axis.lo == axis.hi == 0 and axis.fit != "partial"
    return axis.out(n) * axis.size if whole else None


def _distinct(axis: Any, padded: Extent, mode: str, lo: int, hi: int) -> Extent | None:
    """Pairs along an axis whose border shows the input again: two taps may read one position."""
    if not isinstance(padded, int) or axis.out(padded) * axis.size > MOST_PAIRS:
        return None
    n = padded - lo - hi

    def shown(i: int) -> int:
        match mode:
            case "replicate":
                return min(max(i, 0), n - 1)
            case "circular":
                return i % n
            case _:
                return n - 1 - abs(n - 1 - abs(i))

    return sum(
        len({shown(i - lo) for _, i in axis.taps(o, padded)}) for o in range(axis.out(padded))
    )
