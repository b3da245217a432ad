"""Equivariance as it is stated, by the oracles: moved inputs give moved results, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant
from cnncc.passes.linear import constant_array
from cnncc.passes.shifts import Shift, last_equivariant, shifts, tolerances

EXTENT = 41
CHAINS = {
    "conv": "conv(2, 3, pad = same)",
    "stride": "conv(2, 4, stride = 3, pad = (2, 1), fit = floor)",
    "dilation": "conv(2, 3, dilation = 4, pad = same)",
    "border": "conv(2, 3, pad = reflect) -> conv(2, 5, pad = const(1.0))",
    "pools": "maxpool(3, stride = 2) -> conv(2, 3, pad = 1) -> avgpool(2, fit = floor) -> relu",
    "partial": "maxpool(3, stride = 2, fit = partial) -> conv(2, 3)",
    "crop": "crop((3, 2)) -> conv(2, 3, pad = 1) -> pad((2, 2)) -> conv(1, 1)",
    "transposed": "conv(2, 3, stride = 2) -> conv_transpose(2, 4, stride = 3) -> conv(1, 3)",
    "transposed, padded": "conv(2, 3, stride = 2) -> conv_transpose(2, 5, stride = 2, pad = 2)",
    "upsample": "avgpool(4, stride = 4, fit = floor) -> upsample(3) -> conv(2, 2)",
    "linear": "avgpool(3, stride = 2) -> upsample(2, mode = linear) -> conv(2, 3)",
    "norm": "conv(4, 3) -> batchnorm -> lrn(3) -> softmax",
    "branches": "concat(avgpool(2, stride = 2, fit = floor), conv(2, 2, stride = 2, fit = floor))",
    "groups": "conv(4, 3, connect = groups(2), stride = 2) -> conv(4, 3, connect = depthwise)",
    "tiled": "conv(2, 3, share = tiled(2), pad = same) -> maxpool(2, stride = 2, fit = floor)",
    "tiled, strided": "conv(2, 3, stride = 2, share = tiled(3), pad = 1)",
}


def graph_of(chain: str) -> Graph:
    body = chain if chain.startswith("concat") else f"x -> {chain}"
    if chain.startswith("concat"):
        body = chain.replace("(avgpool", "(x -> avgpool").replace(" conv", " x -> conv")
    return front(f"net n {{ input x: f32[2, {EXTENT}]\n output y = {body}\n }}\n").graph


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    values = {"x": x}
    rng = np.random.default_rng(0)
    for node in graph.nodes:
        if node.op.name == "parameter":
            values[node.name] = rng.uniform(0.5, 1.5, node.type.shape)
        elif isinstance(node.op, Constant):
            values[node.name] = constant_array(node, len(x))
        elif node.name not in values:
            values[node.name] = node.op.oracle(graph.types(node), [values[i] for i in node.inputs])
    return values[graph.outputs[0][1]]


def agreeing(graph: Graph, shift: int, step: int) -> np.ndarray:
    """[results] bool: whether result o + step of the moved input is result o of the input."""
    rng = np.random.default_rng(7)
    wide = rng.standard_normal((1, 2, EXTENT + shift))
    y, moved = run(graph, wide[..., shift:]), run(graph, wide[..., :EXTENT])
    return (y[..., : y.shape[-1] - step] == moved[..., step:]).all(axis=(0, 1))


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_s45_moved_inputs_give_moved_results_in_the_interior(chain: str) -> None:
    graph = graph_of(chain)
    found = shifts(graph)[graph.outputs[0][1]]
    assert found is not None
    (s,) = found
    assert s.last is not None
    assert s.last - s.first > s.step, "the example has an interior"
    for times in (1, 2):
        step = times * s.step
        if s.last - s.first < step:
            continue
        same = agreeing(graph, times * s.shift, step)
        assert same[s.first : s.last + 1 - step].all()


@pytest.mark.parametrize(
    "chain", ["stride", "pools", "partial", "linear", "branches", "groups", "tiled, strided"]
)
def test_s45_no_smaller_shift_does(chain: str) -> None:
    graph = graph_of(CHAINS[chain])
    found = shifts(graph)[graph.outputs[0][1]]
    assert found is not None
    (s,) = found
    assert s.shift > 1
    for shift in range(1, s.shift):
        if shift * s.step % s.shift == 0:
            step = shift * s.step // s.shift
            assert not agreeing(graph, shift, step)[s.first : s.last + 1 - step].all()


def test_s45_interiors_are_as_large_as_they_can_be() -> None:
    for chain in ("conv(2, 3, pad = same)", CHAINS["pools"], CHAINS["transposed"]):
        graph = graph_of(chain)
        found = shifts(graph)[graph.outputs[0][1]]
        assert found is not None
        (s,) = found
        same = agreeing(graph, s.shift, s.step)
        assert not same[: s.first].any()
        assert not same[s.last + 1 - s.step :].any()


@pytest.mark.parametrize(
    "chain",
    [
        "conv(2, 3, share = none)",
        "conv(2, 3, bias = untied)",
        "flatten -> dense(4)",
        "conv(2, 3) -> globalavgpool",
        "layernorm",
        "adaptiveavgpool(7)",
        "conv(2, 3, stride = 2) -> flatten",
    ],
)
def test_what_no_shift_maps_to_itself(chain: str) -> None:
    graph = graph_of(chain)
    assert shifts(graph)[graph.outputs[0][1]] is None


def test_the_stride_of_a_network_is_the_product_of_its_strides() -> None:
    graph = front("alexnet").graph
    (last,) = last_equivariant(graph, shifts(graph))
    found = shifts(graph)[last.name]
    assert found is not None
    assert [(s.shift, s.step) for s in found] == [(32, 1), (32, 1)]


def test_symbolic_extents_have_no_known_end() -> None:
    graph = front("net n { input x: f32[1, L]\n output y = x -> conv(1, 3, stride = 2) }\n").graph
    assert shifts(graph)["y"] == (Shift(2, 1, 0, None),)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_s72_a_maximum_may_move_within_its_window(size: int, stride: int) -> None:
    strided = f"avgpool(1, stride = {stride}, fit = floor) -> conv(2, 1)"
    graph = graph_of(f"{strided} -> maxpool({size}, stride = {size}, fit = floor)")
    (tolerance,) = tolerances(graph, shifts(graph))
    assert tolerance.positions == ((size - 1) // 2,)
    assert tolerance.inputs == (Fraction((size - 1) // 2 * stride),)
    window, middle = 2, 2 * size + (size - 1) // 2

    def at(position: int) -> np.ndarray:
        x = np.zeros((1, 2, EXTENT))
        x[..., position * stride] = 5.0
        return run(graph, x)[..., window]

    for move in range(-tolerance.positions[0], tolerance.positions[0] + 1):
        assert np.array_equal(at(middle + move), at(middle))
    assert not np.array_equal(at(middle - tolerance.positions[0] - 1), at(middle))
