"""Differentiation of graphs: contributions are added, what nobody wants is left out."""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.graph.ir import Builder, Node
from cnncc.graph.layer import Init
from cnncc.graph.sources import Input, Parameter
from cnncc.graph.verify import verify
from cnncc.ops.elementwise import Add, Mul
from cnncc.ops.rectifier import Relu
from cnncc.ops.sigmoidal import Sigmoid
from cnncc.passes.differentiate import gradients, prune
from cnncc.passes.retype import retyped
from cnncc.tensor import DType, TensorType
from tests.kernels.random_networks import random_data, random_graph
from tests.ops.evaluate import evaluate

IMAGE = TensorType(DType.F32, (3, 4, 4))


def start(*names: str) -> tuple[Builder, list[Node]]:
    b = Builder("small")
    return b, [b.add(Input(IMAGE), name=n) for n in names]


def value(b: Builder, node: Node, **arrays: np.ndarray) -> np.ndarray:
    return evaluate(b.graph([("y", node)]), arrays)[node.name]


def data(*names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal((2, 3, 4, 4)) for n in names}


def test_value_used_twice_gets_both_contributions() -> None:
    b, (x, dy) = start("x", "dy")
    y = b.add(Mul(), x, x, name="y")
    given = data("x", "dy")
    dx = gradients(b, {"y": dy}, ["x"])["x"]
    np.testing.assert_array_equal(value(b, dx, **given), 2 * given["x"] * given["dy"])
    assert y.inputs == ("x", "x")


def test_diamond() -> None:
    """z = x * sigmoid(x): both paths meet in x."""
    b, (x, dy) = start("x", "dy")
    z = b.add(Mul(), x, b.add(Sigmoid(), x))
    given = data("x", "dy")
    dx = gradients(b, {z.name: dy}, ["x"])["x"]
    s = 1 / (1 + np.exp(-given["x"]))
    expected = given["dy"] * (s + given["x"] * s * (1 - s))
    np.testing.assert_allclose(value(b, dx, **given), expected, rtol=1e-12)


def test_seeds_on_two_nodes_add_up() -> None:
    b, (x, p, q) = start("x", "p", "q")
    y = b.add(Relu(), x, name="y")
    z = b.add(Add(), y, x, name="z")
    given = data("x", "p", "q")
    dx = gradients(b, {"y": p, "z": q}, ["x"])["x"]
    on = given["x"] > 0
    np.testing.assert_allclose(value(b, dx, **given), on * (given["p"] + given["q"]) + given["q"])
    assert z.name == "z"


def test_only_what_depends_on_the_wanted_nodes_is_differentiated() -> None:
    b, (x, w, dy) = start("x", "w", "dy")
    y = b.add(Mul(), b.add(Sigmoid(), x), w)
    before = len(b.nodes)
    found = gradients(b, {y.name: dy}, ["w"])
    assert set(found) == {"w"}
    kept = prune(b.graph([("dw", found["w"])]))
    assert [n.op.name for n in kept.nodes if n.inputs] == ["sigmoid", "mul"]
    assert not any(n.op.name == "sigmoid_grad" for n in b.nodes[before:])


def test_node_that_the_seeds_do_not_reach_has_no_gradient() -> None:
    b, (x, other, dy) = start("x", "other", "dy")
    y = b.add(Relu(), x)
    assert set(gradients(b, {y.name: dy}, ["x", "other"])) == {"x"}
    assert other.name == "other"


def test_prune_keeps_updates_and_named_nodes() -> None:
    b, (x,) = start("x")
    p = b.add(Parameter(IMAGE.with_shape((3,)), Init("zeros")), name="p")
    y, unused, wanted = (b.add(Relu(), x, name=n) for n in ("y", "unused", "wanted"))
    graph = b.graph([("y", y)])
    assert [n.name for n in prune(graph).nodes] == ["x", "y"]
    assert [n.name for n in prune(graph, ["wanted"]).nodes] == ["x", "y", "wanted"]
    assert (p.name, unused.name, wanted.name) == ("p", "unused", "wanted")


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_gradients_of_random_networks_are_slopes(seed: int) -> None:
    """In float64 along one random direction per input and parameter, on the oracles."""
    plain = retyped(random_graph(seed), DType.F64)
    b = Builder.of(plain)
    rng = np.random.default_rng(seed)
    given = {n: a.astype(np.float64) for n, a in random_data(random_graph(seed), seed).items()}
    seeds = {}
    for public, name in plain.outputs:
        seeds.setdefault(name, b.add(Input(plain[name].type), name=f"seed.{public}"))
        given[seeds[name].name] = rng.standard_normal(plain[name].type.dims(2))
    wanted = [
        n.name for n in plain.nodes if not n.inputs and not n.name.endswith(("_mean", "_var"))
    ]
    found = gradients(b, seeds, wanted)
    graph = b.graph([(n, g) for n, g in found.items()])
    verify(graph, "differentiate")
    values = evaluate(graph, given)

    def loss(moved: dict[str, np.ndarray]) -> float:
        result = evaluate(plain, moved)
        return sum(float(np.sum(result[n] * given[s.name])) for n, s in seeds.items())

    for name, g in found.items():
        d = rng.standard_normal(given[name].shape)
        d *= 1e-6 / np.linalg.norm(d)
        slope = (loss(given | {name: given[name] + d}) - loss(given | {name: given[name] - d})) / 2
        expected = float(np.sum(values[g.name] * d))
        assert slope == pytest.approx(expected, abs=1e-11, rel=1e-5), name
