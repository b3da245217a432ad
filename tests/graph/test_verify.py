"""The verifier finds each broken rule, and names the stage and the node."""

from dataclasses import replace

import pytest

from cnncc.compiler import front
from cnncc.errors import CompilerBug
from cnncc.graph.ir import Condition, Graph, Node, Origin, TypedGraph
from cnncc.graph.verify import verify
from cnncc.tensor import DType, TensorType


@pytest.fixture
def graph() -> Graph:
    return front(
        "net n { input x: f32[3, 8, 8]\n c = x -> conv(4, 3x3)\n output y = c + relu(c) }\n"
    ).graph


def changed(graph: Graph, which: str, **fields: object) -> Graph:
    nodes = tuple(replace(n, **fields) if n.name == which else n for n in graph.nodes)
    return Graph(graph.name, nodes, graph.outputs, graph.conditions)


def broken(graph: Graph) -> CompilerBug:
    with pytest.raises(CompilerBug) as caught:
        verify(graph, "simplify")
    assert caught.value.stage == "simplify"
    return caught.value


def test_a_verified_graph_is_the_same_graph(graph: Graph) -> None:
    typed = verify(graph)
    assert isinstance(typed, TypedGraph)
    assert typed.nodes is graph.nodes


def test_names_are_unique(graph: Graph) -> None:
    assert "unique" in broken(changed(graph, "y.relu", name="c")).invariant


def test_names_are_not_empty(graph: Graph) -> None:
    assert "has a name" in broken(changed(graph, "c", name="")).invariant


def test_nodes_read_earlier_nodes(graph: Graph) -> None:
    assert broken(changed(graph, "y.relu", inputs=("y",))).node == "y.relu"
    assert "no node before it" in broken(changed(graph, "c", inputs=("z",))).invariant
    nodes = (graph.nodes[-1], *graph.nodes[:-1])
    assert "no node before it" in broken(Graph("g", nodes, graph.outputs)).invariant


def test_types_are_what_the_operators_say(graph: Graph) -> None:
    wrong = TensorType(DType.F32, (4, 7, 6))
    assert "but it says f32[*, 4, 7, 6]" in broken(changed(graph, "c", type=wrong)).invariant
    unbatched = TensorType(DType.F32, (4, 6, 6), batched=False)
    assert broken(changed(graph, "c", type=unbatched)).node == "c"


def test_operands_fit_the_operator(graph: Graph) -> None:
    assert broken(changed(graph, "y", inputs=("x", "c"))).node == "y"


def test_operators_have_as_many_operands_as_they_take(graph: Graph) -> None:
    assert "other operands" in broken(changed(graph, "y", inputs=("c",))).invariant
    assert "other operands" in broken(changed(graph, "y", inputs=("c", "c", "c"))).invariant


def test_sources_have_no_operands(graph: Graph) -> None:
    assert "other operands" in broken(changed(graph, "c.bias", inputs=("x",))).invariant


def test_outputs_exist_and_have_names(graph: Graph) -> None:
    def with_outputs(*outputs: tuple[str, str]) -> Graph:
        return Graph(graph.name, graph.nodes, outputs)

    assert "at least one output" in broken(with_outputs()).invariant
    assert "node of the graph" in broken(with_outputs(("y", "z"))).invariant
    assert "used once" in broken(with_outputs(("y", "y"), ("y", "c"))).invariant


def test_updates_give_parameters_values_of_their_type(graph: Graph) -> None:
    def with_updates(*updates: tuple[str, str]) -> Graph:
        return Graph(graph.name, graph.nodes, graph.outputs, (), updates)

    assert verify(with_updates(("c.bias", "c.bias"))).updates == (("c.bias", "c.bias"),)
    assert "its update f32[*, 4, 6, 6]" in broken(with_updates(("c.bias", "y"))).invariant
    assert "of a parameter" in broken(with_updates(("c", "y"))).invariant
    assert "the only one" in broken(with_updates(*[("c.bias", "c.bias")] * 2)).invariant
    assert "are nodes" in broken(with_updates(("c.bias", "z"))).invariant


def test_conditions_divide_by_something(graph: Graph) -> None:
    condition = Condition(4, 0, "the stride divides", Origin(None, "c"))
    nothing = Graph(graph.name, graph.nodes, graph.outputs, (condition,))
    assert broken(nothing).node == "c"


def test_extents_are_at_least_one(graph: Graph) -> None:
    empty = TensorType(DType.F32, (0, 8, 8))
    x = graph["x"]
    nodes = (Node("x", replace(x.op, type=empty), (), empty),)  # type: ignore[type-var]
    assert "at least 1" in broken(Graph("g", nodes, (("x", "x"),))).invariant
