"""The window relation, written once: output position o and tap k touch input position

    i = o * stride + k * dilation - lo

Shapes, oracles, gradients and loop nests all call this module; no other file may spell the formula.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from cnncc.tensor import Extent, evaluate

Fit = Literal["exact", "floor", "partial"]


def position(o: Any, k: Any, stride: Any, dilation: Any, lo: Any) -> Any:
    """The input position under output o and tap k: over ints, NumPy arrays or loop indices."""
    return o * stride + k * dilation + lo * -1  # loop indices cannot be subtracted from each other


def reach(i: Any, k: Any, dilation: Any, lo: Any) -> Any:
    """The relation solved for o * stride: the output whose tap k touches input i, if any."""
    return i + lo + k * dilation * -1


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a window: `size` taps, with stride, dilation and padding (lo, hi).

    `fit` says what happens when the stride does not divide: `exact` is an error reported by the
    shape rule, `floor` drops the remainder, `partial` keeps one last incomplete window that starts
    inside the input or its lower padding.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    lo: int = 0
    hi: int = 0
    fit: Fit = "floor"

    @property
    def span(self) -> int:
        """Input positions from the first tap to the last, both included."""
        return self.dilation * (self.size - 1) + 1

    def slack(self, n: Extent) -> Extent:
        """How far the first window can move; negative where the window is larger than the input."""
        return n + (self.lo + self.hi - self.span)

    def out(self, n: Extent) -> Extent:
        """The output extent for input extent n."""
        slack = self.slack(n)
        if self.fit != "partial":
            return slack // self.stride + 1
        out = (slack + (self.stride - 1)) // self.stride + 1
        if isinstance(out, int) and isinstance(n, int) and (out - 1) * self.stride >= n + self.lo:
            return out - 1  # the last window would lie in the upper padding only
        return out

    def input(self, o: Any, k: Any) -> Any:
        """The input position under output o and tap k, ints or arrays; may lie in the padding."""
        return position(o, k, self.stride, self.dilation, self.lo)

    def taps(self, o: int, n: int) -> list[tuple[int, int]]:
        """(tap, input position) pairs of output o that lie inside an input of extent n."""
        pairs = ((k, self.input(o, k)) for k in range(self.size))
        return [(k, i) for k, i in pairs if 0 <= i < n]

    def counted(self, o: int, n: int) -> int:
        """Taps of output o inside input and padding: the divisor of an average with padding."""
        return sum(-self.lo <= self.input(o, k) < n + self.hi for k in range(self.size))

    def inside(self, n: int) -> int:
        """Pairs of an output and a tap that lie inside an input of extent n, counted in a time that
        no extent makes long.
        """
        out = evaluate(self.out(n), {})
        return self._reaching(self.lo + n - 1, out) - self._reaching(self.lo - 1, out)

    def _reaching(self, last: int, out: int) -> int:
        """Pairs whose position, counted from the first one of the padding, is at most `last`."""
        if last < 0 or out < 1:
            return 0
        # tap k: min(out, (last - k * dilation) // stride + 1) outputs, until last is behind it
        some = min(self.size, last // self.dilation + 1)
        rest = last - (out - 1) * self.stride
        full = 0 if rest < 0 else min(some, rest // self.dilation + 1)
        least = last - (some - 1) * self.dilation
        return (
            full * out + (some - full) + floor_sum(some - full, self.stride, self.dilation, least)
        )

    @property
    def overlaps(self) -> bool:
        """Whether two outputs may read the same input position."""
        return self.stride < self.span

    @property
    def trivial(self) -> bool:
        """Whether the axis reads exactly its own position."""
        return (self.size, self.stride, self.lo, self.hi) == (1, 1, 0, 0)

    def padded(self, lo: int, hi: int) -> Axis:
        return replace(self, lo=lo, hi=hi)


Window = tuple[Axis, ...]


def floor_sum(n: int, m: int, a: int, b: int) -> int:
    """The sum over i < n of (a * i + b) // m, for m >= 1 and a, b >= 0, in O(log m) steps (the
    Euclidean algorithm on a and m: points of a lattice below a line).
    """
    total = 0
    while n > 0:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        n, b = divmod(top, m)
        m, a = a, m
        if not m:
            break
    return total


def same_pads(
    n: Extent, size: int, stride: int, dilation: int, *, lower: bool
) -> tuple[int, int] | None:
    """Padding that makes the output ceil(n / stride).

    The odd element goes to the end (to the start when `lower`). None when it depends on a symbolic
    extent (stride above 1 on a symbol).
    """
    span = dilation * (size - 1) + 1
    if stride == 1:
        total = span - 1
    elif isinstance(n, int):
        total = max((-(-n // stride) - 1) * stride + span - n, 0)
    else:
        return None
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def solve_pads(n: int, size: int, stride: int, dilation: int, out: int) -> tuple[int, int] | None:
    """The most even padding for which exactly `out` windows fit; None when there is none."""
    total = (out - 1) * stride + dilation * (size - 1) + 1 - n
    return None if total < 0 else (total // 2, total - total // 2)


def transposed_out(n: Extent, axis: Axis) -> Extent:
    """The smallest extent over which `axis` has n outputs: the default of a transposed conv."""
    return (n - 1) * axis.stride + (axis.span - axis.lo - axis.hi)
