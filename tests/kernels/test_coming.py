"""What sums fetch in advance: the next tile's input, a part for each channel, and the weights that
come next where few positions share them, or later in the same loop. Hints change no bits.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import Int, Size
from cnncc.targets.cpu import emit
from cnncc.targets.cpu.coming import LINES_AHEAD, Apiece, Next
from cnncc.targets.cpu.machine import detect, vector_lanes
from cnncc.targets.cpu.program_step import Step
from cnncc.targets.cpu.schedule import FEW, Schedule, registers
from cnncc.targets.cpu.turns import TURNS_AT_ONCE
from cnncc.targets.load import load_module
from cnncc.targets.runtime import Runtime
from cnncc.tensor import DType
from tests.kernels.primitives import same_bits

FEW_REGISTERS = registers(vector_lanes(), DType.F32) == FEW


def runtime_of(text: str) -> Runtime:
    runtime = cnncc.compile(text)._programs.inference
    assert isinstance(runtime, Runtime)
    return runtime


def net(channels: int, extent: int, layer: str) -> str:
    return (
        f"net n {{\n  input x: f32[{channels}, {extent}, {extent}]\n  output y = x -> {layer}\n}}"
    )


def sums_of(text: str) -> tuple[Runtime, Step]:
    """The runtime of a network with one step that has sums, and that step."""
    runtime = runtime_of(text)
    (step,) = (s for s in runtime.program.steps if "fma(" in s.text)
    return runtime, step


def integer(runtime: Runtime, step: Step, x: np.ndarray, name: str) -> int:
    before = runtime.program.steps[: runtime.program.steps.index(step)]
    assert step.emitted is not None
    place = sum(s.places for s in before) + 1 + step.emitted.arguments.index(name)
    return int(runtime.bind(runtime._shape({"x": x})).table[place])


def hinted(step: Step, buffer: str) -> list[str]:
    """The hints on a buffer that stand inside of loops over channels."""
    found = re.findall(rf"^ {{16,}}prefetch(?:_nearby)?\({buffer}, .*$", step.text, re.MULTILINE)
    return [line.strip() for line in found]


def schedule_of(step: Step) -> Schedule:
    assert step.emitted is not None
    (segment,) = step.emitted.segments
    return segment.schedule


@pytest.mark.parametrize(
    ("channels", "extent", "layer", "following"),
    [
        (64, 14, "conv(32, 1x1)", True),
        (512, 14, "conv(32, 1x1)", True),  # a line apart, so that they are in unlike sets
        (64, 13, "conv(32, 1x1, stride = 2)", False),  # others between them: nothing but the first
    ],
)
def test_each_channel_brings_its_part_of_the_next_tile(
    channels: int, extent: int, layer: str, following: bool
) -> None:
    runtime, step = sums_of(net(channels, extent, layer))
    width = schedule_of(step).width
    if FEW_REGISTERS:
        assert not hinted(step, "x")
        return
    (hint,) = hinted(step, "x")
    assert re.search(rf"i_s10 \+ {width}\).*\* apiece0_0\)$", hint)
    x = np.zeros((1, channels, extent, extent), np.float32)
    assert integer(runtime, step, x, "apiece0_0") == width * following


@pytest.mark.parametrize(
    ("positions", "step", "channels", "found"),
    [(7, 64, 64, 7), (7, 80, 64, 8), (7, 81, 64, 0), (7, 128, 64, 0), (14, 272, 256, 14)],
)
def test_the_part_follows_from_how_far_positions_are_apart(
    positions: int, step: int, channels: int, found: int
) -> None:
    apiece = Apiece(positions, Size("step"), Size("c"))
    assert apiece.integers({"step": step, "c": channels}) == (found,)


def test_the_weights_that_come_next_are_fetched_by_all_tiles_that_share_those_of_now() -> None:
    """Seven rows of one tile or more, which share a block of 64 input channels."""
    runtime, step = sums_of(net(64, 7, "conv(64, 1x1)"))
    hint, *lines = hinted(step, "w")
    assert lines == ([hint.replace("each0_0)", "each0_0 + 16)")] if FEW_REGISTERS else [])
    assert hint.endswith("((row - first_row) * s1 + i_s10) * before0_0 + i_c * each0_0)")
    x, s = np.zeros((1, 64, 7, 7), np.float32), schedule_of(step)
    rows, further, before, each = (
        integer(runtime, step, x, name)
        for name in ("rows_per_task0", "further0_0", "before0_0", "each0_0")
    )
    assert further == 64 * s.block
    assert before == 64 * s.block // (7 * rows)
    assert each == -(-s.block * s.width // (7 * rows))


def test_the_places_of_a_product_fetch_those_of_the_next() -> None:
    runtime = runtime_of(net(256, 14, "conv(256, 3x3, pad = 1)"))
    parts = [p for s in runtime.program.steps for p in (s.parts or (s,))]
    (product,) = (p for p in parts if "i_p * u_step2" in p.text)
    hint, *lines = hinted(product, "u")
    assert lines == ([hint.replace("each0_0)", "each0_0 + 16)")] if FEW_REGISTERS else [])
    assert "i_p * u_step2 + further0_0 + (i_n * t + i_t0) * before0_0" in hint


def test_weights_that_a_large_map_shares_are_left_to_come() -> None:
    _, step = sums_of(net(64, 33, "conv(64, 1x1)"))
    assert not hinted(step, "w")


@pytest.mark.parametrize("sharing", [(16,), (49,), (3, 7), (1,), (1024,)])
@pytest.mark.parametrize("width", [4, 7])
def test_the_parts_of_all_tiles_are_what_comes_next(sharing: tuple[int, ...], width: int) -> None:
    """Every line of it, but where a turn would have to fetch two."""
    turn, turns, count = 32, 64, int(np.prod(sharing))
    names = [Size(f"s{k}") for k in range(len(sharing))]
    following = Next(Size("step"), Int(turn), Size("c"), width, tuple(names))
    known = {"step": 5, "c": turns} | {f"s{k}": e for k, e in enumerate(sharing)}
    step, before, each = following.integers(known)
    starts = range(0, count, width)
    places = {p * before + k * each for p in starts for k in range(turns)}
    lines = {place // 16 for place in places}
    missed = set(range(turn * turns // 16)) - lines
    assert step == 5
    assert len(missed) <= (len(starts) if each <= 16 else turn * turns // 32)


def test_a_dense_layer_of_a_batch_fetches_its_own_weights_line_by_line() -> None:
    text = "net n { input x: f32[512]\n output y = x -> dense(64) }"
    _, step = sums_of(text)
    assert step.nest is not None
    block, line = schedule_of(step).block, 64 // step.nest.buffer("w").dtype.bytes
    hints = hinted(step, "w")
    turns = range(TURNS_AT_ONCE if FEW_REGISTERS else 1)
    ends = [
        f"(i_f + {LINES_AHEAD + turn}) * w_step1{f' + {place}' if place else ''})"
        for place in range(0, max(block, line), line)
        for turn in turns
    ]
    assert len(hints) == len(ends)
    assert all(hint.endswith(end) for hint, end in zip(hints, ends, strict=True))


def test_few_channels_need_no_hint() -> None:
    _, step = sums_of(net(31, 14, "conv(32, 1x1)"))
    assert not hinted(step, "x")


@pytest.mark.parametrize(
    ("channels", "extent", "layer"),
    [
        (64, 14, "conv(32, 1x1)"),
        (64, 7, "conv(64, 3x3, pad = 1)"),
        (64, 13, "conv(40, 1x1, stride = 2)"),
        (96, 9, "conv(64, 3x3, connect = groups(2))"),
    ],
)
def test_bits_are_those_of_the_interpreter(channels: int, extent: int, layer: str) -> None:
    text = net(channels, extent, layer)
    x = np.random.default_rng(0).standard_normal((2, channels, extent, extent), np.float32)
    assert same_bits(cnncc.compile(text)(x), cnncc.compile(text, target="interp")(x))


def test_extents_that_are_not_known_have_no_hints_on_weights() -> None:
    text = net(64, 7, "conv(64, 1x1)").replace("7, 7", "H, H")
    _, step = sums_of(text)
    assert bool(hinted(step, "x")) is not FEW_REGISTERS
    assert not hinted(step, "w")
    x = np.random.default_rng(0).standard_normal((2, 64, 9, 9), np.float32)
    assert same_bits(cnncc.compile(text)(x), cnncc.compile(text, target="interp")(x))


def test_hints_leave_the_sums_their_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints need integers beside the places of 14 positions; with too few registers for all, LLVM
    reads every number before the first sum, and sums go to memory and back.
    """
    if detect().isa != "avx512":
        return  # 28 sums need 32 registers
    monkeypatch.setattr(emit, "near_weights", lambda *_: 1)
    emit._emitted.cache_clear()
    try:
        _, step = sums_of(net(512, 14, "conv(64, 1x1)"))
    finally:
        emit._emitted.cache_clear()
    assert schedule_of(step).width == 14
    assembly = load_module(step.text, kind="kernel").kernel.assembly()
    blocks = re.split(r"^\.L\w+:$", assembly, flags=re.MULTILINE)
    (loop,) = (b for b in blocks if "prefetcht1" in b)
    assert len(re.findall(r"vfmadd\d+ps\b.*zmm", loop)) == 28
    assert not re.search(r"zmm.*\(%rsp|\(%rsp.*zmm", loop), "spills"
