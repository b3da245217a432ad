"""Fusion: one verdict with a reason for every edge, and the kernels that the verdicts promise."""

from __future__ import annotations

from collections import Counter

import pytest

from cnncc.compiler import front
from cnncc.graph.ir import Graph
from cnncc.ops.base import Op
from cnncc.passes.fuse import Fused, Verdict, fuse
from cnncc.passes.training import training_graph
from tests.kernels.random_networks import random_edges, random_graph

SEEDS = range(30)


def network(*lines: str, size: str = "4, 8, 8") -> Graph:
    body = "\n".join(f"  {line}" for line in lines)
    return front(f"net small {{\n  input x: f32[{size}]\n{body}\n}}\n").graph


def edges(graph: Graph) -> Counter[tuple[str, str]]:
    """Every pair (producer, consumer) once, operators as consumers."""
    pairs = [(i, n.name) for n in graph.nodes if isinstance(n.op, Op) for i in set(n.inputs)]
    return Counter(pairs)


def verdict(fused: Fused, producer: str, consumer: str) -> Verdict:
    return next(v for v in fused.ledger if (v.producer, v.consumer) == (producer, consumer))


def groups(fused: Fused) -> list[tuple[str, ...]]:
    return [tuple(n.name for n in k.nodes) for k in fused.kernels]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("enabled", [True, False], ids=["fused", "unfused"])
def test_every_edge_has_one_verdict_with_a_reason(seed: int, enabled: bool) -> None:
    graph = random_graph(seed)
    fused = fuse(graph, enabled=enabled)
    assert Counter((v.producer, v.consumer) for v in fused.ledger) == edges(graph)
    assert all(v.reason and v.rule for v in fused.ledger)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_operator_is_computed_once_and_after_its_inputs(seed: int) -> None:
    graph = random_graph(seed)
    fused = fuse(graph)
    computed = Counter(n.name for k in fused.kernels for n in k.nodes)
    in_place = {part.whole for part in fused.slices.values()}
    assert set(computed) | in_place == {n.name for n in graph.nodes if isinstance(n.op, Op)}
    assert set(computed.values()) == {1}
    written = {n.name for n in graph.nodes if not isinstance(n.op, Op)}
    for kernel in fused.kernels:
        for read in kernel.reads:
            parts = [p for p, slice in fused.slices.items() if slice.whole == read]
            assert read in written or (parts and set(parts) <= written), (kernel.sink, read)
        written.update(kernel.writes)
    assert {name for _, name in graph.outputs} <= written | in_place


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_kept_apart_are_in_two_kernels(seed: int) -> None:
    graph = random_graph(seed)
    pairs = set(random_edges(graph, seed))
    fused = fuse(graph, apart=pairs)
    for v in fused.ledger:
        if frozenset((v.producer, v.consumer)) in pairs:
            assert not v.fused, v
    for names in groups(fused):
        for pair in pairs:
            # two nodes may share a kernel only through a third that both are fused with
            if pair <= set(names):
                a, b = sorted(pair, key=names.index)
                assert verdict(fused, a, b).rule == "nofuse"


def test_unfused_means_one_kernel_per_node() -> None:
    graph = network("output y = x -> conv(8, 3x3) -> relu -> maxpool(2x2)")
    fused = fuse(graph, enabled=False)
    assert all(len(names) == 1 for names in groups(fused))
    assert {v.rule for v in fused.ledger} == {"off", "source"} or not any(
        v.fused for v in fused.ledger
    )


def test_complex_layer_is_one_kernel() -> None:
    graph = network("output y = x -> conv(8, 3x3) -> relu -> maxpool(2x2)")
    fused = fuse(graph)
    assert len(fused.kernels) == 1
    assert [v.rule for v in fused.ledger if v.fused] == ["pointwise epilogue", "pool epilogue"]
    kept = [v.bytes_saved for v in fused.ledger if v.fused]
    assert kept == [2 * 8 * 6 * 6 * 4] * 2  # written and read again, float32


def test_flatten_joins_what_computes_its_input() -> None:
    big = "x -> conv(8, 3x3, pad = full) -> relu"
    fused = fuse(network(f"output y = {big} -> flatten"))
    assert [[n.op.name for n in k.nodes] for k in fused.kernels] == [["conv", "relu", "reshape"]]
    assert [v.rule for v in fused.ledger if v.fused][-1] == "flatten"
    for apart in ("relu(x) -> flatten", "x -> conv(8, 3x3) -> reshape((8, 36))"):
        assert len(fuse(network(f"output y = {apart}")).kernels) == 2


