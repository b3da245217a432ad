"""Pairs inside an input, counted in closed form, against counting them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.compiler import front
from cnncc.passes.count import count
from cnncc.passes.matrix import layer_matrix
from cnncc.window import Axis, floor_sum

SMALL = st.integers(0, 20)


@given(SMALL, st.integers(1, 9), SMALL, SMALL)
def test_floor_sums(n: int, m: int, a: int, b: int) -> None:
    assert floor_sum(n, m, a, b) == sum((a * i + b) // m for i in range(n))


AXES = st.builds(
    Axis, st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 6),
    st.integers(0, 6), st.sampled_from(["floor", "partial"]),
)  # fmt: skip


@given(AXES, st.integers(1, 15))
def test_pairs_inside_the_input(axis: Axis, n: int) -> None:
    outs = max(axis.out(n), 0)
    assert axis.inside(n) == sum(len(axis.taps(o, n)) for o in range(outs))


def test_pairs_of_the_largest_window_are_counted_at_once() -> None:
    axis = Axis(1 << 30, lo=1 << 29, hi=1 << 29)
    assert axis.inside((1 << 31) - 1) == 2017612632525111296


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
@pytest.mark.parametrize("pad", [0, 1, "(2, 0)"])
def test_sparse_floats_are_the_entries_of_the_matrix(kind: str, pad: object, stride: int) -> None:
    floor = ", fit = floor" if kind == "conv" else ""
    body = f"{kind}(2, 3x4, stride = {stride}, pad = {pad}{floor})"
    graph = front(f"net n {{ input x: f32[2, 6, 7]\n output y = x -> {body} }}\n").graph
    (found,) = (x.storage for x in count(graph).layers if x.name == "y")
    assert found is not None
    assert found.sparse == layer_matrix(graph, "y").nonzeros
    assert found.dense == graph["x"].type.elements * graph["y"].type.elements


def test_layers_that_multiply_nothing_store_nothing() -> None:
    graph = front(
        "net n { input x: f32[2, 6, 7]\n output y = x -> maxpool(2x2, fit = floor) }\n"
    ).graph
    assert [x.storage for x in count(graph).layers] == [None]
