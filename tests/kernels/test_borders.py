"""A border is filled beside the kernel that writes what it surrounds: one phase for both."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import cnncc
from cnncc.errors import CompilerBug
from cnncc.targets.cpu import binding, work
from cnncc.targets.cpu.arena import ArenaPool
from cnncc.targets.cpu.entry import Call, Slot, entry_text
from cnncc.targets.runtime import Runtime
from cnncc.tensor import DType, TensorType
from tests.kernels.primitives import same_bits

NET = """net n {
  input x: f32[16, 9, 9]
  a = x -> conv(16, 1x1) -> relu
  b = a -> conv(16, 3x3, pad = 1)
  c = b -> maxpool(3x3, stride = 2, pad = 1)
  output y = c -> conv(40, 5x5, pad = 2)
}"""


NARROW = """net n {
  input x: f32[1, 20, 28]
  a = x -> conv(6, 5x5, pad = 2) -> tanh
  b = a -> conv(4, 3x3, pad = 1)
  output y = b -> maxpool(3x3, stride = 2, pad = 1, fit = floor)
}"""  # of which all activations lie row by row


def test_calls_that_do_not_wait_for_each_other_are_one_phase() -> None:
    slots = [Slot("a", TensorType(DType.F32, (4,))), Slot("b", TensorType(DType.F32, (4,)))]
    calls = [
        Call("m.border", (0,), 0, ("border",), with_next=True),
        Call("m.border", (1,), 7, ("another",), with_next=True),
        Call("m.work", (0, 1), 14, ("work",)),
        Call("m.work", (1, 0), 20, ("last",)),
    ]
    text = entry_text("t", slots, calls)
    steps = [line.strip() for line in text.splitlines() if line.startswith("    step(")]
    assert steps == [
        "step(control, tid, size, 1, table[14], kernel_0, t0, table, 1, kernel_0, t1, table, 8, "
        "kernel_1, t0, t1, table, 15)",
        "step(control, tid, size, 2, table[20], kernel_1, t1, t0, table, 21)",
    ]


def test_an_entry_for_one_thread_makes_plain_calls() -> None:
    slots = [Slot("a", TensorType(DType.F32, (4,)))]
    calls = [
        Call("m.border", (0,), 0, ("border",), with_next=True),
        Call("m.work", (0,), 7, ("work",)),
    ]
    text = entry_text("t", slots, calls, alone=True)
    assert "step" not in text
    assert [line.strip() for line in text.splitlines() if line.startswith("    kernel")] == [
        "kernel_0(t0, table, 1, 0, 1)",
        "kernel_1(t0, table, 8, 0, 1)",
    ]


def test_no_border_has_a_phase_of_its_own() -> None:
    runtime = cnncc.compile(NET)._programs.inference
    assert isinstance(runtime, Runtime)
    steps = runtime.program.steps
    borders = [s for s in steps if not s.kernels]
    assert len(borders) >= 2
    (text,) = runtime.program.entry_texts.values()
    assert text.count("    step(") == len(steps) - len(borders)


@pytest.mark.parametrize("net", [NET, NARROW])
@pytest.mark.parametrize("batch", [1, 5])
def test_borders_are_whole_whoever_fills_them(
    net: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of memory that holds NaN before every call, by threads that share even the smallest step: of
    zeros around signed numbers for convolutions, too large for the maximum, and -inf for it.
    """
    monkeypatch.setattr(work, "AGREEING", 0.0)
    monkeypatch.setattr(work, "PIECE", 1.0)
    monkeypatch.setattr(binding, "ArenaPool", partial(ArenaPool, poison=True))
    interp = cnncc.compile(net, target="interp", seed=1)
    shape = interp.network.inference.graph["x"].type.shape
    x = np.random.default_rng(3).standard_normal((batch, *shape)).astype(np.float32)
    expected = interp(x)
    for threads in (1, 2, 3):
        model = cnncc.compile(net, num_threads=threads, seed=1)
        for _ in range(3):
            assert same_bits(model(x), expected)


def test_a_call_that_runs_with_the_next_has_a_next() -> None:
    call = Call("m.border", (0,), 0, ("border",), with_next=True)
    with pytest.raises(CompilerBug, match="is the last"):
        entry_text("t", [Slot("a", TensorType(DType.F32, (4,)))], [call])
