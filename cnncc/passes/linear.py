"""A layer that is linear in its input, as a function of its input and its stored weights.

Which nodes make a layer, which tensor they read, which parameters they are linear in; and the layer
itself, computed by its operators' oracles in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, SpecError, did_you_mean
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.ops.base import Array, Op
from cnncc.tensor import TensorType, product

MOST_ENTRIES = 1 << 24
"""Results times inputs of the largest layer whose matrix is built."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stored:
    """Parameters of a layer, laid end to end: weight number n is element n of all of them."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(self.sizes)

    def split(self, values: Floats) -> dict[str, Floats]:
        """The parameters whose elements are `values`."""
        found, first = {}, 0
        for name, shape, number in zip(self.names, self.shapes, self.sizes, strict=True):
            found[name] = values[first : first + number].reshape(shape)
            first += number
        return found

    def place(self, number: int) -> str:
        """Where a weight is: `c1.weight[0, 2, 1]`."""
        for name, shape, count in zip(self.names, self.shapes, self.sizes, strict=True):
            if number < count:
                index = np.unravel_index(number, shape)
                return f"{name}[{', '.join(map(str, map(int, index)))}]"
            number -= count
        raise IndexError("no such weight")


@dataclass(frozen=True)
class LinearLayer:
    """The nodes of a layer, the tensor that they read, and the parameters that they are linear in.

    `weights` are unbatched nodes outside of the layer that its nodes read, in graph order.
    """

    graph: Graph
    source: Node
    nodes: tuple[Node, ...]
    weights: tuple[Node, ...]
    stored: Stored

    @staticmethod
    def of(graph: Graph, layer: str) -> LinearLayer:
        nodes = layer_nodes(graph, layer)
        source = _source(graph, layer, nodes)
        for t in (source.type, nodes[-1].type):
            if t.symbols:
                raise _no_matrix(
                    layer, f"its tensors have symbolic extents: {t}", "give the input fixed extents"
                )
        _require_linear(graph, layer, nodes, source)
        size = elements(source.type) * elements(nodes[-1].type)
        if size > MOST_ENTRIES:
            raise SpecError(
                Diagnostic(
                    "E0812",
                    f"the matrix of `{layer}` has {elements(nodes[-1].type):_} x "
                    f"{elements(source.type):_} = {size:_} entries, and the limit is "
                    f"{MOST_ENTRIES:_}",
                    nodes[-1].origin.span,
                    helps=(
                        "`cnncc report NET --table storage` tells its numbers",
                        "compile the net with smaller extents",
                    ),
                )
            )
        weights = _weights(graph, layer, nodes, source)
        parameters = [n for n in weights if isinstance(n.op, Parameter)]
        return LinearLayer(
            graph,
            source,
            nodes,
            weights,
            Stored(tuple(n.name for n in parameters), tuple(n.type.dims(0) for n in parameters)),
        )

    def columns(self, first: int, last: int, weights: Floats) -> Floats:
        """Columns first..last - 1 of the matrix for flat weights: [results, columns]."""
        inputs = elements(self.source.type)
        units = np.zeros((last - first + 1, inputs))  # and zeros, the last: what a bias adds
        units[np.arange(last - first), np.arange(first, last)] = 1.0
        x = units.reshape(len(units), *self.source.type.dims(1)[1:])
        y = self.apply(x, self.stored.split(weights)).reshape(len(units), -1)
        return np.asarray((y[:-1] - y[-1]).T)

    def apply(self, x: Floats, parameters: Mapping[str, Floats]) -> Floats:
        """The layer itself, by its operators' oracles."""
        arrays: dict[str, Array] = {self.source.name: x, **parameters}
        for node in (*self.weights, *self.nodes):
            if node.name in arrays:
                continue
            if isinstance(node.op, Constant):
                arrays[node.name] = constant_array(node, len(x))
                continue
            assert isinstance(node.op, Op)
            operands = [arrays[i] for i in node.inputs]
            arrays[node.name] = node.op.oracle(self.graph.types(node), operands)
        return arrays[self.nodes[-1].name]


