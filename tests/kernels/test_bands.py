"""Winograd's kernels band by band: every tile once, with the bits of the kernels one by one, in
memory for a band."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.passes.choices import Choices
from cnncc.passes.fuse import Fused
from cnncc.targets.cpu import bands
from cnncc.targets.cpu.bands import Bands, Cut
from cnncc.targets.cpu.declare import declare, with_prepared
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime, Shape
from tests.kernels.primitives import same_bits

NET = """
net n(c = 16, k = 24, h = 26, w = 20) {
  input x: f32[c, h, w]
  a = x -> conv(k, 3x3, pad = same) -> batchnorm -> relu
  b = a -> conv(c, 3x3, pad = (0, 2), bias = none)
  d = x -> conv(c, 3x3, pad = (0, 2)) -> relu
  output y = add(b, d) -> conv(k, 3x3) -> relu -> maxpool(2x2, fit = floor)
}
"""
SIZES = [(30, 20), (29, 23)]


@pytest.fixture(params=[1, 3])
def short_bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with so many cores, whose caches hold two register tiles with all places and channels."""
    monkeypatch.setattr(bands, "cores", lambda: request.param)
    monkeypatch.setattr(bands, "own_cache", lambda: 2 * 2 * 14 * 36 * (16 + 24) * 4)
    near(monkeypatch, 32 << 20)
    monkeypatch.setattr(bands, "FEWEST", 1)


