"""How the coefficients in cnncc/loops/coefficients.py were obtained: Remez' algorithm, in decimals.

`table()` computes every coefficient again; a test compares. The functions are evaluated with 60
digits from `decimal`'s own exp and ln and from the Taylor series of erf.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

import numpy as np

Function = Callable[[Decimal], Decimal]
DIGITS = 60
GRID = 400  # points at which the error is searched for its extrema


def chebyshev_extrema(lo: Decimal, hi: Decimal, count: int) -> list[Decimal]:
    """Points as the extrema of a Chebyshev polynomial lie, on [lo, hi]."""
    angles = np.cos(np.pi * np.arange(count) / (count - 1))
    return [(lo + hi) / 2 - (hi - lo) / 2 * Decimal(float(c)) for c in angles]


def solve(rows: list[list[Decimal]], right: list[Decimal]) -> list[Decimal]:
    """Gaussian elimination with row pivoting."""
    n = len(rows)
    rows = [[*row, r] for row, r in zip(rows, right, strict=True)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda j: abs(rows[j][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for j in range(k + 1, n):
            factor = rows[j][k] / rows[k][k]
            rows[j] = [a - factor * b for a, b in zip(rows[j], rows[k], strict=True)]
    x = [Decimal(0)] * n
    for k in reversed(range(n)):
        x[k] = (rows[k][n] - sum(rows[k][j] * x[j] for j in range(k + 1, n))) / rows[k][k]
    return x


def horner(coefficients: Sequence[Decimal], x: Decimal) -> Decimal:
    total = Decimal(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def remez(
    f: Function, lo: float, hi: float, degree: int, weight: Function = lambda _: Decimal(1)
) -> tuple[list[Decimal], float]:
    """The polynomial for which the largest weight * |f - p| on [lo, hi] is least, and that error.

    The coefficients come lowest first.
    """
    with localcontext() as context:
        context.prec = DIGITS
        ends = Decimal(lo), Decimal(hi)
        grid = chebyshev_extrema(*ends, GRID)
        values = [f(x) for x in grid]
        weights = [weight(x) for x in grid]
        places = [round(k * (GRID - 1) / (degree + 1)) for k in range(degree + 2)]
        for _ in range(30):
            rows = [
                [*(grid[p] ** k for k in range(degree + 1)), (-1) ** j / weights[p]]
                for j, p in enumerate(places)
            ]
            *coefficients, level = solve(rows, [values[p] for p in places])
            errors = [
                w * (v - horner(coefficients, x))
                for x, v, w in zip(grid, values, weights, strict=True)
            ]
            largest = max(abs(e) for e in errors)
            if largest <= abs(level) * Decimal("1.001"):
                break
            places = alternation(errors, degree + 2)
        return coefficients, float(largest)


def alternation(errors: list[Decimal], count: int) -> list[int]:
    """The extrema of the error, one in each run of equal sign, the smallest ends dropped."""
    runs: list[int] = []
    for k, e in enumerate(errors):
        if runs and (errors[runs[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[runs[-1]]):
                runs[-1] = k
        else:
            runs.append(k)
    while len(runs) > count:
        runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
    assert len(runs) == count, f"{len(runs)} alternations where {count} are needed"
    return runs


# --- functions ------------------------------------------------------------------------------------


def pi() -> Decimal:
    """Machin: pi / 4 = 4 arctan(1/5) - arctan(1/239)."""

    def arctan_inverse(n: int) -> Decimal:
        total, term, k = Decimal(0), Decimal(1) / n, 0
        while abs(term) > Decimal(10) ** -(DIGITS + 5):
            total += term / (2 * k + 1) * (-1) ** k
            term /= n * n
            k += 1
        return total

    return 4 * (4 * arctan_inverse(5) - arctan_inverse(239))


def erf_over_x(z: Decimal) -> Decimal:
    """erf(x) / x as a function of z = x^2, by its Taylor series with 40 more digits."""
    with localcontext() as context:
        context.prec = DIGITS + 40
        total, term, k = Decimal(0), Decimal(1), 0
        while abs(term) > Decimal(10) ** -(DIGITS + 30):
            total += term / (2 * k + 1)
            k += 1
            term *= -z / k
        return 2 * total / pi().sqrt()


def erfc(a: Decimal) -> Decimal:
    return 1 - a * erf_over_x(a * a)


def exp_rest(r: Decimal) -> Decimal:
    """(exp(r) - 1 - r) / r^2."""
    if abs(r) < Decimal("1e-3"):
        terms, term = Decimal(0), Decimal(1) / 2
        for k in range(3, 25):
            terms += term
            term *= r / k
        return terms
    return (r.exp() - 1 - r) / (r * r)


def log_rest(f: Decimal) -> Decimal:
    """(log(1 + f) - f + f^2 / 2) / f^3."""
    if abs(f) < Decimal("1e-3"):
        return sum(((-f) ** k / (k + 3) for k in range(25)), Decimal(0))
    return ((1 + f).ln() - f + f * f / 2) / f**3


def artanh_rest(z: Decimal) -> Decimal:
    """log((1 + s) / (1 - s)) / s - 2 over z, as a function of z = s^2."""
    return sum((2 * z**k / (2 * k + 3) for k in range(60)), Decimal(0))


def table() -> dict[str, tuple[list[float], float]]:
    """Every set of coefficients by name, with the error of the polynomial before rounding."""
    half_ln2, root = 0.3466, 2**0.5
    largest_s = (root - 1) / (root + 1) * 1.0001

    def tail(a: Decimal) -> Decimal:
        return erfc(a).ln()

    def scaled_tail(t: Decimal) -> Decimal:
        a = 2 / t - 2
        return (erfc(a) / t).ln() + a * a

    fits = {
        "EXP_F32": remez(exp_rest, -half_ln2, half_ln2, 4, lambda r: r * r + Decimal("1e-9")),
        "EXP_F64": remez(exp_rest, -half_ln2, half_ln2, 9, lambda r: r * r + Decimal("1e-9")),
        "LOG_F32": remez(log_rest, root / 2 - 1, root - 1, 7, lambda f: f * f + Decimal("1e-9")),
        "LOG_F64": remez(artanh_rest, 1e-12, largest_s**2, 6),
        "ERF_F32": remez(lambda z: erf_over_x(z) - 1, 1e-12, 1, 5),
        "ERF_F64": remez(lambda z: erf_over_x(z) - 1, 1e-12, 1, 12),
        "ERFC_F32": remez(tail, 1, 4, 5, erfc),
        "ERFC_F64": remez(scaled_tail, 0.25, 2 / 3, 17),
    }
    return {name: (list(map(float, c)), error) for name, (c, error) in fits.items()}


if __name__ == "__main__":
    for name, (coefficients, error) in table().items():
        single = name.endswith("F32")
        print(f"# error {error:.1e}\n{name} = (")
        for c in coefficients:
            print(f"    {float(str(np.float32(c))) if single else c!r},")
        print(")")
