"""Winograd's three kernels band by band: a band of tiles is transformed, multiplied and transformed
back before the next one begins.

Run one after the other over the whole image, the kernels hand each other several times the bytes of
the activations, through memory. The transformed inputs of some tiles and their products stay in the
second-level cache of the core that computes them. But every band reads all weights: where they are
too many for what the last cache gives, or where the tiles are too few for all threads, the kernels
stay apart.

A band is a range of the tiles of all samples, so it is the same kernels with other run-time
integers: where the tensors between them begin, and how many tiles there are. Bits do not depend on
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from cnncc.ops.winograd import WinogradInput, WinogradOutput, WinogradProduct
from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.layout import Placement, place
from cnncc.targets.cpu.machine import cores, last_cache, last_cache_is_far, own_cache
from cnncc.targets.cpu.schedule import Schedule, choose, near_weights, registers
from cnncc.targets.cpu.tasks import lot_of, rows_per_task
from cnncc.tensor import TensorType, evaluate

FEWEST = 4  # register tiles per core: with fewer, cores wait for each other, unless
EVEN = 1.15  # the busiest has at most so much of an equal part; then three quarters are enough,
# and a quarter where all weights stay in the cache of each core
TOGETHER = 4  # samples that run at a time, of a large batch: more may be in portions
ROOM = 0.5  # of the second-level cache: weights and activations stream through the rest


@dataclass(frozen=True)
class Bands:
    """How the tiles of a call are cut. A unit is a register tile of `width` tiles, and the last one
    has what is left besides. Bands of units are as equal as can be, and a lot is the bands that
    follow each other in one piece of memory.
    """

    tiles: int
    width: int
    units: int
    bands: int
    lots: int

    def start(self, band: int) -> int:
        """The first tile of a band."""
        return self.tiles if band == self.bands else self.width * (self.units * band // self.bands)

    @property
    def shares(self) -> int:
        """Into how many equal shares the kernels that go through tiles by number are cut, so that
        every band begins with one: units, where no tiles are left.
        """
        return self.units if self.units * self.width == self.tiles else self.tiles

    def share(self, band: int) -> int:
        """The first share of a band."""
        return self.start(band) * self.shares // self.tiles

    def lot(self, band: int) -> int:
        """The lot of a band: those of one lot follow each other."""
        return lot_of(band, self.bands, self.lots)

    @property
    def most(self) -> int:
        """Tiles of the largest band."""
        return max(self.start(b + 1) - self.start(b) for b in range(self.bands))


@dataclass(frozen=True)
class Cut:
    """What decides how tiles are cut: the positions of the product's register tile, and the bytes
    of one tile in both tensors between the kernels.
    """

    width: int
    bytes: int

    def bands(self, tiles: int) -> Bands:
        """Bands of so many tiles: as large as the cache allows, and shared evenly by the cores."""
        units = max(tiles // self.width, 1)
        most = max(int(ROOM * own_cache()) // (self.width * self.bytes), 1)
        lots = min(cores(), units)
        size = rows_per_task(units, 1, min(most, units), lots)
        return Bands(tiles, self.width, units, -(-units // size), min(lots, -(-units // size)))

    def place(self, t: TensorType, batch: int, lanes: int) -> Placement:
        """The memory of a tensor between the kernels: a band for each lot."""
        channels, places, tiles = (evaluate(e, {}) for e in t.shape)
        bands = self.bands(batch * tiles)
        band = t.with_shape((channels, places, bands.most))
        return place(band, bands.lots, 1, (), lanes, panels=False).with_planes()


def chain_of(
    last: Kernel, writers: Mapping[str, Kernel], readers: Mapping[str, int]
) -> tuple[Kernel, Kernel, Kernel] | None:
    """The three kernels that end with this one, if nobody else reads what they hand on. `readers`:
    how many kernels read a tensor.
    """
    z = next((n.inputs[0] for n in last.nodes if isinstance(n.op, WinogradOutput)), "")
    product = writers.get(z)
    if product is None or not _alone(product, WinogradProduct):
        return None
    v = product.sink.inputs[0]
    spread = writers.get(v)
    if spread is None or not _alone(spread, WinogradInput) or (readers[v], readers[z]) != (1, 1):
        return None
    return spread, product, last


def _alone(kernel: Kernel, kind: type[WinogradInput | WinogradProduct]) -> bool:
    return len(kernel.nodes) == 1 and isinstance(kernel.sink.op, kind)


def cut_of(
    chain: tuple[Kernel, Kernel, Kernel],
    innermost: Callable[[Kernel], Mapping[str, int]],
    lanes: int,
    batch: int,
) -> Cut | None:
    """How to cut the tiles, None where the kernels are to run apart. `innermost`: of a kernel, the
    axis of every buffer that runs fastest. `batch`: samples of a call.
    """
    spread, product, _ = chain
    v, z = spread.sink.type, product.sink.type
    held, near = registers(lanes, v.dtype), near_weights(lanes, v.dtype)
    first, second, third = (
        choose(k.nest, innermost(k), lanes, held=held, near=near) for k in chain
    )
    assert isinstance(product.sink.op, WinogradProduct)
    tiles, weights = v.shape[2], z.shape[0] * v.shape[0] * v.shape[1] // product.sink.op.groups
    if (
        not isinstance(tiles, int)
        or not isinstance(weights, int)
        or not _goes_through(first, "i_s0", "i_s1")
        or not _goes_through(third, "i_t0", "i_t1")
        or second.tile != "i_t"
        or second.rows not in (("i_p", "i_n"), ("i_p", "i_n", "i_g"))
        or any(len(k.nest.body) > 1 for k in chain)
    ):
        return None
    cut = Cut(second.width, _bytes(v) + _bytes(z))
    fits = cut.width * cut.bytes <= own_cache()
    together, read = min(batch, TOGETHER) * tiles, weights * v.dtype.bytes
    pays = (
        fits
        and _enough(together // cut.width, read)
        and _fetches_less(cut, together, read, hungry=near > 0)
    )
    return cut if pays else None


def _fetches_less(cut: Cut, tiles: int, weights: int, hungry: bool) -> bool:
    """Whether bands of so many tiles spare more than they take: what lies between the kernels is
    neither written to a cache that all cores share nor read from there, but every band takes all
    weights. Where that cache is near, weights that stay in it cost a core next to nothing, unless
    it is `hungry` for them; then bytes decide too, as long as what lies between the kernels stays
    in that cache.
    """
    between = tiles * cut.bytes
    stays = hungry and between <= last_cache() // 2
    if not last_cache_is_far() and not stays:
        return weights <= last_cache() // 2
    fetched = cut.bands(tiles).bands * weights
    return weights <= own_cache() // 2 or fetched <= 2 * between + weights


def _enough(units: int, weights: int) -> bool:
    """Whether so many register tiles are enough for all cores. `weights`: their bytes, which every
    core reads in bands, and only its own part of where the kernels are apart.
    """
    least = FEWEST * cores()
    if -(-units // cores()) * cores() <= EVEN * units:
        least = least * (1 if weights <= own_cache() else 3) // 4
    return units >= max(least, 2)


def _goes_through(s: Schedule, down: str, along: str) -> bool:
    """Whether the rows of a kernel are the tiles of all samples."""
    return s.rows == ("i_n", down, along) and not s.blocked


def _bytes(t: TensorType) -> int:
    """Of one tile."""
    return prod(e for e in t.shape[:2] if isinstance(e, int)) * t.dtype.bytes
