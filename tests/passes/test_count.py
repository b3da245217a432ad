"""Counts and receptive fields against the numbers of the papers and against brute force."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.compiler import front
from cnncc.graph.ir import Graph
from cnncc.passes.count import Counts, count
from cnncc.passes.receptive import Span, through_transposed, through_window
from cnncc.window import Axis

LENET5 = """net lenet5(classes = 10) {
  input image: f32[1, 32, 32]
  c1 = image -> conv(6, 5x5) -> stanh
  s2 = c1 -> avgpool(2x2, affine = per_map) -> sigmoid
  c3 = s2 -> conv(16, 5x5) -> stanh
  s4 = c3 -> avgpool(2x2, affine = per_map) -> sigmoid
  c5 = s4 -> conv(120, 5x5) -> stanh
  f6 = c5 -> flatten -> dense(84) -> stanh
  output scores = f6 -> dense(classes)
}
"""


def counts_of(text: str) -> Counts:
    return count(front(text).graph)


def layer(counts: Counts, name: str):  # type: ignore[no-untyped-def]
    return next(x for x in counts.layers if x.name == name)


def test_lenet5_as_in_the_paper() -> None:
    # LeCun et al. 1998, section II.B, but with all maps of S2 connected to all of C3.
    counts = counts_of(LENET5)
    expected = {
        "c1": (156, 122_304), "s2": (12, 5_880), "s4": (32, 2_000),
        "c5": (48_120, 48_120), "f6": (10_164, 10_164),
    }  # fmt: skip
    found = {
        name: (layer(counts, name).params, layer(counts, name).connections) for name in expected
    }
    assert found == expected
    assert counts.units == 8_084
    assert counts.output_units == 10


@pytest.mark.parametrize(
    ("name", "size"), [("c1", 5), ("s2", 6), ("c3", 14), ("s4", 16), ("c5", 32)]
)
def test_receptive_fields_of_lenet5(name: str, size: int) -> None:
    field = layer(counts_of(LENET5), name).field
    assert [span.size for span in field] == [size, size]


def test_dilation_grows_fields_exponentially() -> None:
    body = "\n".join(
        f"d{d} = {x} -> conv(1, 3, pad = same, dilation = {d})"
        for x, d in [("x", 1), ("d1", 2), ("d2", 4)]
    )
    counts = counts_of(f"net n {{ input x: f32[1, 64]\n {body}\n output d4 }}\n")
    assert [layer(counts, f"d{d}").field[0].size for d in (1, 2, 4)] == [3, 7, 15]


def test_fields_start_before_the_input_where_it_is_padded() -> None:
    counts = counts_of(
        "net n { input x: f32[1, 9]\n output y = x -> conv(1, 5, stride = 2, pad = 2) }\n"
    )
    (span,) = layer(counts, "y").field
    assert (span.start, span.padding, span.jump, span.size) == (0.0, 2, 2, 5)


# --- fields by brute force: which inputs change a result -----------------------------------------


def run(graph: Graph, arrays: dict[str, np.ndarray]) -> np.ndarray:  # type: ignore[type-arg]
    values = dict(arrays)
    for node in graph.nodes:
        if node.op.name == "parameter":
            values[node.name] = np.ones(node.type.shape)
        elif node.name not in values:
            values[node.name] = node.op.oracle(graph.types(node), [values[i] for i in node.inputs])
    return values[graph.outputs[0][1]]


BODIES = {
    "conv": "x -> conv(1, 3, stride = 2, fit = floor)",
    "dilated": "x -> conv(1, 3, dilation = 3) -> conv(1, 2)",
    "padded": "x -> conv(1, 4, pad = (2, 1)) -> avgpool(2, stride = 2, fit = floor)",
    "crop": "x -> crop((3, 1)) -> conv(1, 3)",
    "pad": "x -> pad((2, 1)) -> conv(1, 3, stride = 3, fit = floor)",
    "transposed": "x -> conv(1, 3, stride = 2, fit = floor) -> conv_transpose(1, 2, stride = 2)",
    "transposed 3": "x -> avgpool(3, fit = floor) -> conv_transpose(1, 4, stride = 3)",
    "upsample": "x -> avgpool(2, fit = floor) -> upsample(2) -> conv(1, 3)",
    "upsample, odd": "x -> avgpool(2, fit = floor) -> upsample(3) -> conv(1, 2)",
    "upsample, linear": "x -> avgpool(2, fit = floor) -> upsample(2, mode = linear)",
    "upsample, linear, odd": "x -> avgpool(2, stride = 1) -> upsample(3, mode = linear)",
    "down and up": "x -> avgpool(4, stride = 3, fit = floor) -> upsample(2) -> conv(1, 2)",
    "branches": "(x -> conv(1, 5)) + (x -> crop((1, 3)) -> conv(1, 1))",
    "concat": "concat(x -> conv(1, 3, pad = 1), x -> conv(1, 1)) -> conv(1, 2)",
    "global": "x -> conv(1, 3) -> globalavgpool",
    "dense": "x -> conv(1, 3, stride = 2, fit = floor) -> flatten -> dense(2)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_fields_cover_exactly_what_results_depend_on(body: str) -> None:
    extent = 35
    graph = front(f"net n {{ input x: f32[1, {extent}]\n output y = {body} }}\n").graph
    result = next(x for x in count(graph).layers if graph.outputs[0][1] in x.nodes)
    assert result.field is not None, "every operator here moves fields"
    (span,) = result.field
    zero = run(graph, {"x": np.zeros((1, 1, extent))})
    extents = graph[graph.outputs[0][1]].type.spatial
    depends: dict[int, set[int]] = {}
    for i in range(extent):
        x = np.zeros((1, 1, extent))
        x[0, 0, i] = 1.0
        changed = (run(graph, {"x": x}) != zero).any(axis=(0, 1))
        for o in np.flatnonzero(np.atleast_1d(changed)):
            depends.setdefault(int(o), set()).add(i)
    assert depends
    for o, inputs in depends.items():
        lo, hi = span.at(o if extents else 0)
        assert max(lo, 0) <= min(inputs)
        assert max(inputs) <= min(hi, extent - 1)
        # Near the ends a result would read positions of layers between that do not exist.
        if not extents or len(depends) // 3 <= o < 2 * len(depends) // 3:
            assert (max(lo, 0), min(hi, extent - 1)) == (min(inputs), max(inputs))


ONE = Span(((0, 0),), 1)
AXES = st.builds(Axis, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))


@given(AXES, AXES)
def test_windows_compose(first: Axis, second: Axis) -> None:
    inner = through_window(first, ONE)
    assert inner is not None
    span = through_window(second, inner)
    assert span is not None
    for o in range(-2, 3):
        inputs = [
            first.input(second.input(o, b), a)
            for a, b in itertools.product(range(first.size), range(second.size))
        ]
        assert span.at(o) == (min(inputs), max(inputs))


@given(AXES)
def test_a_window_after_its_transposed_moves_as_before(axis: Axis) -> None:
    inner = through_transposed(axis, ONE)
    assert inner is not None
    span = through_window(axis, inner)
    assert span is not None
    assert (span.jump, span.period) == (1, 1)


# --- layers, sharing, state ----------------------------------------------------------------------


def test_shared_kernels_count_once() -> None:
    text = """net n { input x: f32[4, 8, 8]
      weights U
      y = x repeat 5 { y = y -> conv(4, 3x3, pad = 1, weights = U, bias = none) }
      output y }
    """
    counts = counts_of(text)
    assert counts.params == 144
    assert counts.macs == 5 * 144 * 64


def test_running_statistics_are_state_and_frozen_is_not_trained() -> None:
    text = "output y = x -> conv(6, 1x1, frozen = true) -> batchnorm"
    counts = counts_of(f"net n {{ input x: f32[4, 8, 8]\n {text} }}\n")
    assert (counts.params, counts.trained, counts.state) == (30 + 12, 12, 12)


def test_shortcuts_do_not_add_depth() -> None:
    assert count(front("resnet18").graph).depth == 18


def test_counts_in_symbols() -> None:
    counts = counts_of(
        "net n { input x: f32[3, H, W]\n output y = x -> conv(8, 3x3, pad = same) }\n"
    )
    assert str(counts.macs) == "216 * H * W"
    assert str(counts.connections) == "224 * H * W"


FUNCTIONS: list[Callable[[Counts], object]] = [
    lambda c: c.params, lambda c: c.macs, lambda c: c.units, lambda c: c.depth,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_training_counts_as_inference(function: Callable[[Counts], object]) -> None:
    plain, trained = (count(front("lenet_digits", train=t).graph) for t in (False, True))
    assert function(plain) == function(trained)
