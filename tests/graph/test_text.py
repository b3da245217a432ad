"""Graph text reads back to the same graph, for every built-in network and every kind of term."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.compiler import front
from cnncc.errors import NOWHERE
from cnncc.graph.ir import Condition, Graph, Node, Origin
from cnncc.graph.layer import Init, Pad, Size, Weights, Word
from cnncc.graph.locate import built_in
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.graph.terms import TextError, parse_expression, parse_type, print_value, read_value
from cnncc.graph.text import parse_graph, print_graph
from cnncc.ops import OPERATORS, all_samples
from cnncc.tensor import DType, Extent, TensorType, symbol
from cnncc.window import Axis


@pytest.mark.parametrize("name", built_in())
@pytest.mark.parametrize("train", [False, True])
def test_built_in_networks_round_trip(name: str, train: bool) -> None:
    graph = front(name, train=train).graph
    again = parse_graph(print_graph(graph, places=True), OPERATORS)
    assert again == Graph(graph.name, graph.nodes, graph.outputs, graph.conditions)


@pytest.mark.parametrize("sample", list(all_samples()), ids=lambda s: s.op.name)
def test_every_operator_has_a_text_form(sample) -> None:  # type: ignore[no-untyped-def]
    text = print_value(sample.op)
    assert read_value(parse_expression(text), OPERATORS) == sample.op


H, W = symbol("H"), symbol("W")
EXTENTS = st.recursive(
    st.sampled_from([1, 2, 7, H, W]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] - p[1]),
        st.tuples(inner, st.integers(-3, 3)).map(lambda p: p[0] * p[1]),
        st.tuples(inner, st.integers(1, 4)).map(lambda p: p[0] // p[1]),
    ),
    max_leaves=6,
)
TYPES = st.builds(
    TensorType,
    st.sampled_from(DType),
    st.lists(EXTENTS, min_size=1, max_size=4).map(tuple),
    st.booleans(),
)
TERMS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**12),
        st.floats(allow_nan=False),
        st.text(max_size=8),
        EXTENTS,
        TYPES,
        st.sampled_from(DType),
        st.builds(Axis, st.integers(1, 9), st.integers(1, 4), lo=st.integers(0, 3)),
        st.builds(Init, st.text(max_size=3), st.lists(st.floats(0, 1), max_size=2).map(tuple)),
        st.sampled_from([Pad("same"), Pad(((1, 2),), "const", 0.5), Size((3, 3)), Weights("U")]),
        st.builds(Word, st.text(max_size=3), st.lists(st.integers(), max_size=2).map(tuple)),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(TERMS)
def test_terms_round_trip(term: object) -> None:
    again = read_value(parse_expression(print_value(term)), {})
    assert again == term
    assert type(again) is type(term) or isinstance(term, DType)


@given(TYPES)
def test_types_round_trip(type: TensorType) -> None:
    assert parse_type(str(type)) == type


@given(EXTENTS, st.integers(1, 9), st.text(max_size=12))
def test_conditions_round_trip(extent: Extent, divisor: int, text: str) -> None:
    condition = Condition(extent, divisor, text, Origin(NOWHERE, "a.b"))
    node = Node("x", Input(TensorType(DType.F32, (1,))), (), TensorType(DType.F32, (1,)))
    graph = Graph("g", (node,), (("x", "x"),), (condition,))
    assert parse_graph(print_graph(graph), {}) == graph


def test_sources_and_origins_round_trip() -> None:
    f32 = TensorType(DType.F32, (2, H), batched=False)
    literal = Init("literal", literal=((1.0, -0.5), (0.25, 2.0)))
    nodes = (
        Node("t", Input(f32, "target"), (), f32, Origin(None, "t")),
        Node("p", Parameter(f32, literal, "frozen"), (), f32, Origin(None, "layer.c1")),
        Node("c", Constant(f32, float("-inf")), (), f32),
    )
    graph = Graph("g", nodes, (("out", "c"), ("again", "c")), updates=(("p", "c"),))
    assert parse_graph(print_graph(graph), {}) == graph


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("%x = input() : f32[*, 3", "is no type"),
        ("%x = inputs() : f32[*, 3]", "no operator inputs"),
        ("%x = input(role='data', size=3) : f32[*, 3]", "no attribute size"),
        ("%x = input(role=__import__('os')) : f32[*, 3]", "no term __import__"),
        ("%x = input(role=().__class__) : f32[*, 3]", "no attribute value"),
        ("%x = input(3) : f32[*, 3]", "have names"),
        ("%x == input() : f32[*, 3]", "no node, condition or result"),
        ("%x = input(role=) : f32[*, 3]", "is not a term"),
        ("%x = input() : f32[*, H ** 2]", "no extent"),
    ],
)
def test_wrong_text_is_refused_with_its_line(line: str, fault: str) -> None:
    with pytest.raises(TextError, match=fault) as caught:
        parse_graph(f"graph g {{\n\n  {line}\n}}\n", OPERATORS)
    assert caught.value.line == 3


def test_text_without_a_graph_is_refused() -> None:
    with pytest.raises(TextError, match="graph NAME"):
        parse_graph("net g {}", OPERATORS)


def test_values_without_a_text_form_are_refused() -> None:
    with pytest.raises(TypeError, match="no form for"):
        print_value({1, 2})