# --- which nodes are the layer --------------------------------------------------------------------


def layer_nodes(graph: Graph, layer: str) -> tuple[Node, ...]:
    """The operators of a layer, in order. Raises SpecError E0810 for a name of no layer."""
    nodes = tuple(
        n for n in graph.nodes if isinstance(n.op, Op) and n.type.batched and _name(n) == layer
    )
    if nodes:
        return nodes
    known = list(dict.fromkeys(_name(n) for n in graph.nodes if isinstance(n.op, Op)))
    near = tuple(f"did you mean `{n}`?" for n in did_you_mean(layer, known))
    raise SpecError(
        Diagnostic(
            "E0810",
            f"`{graph.name}` has no layer `{layer}`",
            helps=near
            or (f"its layers are {', '.join(known[:12])}" + ", ..." * (len(known) > 12),),
        )
    )


def _name(node: Node) -> str:
    return node.origin.layer or node.name


def _source(graph: Graph, layer: str, nodes: Sequence[Node]) -> Node:
    own = {n.name for n in nodes}
    read = dict.fromkeys(
        i
        for n in nodes
        for i in n.inputs
        if i not in own and graph[i].type.batched and not isinstance(graph[i].op, Constant)
    )
    if len(read) != 1:
        raise _no_matrix(layer, f"it reads {len(read)} tensors", "ask about a layer that reads one")
    return graph[next(iter(read))]


def _require_linear(graph: Graph, layer: str, nodes: Sequence[Node], source: Node) -> None:
    """Every operator must be linear, or affine, in each operand that comes from the source, the
    others held fixed.
    """
    moving = {source.name}
    for node in nodes:
        operands = [k for k, i in enumerate(node.inputs) if i in moving]
        if not operands:
            continue
        moving.add(node.name)
        assert isinstance(node.op, Op)
        product_of_two = len(operands) > 1 and node.op.name not in ("add", "sub", "concat")
        if product_of_two or not set(operands) <= {*node.op.linear, *_every(node)}:
            near = [_name(n) for n in graph.nodes if isinstance(n.op, Op) and n.op.linear]
            raise _no_matrix(
                layer,
                f"`{node.op.name}` is not linear",
                f"layers with a matrix are {', '.join(dict.fromkeys(near[:6]))}",
            )


def _every(node: Node) -> range:
    """All operands of a concat, which is linear in them together."""
    return range(len(node.inputs)) if node.op.name == "concat" else range(0)


def _no_matrix(layer: str, why: str, fix: str) -> SpecError:
    return SpecError(Diagnostic("E0811", f"`{layer}` has no matrix: {why}", helps=(fix,)))


def _weights(graph: Graph, layer: str, nodes: Sequence[Node], source: Node) -> tuple[Node, ...]:
    """Everything that the nodes read beside the source, down to the parameters, in graph order."""
    own = {n.name for n in nodes} | {source.name}
    waiting = [i for n in nodes for i in n.inputs if i not in own]
    found: set[str] = set()
    while waiting:
        node = graph[waiting.pop()]
        if node.name in found:
            continue
        found.add(node.name)
        waiting += node.inputs
        if not isinstance(node.op, Op):
            continue
        made = {k for k, i in enumerate(node.inputs) if not isinstance(graph[i].op, Constant)}
        if not made <= {*node.op.linear}:
            raise _no_matrix(
                layer,
                f"it is not linear in the parameters of its `{node.op.name}`",
                "ask about a layer whose weights multiply its input, such as a convolution",
            )
    return tuple(n for n in graph.nodes if n.name in found)


def constant_array(node: Node, batch: int) -> Array:
    """The values of a constant: one number everywhere, or a table of the type's shape."""
    assert isinstance(node.op, Constant)
    shape = node.type.dims(batch)
    return np.asarray(np.broadcast_to(np.asarray(node.op.value), shape))


def elements(t: TensorType) -> int:
    """The elements of a tensor whose extents are known."""
    number = product(t.shape)
    assert isinstance(number, int)
    return number
