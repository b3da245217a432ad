"""`explain --measure`: which fusions are undone, how, and what is said about them. Times are given,
so that no test depends on how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.compiler import front, kernels
from cnncc.errors import CompilerBug
from cnncc.model import gains as gains_module
from cnncc.model.gains import Gains, cuts_of, measure_gains
from cnncc.model.network import Network
from cnncc.model.programs import Options
from cnncc.model.turns import Contestant
from cnncc.passes.fuse import Fused
from cnncc.targets.cpu.peaks import Peaks
from cnncc.targets.cpu.program_step import Step

CHAIN = """\
net chain {
  input x: f32[8, 12, 12]
  a = x -> conv(16, 3x3) -> relu
  output y = a -> maxpool(2x2)
}
"""
DIAMOND = """\
net diamond {
  input x: f32[8, 12, 12]
  a = x -> conv(16, 1x1)
  b = a -> sigmoid
  output y = add(a, b)
}
"""
JOINED = """\
net joined {
  input x: f32[8, 12, 12]
  a = x -> conv(16, 1x1) -> relu
  b = x -> conv(16, 3x3, pad = same)
  output y = concat(a, b) -> conv(8, 1x1)
}
"""
PEAKS = Peaks(1e12, 1e10, 1)


def fused(text: str) -> Fused:
    checked = front(text)
    return kernels(checked.graph, checked.module, exact=True)


def measured(text: str, times: Callable[[Step], float], batch: int = 1, turns: int = 4) -> Gains:
    """The gains in a world in which steps take the times that are given."""

    def timer(step: Step | None, run: Callable[[], object]) -> float:
        run()
        return times(step) if step is not None else 0.0

    network = Network.read(text, {})
    graph = network.inference.graph
    inputs = random_inputs(graph, concrete_shape(graph, batch, {}))
    return measure_gains(network, inputs, Options(threads=1, exact=True), turns=turns,
                         peaks=PEAKS, timer=timer)  # fmt: skip


def by_edges(gains: Gains) -> dict[tuple[tuple[str, str], ...], float]:
    return {g.edges: round(g.measured, 6) for g in gains.found}


def kernel(step: Step) -> float:
    """One second for every kernel that computes something, none for layouts and borders."""
    return 1.0 if step.nodes else 0.0


def test_a_chain_is_cut_at_each_edge() -> None:
    assert [c.edges for c in cuts_of(fused(CHAIN))] == [
        (("a", "a.relu"),),
        (("a.relu", "y"),),
    ]


def test_a_kernel_is_cut_in_two_although_an_edge_leads_around() -> None:
    """Without a -> b alone, a would come into the kernel by a -> y."""
    cuts = cuts_of(fused(DIAMOND))
    assert [c.edges for c in cuts] == [(("a", "b"), ("a", "y")), (("a", "y"), ("b", "y"))]
    checked = front(DIAMOND)
    for cut in cuts:
        edges = frozenset(frozenset(edge) for edge in cut.edges)
        apart = kernels(checked.graph, checked.module, exact=True, apart=edges)
        assert len(apart.kernels) == 2


def test_the_inputs_of_a_concat_are_one_fusion() -> None:
    assert (("a.relu", "y.concat"), ("b", "y.concat")) in [
        tuple((p, "y.concat") for p, _ in c.edges)
        for c in cuts_of(fused(JOINED))
        if len(c.edges) == 2
    ]


@pytest.mark.parametrize("batch", [1, 6])
def test_what_a_fusion_gains_is_the_time_of_the_kernels_by_that_of_one(batch: int) -> None:
    """Without a -> a.relu there are three: a pool does not join a pointwise operator alone."""
    assert by_edges(measured(CHAIN, kernel, batch)) == {
        (("a", "a.relu"),): 3.0,
        (("a.relu", "y"),): 2.0,
    }


def test_a_fusion_that_costs_time_is_found() -> None:
    def slow(step: Step) -> float:
        return {1: 1.0, 2: 1.0, 3: 4.0}.get(len(step.nodes), 0.0)

    found = measured(CHAIN, slow)
    assert by_edges(found) == {(("a", "a.relu"),): 0.75, (("a.relu", "y"),): 0.5}
    assert len(found.losing) == 2
    assert not measured(CHAIN, kernel).losing


def test_a_concat_in_place_gains_the_copy() -> None:
    found = by_edges(measured(JOINED, kernel))
    (concat,) = [gain for edges, gain in found.items() if len(edges) == 2]
    assert concat == 1.5  # two kernels, which otherwise need a third


def test_the_roofline_predicts_what_memory_costs() -> None:
    """With 10 GB/s and a fast core all is bytes: of x, weights and y, and apart of a, twice."""
    found = measured(CHAIN, kernel)
    x, a, y = 8 * 12 * 12, 16 * 10 * 10, 16 * 5 * 5
    weights = 16 * 8 * 9 + 16
    least = x + weights + y
    assert found.found[1].predicted == pytest.approx((least + 2 * a) / least)


def test_a_fusion_that_changes_a_bit_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Contestant):
        def __init__(self, runtime: Any, inputs: Any, portion: int | None = None) -> None:
            super().__init__(runtime, inputs, portion)
            if runtime.fused.ledger and any(v.rule == "nofuse" for v in runtime.fused.ledger):
                self.outputs = {n: np.nextafter(a, 9) for n, a in self.outputs.items()}

    monkeypatch.setattr(gains_module, "Contestant", Wrong)
    with pytest.raises(CompilerBug, match="no bit"):
        measured(CHAIN, kernel)


@pytest.mark.parametrize("text", [CHAIN, DIAMOND, JOINED], ids=["chain", "diamond", "joined"])
def test_every_fused_edge_of_a_call_is_measured(text: str, shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(text)
    ledger = json.loads(shell("explain", path, "--measure", "--turns", "1", "--json").out)
    own = {(e["producer"], e["consumer"]) for e in ledger["edges"] if e["fused"]}
    found = {tuple(edge) for g in ledger["measured"]["gains"] for edge in g["edges"]}
    assert found == own
    assert all(g["gain"] > 0 and g["predicted"] > 0 for g in ledger["measured"]["gains"])


def test_a_table_says_what_was_measured(shell: Any, small: Any) -> None:
    done = shell("explain", small, "--measure", "--turns", "2")
    assert done.code == 0
    assert "what each fusion gains, batch 1" in done.out
    assert " -> c.relu" in done.out
    assert " fusions: from " in done.out


def test_only_inference_is_measured(shell: Any, small: Any) -> None:
    done = shell("explain", small, "--measure", "--train")
    assert done.code == 2
    assert "leave out --train" in done.err
