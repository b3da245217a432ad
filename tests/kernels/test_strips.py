"""Two kernels strip by strip: every row once, with the bits of the kernels one by one, in memory
for a strip of each core.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.passes.fuse import Fused
from cnncc.targets.cpu import strips
from cnncc.targets.cpu.declare import declare, with_prepared
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.targets.cpu.store import Store
from cnncc.targets.cpu.strips import RowCut, Strips
from cnncc.targets.runtime import Runtime, Shape
from tests.kernels.primitives import same_bits

NET = """
net n(c = 16, k = 40) {
  default fit = floor
  input x: f32[c, 13, 17]
  a = x -> conv(c, 3x3, pad = same, connect = depthwise) -> batchnorm -> relu
  b = a -> conv(k, 1x1) -> relu
  d = b -> conv(k, 3x3, pad = 1, stride = 2, connect = depthwise)
  e = (d -> conv(k, 1x1, bias = none)) + d
  f = e -> conv(k, 3x3, pad = same, connect = depthwise) -> relu
  output y = (f -> conv(k, 1x1)) + e
}
"""

APART = {
    "a window": "x -> conv(c, 3x3, pad = same, connect = depthwise) -> conv(8, 3x1)",
    "two readers": "both(x -> conv(c, 3x3, pad = same, connect = depthwise))",
    "many weights": "x -> conv(c, 5x5, pad = same) -> conv(8, 1x1)",
    "rows with weights of their own": "x -> conv(c, 3x3, connect = depthwise, bias = untied)"
    " -> conv(8, 1x1)",
}
BLOCK = """
block both(x) {
  return concat(x -> conv(16, 1x1), x -> conv(16, 1x1) -> relu)
}
"""


@pytest.fixture(params=[1, 3])
def short_strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with so many cores, whose caches hold a few rows."""
    monkeypatch.setattr(strips, "cores", lambda: request.param)
    monkeypatch.setattr(strips, "own_cache", lambda: 48 << 10)
    monkeypatch.setattr(strips, "last_cache", lambda: 32 << 20)
    monkeypatch.setattr(strips, "FEWEST", 1)


@pytest.mark.parametrize("samples", [1, 3, 16])
@pytest.mark.parametrize(("rows", "size"), [(1, 100), (7, 4000), (56, 3000), (112, 500)])
@pytest.mark.usefixtures("short_strips")
def test_every_row_is_in_one_strip_and_no_strip_is_too_large(
    samples: int, rows: int, size: int
) -> None:
    cut = RowCut(rows, size).strips(samples)
    seen = []
    for strip in range(cut.bands):
        sample, first, count = cut.place(strip)
        assert 0 < count <= cut.most
        seen += [(sample, row) for row in range(first, first + count)]
    assert seen == [(s, r) for s in range(samples) for r in range(rows)]
    assert cut.most * size <= max(strips.ROOM * strips.own_cache(), size)


@pytest.mark.parametrize(("samples", "each"), [(1, 1), (1, 5), (2, 3), (16, 1)])
@pytest.mark.parametrize("lots", [1, 2, 3])
def test_the_lot_of_a_strip_is_the_one_that_runs_it(samples: int, each: int, lots: int) -> None:
    cut = Strips(samples, 11, each, min(lots, samples * each))
    rows = []
    for lot in range(cut.lots):
        own = range(cut.bands * lot // cut.lots, cut.bands * (lot + 1) // cut.lots)
        assert all(cut.lot(strip) == lot for strip in own)
        rows.append(sum(cut.place(strip)[2] for strip in own))
    assert (sum(rows), max(rows)) == (11 * samples, cut.fullest)


def test_cores_get_about_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "own_cache", lambda: 1 << 20)
    monkeypatch.setattr(strips, "cores", lambda: 2)
    for samples in (1, 3, 16):
        for rows, size in ((112, 14 << 10), (56, 28 << 10), (14, 28 << 10)):
            cut = RowCut(rows, size).strips(samples)
            assert cut.fullest * 2 <= strips.EVEN * samples * rows


def fused(text: str) -> Fused:
    checked = compiler.front(text)
    return compiler.kernels(checked.graph, checked.module)


def in_strips(of: Fused) -> int:
    declared = declare(of, lanes=vector_lanes(), phases=with_prepared(of.graph, {}))
    return sum(isinstance(t.cut, RowCut) for t in declared.tensors.values())


@pytest.mark.usefixtures("short_strips")
def test_strips_give_the_bits_of_the_definition() -> None:
    if vector_lanes() > 1:
        assert in_strips(fused(NET)) == 3
    x = np.random.default_rng(0).standard_normal((3, 16, 13, 17)).astype(np.float32)
    expected = cnncc.compile(NET, target="interp")(x)
    for fuse, threads in ((True, 2), (False, 3)):
        model = cnncc.compile(NET, fuse=fuse, num_threads=threads)
        assert same_bits(model(x), expected)
        assert same_bits(model(x[:1]), expected[:1])


@pytest.mark.usefixtures("short_strips")
@pytest.mark.parametrize("why", APART)
def test_kernels_that_must_run_apart(why: str) -> None:
    head = "net n(c = 64) {\n  input x: f32[c, 13, 17]\n  output y = "
    assert in_strips(fused(f"{BLOCK}{head}{APART[why]}\n}}\n")) == 0


@pytest.mark.usefixtures("short_strips")
def test_memory_is_planned_for_a_strip_of_each_core() -> None:
    whole = fused(NET)
    need = [compiler.planned(whole, batch=batch) for batch in (1, 4)]
    runtime = Runtime(whole, store=Store(), threads=1)
    for batch, planned in zip((1, 4), need, strict=True):
        assert planned.activations == runtime.planned(Shape(batch, ())).plan.size
