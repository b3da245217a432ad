"""What sums fetch in advance: the next tile's input, a part for each channel, and the weights that
come next where few positions share them. Hints change no bits.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import Size
from cnncc.targets.cpu.coming import Apiece, Next
from cnncc.targets.cpu.program import Step
from cnncc.targets.cpu.schedule import Schedule
from cnncc.targets.runtime import Runtime
from tests.kernels.primitives import same_bits


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
    found = re.findall(
        rf"^ {{16,}}prefetch(?:_tile\(\w+, |\(){buffer}, .*$", step.text, re.MULTILINE
    )
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


def test_weights_are_fetched_where_few_positions_share_them() -> None:
    _, few = sums_of(net(64, 7, "conv(64, 1x1)"))
    (hint,) = hinted(few, "w")
    assert "+ further0_0" in hint
    _, many = sums_of(net(64, 14, "conv(64, 1x1)"))
    assert not hinted(many, "w")


@pytest.mark.parametrize(("samples", "few"), [(1, True), (2, False)])
def test_weights_that_many_positions_of_a_call_share_are_left_to_come(
    samples: int, few: bool
) -> None:
    runtime, step = sums_of(net(64, 7, "conv(64, 1x1)"))
    x = np.zeros((samples, 64, 7, 7), np.float32)
    block = 64 * schedule_of(step).block
    assert integer(runtime, step, x, "further0_0") == few * block  # the same place in the next one


def test_the_places_of_a_product_fetch_those_of_the_next() -> None:
    runtime = runtime_of(net(256, 14, "conv(256, 3x3, pad = 1)"))
    parts = [p for s in runtime.program.steps for p in (s.parts or (s,))]
    (product,) = (p for p in parts if "i_p * u_step2" in p.text)
    (hint,) = hinted(product, "u")
    assert "+ further0_0" in hint


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
    assert hinted(step, "x")
    assert not hinted(step, "w")
    x = np.random.default_rng(0).standard_normal((2, 64, 9, 9), np.float32)
    assert same_bits(cnncc.compile(text)(x), cnncc.compile(text, target="interp")(x))


def test_bands_have_fewer_positions_than_the_map() -> None:
    """The weights of a band's products come next where those of the whole map would not."""
    following = Next(Size("step"), (Size("t"),), most=128)
    assert following.integers({"step": 7, "t": 196, "n": 1}) == (0,)
    assert following.integers({"step": 7, "t": 49, "n": 1}) == (7,)
    assert following.integers({"step": 7, "t": 49, "n": 3}) == (0,)


def test_a_line_of_the_cache_is_named_once() -> None:
    """Two vectors of sixteen lanes are two lines, narrower ones fewer."""
    _, step = sums_of(net(64, 7, "conv(64, 1x1)"))
    (hint,) = hinted(step, "w")
    lines = -(-4 * schedule_of(step).block // 64)
    assert (f"T1x{lines}x" in hint and hint.endswith(", 0, 16)")) if lines > 1 else ("(w, " in hint)