def near(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """As with a last cache of so many bytes that is near."""
    monkeypatch.setattr(bands, "last_cache", lambda: last)
    monkeypatch.setattr(bands, "last_cache_is_far", lambda: False)


@pytest.mark.parametrize("tiles", [1, 13, 14, 15, 28, 49, 196, 1000, 1001])
@pytest.mark.parametrize(("width", "size"), [(1, 4), (7, 1000), (14, 20_000)])
@pytest.mark.usefixtures("short_bands")
def test_every_tile_is_in_one_band_and_every_unit_is_a_register_tile(
    tiles: int, width: int, size: int
) -> None:
    cut = Cut(width, size).bands(tiles)
    starts = [cut.start(b) for b in range(cut.bands + 1)]
    assert (starts[0], starts[-1]) == (0, tiles)
    assert all(a < b <= a + cut.most for a, b in pairwise(starts))
    assert all(start % width == 0 for start in starts[:-1])
    if tiles >= width:
        assert min(b - a for a, b in pairwise(starts)) >= width
    shares = [cut.share(b) for b in range(cut.bands + 1)]
    assert [tiles * share // cut.shares for share in shares] == starts


@pytest.mark.parametrize("bands_", [1, 2, 5, 16, 17])
@pytest.mark.parametrize("lots", [1, 2, 3, 16])
def test_the_lot_of_a_band_is_the_one_that_runs_it(bands_: int, lots: int) -> None:
    lots = min(lots, bands_)
    cut = Bands(bands_, 1, bands_, bands_, lots)
    for lot in range(lots):
        for band in range(bands_ * lot // lots, bands_ * (lot + 1) // lots):
            assert cut.lot(band) == lot


def fused(batch: int = 1, **sizes: int) -> Fused:
    checked = compiler.front(NET, arguments=sizes)
    return compiler.kernels(checked.graph, checked.module, choices=Choices(batch=batch))


def kernels_in_bands(of: Fused) -> list[int]:
    declared = declare(of, lanes=vector_lanes(), phases=with_prepared(of.graph, {}))
    return [len(run.kernels) for run in declared.runs if len(run.kernels) > 1]


@pytest.mark.usefixtures("short_bands")
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_bands_give_the_bits_of_the_definition(h: int, w: int) -> None:
    if vector_lanes() > 1:
        assert kernels_in_bands(fused(h=h, w=w)) == [3, 3, 3, 3]
    x = np.random.default_rng(0).standard_normal((3, 16, h, w)).astype(np.float32)
    expected = cnncc.compile(NET, target="interp", h=h, w=w)(x)
    for fuse, threads in ((True, 2), (False, 3)):
        model = cnncc.compile(NET, fuse=fuse, num_threads=threads, h=h, w=w)
        assert same_bits(model(x), expected)
        assert same_bits(model(x[:1]), expected[:1])


def test_bands_of_tiles_of_many_samples_give_the_bits_of_the_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A band may have the tiles of several samples, and has fewer in a call with one."""
    near(monkeypatch, 32 << 20)
    sizes = {"h": 22, "w": 22}
    if vector_lanes() > 1:
        assert kernels_in_bands(fused(batch=16, **sizes))
    x = np.random.default_rng(0).standard_normal((16, 16, 22, 22)).astype(np.float32)
    expected = cnncc.compile(NET, target="interp", batch=16, **sizes)(x)
    for threads in (1, 3):
        model = cnncc.compile(NET, batch=16, num_threads=threads, **sizes)
        for count in (16, 5, 1):
            assert same_bits(model(x[:count]), expected[:count])


@pytest.mark.usefixtures("short_bands")
def test_memory_is_planned_for_a_band_of_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"h": 114, "w": 114}
    whole = fused(**sizes)
    if vector_lanes() == 1:
        pytest.skip("without vectors there are no register tiles, and no bands of them")
    need = [compiler.planned(whole, batch=batch) for batch in (1, 4)]
    runtime = Runtime(whole, store=Store(), threads=1)
    for batch, planned in zip((1, 4), need, strict=True):
        assert planned.activations == runtime.planned(Shape(batch, ())).plan.size
    monkeypatch.setattr(bands, "FEWEST", 1 << 20)
    assert kernels_in_bands(whole) == []
    apart = compiler.planned(whole, batch=1)
    assert need[0].activations < 0.6 * apart.activations


@pytest.mark.parametrize(
    ("units", "kilobytes", "enough"),
    [
        (1, 16, False),
        (2, 16, True),  # one for each core
        (2, 2048, False),  # each would read all weights from further away
        (3, 16, False),  # one core would do two of three
        (5, 16, False),
        (6, 2048, True),
        (7, 2048, True),
        (8, 1 << 20, True),
        (9, 1 << 20, True),
    ],
)
def test_register_tiles_are_enough_where_cores_share_them_evenly(
    units: int, kilobytes: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "cores", lambda: 2)
    monkeypatch.setattr(bands, "own_cache", lambda: 1 << 20)
    assert bands._enough(units, kilobytes << 10) is enough


def test_few_tiles_and_many_weights_keep_the_kernels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "own_cache", lambda: 1 << 20)
    near(monkeypatch, 32 << 20)
    monkeypatch.setattr(bands, "cores", lambda: 64)
    assert kernels_in_bands(fused(h=22, w=22)) == []
    monkeypatch.setattr(bands, "cores", lambda: 4)
    if vector_lanes() > 1:
        assert kernels_in_bands(fused(h=60, w=60))
        assert kernels_in_bands(fused(batch=4, h=22, w=22)), "the tiles of all samples count"
    near(monkeypatch, 32 << 10)
    assert kernels_in_bands(fused(h=60, w=60)) == []


@pytest.mark.parametrize(
    ("tiles", "of_tile", "own", "weights", "hungry", "less"),
    [
        (196, 18, 512, 576, True, False),  # 64 channels at 56x56: 3.5 MB between, and 16 bands
        (196, 18, 1024, 576, True, True),  # the bands are half as many
        (196, 18, 512, 256, True, True),  # each core keeps all weights
        (196, 36, 1024, 2304, True, False),  # 128 at 28x28, four samples
        (784, 36, 1024, 2304, True, True),  # at 112x112: more than the last cache keeps
        (196, 36, 1024, 2304, False, True),
        (196, 36, 1024, 17 << 10, False, False),  # weights that do not stay
    ],
)
def test_a_core_that_is_hungry_for_weights_fetches_less_of_them(
    tiles: int, of_tile: int, own: int, weights: int, hungry: bool, less: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    near(monkeypatch, 32 << 20)
    monkeypatch.setattr(bands, "own_cache", lambda: own << 10)
    monkeypatch.setattr(bands, "cores", lambda: 2)
    assert bands._fetches_less(Cut(6, of_tile << 10), tiles, weights << 10, hungry) is less


@pytest.mark.parametrize(
    ("tiles", "width", "of_tile", "weights", "less"),
    [
        (3136, 8, 18 << 10, 576 << 10, True),  # 64 channels at 224x224: weights stay in the cache
        (784, 8, 27 << 10, 1152 << 10, True),
        (784, 8, 36 << 10, 2304 << 10, False),  # 128 at 112x112: 33 bands
        (196, 7, 72 << 10, 9216 << 10, False),
        (49, 7, 144 << 10, 36 << 20, False),  # 512 at 28x28: seven bands
        (14, 7, 72 << 10, 9216 << 10, False),  # two bands: the weights twice, or a megabyte twice
        (14, 7, 144 << 10, 2304 << 10, True),
    ],
)
def test_where_the_last_cache_is_far_bands_are_to_fetch_less(
    tiles: int, width: int, of_tile: int, weights: int, less: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "last_cache_is_far", lambda: True)
    monkeypatch.setattr(bands, "own_cache", lambda: 2 << 20)
    monkeypatch.setattr(bands, "cores", lambda: 2)
    assert bands._fetches_less(Cut(width, of_tile), tiles, weights, hungry=False) is less
