"""Threads never change a bit, and nothing hangs: teams of any size, callers at once, a forked
child, and kernels that run as plain Python.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.passes.fuse import fuse
from cnncc.passes.training import StepGraph, training_graph
from cnncc.targets.cpu import work
from cnncc.targets.cpu.control import WHOLE
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime
from cnncc.train.optim import Optimizer
from tests.kernels.primitives import same_bits
from tests.networks.values import Array, inputs, parameters

ROOT = Path(__file__).parents[2]
BATCH = 3
PATIENCE = 120  # seconds until a call counts as hung


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share every step, however small."""
    monkeypatch.setattr(work, "AGREEING", 0.0)


@cache
def step() -> tuple[StepGraph, dict[str, Array]]:
    """A training step of lenet_digits, and its data: parameters, images, labels, and the
    optimizer's numbers.
    """
    checked = front("lenet_digits", train=True)
    assert checked.module.training is not None
    made = training_graph(checked.graph, checked.module, checked.module.training.optimizer)
    data = parameters(made.graph) | inputs(checked.graph, BATCH)
    for node in made.graph.of("parameter"):
        if node.name not in checked.graph.index:
            data[node.name] = np.zeros(node.type.dims(0), np.float32)
    data |= Optimizer.of(checked.module.training).numbers(0, 0.01)
    return made, data


def runtime(threads: int) -> Runtime:
    made, data = step()
    store = Store()
    for node in made.graph.of("parameter"):
        store.write(node.name, data[node.name])
    return Runtime(
        fuse(made.graph, phases=dict(made.phases)), store=store, phases=made.phases, threads=threads
    )


def given(graph_inputs: dict[str, Array], runtime: Runtime) -> dict[str, Array]:
    return {n.name: graph_inputs[n.name] for n in runtime.graph.of("input")}


def stepped(threads: int) -> dict[str, Array]:
    """Outputs, loss and every updated parameter and state after one step: they hold each
    gradient.
    """
    r = runtime(threads)
    found = r.run(given(step()[1], r))
    return found | {name: r.store.read(name) for name, _ in r.graph.updates}


def digest(found: dict[str, Array]) -> str:
    total = hashlib.sha256()
    for name in sorted(found):
        total.update(name.encode() + np.ascontiguousarray(found[name]).tobytes())
    return total.hexdigest()


def within(seconds: float, work: object) -> None:
    """Run work() in a thread of its own, and fail if it takes longer."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    assert not failures, failures


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
def test_any_team_gives_the_bits_of_one_thread(threads: int) -> None:
    """8 threads are more than most machines that run this have cores."""
    alone = stepped(1)
    assert len(alone) > 10
    found: dict[str, Array] = {}
    within(PATIENCE, lambda: found.update(stepped(threads)))
    assert [n for n in alone if not same_bits(alone[n], found[n])] == []


def pieces_in_table() -> set[int]:
    """Into how many pieces the steps are shared."""
    r = runtime(3)
    steps, table = r.program.steps, r.bind(r._shape(given(step()[1], r))).table
    return {int(table[n]) for n in accumulate((s.places for s in steps[:-1]), initial=0)}


@pytest.mark.parametrize("agreeing", [20.0, 60.0, np.inf])
def test_small_steps_that_one_thread_does(monkeypatch: pytest.MonkeyPatch, agreeing: float) -> None:
    """Some steps or all of them are the caller's alone."""
    alone = stepped(1)
    monkeypatch.setattr(work, "AGREEING", agreeing)
    found: dict[str, Array] = {}
    within(PATIENCE, lambda: found.update(stepped(3)))
    assert [n for n in alone if not same_bits(alone[n], found[n])] == []
    assert pieces_in_table() == ({0} if agreeing == np.inf else {0, 1})


def test_pieces_of_shares_that_any_thread_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = stepped(1)
    monkeypatch.setattr(work, "AGREEING", 0.0)
    monkeypatch.setattr(work, "PIECE", 1e-3)
    found: dict[str, Array] = {}
    within(PATIENCE, lambda: found.update(stepped(3)))
    assert [n for n in alone if not same_bits(alone[n], found[n])] == []
    assert pieces_in_table() == {work.MOST}


@pytest.mark.parametrize(
    ("microseconds", "threads", "pieces"),
    [(1.9, 2, 0), (2.1, 2, 1), (31, 2, 1), (33, 2, 2), (63, 2, 2), (65, 2, 4), (65, 8, 1),
     (1e6, 2, 8), (1e6, 64, 8)],
)  # fmt: skip
def test_into_how_many_pieces_a_share_is_cut(
    microseconds: float, threads: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AGREEING", 2000.0)
    assert work.pieces_of(int(work.MACS * 1000 * microseconds), 0, threads) == pieces
    assert WHOLE % work.MOST == 0


def test_callers_at_once_each_get_their_own_result() -> None:
    checked = front("lenet_digits")
    store = Store()
    for name, value in parameters(checked.graph).items():
        store.write(name, value)
    shared = Runtime(fuse(checked.graph), store=store, threads=2)
    images = [inputs(checked.graph, 1 + i % 3, seed=i)["image"] for i in range(8)]
    expected = [shared.run({"image": x})["scores"] for x in images]
    assert len({e.tobytes() for e in expected}) == 8
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(200):
            if not same_bits(shared.run({"image": images[i]})["scores"], expected[i]):
                wrong.append(i)

    def all_at_once() -> None:
        callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
        for c in callers:
            c.start()
        for c in callers:
            c.join()

    within(PATIENCE, all_at_once)
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_runs_the_same_runtime() -> None:
    r = runtime(2)
    before = digest(r.run(given(step()[1], r), phases=[0]))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        answers.put(digest(r.run(given(step()[1], r), phases=[0])))

    process = context.Process(target=child)
    process.start()
    process.join(PATIENCE)
    hung = process.is_alive()
    if hung:
        process.kill()
    assert not hung
    assert process.exitcode == 0
    assert answers.get() == before
    assert digest(r.run(given(step()[1], r), phases=[0])) == before  # the parent's team still works


UNJITTED = """
from tests.kernels.test_threads import digest, stepped
from cnncc.targets.cpu.compiled import JIT
assert not JIT
print(digest(stepped(1)))
"""


def test_unjitted_kernels_give_the_same_bits() -> None:
    """Forward, backward and update of lenet_digits with NUMBA_DISABLE_JIT=1."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", UNJITTED], cwd=ROOT, env=environment, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(stepped(1))
