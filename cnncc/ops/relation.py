"""The window relation on arrays and on loop indices, for the rooms that slide a window.

`unfold` and `fold` serve the NumPy oracles: unfold copies what every window sees, fold is its
adjoint. `Relation` serves the nests: it declares the run-time strides, dilations and paddings, and
turns output indices into input indices and back. Both take the formula from `cnncc.window`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnncc.loops.build import Handle, NestBuilder
from cnncc.loops.ir import (
    Condition,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Least,
    Load,
    Size,
    Statement,
    Var,
    all_of,
    ix,
    test,
)
from cnncc.tensor import Extent, evaluate
from cnncc.window import Window, position, reach

Array = np.ndarray[Any, np.dtype[Any]]


# --- arrays ---------------------------------------------------------------------------------------


def unfold(x: Array, window: Window, fill: float) -> Array:
    """What each window sees: [..., i0, i1] -> [..., o0, o1, k0, k1]; `fill` outside the input."""
    rank = len(window)
    lead = x.ndim - rank
    for a, axis in enumerate(window):
        at = lead + 2 * a  # earlier axes have become (output, tap) pairs
        extent = x.shape[at]
        i = axis.input(
            np.arange(evaluate(axis.out(extent), {}))[:, None], np.arange(axis.size)[None, :]
        )
        inside = ((i >= 0) & (i < extent)).reshape(*i.shape, *[1] * (x.ndim - at - 1))
        x = np.where(inside, np.take(x, np.clip(i, 0, extent - 1), axis=at), fill)
    pairs = range(lead, lead + 2 * rank)
    return x.transpose(*range(lead), *pairs[0::2], *pairs[1::2])


def fold(g: Array, window: Window, extents: Sequence[int]) -> Array:
    """The adjoint of unfold: every element is added to the input position it came from."""
    rank = len(window)
    lead = g.ndim - 2 * rank
    for a, (axis, extent) in enumerate(zip(window, extents, strict=True)):
        # the first remaining output axis and its taps become one input axis in their place
        pairs = np.moveaxis(g, (lead + a, lead + rank), (-2, -1))
        total = np.zeros((*pairs.shape[:-2], extent), g.dtype)
        for o in range(pairs.shape[-2]):
            for k, i in axis.taps(o, extent):
                total[..., i] += pairs[..., o, k]
        g = np.moveaxis(total, -1, lead + a)
    return g


# --- loop indices ---------------------------------------------------------------------------------


class Relation:
    """The relation between output, tap and input indices of a nest.

    The number of taps is fixed in the nest; extents, strides, dilations and paddings are run-time
    sizes. An axis with one tap has no tap loop. With `any_lo` an axis of several taps has its lower
    padding also where that is 0, so that nests with and without padding are the same.
    """

    def __init__(self, n: NestBuilder, window: Window, *, any_lo: bool = False) -> None:
        self.n, self.window, self.any_lo = n, window, any_lo
        self.taps = [(f"t{a}", axis.size) for a, axis in enumerate(window) if axis.size > 1]

    def tap(self, a: int) -> Index:
        return Var(f"t{a}") if self.window[a].size > 1 else Int(0)

    def all_taps(self) -> list[Index]:
        """The current tap along every axis."""
        return [self.tap(a) for a in range(len(self.window))]

    def number(self) -> Index:
        """The tap's number in row-major order."""
        number: Index = Int(0)
        for a, axis in enumerate(self.window):
            number = number * axis.size + self.tap(a)
        return number

    def may_leave(self) -> bool:
        """Whether some tap may lie outside the input."""
        return any(axis.lo or axis.hi or axis.fit == "partial" for axis in self.window)

    def source(self, out: Sequence[Index]) -> tuple[Index, ...]:
        """The input indices under output indices and the current taps."""
        return tuple(
            position(o, self.tap(a), self._size("stride", a), self._dilation(a), self._lo(a))
            for a, o in enumerate(out)
        )

    def load(self, x: Handle, lead: Sequence[Index], out: Sequence[Index], outside: float) -> Load:
        """What the current tap of output `out` sees; `outside` where that is padding."""
        index = (*lead, *self.source(out))
        return x.padded(index, outside) if self.may_leave() else x[index]

    def gather(
        self,
        at: Sequence[Index],
        outs: Sequence[Extent],
        body: Sequence[Statement],
        *,
        inside: bool = True,
    ) -> tuple[Statement, ...]:
        """Loops over the taps that touch input `at`, around a body that reads `target(at)`: with
        `inside` only for taps whose target is an output, without it also for those beyond them.
        """
        inner = tuple(body)
        for a in reversed(range(len(self.window))):
            conditions = self._touches(a, at[a], self.n.size(f"s{a}", outs[a]) if inside else None)
            if conditions:
                inner = (Guard(all_of(*conditions), inner),)
            if self.window[a].size > 1:
                inner = (For(f"t{a}", Int(self.window[a].size), Kind.SERIAL, inner),)
        return inner

    def target(self, at: Sequence[Index]) -> tuple[Index, ...]:
        """The outputs whose current tap touches input `at` (inside `gather` only)."""
        return tuple(self._target(a, i) for a, i in enumerate(at))

    def _touches(self, a: int, i: Index, extent: Size | None) -> list[Condition]:
        axis = self.window[a]
        if axis.trivial:
            return []
        reached, target = self._reach(a, i), self._target(a, i)
        conditions: list[Condition] = []
        if axis.stride > 1:
            conditions.append(test("==", reached % self._size("stride", a), 0))
        if extent is None:
            return conditions
        if axis.size > 1:
            conditions.append(test("<=", 0, target))
        return [*conditions, test("<", target, extent)]

    def _target(self, a: int, i: Index) -> Index:
        reached = self._reach(a, i)
        return reached // self._size("stride", a) if self.window[a].stride > 1 else reached

    def counted(
        self, out: Sequence[Index], extents: Sequence[Index], *, include_pad: bool
    ) -> Index:
        """The number of taps of output `out` that lie inside the input (and its padding)."""
        product: Index = Int(1)
        for a, (axis, o, extent) in enumerate(zip(self.window, out, extents, strict=True)):
            product = product * self._counted(a, axis.size, o, extent, include_pad)
        return product

    def _counted(self, a: int, size: int, o: Index, extent: Index, include_pad: bool) -> Index:
        # the taps below the end, less those below the beginning, each by a rounded division
        dilation = self._dilation(a)
        start = position(o, 0, self._size("stride", a), 0, self._lo(a))
        end = extent + self._size("hi", a) if include_pad and self.window[a].hi else extent
        below_end = Least(Int(size), (end + start * -1 + dilation + -1) // dilation)
        if include_pad or not self.window[a].lo:
            return below_end
        return below_end + Least(Int(0), start // dilation)

    def _reach(self, a: int, i: Index) -> Index:
        return ix(reach(i, self.tap(a), self._dilation(a), self._lo(a)))

    def _dilation(self, a: int) -> Index:
        return self._size("dilation", a) if self.window[a].size > 1 else Int(1)

    def _lo(self, a: int) -> Index:
        axis = self.window[a]
        return self._size("lo", a) if axis.lo or (self.any_lo and axis.size > 1) else Int(0)

    def _size(self, name: str, a: int) -> Size:
        return self.n.size(f"{name}{a}", getattr(self.window[a], name))
