"""The matrices of Winograd's minimal filtering F(m, r): m outputs of a correlation with r taps from
m + r - 1 products.

    y = A^T [(G w) * (B^T d)]        d: m + r - 1 inputs, w: r taps

They follow from multiplying polynomials by their values at m + r - 2 points and at infinity (Toom
and Cook), transposed. The points decide the rounding error; rows of B^T and G are balanced by
powers of two. A pair of points p, -p has rows that differ in sign at odd places, so that the even
and the odd part of both are computed once.
Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016); Barabasz et
al., "Error analysis and improving the accuracy of Winograd convolution" (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import log2, sqrt

import numpy as np

from cnncc.loops.ir import Value, prim

POINTS = {
    4: ("0", "1", "-1"),
    5: ("1/2", "-1/2", "5/4", "-5/4"),
    6: ("0", "3/4", "-3/4", "3/2", "-3/2"),
}
"""By n. For n = 5 pairs alone have half the error that zero, a pair and another point have. For
n = 6 the relative error of F(4, 3) on a sum of 256 * 9 products is half of that with 0, +-1, +-2.
The entries of A and B are short binary numbers."""

OUTPUTS = {2: (4,), 3: (2, 4), 4: (2, 3), 5: (2,)}
"""The m of F(m, r) by the number of taps r."""

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Filtering:
    """A^T [m, n], G [n, r], B^T [n, n] for n = m + r - 1."""

    at: Matrix
    g: Matrix
    bt: Matrix

    @property
    def length(self) -> int:
        """n: inputs of a tile along an axis, and products."""
        return len(self.bt)


@cache
def filtering(m: int, taps: int) -> Filtering:
    """F(m, taps)."""
    n = m + taps - 1
    points = [Fraction(p) for p in POINTS[n]]
    g, bt = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        g.append([p**k / scale for k in range(taps)])
        bt.append(_padded(_product(others), n))
    g.append([Fraction(int(k == taps - 1)) for k in range(taps)])
    bt.append(_padded(_product(points), n))
    for row, other in zip(bt, g, strict=True):
        ratio = float(sum(map(abs, row)) / sum(map(abs, other)))
        balance = Fraction(2) ** round(log2(sqrt(ratio)))
        row[:] = [v / balance for v in row]
        other[:] = [v * balance for v in other]
    at = [[*(p**k for p in points), Fraction(int(k == m - 1))] for k in range(m)]
    return Filtering(_frozen(at), _frozen(g), _frozen(bt))


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the polynomial with these roots, lowest first."""
    found = [Fraction(1)]
    for r in roots:
        shifted = [Fraction(0), *found]
        found = [a - r * b for a, b in zip(shifted, [*found, Fraction(0)], strict=True)]
    return found


def _padded(row: list[Fraction], n: int) -> list[Fraction]:
    return row + [Fraction(0)] * (n - len(row))


def _frozen(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(map(tuple, rows))


def floats(matrix: Matrix) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The matrix in float64."""
    return np.array([[float(v) for v in row] for row in matrix])


# --- as straight-line arithmetic -----------------------------------------------------------------

Name = Callable[[Value], Value]
"""Gives a value a name: what is used twice is computed once."""


def times(matrix: Matrix, x: Sequence[Value], name: Name) -> list[Value]:
    """matrix @ x, rows of one sign pattern with the even and odd parts in common."""
    results: dict[int, Value] = {}
    for i, row in enumerate(matrix):
        if i in results:
            continue
        j = next((j for j in range(i + 1, len(matrix)) if _mirrored(row, matrix[j])), None)
        if j is None:
            results[i] = name(_sum(row, x))
            continue
        even, odd = (
            name(_sum([v if k % 2 == side else Fraction(0) for k, v in enumerate(row)], x))
            for side in (0, 1)
        )
        results[i], results[j] = name(prim("add", even, odd)), name(prim("sub", even, odd))
    return [results[i] for i in range(len(matrix))]


def parts(matrix: Matrix) -> list[list[int]]:
    """The rows in two parts where there are many, those of one sign pattern in the same: three rows
    of B^T d B at a time stay in registers, six do not.
    """
    n = len(matrix)
    if n <= 4:
        return [list(range(n))]
    half = n // 2 + _mirrored(matrix[n // 2 - 1], matrix[n // 2])
    return [list(range(half)), list(range(half, n))]


def times_paired(matrix: Matrix, x: Sequence[Value], name: Name) -> list[Value]:
    """matrix @ x, columns of one sign pattern with sum and difference of their terms in common."""
    columns: list[tuple[list[Fraction], Value]] = []
    taken: set[int] = set()
    whole = list(zip(*matrix, strict=True))
    for i, column in enumerate(whole):
        if i in taken:
            continue
        j = next((j for j in range(i + 1, len(whole)) if _mirrored(column, whole[j])), None)
        if j is None:
            columns.append((list(column), x[i]))
            continue
        taken.add(j)
        for side, fn in enumerate(("add", "sub")):
            own = [v if k % 2 == side else Fraction(0) for k, v in enumerate(column)]
            columns.append((own, name(prim(fn, x[i], x[j]))))
    terms = [value for _, value in columns]
    return [name(_sum([entries[k] for entries, _ in columns], terms)) for k in range(len(matrix))]


def _mirrored(a: Sequence[Fraction], b: Sequence[Fraction]) -> bool:
    """Whether b is a with the signs at odd places changed, and both have odd places."""
    return any(a[1::2]) and all(y == (-x if k % 2 else x) for k, (x, y) in enumerate(zip(a, b)))  # noqa: B905


def _sum(entries: Sequence[Fraction], x: Sequence[Value]) -> Value:
    """The inner product, units without a multiplication, a positive unit first."""
    terms = [(v, a) for v, a in zip(entries, x, strict=True) if v]
    first = next((k for k, (v, _) in enumerate(terms) if v == 1), 0)
    terms.insert(0, terms.pop(first))
    v, a = terms[0]
    total = a if v == 1 else prim("mul", a, float(v))
    for v, a in terms[1:]:
        if abs(v) == 1:
            total = prim("add" if v > 0 else "sub", total, a)
        else:
            total = prim("fma", a, float(v), total)
    return total
