"""The cones of a unit against brute force: which inputs change a result, by the oracles."""

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant
from cnncc.passes.cone import cone, ranges_text

BODIES = {
    "conv": "conv(3, 3x2, stride = 2, pad = 1, fit = floor)",
    "dilated": "conv(3, 3x3, dilation = 2, pad = same)",
    "groups": "conv(4, 3x3, connect = groups(2))",
    "depthwise": "conv(4, 3x3, connect = depthwise)",
    "replicate": "conv(2, 3x3, pad = replicate)",
    "reflect": "conv(2, 3x3, pad = reflect)",
    "circular": "conv(2, 3x3, pad = circular)",
    "transposed": "conv_transpose(4, 3x3, stride = 2, connect = groups(2))",
    "pool": "maxpool(3x3, stride = 2, fit = floor) -> relu",
    "partial": "avgpool(4x4, fit = partial)",
    "adaptive": "adaptiveavgpool(3x2)",
    "upsample": "upsample(2) -> conv(2, 2x2)",
    "linear": "upsample(2, mode = linear)",
    "crop": "crop(((1, 2), (0, 1))) -> pad(((2, 0), (1, 1)))",
    "lrn": "lrn(3)",
    "softmax": "softmax",
    "global": "conv(2, 3x3) -> globalavgpool",
    "dense": "maxpool(3x3, fit = floor) -> flatten -> dense(3)",
    "norm": "batchnorm -> conv(2, 3x3)",
    "chain": "conv(4, 3x3, connect = groups(2)) -> maxpool(2x2, fit = floor) -> conv(2, 2x2)",
}


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    values = {"x": x}
    rng = np.random.default_rng(0)
    for node in graph.nodes:
        if node.op.name == "parameter":
            values[node.name] = rng.uniform(0.5, 1.5, node.type.shape)
        elif isinstance(node.op, Constant):
            values[node.name] = np.full(node.type.dims(len(x)), node.op.value)
        elif node.name not in values:
            values[node.name] = node.op.oracle(graph.types(node), [values[i] for i in node.inputs])
    return values[graph.outputs[0][1]]


def dependence(graph: Graph) -> np.ndarray:
    """[inputs, results] bool: whether a change of the input changes the result.

    Every input rises by a lot above random values, so that a maximum takes it.
    """
    shape = graph["x"].type.shape
    size = int(np.prod(shape))
    base = np.random.default_rng(1).uniform(1, 2, size)
    rows = base + np.diag(np.full(size, 10.0))
    y = run(graph, np.concatenate([rows, base[None]]).reshape(-1, *shape)).reshape(size + 1, -1)
    return ~np.isclose(y[:-1], y[-1:], rtol=1e-12, atol=0)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_cones_are_exactly_what_depends_on_what(body: str) -> None:
    graph = front(f"net n {{ input x: f32[4, 9, 8]\n output y = x -> {body}\n }}\n").graph
    depends = dependence(graph)
    result = graph[graph.outputs[0][1]]
    name = result.origin.layer
    for at in np.random.default_rng(2).integers(0, depends.shape[1], 12):
        index = np.unravel_index(at, result.type.shape)
        found = cone(graph, f"{name}[{', '.join(map(str, index))}]").backward.get("x", ())
        box = np.zeros(graph["x"].type.shape, bool)
        if found:
            box[np.ix_(*found)] = True
        assert np.array_equal(box.ravel(), depends[:, at])
    for at in np.random.default_rng(3).integers(0, depends.shape[0], 12):
        index = np.unravel_index(at, graph["x"].type.shape)
        found = cone(graph, f"x[{', '.join(map(str, index))}]").forward.get(result.name, ())
        box = np.zeros(result.type.shape, bool)
        if found:
            box[np.ix_(*found)] = True
        assert np.array_equal(box.ravel(), depends[at])


def test_branches_are_joined() -> None:
    text = "net n { input x: f32[1, 20]\n a = x -> conv(1, 3, pad = same)\n"
    text += " output y = (a -> conv(1, 3, pad = same)) + x\n}\n"
    found = cone(front(text).graph, "y[0, 10]")
    assert found.backward["x"] == ((0,), (8, 9, 10, 11, 12))


def test_ranges_as_text() -> None:
    assert ranges_text(((0,), (2, 3, 4), (0, 2, 4), (1, 2, 5), (1, 4), (3, 4))) == (
        "[0, 2..4, 0..4 step 2, {1..2, 5}, {1, 4}, 3..4]"
    )


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("q[0]", "E0810"),
        ("y", "E0810"),
        ("y[0]", "E0810"),
        ("y[0, 0, 99]", "E0810"),
        ("y[2, 0, 0]", "E0810"),
        ("y[0, , 0]", "E0810"),
        ("y[0, 0, 99999999999999999999]", "E0810"),
    ],
)
def test_units_that_do_not_exist(unit: str, code: str) -> None:
    graph = front("net n { input x: f32[1, 5, 5]\n output y = x -> conv(2, 3x3) }\n").graph
    with pytest.raises(SpecError) as caught:
        cone(graph, unit)
    assert [d.code for d in caught.value.diagnostics] == [code]


@pytest.mark.parametrize(
    "text",
    [
        "net n { input x: f32[1, 100_000]\n output y = x -> conv(2, 3) }\n",
        "net n { input x: f32[3, 2_000, 2_000]\n output y = x -> flatten -> dense(2) }\n",
    ],
)
def test_axes_that_are_too_long_to_list_are_refused(text: str) -> None:
    graph = front(text).graph
    with pytest.raises(SpecError) as caught:
        cone(graph, f"x[{', '.join('0' for _ in graph['x'].type.shape)}]")
    assert [d.code for d in caught.value.diagnostics] == ["E0812"]


def test_symbolic_extents_are_refused() -> None:
    graph = front("net n { input x: f32[1, H, 5]\n output y = x -> conv(2, 3x3) }\n").graph
    with pytest.raises(SpecError, match="extents must be known"):
        cone(graph, "y[0, 0, 0]")