def test_flatten_of_short_rows_is_read_by_a_dense_layer_or_a_kernel_of_its_own() -> None:
    small = "x -> conv(8, 3x3) -> relu -> maxpool(2x2) -> flatten"
    names = [[n.op.name for n in k.nodes] for k in fuse(network(f"output y = {small}")).kernels]
    assert names == [["conv", "relu", "maxpool"], ["reshape"]]
    fused = fuse(network(f"output y = {small} -> dense(5) -> relu"))
    names = [[n.op.name for n in k.nodes] for k in fused.kernels]
    assert names == [["conv", "relu", "maxpool"], ["reshape", "dense", "relu"]]
    assert [v.rule for v in fused.ledger if "flatten" in v.consumer] == ["view"]


def test_residual_add_joins_the_branch_with_less_to_do() -> None:
    graph = network(
        "a = x -> conv(8, 3x3, pad = same)", "b = x -> conv(8, 1x1)", "output y = relu(b + a)"
    )
    fused = fuse(graph)
    assert [[n.op.name for n in k.nodes] for k in fused.kernels] == [
        ["conv"], ["conv", "add", "relu"],
    ]  # fmt: skip
    assert fused.kernels[-1].nodes[0].name == "b"
    swapped = network(
        "b = x -> conv(8, 1x1)", "a = x -> conv(8, 3x3, pad = same)", "output y = relu(b + a)"
    )
    assert fuse(swapped).kernels[-1].nodes[0].name == "b"


def test_residual_add_joins_the_later_branch() -> None:
    graph = network(
        "a = x -> conv(4, 3x3, pad = same)", "b = a -> relu -> conv(4, 3x3, pad = same)",
        "output y = relu(a + b)",
    )  # fmt: skip
    fused = fuse(graph)
    assert len(fused.kernels) == 2
    last = fused.kernels[-1]
    assert [n.op.name for n in last.nodes] == ["conv", "add", "relu"]


def test_value_used_twice_by_one_kernel_is_computed_once() -> None:
    for line in ("x -> conv(4, 1x1) -> relu", "x -> conv(4, 1x1)"):
        graph = network(f"a = {line}", "output y = a * sigmoid(a) + a")
        fused = fuse(graph)
        assert len(fused.kernels) == 1
        loads = [b for b in fused.kernels[0].nest.buffers if b.role == "in"]
        assert len(loads) == len({t for t in fused.kernels[0].reads}) == 3  # x, weight, bias


def test_value_that_others_need_is_stored_by_its_kernel() -> None:
    graph = network("a = x -> conv(4, 3x3)", "output y = relu(a)", "output z = a")
    fused = fuse(graph)
    assert len(fused.kernels) == 1
    conv = next(n.name for n in graph.of("conv"))
    assert conv in fused.kernels[0].writes
    found = next(v for v in fused.ledger if v.producer == conv)
    assert found.fused
    assert "stored" in found.reason
    assert found.bytes_saved == 4 * 6 * 6 * 4  # the read only


def test_window_that_reads_elements_again_is_not_fused() -> None:
    graph = network("output y = x -> conv(4, 3x3) -> maxpool(3x3, stride = 1)")
    assert [v.rule for v in fuse(graph).ledger if not v.fused and v.rule != "source"] == ["reuse"]


def test_concat_of_kernels_is_written_in_place_unless_forbidden() -> None:
    graph = network(
        "a = x -> conv(4, 1x1)", "b = x -> conv(8, 3x3, pad = same)", "output y = concat(a, b)"
    )
    fused = fuse(graph)
    assert {v.rule for v in fused.ledger if v.fused} == {"concat in place"}
    assert [k.sink.op.name for k in fused.kernels] == ["conv", "conv"]
    concat = next(n for n in graph.of("concat"))
    forbidden = fuse(graph, apart=[frozenset((concat.inputs[0], concat.name))])
    assert verdict(forbidden, concat.inputs[0], concat.name).rule == "nofuse"
    assert forbidden.kernels[-1].sink is concat


def test_phases_never_share_a_kernel() -> None:
    checked = front("specs/lenet_digits.cnn", train=True)
    assert checked.module.training is not None
    step = training_graph(checked.graph, checked.module, checked.module.training.optimizer)
    fused = fuse(step.graph, phases=dict(step.phases))
    for kernel in fused.kernels:
        assert len({step.phases.get(n.name, 0) for n in kernel.nodes}) == 1
    assert any(v.rule == "phase" for v in fused.ledger)
    assert Counter((v.producer, v.consumer) for v in fused.ledger) == edges(step.graph)
