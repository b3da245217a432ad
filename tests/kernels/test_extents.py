"""Symbolic extents and batch sizes: one program serves them all, and says which data do not fit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.graph.ir import TypedGraph
from cnncc.targets.cpu import work
from cnncc.targets.runtime import shape_of
from tests.kernels.joined import Twice, both_targets
from tests.kernels.primitives import same_bits
from tests.networks.values import Array, parameters

NET = """
net labels(classes = 5) {
  input x: f32[3, H, W]
  a = x -> conv(20, 3x3, pad = same) -> relu
  b = a -> maxpool(2x2)
  c = b -> conv(7, 3x3, pad = same) -> tanh
  d = concat(b, c) -> conv(classes, 1x1)
  output maps = upsample(d, 2)
  output pooled = b -> globalavgpool -> dense(4)
}
"""


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share every step, however small."""
    monkeypatch.setattr(work, "AGREEING", 0.0)


@cache
def graph() -> TypedGraph:
    return front(NET).graph


@cache
def program() -> Twice:
    return both_targets(graph(), threads=2)


def image(batch: int, height: int, width: int) -> Array:
    rng = np.random.default_rng(height * width)
    return rng.standard_normal((batch, 3, height, width)).astype(np.float32)


def run(batch: int, height: int, width: int) -> tuple[dict[str, Array], dict[str, Array]]:
    return program().run(parameters(graph()) | {"x": image(batch, height, width)})


def test_one_program_serves_all_sizes() -> None:
    kernels = program().cpu.kernel_texts
    for batch, height, width in [
        (2, 8, 8),
        (1, 2, 30),
        (3, 14, 6),
        (1, 22, 18),
        (2, 8, 8),
        (5, 4, 2),
    ]:
        cpu, interp = run(batch, height, width)
        assert cpu["maps"].shape == (batch, 5, height, width)
        assert [n for n in interp if not same_bits(cpu[n], interp[n])] == []
    assert program().cpu.kernel_texts == kernels


def test_sizes_that_were_bound_long_ago_still_work() -> None:
    """More sizes than bindings are kept."""
    first = run(1, 6, 6)[0]
    for k in range(1, 12):
        run(1, 2 * k, 4)
    again = run(1, 6, 6)[0]
    assert all(same_bits(first[n], again[n]) for n in first)


@pytest.mark.parametrize(("height", "width", "bad"), [(9, 8, "H"), (8, 7, "W"), (5, 3, "HW")])
def test_extent_that_does_not_fit_is_reported(height: int, width: int, bad: str) -> None:
    with pytest.raises(SpecError) as caught:
        program().on_cpu(parameters(graph()) | {"x": image(1, height, width)})
    found = caught.value.diagnostics
    assert [d.code for d in found] == ["E0804"] * len(bad)
    for diagnostic, extent in zip(found, bad, strict=True):
        value = {"H": height, "W": width}[extent]
        assert f"2 does not divide {extent} - 2 = {value - 2}" in diagnostic.message
        assert diagnostic.span is not None
        assert f"H = {height}, W = {width}" in diagnostic.notes[0].text


def test_array_of_another_shape_is_refused() -> None:
    for shape in [(1, 4, 8, 8), (3, 8, 8), (1, 3, 8)]:
        with pytest.raises(ValueError, match="x: expected"):
            program().cpu.run({"x": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("fault", ["missing", "of another type", "strided"])
def test_array_that_kernels_cannot_read_is_refused(fault: str) -> None:
    """They read memory, so a wrong array would give nonsense or a crash."""
    good = image(1, 8, 8)
    arrays = {
        "missing": {},
        "of another type": {"x": good.astype(np.float64)},
        "strided": {"x": np.asfortranarray(good)},
    }[fault]
    cpu = program().cpu
    program().on_cpu(parameters(graph()) | {"x": good})
    with (
        cpu.session(shape_of(graph(), {"x": good})) as session,
        pytest.raises(ValueError, match="x: "),
    ):
        session.run(0, arrays)
    assert cpu.run({"x": good})["maps"].shape == (1, 5, 8, 8)
