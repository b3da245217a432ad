"""Which outputs of a convolution share a kernel: along each spatial axis output o uses kernel
o % t of the `t` kernels that lie side by side in the weight.

    weight [outputs, inputs / groups, t0 * k0, t1 * k1, ...], entry (o % t) * k + tap along an axis

t = 1 is the convolution, whose kernel all outputs share; a larger t is the tiled convolution, which
cycles from output 0; t = the output's extent is the local layer, where nothing is shared. The
weight of a tiled layer is a mosaic of its kernels, and a kernel with t = 1 looks as everywhere.
Source: Goodfellow, Bengio, Courville, Deep Learning (2016), section 9.5, equations 9.7 to 9.10.

`Sharing` turns this rule into indices of a nest; `kernels_at` and `kernels_from` are the rule and
its adjoint on arrays, for the oracles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnncc.graph.ir import ShapeError
from cnncc.loops.build import NestBuilder
from cnncc.loops.ir import Condition, Index, Var, all_of, test
from cnncc.tensor import Extent
from cnncc.window import Window

Array = np.ndarray[Any, np.dtype[Any]]
Tiles = tuple[int, ...]
"""The number of kernels along each spatial axis; empty where all outputs share one."""


def period(tiles: Tiles, a: int) -> int:
    """How many kernels there are along axis a."""
    return tiles[a] if tiles else 1


def mosaic(window: Window, tiles: Tiles) -> tuple[int, ...]:
    """The extents of the weight's last axes: all taps of all kernels along each spatial axis."""
    return tuple(axis.size * period(tiles, a) for a, axis in enumerate(window))


def taps(window: Window) -> int:
    """The taps of one kernel."""
    return int(np.prod([axis.size for axis in window], dtype=object))


def check_tiles(window: Window, tiles: Tiles, out: Sequence[Extent]) -> None:
    """Raises ShapeError E0201 unless there is one period of 1 to the extent per spatial axis."""
    if not tiles:
        return
    fits = len(tiles) == len(window) and all(
        t >= 1 and (not isinstance(n, int) or t <= n) for t, n in zip(tiles, out, strict=False)
    )
    if not fits or all(t == 1 for t in tiles):
        raise ShapeError(
            "E0201",
            "a tiled convolution has 1 to the output's extent kernels along each spatial axis, "
            "and more than one along some axis",
            arithmetic=[f"kernels: {tiles}", f"output extents: {tuple(out)}"],
        )


# --- arrays ---------------------------------------------------------------------------------------


def kernels_at(w: Array, window: Window, tiles: Tiles, out: Sequence[int]) -> Array:
    """The kernel of every output: w [..., t0 * k0, ...] -> [..., o0, o1, ..., k0, k1, ...]."""
    rank, lead = len(window), w.ndim - len(window)
    if not tiles:
        at_all = w.reshape(*w.shape[:lead], *[1] * rank, *w.shape[lead:])
        return np.broadcast_to(at_all, (*w.shape[:lead], *out, *w.shape[lead:]))
    for a, (axis, extent) in enumerate(zip(window, out, strict=True)):
        # earlier axes have become (output, tap) pairs
        w = np.take(w, _entries(axis.size, tiles[a], extent), axis=lead + 2 * a)
    pairs = range(lead, lead + 2 * rank)
    return w.transpose(*range(lead), *pairs[0::2], *pairs[1::2])


def kernels_from(g: Array, window: Window, tiles: Tiles) -> Array:
    """The adjoint of `kernels_at`: every entry of the weight gets the sum over its uses."""
    rank, lead = len(window), g.ndim - 2 * len(window)
    if not tiles:
        return np.asarray(g.sum(axis=tuple(range(lead, lead + rank))))
    for a, axis in enumerate(window):
        # the first remaining output axis and its taps become one axis of the weight
        pairs = np.moveaxis(g, (lead + a, lead + rank), (0, 1))
        total = np.zeros((axis.size * tiles[a], *pairs.shape[2:]), g.dtype)
        np.add.at(total, _entries(axis.size, tiles[a], len(pairs)), pairs)
        g = np.moveaxis(total, 0, lead + a)
    return g


def _entries(size: int, tiles: int, extent: int) -> Array:
    """[outputs, taps] -> the entry of the weight along one axis."""
    return np.arange(extent)[:, None] % tiles * size + np.arange(size)[None, :]


# --- loop indices ---------------------------------------------------------------------------------


class Sharing:
    """The rule on the indices of a nest. Periods and extents are run-time sizes `p0`, `w0`, ...;
    an axis with t = 1 or t = the output's extent has no remainder to take.
    """

    def __init__(self, n: NestBuilder, window: Window, tiles: Tiles, out: Sequence[Extent]) -> None:
        self.n, self.window, self.tiles, self.out = n, window, tiles, out
        self.axes = ""
        for a, extent in enumerate(mosaic(window, tiles)):
            if period(tiles, a) > 1:
                n.size(f"w{a}", extent)
                self.axes += f" w{a}"
            else:
                self.axes += f" {extent}"

    def entries(self, out: Sequence[Index], taps: Sequence[Index]) -> tuple[Index, ...]:
        """The entry of the weight that output `out` uses for a tap, along every axis."""
        return tuple(
            self.own(a, o, tap) if self.alone(a) else self.own(a, o % self._period(a), tap)
            for a, (o, tap) in enumerate(zip(out, taps, strict=True))
        )

    def own(self, a: int, kernel: Index, tap: Index) -> Index:
        """The entry of a tap of the kernel with a number along axis a."""
        if period(self.tiles, a) == 1:
            return tap
        return kernel * self.window[a].size + tap

    def uses(self) -> tuple[list[str], list[str], tuple[Index, ...], tuple[Index, ...]]:
        """Loops over the kernels and, for one kernel, over the outputs that use it.

        Returns the names of the sizes of both, then per axis the kernel and the output as indices
        of these loops; not all turns are outputs where `within` gives a condition.
        """
        kernels: list[str] = []
        turns: list[str] = []
        numbers: list[Index] = []
        outputs: list[Index] = []
        for a, extent in enumerate(self.out):
            o: Index = Var(f"i_s{a}")
            if period(self.tiles, a) == 1 or self.alone(a):
                self.n.size(f"s{a}", extent)
                (kernels if self.alone(a) and period(self.tiles, a) > 1 else turns).append(f"s{a}")
                numbers.append(o)
                outputs.append(o)
                continue
            p = self._period(a)
            self.n.size(f"q{a}", (extent + (self.tiles[a] - 1)) // self.tiles[a])
            kernels.append(f"p{a}")
            turns.append(f"q{a}")
            numbers.append(Var(f"i_p{a}"))
            outputs.append(Var(f"i_q{a}") * p + Var(f"i_p{a}"))
        return kernels, turns, tuple(numbers), tuple(outputs)

    def within(self, out: Sequence[Index]) -> Condition | None:
        """What makes a turn of `uses` an output: the last round over the kernels may be short."""
        short = [
            test("<", out[a], self.n.size(f"s{a}", extent))
            for a, extent in enumerate(self.out)
            if not self.alone(a) and not _divides(period(self.tiles, a), extent)
        ]
        return all_of(*short) if short else None

    def alone(self, a: int) -> bool:
        """Whether every output has a kernel of its own along axis a, or all share one."""
        return period(self.tiles, a) in (1, self.out[a])

    def _period(self, a: int) -> Index:
        return self.n.size(f"p{a}", period(self.tiles, a))


def _divides(tiles: int, extent: Extent) -> bool:
    return tiles == 1 or (isinstance(extent, int) and extent % tiles == 0)
