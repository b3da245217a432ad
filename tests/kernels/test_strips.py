"""Kernels strip by strip: every row once, with the bits of the kernels one by one, in memory for a
strip of each core."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.loops.ir import Int
from cnncc.passes.choices import Choices
from cnncc.passes.fuse import Fused
from cnncc.targets.cpu import grouping, strips
from cnncc.targets.cpu.coming import Share
from cnncc.targets.cpu.declare import declare, with_prepared
from cnncc.targets.cpu.grouping import Run
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.targets.cpu.store import Store
from cnncc.targets.cpu.strips import Flow, Strip, rows_read, strip_of, summed_input
from cnncc.targets.runtime import Runtime, Shape
from tests.kernels.joined import both_targets
from tests.kernels.primitives import same_bits

NET = """
net n(c = 24, h = 18, w = 15) {
  input x: f32[c, h, w]
  a = x -> conv(c, 3x3, pad = same, connect = depthwise) -> relu -> conv(40, 1x1) -> batchnorm
  b = a -> conv(40, (5, 3), stride = 2, pad = (2, 1), fit = floor, connect = depthwise)
        -> conv(33, 1x1) -> relu
  d = b -> conv(36, 3x3, pad = same, bias = none) -> conv(20, 1x1) -> tanh -> conv(36, 1x1)
  output y = d -> conv(8, 1x1)
}
"""
SIZES = [(18, 15), (23, 16)]


@pytest.fixture(params=[1, 2, 3])
def far(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As on so many cores whose last cache is far, with a small one of their own."""
    monkeypatch.setattr(grouping, "last_cache_is_far", lambda: True)
    monkeypatch.setattr(strips, "cores", lambda: request.param)
    monkeypatch.setattr(strips, "own_cache", lambda: 128 << 10)
    cores: int = request.param
    return cores


def fused(net: str = NET, batch: int = 1, **sizes: int) -> Fused:
    checked = compiler.front(net, arguments=sizes)
    choices = Choices(batch=batch)
    return compiler.kernels(checked.graph, checked.module, exact=True, choices=choices)


def in_strips(of: Fused) -> list[Run]:
    """The runs of several kernels, none without vectors: there are no tiles of rows then."""
    declared = declare(of, lanes=vector_lanes(), phases=with_prepared(of.graph, {}))
    return [run for run in declared.runs if isinstance(run.cut, Strip)]


