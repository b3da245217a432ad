"""Prefetching what a tile takes behind its sums: it stands in the text and changes no bits."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.targets.load import load_module
from cnncc.targets.runtime import Runtime
from tests.kernels.primitives import same_bits

RESIDUAL = """
net n {
  input x: f32[32, 9, 14]
  output y = relu((x -> conv(32, 1x1)) + x)
}
"""


def texts_of(text: str) -> list[str]:
    runtime = cnncc.compile(text)._programs.inference
    assert isinstance(runtime, Runtime)
    return [t for t in runtime.kernel_texts if "fma(" in t]


def test_a_residual_is_asked_for_before_the_sums_and_read_behind_them() -> None:
    (text,) = texts_of(RESIDUAL)
    lines = [line.strip() for line in text.splitlines()]
    hints = [k for k, line in enumerate(lines) if line.startswith("prefetch_tile(")]
    for k in hints:
        shape, buffer, place, *apart = lines[k][len("prefetch_tile(") : -1].split(", ")
        sums = next(j for j in range(k, len(lines)) if lines[j].startswith("for "))
        read = f"load_tile({shape}, {buffer}, {place}, {', '.join(apart)})"
        assert any(read in line for line in lines[sums:])
    assert hints


def test_nothing_is_asked_for_in_front_of_sums_with_nothing_behind_them() -> None:
    (text,) = texts_of(RESIDUAL.replace("relu((x -> conv(32, 1x1)) + x)", "x -> conv(32, 3x3)"))
    in_front, *_ = text.split("for t0 in")
    assert "load_tile(" in in_front
    assert "prefetch" not in in_front.split("def kernel")[1]


@pytest.mark.parametrize("channels", [32, 27])
def test_bits_are_those_of_the_interpreter(channels: int) -> None:
    net = RESIDUAL.replace("[32", f"[{channels}").replace("(32", f"({channels}")
    x = np.random.default_rng(0).standard_normal((2, channels, 9, 14), np.float32)
    model, meant = cnncc.compile(net), cnncc.compile(net, target="interp")
    assert same_bits(model(x), meant(x))


def test_a_hint_may_name_any_place() -> None:
    text = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import prefetch_tile, shape, store, load4

TILE = shape(3, 2, 4)


@compiled("void(f32*, f32*)")
def kernel(a, y):
    prefetch_tile(TILE, a, 1_000_000_000_000, -7, 1 << 40)
    store(y, 0, load4(a, 0))
"""
    a, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    load_module(text, kind="kernel").kernel(a, y)
    assert same_bits(a, y)
