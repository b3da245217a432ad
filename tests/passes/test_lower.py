"""Lowering: a group of nodes as one nest, with a tensor behind every buffer."""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.sources import Input
from cnncc.loops.producer import CannotInline
from cnncc.loops.verify import verify
from cnncc.ops.elementwise import Add, Mul
from cnncc.ops.pool_max import MaxPool
from cnncc.ops.rectifier import Relu
from cnncc.ops.shape import Reshape
from cnncc.ops.sigmoidal import Sigmoid
from cnncc.passes.fuse import Fused, fuse
from cnncc.passes.lower import Kernel, lower, own_nest
from cnncc.targets.interp.program import run_interp
from cnncc.tensor import DType, TensorType
from cnncc.tensor import evaluate as extent
from cnncc.window import Axis
from tests.kernels.random_networks import random_graph

IMAGE = TensorType(DType.F32, (3, 4, 5))


def inputs(*names: str) -> tuple[Builder, list[Node]]:
    b = Builder("small")
    return b, [b.add(Input(IMAGE), name=n) for n in names]


def run(graph: Graph, *kernels: Kernel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    data = {
        n.name: rng.standard_normal(n.type.dims(2)).astype(np.float32) for n in graph.of("input")
    }
    return run_interp(Fused(graph, kernels, ()), data, 2, np.float32)


def never(name: str) -> bool:
    return False


def always(name: str) -> bool:
    return True


def test_single_node_is_its_own_nest() -> None:
    b, (x, y) = inputs("x", "y")
    z = b.add(Add(), x, y, name="z")
    graph = b.graph([("z", z)])
    kernel = lower(graph, [z], never)
    assert (kernel.sink, kernel.reads, kernel.writes) == (z, ("x", "y"), ("z",))
    found = run(graph, kernel)
    np.testing.assert_array_equal(found["z"], found["x"] + found["y"])


def test_chain_reads_the_first_and_writes_the_last() -> None:
    b, (x,) = inputs("x")
    nodes = [b.add(Relu(), x, name="a")]
    nodes.append(b.add(Sigmoid(), nodes[-1], name="b"))
    nodes.append(b.add(Relu(), nodes[-1], name="c"))
    graph = b.graph([("c", nodes[-1])])
    kernel = lower(graph, nodes, never)
    assert (kernel.reads, kernel.writes) == (("x",), ("c",))
    alone = run(graph, *(lower(graph, [n], always) for n in nodes))
    np.testing.assert_array_equal(run(graph, kernel)["c"], alone["c"])


def test_needed_tensor_is_stored_too() -> None:
    b, (x,) = inputs("x")
    a = b.add(Relu(), x, name="a")
    c = b.add(Sigmoid(), a, name="c")
    graph = b.graph([("a", a), ("c", c)])
    kernel = lower(graph, [a, c], always)
    assert set(kernel.writes) == {"a", "c"}
    found = run(graph, kernel)
    np.testing.assert_array_equal(found["a"], np.maximum(found["x"], 0))


@pytest.mark.parametrize("needed", [never, always])
def test_producer_that_is_read_twice(needed: object) -> None:
    """y = a * sigmoid(a) + a: three buffers for one tensor become one load of x."""
    b, (x,) = inputs("x")
    a = b.add(Relu(), x, name="a")
    s = b.add(Sigmoid(), a, name="s")
    m = b.add(Mul(), a, s, name="m")
    y = b.add(Add(), m, a, name="y")
    graph = b.graph([("y", y)])
    nodes = [a, s, m, y]
    kernel = lower(graph, nodes, needed)  # type: ignore[arg-type]
    assert kernel.reads == ("x",)
    assert set(kernel.writes) == ({"a", "s", "m", "y"} if needed is always else {"y"})
    alone = run(graph, *(lower(graph, [n], always) for n in nodes))
    found = run(graph, kernel)
    for name in kernel.writes:
        np.testing.assert_array_equal(found[name], alone[name])


def test_same_operand_twice() -> None:
    b, (x,) = inputs("x")
    a = b.add(Sigmoid(), x, name="a")
    y = b.add(Mul(), a, a, name="y")
    graph = b.graph([("y", y)])
    found = run(graph, lower(graph, [a, y], always))
    np.testing.assert_array_equal(found["y"], found["a"] * found["a"])


def test_group_whose_nodes_do_not_read_each_other_is_a_bug() -> None:
    b, (x,) = inputs("x")
    a, c = b.add(Relu(), x, name="a"), b.add(Sigmoid(), x, name="c")
    with pytest.raises(CompilerBug, match="nobody in the group reads it"):
        lower(b.graph([("a", a), ("c", c)]), [a, c], never)


def test_source_has_no_nest() -> None:
    b, (x,) = inputs("x")
    with pytest.raises(CompilerBug, match="no loop nest"):
        own_nest(b.graph([("x", x)]), x)


def test_reshape_stores_its_source_in_the_old_form_too() -> None:
    b, (x,) = inputs("x")
    a = b.add(Relu(), x, name="a")
    flat = b.add(Reshape((60,)), a, name="flat")
    graph = b.graph([("a", a), ("y", flat)])
    kernel = lower(graph, [a, flat], always)
    assert set(kernel.writes) == {"a", "flat"}
    found = run(graph, kernel)
    np.testing.assert_array_equal(found["a"].reshape(2, 60), found["flat"])


def test_tensor_that_is_read_again_and_again_is_not_stored_on_the_way() -> None:
    b, (x,) = inputs("x")
    a = b.add(Relu(), x, name="a")
    y = b.add(MaxPool((Axis(2), Axis(2))), a, name="y")  # windows overlap
    graph = b.graph([("a", a), ("y", y)])
    with pytest.raises(CannotInline, match="exactly once"):
        lower(graph, [a, y], always)
    assert lower(graph, [a, y], never).writes == ("y",)


@pytest.mark.parametrize("seed", range(25))
def test_fused_nests_are_valid_and_in_range(seed: int) -> None:
    graph = random_graph(seed)
    for kernel in fuse(graph).kernels:
        verify(kernel.nest)
        verify(kernel.nest, {n: extent(e, {"*": 2}) for n, e in kernel.nest.sizes.items()})
        assert len(kernel.tensors) == len(kernel.nest.buffers)
        for tensor, buffer in zip(kernel.tensors, kernel.nest.buffers, strict=True):
            assert buffer.dtype is graph[tensor].type.dtype