@pytest.mark.parametrize("height", [1, 7, 14, 112])
@pytest.mark.parametrize("most", [1, 5, 14, 1000])
@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.usefixtures("far")
def test_every_row_is_in_one_strip_of_one_lot(height: int, most: int, batch: int, far: int) -> None:
    cut = Strip(height, most).strips(batch)
    assert 1 <= cut.size <= most
    assert (cut.count - 1) * cut.size < cut.rows <= cut.count * cut.size
    assert 1 <= cut.lots <= far
    rows = []
    for lot in range(cut.lots):  # as the kernel goes through them
        own = range(cut.count * lot // cut.lots, cut.count * (lot + 1) // cut.lots)
        assert all(cut.lot(strip) == lot for strip in own)
        rows.append(min(own.stop * cut.size, cut.rows) - own.start * cut.size)
    assert sum(rows) == batch * height
    assert max(rows) == cut.busiest


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_strips_give_the_bits_of_the_definition(h: int, w: int) -> None:
    """Both convolutions of a channel each with the 1x1 behind it; one with all channels, with the
    two behind it, of which the last has no other; and whatever is left alone.
    """
    if vector_lanes() > 1:
        first, second, third = (len(r.kernels) for r in in_strips(fused(batch=4, h=h, w=w)))
        assert (first, second) == (2, 2)
        assert third in (3, 4)  # more cores read the parameters of the last in vain
    x = np.random.default_rng(0).standard_normal((4, 24, h, w)).astype(np.float32)
    options = {"precision": "exact", "batch": 4}
    expected = cnncc.compile(NET, target="interp", h=h, w=w, **options)(x)
    for fuse, threads in ((True, 1), (True, 3), (False, 2)):
        model = cnncc.compile(NET, fuse=fuse, num_threads=threads, h=h, w=w, **options)
        for count in (4, 1, 3):
            assert same_bits(model(x[:count]), expected[:count])


@pytest.mark.usefixtures("far")
def test_memory_is_planned_for_a_strip_of_each_core() -> None:
    if vector_lanes() == 1:
        pytest.skip("without vectors there are no tiles of rows")
    whole = fused(batch=4, h=90, w=90)
    assert in_strips(whole)
    need = [compiler.planned(whole, batch=batch) for batch in (1, 4)]
    runtime = Runtime(whole, store=Store(), threads=1)
    for batch, planned in zip((1, 4), need, strict=True):
        assert planned.activations == runtime.planned(Shape(batch, ())).plan.size
    run = in_strips(whole)[0]
    cut = run.cut
    assert isinstance(cut, Strip)
    (name,) = run.within
    placed = cut.place(whole.graph[name].type, 4, vector_lanes())
    strips_ = cut.strips(4)
    assert placed.dims == (strips_.lots, 24, strips_.size, 90)
    assert strips_.lots * strips_.size < 4 * 90 / 3


APART = {
    "two readers": "d = a -> conv(16, 1x1)\n  e = add(d, a -> conv(16, 1x1))",
    "a border": "e = a -> conv(16, 3x3, pad = same)",
    "other rows": "e = a -> conv(16, 1x1, stride = 2, fit = floor)",
    "an output": "output z = a\n  e = a -> conv(16, 1x1)",
    "groups": "e = a -> conv(24, 1x1, connect = groups(3))",
}


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("case", APART)
def test_what_others_read_or_more_than_its_rows_stays_apart(case: str) -> None:
    net = f"""
net n {{
  input x: f32[24, 18, 16]
  a = x -> conv(24, 3x3, pad = same, connect = depthwise) -> relu
  {APART[case]}
  output y = e
}}
"""
    assert not any("a.relu" in run.within for run in in_strips(fused(net, batch=4)))
    x = np.random.default_rng(0).standard_normal((2, 24, 18, 16)).astype(np.float32)
    expected = cnncc.compile(net, target="interp")(x)
    found = cnncc.compile(net, num_threads=2)(x)
    if not isinstance(found, dict):
        found, expected = {"y": found}, {"y": expected}
    assert all(same_bits(found[name], expected[name]) for name in expected)


def test_parts_of_a_concatenation_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "last_cache_is_far", lambda: True)
    net = """
net n {
  input x: f32[24, 18, 16]
  a = x -> conv(24, 3x3, pad = same, connect = depthwise)
  b = a -> conv(16, 1x1)
  d = x -> conv(16, 3x3, pad = same, connect = groups(8))
  output y = concat(b, d) -> conv(20, 1x1)
}
"""
    x = np.random.default_rng(0).standard_normal((2, 24, 18, 16)).astype(np.float32)
    runs = in_strips(fused(net, batch=2))
    assert all(set(run.within) == {"a"} for run in runs)
    assert len(runs) == (vector_lanes() > 1)
    expected = cnncc.compile(net, target="interp")(x)
    assert same_bits(cnncc.compile(net, num_threads=2, batch=2)(x), expected)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("h", [24, 37])
def test_what_the_kernels_write_is_not_read_otherwise(h: int) -> None:
    """The first kernel also writes a part of a concatenation, of which another reads more rows than
    its own.
    """
    net = f"""
net n {{
  input x: f32[16, {h}, 16]
  d = x -> conv(16, 3x3, pad = same, connect = depthwise)
  a = x -> conv(16, 3x3, pad = same, connect = depthwise)
  r = a -> relu
  y = concat(d, r) -> conv(16, 3x3, pad = same)
  output z = add(y, a)
}}
"""
    x = np.random.default_rng(0).standard_normal((4, 16, h, 16)).astype(np.float32)
    options = {"precision": "exact", "batch": 4}
    expected = cnncc.compile(net, target="interp", **options)(x)
    for threads in (1, 3):
        assert same_bits(cnncc.compile(net, num_threads=threads, **options)(x), expected)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    "layers",
    [
        "conv_transpose(32, 2x2, stride = 2) -> relu -> conv(2, 1x1)",
        "conv_transpose(32, 3x3, stride = (1, 2)) -> conv(24, 1x1)",
        "conv(24, 3x3, pad = same) -> conv_transpose(16, 2x2, stride = 2)",
        "conv(24, 3x3, pad = same, share = tiled(2)) -> relu -> conv(20, 1x1)",
        "conv(24, 3x3, pad = same, share = tiled((2, 1))) -> relu -> conv(20, 1x1)",
        "conv(20, 3x3, pad = same, share = none) -> conv(24, 1x1)",
    ],
)
def test_kernels_whose_work_is_cut_otherwise_stay_apart(layers: str) -> None:
    net = f"net n {{\n  input x: f32[24, 14, 12]\n  output y = x -> {layers}\n}}\n"
    x = np.random.default_rng(0).standard_normal((4, 24, 14, 12)).astype(np.float32)
    expected = cnncc.compile(net, target="interp", precision="exact")(x)
    found = cnncc.compile(net, num_threads=2, batch=4, precision="exact")(x)
    assert same_bits(found, expected)


