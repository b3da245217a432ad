"""Counts what a network is made of, layer by layer, without running or allocating anything.

The conventions, as the papers of the classic networks have them:

- params: weights, biases, and the scale and shift of a norm; running statistics are state and are
  counted apart.
- macs: multiply-accumulates of convolutions and dense layers for one sample, no biases.
- connections: macs, plus one per unit for its bias; a trainable pool counts its window and its bias
  (LeCun et al. 1998, tables of LeNet-5). Taps that lie in the padding are counted.
- operations: multiplications and additions. A unit with k connections takes k - 1 additions, and a
  multiplication for each of them but the bias; a trainable pool multiplies its sum once.
- units: the results of the layers that have connections, except the last of them on the way to an
  output; inputs are no units (LeNet-5: 8084). `output_units` are the rest, and `input_units` the
  elements of the inputs: papers count with or without them.
- depth, also weight_layers: the largest number of such layers on one path.
- bytes: results of all nodes of one sample, each once; what a plan needs at a time is less.
- traffic: bytes that a network of one kernel per operator reads and writes for one sample, the
  parameters included.
- storage: stored floats as a layer, as a matrix, and so on; see storage.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.passes.receptive import Field, receptive_fields
from cnncc.passes.storage import Storage, macs, storage
from cnncc.tensor import Extent, TensorType, product


@dataclass(frozen=True)
class LayerCount:
    """One layer: `operator` is what computes its result, `type` that result, `line` where it is."""

    name: str
    operator: str
    line: str
    operands: tuple[str, ...]
    input_types: tuple[TensorType, ...]
    type: TensorType
    params: int = 0
    trained: int = 0
    state: int = 0
    macs: Extent = 0
    connections: Extent = 0
    units: Extent = 0
    bytes: Extent = 0
    traffic: Extent = 0
    storage: Storage | None = None
    field: Field | None = None
    nodes: tuple[str, ...] = ()

    @property
    def biases(self) -> Extent:
        """Connections that are biases: at most one per unit."""
        return self.connections - self.macs if self.macs != 0 else self.units

    @property
    def multiplications(self) -> Extent:
        """One per product; a trainable pool multiplies the sum of its window once."""
        return self.macs if self.macs != 0 else self.units

    @property
    def additions(self) -> Extent:
        """One less than the connections of every unit."""
        return self.connections - self.units

    @property
    def operations(self) -> Extent:
        """Multiplications and additions."""
        return self.multiplications + self.additions


@dataclass(frozen=True)
class Counts:
    """All layers in order, and the whole network."""

    name: str
    layers: tuple[LayerCount, ...]
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    params: int
    trained: int
    state: int
    macs: Extent
    connections: Extent
    multiplications: Extent
    additions: Extent
    input_units: Extent
    units: Extent
    output_units: Extent
    depth: int
    bytes: Extent
    traffic: Extent

    @property
    def operations(self) -> Extent:
        """Multiplications and additions of one sample."""
        return self.multiplications + self.additions

    @property
    def weight_layers(self) -> int:
        """The depth, under the name that tables of networks have for it."""
        return self.depth

    def of(self, nodes: Iterable[str]) -> tuple[LayerCount, ...]:
        """The layers that some of the nodes belong to."""
        wanted = set(nodes)
        return tuple(layer for layer in self.layers if wanted & set(layer.nodes))


def count(graph: Graph) -> Counts:
    """Count a verified graph. Parameters that layers share are counted once, with the first."""
    fields = receptive_fields(graph)
    layers = tuple(_layer(graph, nodes, fields) for nodes in _nodes_by_layer(graph).values())
    last = _last_weighted(graph, layers)
    hidden = [x.units for x in layers if x.name not in last]
    return Counts(
        graph.name,
        layers,
        tuple((n.name, n.type) for n in graph.of("input")),
        tuple((public, graph[name].type) for public, name in graph.outputs),
        sum(x.params for x in layers),
        sum(x.trained for x in layers),
        sum(x.state for x in layers),
        total(x.macs for x in layers),
        total(x.connections for x in layers),
        total(x.multiplications for x in layers),
        total(x.additions for x in layers),
        total(n.type.elements for n in graph.of("input") if getattr(n.op, "role", "") == "data"),
        total(hidden),
        total(x.units for x in layers if x.name in last),
        _depth(graph, {x.nodes[-1] for x in layers if x.connections != 0}),
        total(x.bytes for x in layers),
        total(x.traffic for x in layers),
    )


def total(extents: Iterable[Extent]) -> Extent:
    """The sum, exact, of numbers and symbolic extents."""
    result: Extent = 0
    for extent in extents:
        result = result + extent
    return result


def _nodes_by_layer(graph: Graph) -> dict[str, list[Node]]:
    layers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Input | Constant):
            continue
        layers.setdefault(node.origin.layer or node.name, []).append(node)
    return {name: nodes for name, nodes in layers.items() if nodes}


def _layer(graph: Graph, nodes: list[Node], fields: Mapping[str, Field | None]) -> LayerCount:
    computed = [n for n in nodes if not isinstance(n.op, Parameter)]
    result = computed[-1] if computed else nodes[-1]
    own = {n.name for n in nodes}
    operands = tuple(
        dict.fromkeys(
            i
            for n in computed
            for i in n.inputs
            if i not in own and not isinstance(graph[i].op, Parameter)
        )
    )
    parameters = [n for n in nodes if isinstance(n.op, Parameter)]
    span = result.origin.span
    connections = _connections(graph, computed)
    return LayerCount(
        nodes[0].origin.layer or nodes[0].name,
        _main_operator(graph, computed or nodes),
        str(span) if span is not None and span.known else "",
        operands,
        tuple(graph[i].type for i in operands),
        result.type,
        _elements(n for n in parameters if n.op.kind != "state"),  # type: ignore[attr-defined]
        _elements(n for n in parameters if n.op.kind == "trained"),  # type: ignore[attr-defined]
        _elements(n for n in parameters if n.op.kind == "state"),  # type: ignore[attr-defined]
        total(macs(graph, n) for n in computed),
        connections,
        result.type.elements if connections != 0 else 0,
        total(_bytes(n) for n in computed),
        total(_traffic(graph, n) for n in computed),
        storage(graph, nodes),
        fields.get(result.name),
        tuple(n.name for n in nodes),
    )


def _bytes(node: Node) -> Extent:
    return node.type.elements * node.type.dtype.bytes


def _traffic(graph: Graph, node: Node) -> Extent:
    """Bytes that an operator alone reads and writes, each tensor once."""
    return total(_bytes(graph[i]) for i in dict.fromkeys(node.inputs)) + _bytes(node)


def _elements(parameters: Iterable[Node]) -> int:
    number = total(n.type.elements for n in parameters)
    assert isinstance(number, int), "parameters have known extents"
    return number


def _main_operator(graph: Graph, nodes: list[Node]) -> str:
    """The operator a layer is known by: the one that works most, else the last."""
    heavy = [n for n in nodes if macs(graph, n) != 0 or hasattr(n.op, "window")]
    return (heavy or nodes)[-1].op.name


def _has_bias(node: Node) -> bool:
    """Whether an operator that multiplies adds a bias too: its third operand."""
    return len(node.inputs) > 2


def _connections(graph: Graph, nodes: list[Node]) -> Extent:
    """Connections of a layer that has weights; 0 for any other, norms included."""
    connections: Extent = 0
    for node in nodes:
        weights = [i for i in node.inputs if isinstance(graph[i].op, Parameter)]
        window = getattr(node.op, "window", None)
        products = macs(graph, node)
        if products != 0:
            biases = node.type.elements if _has_bias(node) else 0
            connections = connections + products + biases
        elif window is not None and _is_trained_pool(graph, nodes):
            connections = connections + node.type.elements * product(axis.size for axis in window)
        elif node.op.name == "add" and weights and connections != 0:
            connections = connections + node.type.elements
    return connections


def _is_trained_pool(graph: Graph, nodes: list[Node]) -> bool:
    return any(
        n.op.name == "mul" and any(isinstance(graph[i].op, Parameter) for i in n.inputs)
        for n in nodes
    )


def _last_weighted(graph: Graph, layers: tuple[LayerCount, ...]) -> set[str]:
    """Layers with connections from which no other such layer is reached."""
    layer_of = {node: x.name for x in layers for node in x.nodes}
    weighted = {x.name for x in layers if x.connections != 0}
    leads: set[str] = set()  # nodes whose result reaches a further such layer
    last = set(weighted)
    for node in reversed(graph.nodes):
        layer = layer_of.get(node.name, "")
        if node.name in leads:
            last.discard(layer)
            leads.update(node.inputs)
        if layer in weighted:
            leads.update(i for i in node.inputs if layer_of.get(i, "") != layer)
    return last


def _depth(graph: Graph, weighted: set[str]) -> int:
    depth: dict[str, int] = {}
    for node in graph.nodes:
        before = max((depth[i] for i in node.inputs), default=0)
        depth[node.name] = before + (node.name in weighted)
    return max((depth[name] for _, name in graph.outputs), default=0)
