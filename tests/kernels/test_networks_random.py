"""Fusion never changes a bit: random networks, fused and not, with any pairs kept apart, on both
targets.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cnncc.graph.ir import TypedGraph
from cnncc.passes.fuse import Fused, fuse
from cnncc.targets.cpu import work
from cnncc.targets.interp.program import run_interp
from tests.kernels.joined import both_targets
from tests.kernels.primitives import same_bits
from tests.kernels.random_networks import (
    random_data,
    random_edges,
    random_graph,
    random_text,
)
from tests.ops.evaluate import evaluate

Array = np.ndarray

INTERPRETED = range(120)
COMPILED = (3, 7, 12, 21, 38, 40)
BATCH = 2


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share every step, however small."""
    monkeypatch.setattr(work, "AGREEING", 0.0)


def interpreted(kernels: Fused, data: dict[str, Array]) -> dict[str, Array]:
    found = run_interp(kernels, data, BATCH, np.float32)
    return {public: found[name] for public, name in kernels.graph.outputs}


@cache
def unfused(seed: int) -> tuple[TypedGraph, dict[str, Array], dict[str, Array]]:
    graph = random_graph(seed)
    data = random_data(graph, seed, BATCH)
    return graph, data, interpreted(fuse(graph, enabled=False), data)


def check(seed: int, actual: dict[str, Array], expected: dict[str, Array]) -> None:
    wrong = [name for name in expected if not same_bits(actual[name], expected[name])]
    assert wrong == [], f"{wrong} differ in network {seed}:\n{random_text(seed)}"


@pytest.mark.parametrize("seed", INTERPRETED)
def test_fusion_keeps_the_bits(seed: int) -> None:
    graph, data, expected = unfused(seed)
    check(seed, interpreted(fuse(graph), data), expected)
    check(seed, interpreted(fuse(graph, apart=[*random_edges(graph, seed)]), data), expected)


def test_random_networks_exercise_every_rule_of_fusion() -> None:
    """Otherwise the tests here would prove less than they seem to."""
    rules: dict[str, int] = {}
    for seed in INTERPRETED:
        graph = unfused(seed)[0]
        for verdict in fuse(graph, apart=[*random_edges(graph, seed)]).ledger:
            rules[verdict.rule] = rules.get(verdict.rule, 0) + 1
    wanted = {
        "pointwise epilogue", "pool epilogue", "same kernel", "concat in place",
        "nofuse", "source", "reuse", "inner", "order", "cheap", "anchor",
    }  # fmt: skip
    assert wanted - set(rules) == set()


@pytest.mark.parametrize("seed", [*INTERPRETED][::6])
def test_unfused_networks_are_close_to_the_oracles(seed: int) -> None:
    graph, data, actual = unfused(seed)
    wide = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in data.items()}
    values = evaluate(graph, wide)
    for public, name in graph.outputs:
        norm = float(np.linalg.norm(values[name])) or 1.0
        assert float(np.linalg.norm(actual[public] - values[name])) / norm <= 1e-5, public


@pytest.mark.parametrize("seed", COMPILED)
def test_compiled_kernels_give_the_same_bits(seed: int) -> None:
    graph, data, expected = unfused(seed)
    pairs = [*random_edges(graph, seed)]
    for two in (
        both_targets(graph),
        both_targets(graph, fused=False, threads=2),
        both_targets(graph, apart=pairs),
    ):
        check(seed, two.on_cpu(data), expected)
