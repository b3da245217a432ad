"""The graph IR: a list of single-assignment nodes in topological order.

    graph NAME {
      %image = input() : f32[*, 1, 28, 28]
      %c1.weight = parameter(init='he') : f32[6, 1, 5, 5]
      %c1 = conv(...) %image, %c1.weight, %c1.bias : f32[*, 6, 28, 28]   @ specs/lenet5.cnn:4:8
      return scores = %f7
    }

A node is an operator applied to earlier nodes and has one result; its name is unique in the graph,
names come from the `.cnn` text and are what reports, errors and weight files show. Nodes that
compile-time code adds carry the name of the layer they serve plus a suffix. `Graph` is what `build`
and the passes construct; `TypedGraph` is a graph that the verifier has accepted: every operator's
shape rule was run again and agreed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from cnncc.errors import Span
from cnncc.tensor import Extent, TensorType


class Operator:
    """What the graph knows of an operator; `ops.base.Op` adds oracle, gradient, nest and facts.

    Subclasses are frozen dataclasses; their fields are the attributes and print as Python literals.
    """

    name: ClassVar[str]

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        """The result type. Raises `ShapeError` when the inputs break the operator's rule."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """Attribute values that differ from their defaults, in field order."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        }


class ShapeError(Exception):
    """A broken shape rule: the rule in words, the arithmetic, and ranked fixes; the builder adds
    the span.
    """

    def __init__(
        self,
        code: str,
        rule: str,
        *,
        arithmetic: Iterable[str] = (),
        fixes: Iterable[str] = (),
        argument: str = "",
    ) -> None:
        super().__init__(rule)
        self.code, self.rule = code, rule
        self.arithmetic, self.fixes = tuple(arithmetic), tuple(fixes)
        self.argument = argument  # the language argument to point at, "" for the whole layer


@dataclass(frozen=True)
class Origin:
    """Where a node comes from: the span in the text and the layer name that reports show for it."""

    span: Span | None = field(default=None, compare=False)
    layer: str = ""


@dataclass(frozen=True)
class Node:
    name: str
    op: Operator
    inputs: tuple[str, ...]
    type: TensorType
    origin: Origin = Origin()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Condition:
    """extent % divisor == 0, promised by `fit = exact` on a symbolic extent and checked when data
    arrives.
    """

    extent: Extent
    divisor: int
    text: str
    origin: Origin


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order and the named results.

    An update (p, v) says that after a run the parameter or state p holds the value of node v.
    """

    name: str
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, str], ...]  # (public name, node name)
    conditions: tuple[Condition, ...] = ()
    updates: tuple[tuple[str, str], ...] = ()

    def with_nodes(self, nodes: Iterable[Node]) -> Self:
        return replace(self, nodes=tuple(nodes))

    def __getitem__(self, name: str) -> Node:
        return self.index[name]

    @property
    def index(self) -> Mapping[str, Node]:
        cached = self.__dict__.get("_index")
        if cached is None:
            cached = {n.name: n for n in self.nodes}
            object.__setattr__(self, "_index", cached)
        return cached

    def types(self, node: Node) -> tuple[TensorType, ...]:
        """The types of a node's inputs."""
        return tuple(self[i].type for i in node.inputs)

    def of(self, *names: str) -> Iterator[Node]:
        """All nodes whose operator has one of the names."""
        return (n for n in self.nodes if n.op.name in names)

    def consumers(self) -> dict[str, list[Node]]:
        """For every node the nodes that read it (once per reading edge), in order."""
        table: dict[str, list[Node]] = {n.name: [] for n in self.nodes}
        for n in self.nodes:
            for i in n.inputs:
                table[i].append(n)
        return table


@dataclass(frozen=True)
class TypedGraph(Graph):
    """A verified graph. Only `graph.verify.verify` makes one."""


@dataclass
class Builder:
    """Grows a graph node by node, inferring each result type; used by elaboration and by
    gradients.
    """

    graph_name: str
    nodes: list[Node] = field(default_factory=list)
    origin: Origin = Origin()
    _index: dict[str, Node] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(graph: Graph) -> Builder:
        builder = Builder(graph.name, list(graph.nodes))
        builder._index = dict(graph.index)
        return builder

    def __getitem__(self, name: str) -> Node:
        return self._index[name]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def replace_from(self, first: int, nodes: Iterable[Node]) -> None:
        """Put other nodes in the place of nodes[first:]; no earlier node may be affected."""
        for old in self.nodes[first:]:
            del self._index[old.name]
        self.nodes[first:] = nodes
        self._index.update((node.name, node) for node in self.nodes[first:])

    def fresh(self, wanted: str) -> str:
        """`wanted`, or wanted_2, wanted_3, ... when it is taken."""
        if wanted not in self._index:
            return wanted
        number = self._next.get(wanted, 2)
        while f"{wanted}_{number}" in self._index:
            number += 1
        self._next[wanted] = number + 1
        return f"{wanted}_{number}"

    def add(
        self, op: Operator, *inputs: Node, name: str = "", origin: Origin | None = None
    ) -> Node:
        """Append op(inputs) and return its node. Raises ShapeError."""
        result = op.infer(tuple(i.type for i in inputs))
        node = Node(
            self.fresh(name or op.name),
            op,
            tuple(i.name for i in inputs),
            result,
            origin or self.origin,
        )
        self.nodes.append(node)
        self._index[node.name] = node
        return node

    def graph(
        self, outputs: Iterable[tuple[str, Node]], conditions: Iterable[Condition] = ()
    ) -> Graph:
        named = tuple((public, node.name) for public, node in outputs)
        return Graph(self.graph_name, tuple(self.nodes), named, tuple(conditions))
