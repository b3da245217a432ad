"""What is left behind whole blocks of lanes: one vector at a time, or all vectors of a block."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.targets.cpu.machine import detect

NET = """
net tails(a, b) {{
  input x: f32[3, 7, 7]
  c = x -> conv(a, 3x3, pad = 1) -> tanh
  d = c -> conv(a, 1x1) -> relu
  e = c + d -> maxpool(2x2, stride = 2, fit = floor)
  output y = e -> flatten -> dense(b) -> tanh -> dense(b)
}}
"""


@pytest.mark.parametrize(
    ("channels", "wide"), [(24, True), (40, False), (84, True), (20, True), (32, False)]
)
def test_tails_have_the_bits_of_the_definition(channels: int, wide: bool) -> None:
    text = NET.format().replace("(a, b)", f"(a = {channels}, b = {channels})", 1)
    rng = np.random.default_rng(channels)
    model, definition = cnncc.compile(text, seed=2), cnncc.compile(text, seed=2, target="interp")
    for batch in (1, 9):
        x = rng.standard_normal((batch, 3, 7, 7)).astype(np.float32)
        assert np.array_equal(model(x), definition(x))
    if detect().lanes_f32 != 16:
        return
    parts = [p for s in model._programs.inference.program.steps for p in s.kernels]
    found = [s.schedule for p in parts if p.emitted for s in p.emitted.segments]
    sums = [s for s in found if s.blocked and s.vectors > 1]
    assert {s.wide_tail for s in sums} == {wide}