KB = 1 << 10


@pytest.mark.parametrize(
    ("flow", "batch", "size"),
    [
        (Flow(300 * KB, 100 * KB, 10 * KB), 1, 14),  # both cores take half of the rows
        (Flow(300 * KB, 100 * KB, 10 * KB), 4, 56),
        (Flow(3000 * KB, 1000 * KB, 10 * KB), 1, 2),  # as many as stay, and both have as much
        (Flow(3000 * KB, 1000 * KB, 500 * KB), 1, 1),  # beside parameters
        (Flow(300 * KB, 100 * KB, 210 * KB), 1, None),  # that each core reads for too little
        (Flow(300 * KB, 100 * KB, 210 * KB), 4, 28),
        (Flow(3000 * KB, 1000 * KB, 1100 * KB), 4, None),  # and for every strip
    ],
)
def test_strips_pay_where_more_is_spared_than_read(
    flow: Flow, batch: int, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "cores", lambda: 2)
    monkeypatch.setattr(strips, "own_cache", lambda: 1 << 20)
    strip = strip_of(28, flow, batch)
    assert (strip.strips(batch).size if strip else None) == size


def test_seven_rows_are_too_uneven_for_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "cores", lambda: 2)
    assert strip_of(7, Flow(300 * KB, 100 * KB, KB), 1) is None
    assert strip_of(7, Flow(300 * KB, 100 * KB, KB), 2) is not None


@pytest.mark.parametrize(
    ("convolution", "rows"),
    [
        ("conv(24, 3x3, pad = same, connect = depthwise)", (1, 2)),
        ("conv(24, 3x3, pad = 0, connect = depthwise)", (1, 3)),
        ("conv(24, (5, 3), stride = 2, pad = 1, fit = floor, connect = depthwise)", (2, 4)),
        ("conv(24, 3x3, dilation = 2, pad = same, connect = depthwise)", (1, 3)),
        ("conv(24, 1x1)", (1, 1)),
    ],
)
def test_the_rows_that_a_window_reads(convolution: str, rows: tuple[int, int]) -> None:
    net = f"net n {{\n  input x: f32[24, 18, 16]\n  output y = x -> {convolution}\n}}\n"
    (kernel,) = fused(net).kernels
    assert summed_input(kernel) == "x"
    assert rows_read(kernel) == rows


@pytest.mark.parametrize("elements", [1, 100, 4099, 1 << 20])
def test_tiles_and_turns_fetch_all_that_comes_next(elements: int) -> None:
    share = Share(Int(24), (Int(3), Int(7), Int(2)))
    tile, turn = share.integers({"ahead_elements": elements})
    assert (tile - 1) * 42 < elements <= tile * 42
    assert (turn - 1) * 24 < tile <= turn * 24


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_sums_over_neighbouring_channels_have_no_strips(lanes: int) -> None:
    """Some lanes of a local response normalisation would read channels that do not exist."""
    line = "output y = x -> conv(6, 3x3) -> lrn(3) -> conv(4, 1x1)"
    net = f"net n {{\n  input x: f32[1, 9, 17]\n  {line}\n}}\n"
    graph = compiler.front(net).graph
    rng = np.random.default_rng(0)
    given = {
        node.name: rng.standard_normal(node.type.dims(2)).astype(np.float32)
        for node in (*graph.of("input"), *graph.of("parameter"))
    }
    cpu, interp = both_targets(graph, lanes=lanes).run(given)
    assert all(same_bits(cpu[name], interp[name]) for name in cpu)
