"""What decides between several ways to compute a layer, as data: for how many samples in a call the
cost models are asked, and what was measured to be better than what they choose. `compiler.kernels`
and the CPU target are handed a `Choices` and ask it before their models.

A choice belongs to the form of a node, its operator with attributes and types, so that it holds for
every layer of that form. Which algorithm computes a convolution is a choice under `precision =
"default"`; how many positions a register tile has changes no bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cnncc.graph.ir import Graph, Node
from cnncc.graph.terms import print_operator


@dataclass(frozen=True)
class Choice:
    """A value, and what was measured: the seconds that the layers of the form take with it, and
    `before`, with the value of the cost model (0 where it is still to be measured).
    """

    value: int
    seconds: float = 0.0
    before: float = 0.0


@dataclass(frozen=True)
class Choices:
    """By the form of a node. algorithms: the m of F(m x m, r x r) for a convolution, 0 for its
    definition. widths: positions of the register tile of the kernel that computes the node. batch:
    samples of a call.
    """

    algorithms: Mapping[str, Choice] = field(default_factory=dict)
    widths: Mapping[str, Choice] = field(default_factory=dict)
    batch: int = 1

    def __bool__(self) -> bool:
        return bool(self.algorithms or self.widths)

    def joined(self, other: Choices) -> Choices:
        """Both, for as many samples; where they speak of one form, the other's."""
        algorithms = {**self.algorithms, **other.algorithms}
        return replace(self, algorithms=algorithms, widths={**self.widths, **other.widths})

    def widths_in(self, graph: Graph) -> dict[str, int]:
        """The widths of the nodes of a graph, by name."""
        if not self.widths:
            return {}
        found = {node.name: self.widths.get(form(node, graph)) for node in graph.nodes}
        return {name: choice.value for name, choice in found.items() if choice is not None}


NONE = Choices()


def form(node: Node, graph: Graph) -> str:
    """A node without names: `conv(window=...) f32[*, 3, 8, 8], f32[4, 3, 3, 3] -> f32[...]`."""
    types = ", ".join(str(t) for t in graph.types(node))
    return f"{print_operator(node.op)} {types} -> {node.type}"
