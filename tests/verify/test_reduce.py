"""The smaller network that a certificate is made with: every network of the lectures has one, which
keeps the phases of strides, whole blocks of lanes and their rests, groups and tables; and a wrong
extent is a diagnostic.
"""

from __future__ import annotations

from math import prod

import pytest

from cnncc import compiler
from cnncc.errors import SpecError
from cnncc.graph.ir import Graph
from cnncc.graph.locate import built_in
from cnncc.passes.winograd import algorithms, with_winograd
from cnncc.targets.cpu.schedule import block_lanes
from cnncc.tensor import evaluate
from cnncc.verify.channels import Narrowing
from cnncc.verify.reduce import STEP, reduced, steps

LIBRARIES = ("classifier_features", "lenet5_table", "residual")  # blocks and tables only
NETS = [n for n in built_in() if n not in LIBRARIES]


def front(name: str) -> Graph:
    return compiler.front(name).graph


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_built_in_network_can_be_reduced(name: str, columns: bool) -> None:
    graph = front(name)
    smaller = reduced(graph, {}, columns=columns).graph
    assert [n.name for n in smaller.nodes] == [n.name for n in graph.nodes]
    assert smaller.outputs == graph.outputs
    strides = steps(graph)
    for node in graph.of("input"):
        pairs = list(zip(node.type.spatial, smaller[node.name].type.spatial, strict=True))
        for axis, (old, new) in enumerate(pairs):
            if not isinstance(old, int):
                continue
            assert isinstance(new, int)
            assert min(old, STEP // 2) <= new <= old
            assert (old - new) % strides.get(axis, 1) == 0, "a stride loses its rest"
            if columns and axis == len(pairs) - 1:
                assert new == old


@pytest.mark.parametrize("name", NETS)
def test_a_reduced_network_is_small(name: str) -> None:
    """The interpreter does some ten million multiply-adds a second."""
    graph = reduced(front(name), {}).graph
    work = 0
    for node in graph.nodes:
        if node.op.name == "conv":
            taps = graph[node.inputs[1]].type.shape[1:]
            work += evaluate(node.type.elements, {}) * prod(evaluate(e, {}) for e in taps)
    assert work < 60_000_000


def test_strides_keep_their_phases() -> None:
    text = """
net n {
  input x: f32[3, 227, 227]
  output y = x -> conv(8, 11x11, stride = 4) -> maxpool(3x3, stride = 2)
}
"""
    graph = front(text)
    smaller = reduced(graph, {}).graph
    (old,), (new,) = (g.of("input") for g in (graph, smaller))
    assert steps(graph) == {0: 8, 1: 8}
    assert new.type.spatial != old.type.spatial
    assert all((a - b) % 8 == 0 for a, b in zip(old.type.spatial, new.type.spatial, strict=True))


@pytest.mark.parametrize("dilation", [1, 15, 16, 20, 40])
def test_dilated_windows_see_more_than_their_centre(dilation: int) -> None:
    layer = f"conv(4, 3x3, pad = {dilation}, dilation = {dilation})"
    graph = front(f"\nnet n {{\n  input x: f32[3, 64, 64]\n  output y = x -> {layer}\n}}\n")
    (new,) = reduced(graph, {}).graph.of("input")
    assert all(dilation < evaluate(e, {}) <= max(16, dilation + STEP) for e in new.type.spatial)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
def test_fewer_channels_have_the_same_blocks_and_rests(lanes: int) -> None:
    weights = "\n".join(
        f"  a{c} = x -> conv({c}, 1x1)" for c in (10, 48, 64, 70, 80, 96, 112, 120, 144, 256, 1000)
    )
    graph = front(f"\nnet n {{\n  input x: f32[3, 4, 4]\n{weights}\n  output y = a1000\n}}\n")
    narrow = Narrowing(graph, {}, lanes, frozenset({70}))
    for c in (10, 48, 64, 80, 96, 112, 120, 144, 256, 1000):
        block = block_lanes(c, lanes)
        assert narrow(c) <= c
        assert block_lanes(narrow(c), lanes) == block
        assert narrow(c) % block == c % block
        assert (narrow(c) >= block) == (c >= block)
    assert narrow(70) == 70
    assert narrow(256) >= 2 * block_lanes(256, lanes), "steps from block to block are not seen"
    assert narrow(1000) < 120


def test_groups_keep_their_number_and_blocks() -> None:
    graph = front("alexnet")
    smaller = reduced(graph, {}).graph
    grouped = [n.name for n in graph.nodes if getattr(n.op, "groups", 1) == 2]
    assert grouped
    for name in grouped:
        assert smaller[name].op.groups == 2
        assert evaluate(smaller[name].type.channels, {}) % (2 * 32) == 0


def test_every_channel_stays_a_group() -> None:
    graph = front("mobilenet")
    smaller = reduced(graph, {}).graph
    depthwise = [n for n in graph.nodes if getattr(n.op, "groups", 1) > 8]
    assert depthwise
    for node in depthwise:
        assert smaller[node.name].op.groups == smaller[node.name].type.channels


def test_tables_stay() -> None:
    graph = front("lenet5")
    smaller = reduced(graph, {}).graph
    c3 = [n for n in graph.nodes if n.origin.layer == "c3" and n.inputs]
    assert c3
    assert all(smaller[n.name].op == n.op for n in c3)


def test_winograd_of_the_network_as_it_is_fits_the_smaller_one() -> None:
    graph = front("resnet18")
    smaller = reduced(graph, {}).graph
    assert algorithms(graph)
    assert algorithms(smaller) != algorithms(graph)
    replaced = with_winograd(smaller, algorithms(graph))
    names = [n.op.name for n in replaced.nodes]
    assert names == [n.op.name for n in with_winograd(graph).nodes]


def refused(extents: dict[str, int]) -> str:
    with pytest.raises(SpecError) as caught:
        reduced(front("audio"), extents)
    return str(caught.value)


def test_an_extent_that_does_not_fit_is_refused() -> None:
    assert "`audio` takes no input with T = 100" in refused({"T": 100})
    assert "--extent T=N" in refused({"T": 100})


def test_an_extent_that_there_is_not_is_refused() -> None:
    assert "`audio` has no symbolic extent `Q`" in refused({"Q": 8})
    assert "its symbolic extents: T" in refused({"Q": 8})
