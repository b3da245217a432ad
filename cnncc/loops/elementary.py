"""Elementary functions as polynomials in the primitives of the loop IR.

`expand` replaces exp, expm1, log, log1p, tanh, sigmoid and erf in a nest by locals that are
computed with fma, rint, scale2 and the like. Every target then computes the same bits, vectorised
as any other arithmetic, and no target calls a mathematical library.

All functions are total: NaN gives NaN, infinities and overflow give the limits. Errors are at most
2 units in the last place for exp and log and 4 for the others, over all floats whose result is not
denormal; where sigmoid's result is denormal it is 0, and where expm1, log1p, tanh or erf give a
denormal they may be one denormal off. Where two formulas meet they differ by rounding only.

Methods: exp and expm1 reduce by multiples of log(2) (Tang, "Table-driven implementation of the
expm1 function", 1992, without the table); log splits off the exponent with the fraction in
[1/sqrt(2), sqrt(2)) (f64 as in fdlibm's e_log.c); log1p(x) is log(u) + (x - (u - 1)) / u with u = 1
+ x rounded; tanh(a) = m / (m + 2) with m = expm1(2 a); erf is odd polynomial below 1 and 1 -
exp(...) above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cnncc.loops import coefficients as table
from cnncc.loops.ir import (
    ELEMENTARY,
    Accumulate,
    Assign,
    Barrier,
    Body,
    Choose,
    Condition,
    For,
    Guard,
    Let,
    Lit,
    Load,
    Nest,
    Prim,
    Ref,
    Statement,
    Store,
    Value,
    prim,
)
from cnncc.loops.walk import Names, names_of, subvalues, values
from cnncc.tensor import DType

__all__ = ["expand"]

Path = tuple[tuple[Condition, bool], ...]  # the conditions of Choose around a value, and which side


def expand(nest: Nest, dtype: DType) -> Nest:
    """The nest with primitives only, for computing in `dtype` (f32 or f64).

    New locals precede the statement whose value needs them; equal calls in a statement share
    theirs.
    """
    if not any(isinstance(v, Prim) and v.fn in ELEMENTARY for v in values(nest.body)):
        return nest
    constants = _CONSTANTS[dtype]
    names = Names(names_of(nest))
    return nest.with_body(_expand_body(nest.body, constants, names))


def _expand_body(body: Body, constants: _Constants, names: Names) -> Body:
    new: list[Statement] = []
    for s in body:
        match s:
            case For() | Guard():
                new.append(replace(s, body=_expand_body(s.body, constants, names)))
            case Let() | Assign() | Store() | Accumulate():
                lets = _Lets(constants, names)
                value = lets.expanded(s.value, ())
                new += [*lets.made, replace(s, value=value)]
            case Barrier():
                new.append(s)
    return tuple(new)


@dataclass(frozen=True)
class _Constants:
    """What differs between the float types."""

    single: bool
    ln2: tuple[float, float]
    exp: Sequence[float]
    log: Sequence[float]
    erf: Sequence[float]
    erfc: Sequence[float]
    exp_range: tuple[float, float]  # below the first exp gives 0, above the second infinity
    expm1_least: float  # expm1 is -1 from here down
    tanh_end: float  # tanh is 1 from here up
    erf_end: float  # erf is 1 from here up
    least_normal: float
    point: int  # bits after the point


_CONSTANTS = {
    DType.F32: _Constants(
        True, table.LN2_F32, table.EXP_F32, table.LOG_F32, table.ERF_F32, table.ERFC_F32,
        (-104.0, 89.0), -20.0, 10.0, 4.0, 2.0**-126, 23,
    ),
    DType.F64: _Constants(
        False, table.LN2_F64, table.EXP_F64, table.LOG_F64, table.ERF_F64, table.ERFC_F64,
        (-746.0, 710.0), -40.0, 20.0, 6.0, 2.0**-1022, 52,
    ),
}  # fmt: skip


class _Lets:
    """The locals that one statement needs."""

    def __init__(self, constants: _Constants, names: Names) -> None:
        self.constants = constants
        self.names = names
        self.made: list[Statement] = []
        self.known: dict[tuple[Value, Path], Value] = {}

    def let(self, name: str, value: Value) -> Ref:
        new = self.names.fresh(name)
        self.made.append(Let(new, value))
        return Ref(new)

    def expanded(self, v: Value, path: Path) -> Value:
        """The value in primitives."""
        match v:
            case Prim(fn, args) if fn in ELEMENTARY:
                if (v, path) not in self.known:
                    x = self.argument(self.expanded(args[0], path), path)
                    self.known[v, path] = _FUNCTIONS[fn](self, x)
                return self.known[v, path]
            case Prim(fn, args):
                return Prim(fn, tuple(self.expanded(a, path) for a in args))
            case Choose(c, a, b):
                then = self.expanded(a, (*path, (c, True)))
                return Choose(c, then, self.expanded(b, (*path, (c, False))))
            case _:
                return v

    def argument(self, x: Value, path: Path) -> Value:
        """The argument as a local or a literal. What may only be read on one side of a Choose is
        read on that side only, though the function is computed on both."""
        if isinstance(x, (Ref, Lit)):
            return x
        if any(isinstance(part, Load) for part in subvalues(x)):
            for condition, side in reversed(path):
                other = Lit(0.0)
                x = Choose(condition, x, other) if side else Choose(condition, other, x)
        return self.let("x", x)

    def horner(self, coefficients: Sequence[float], x: Value) -> Value:
        total: Value = Lit(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = prim("fma", total, x, c)
        return total


# --- functions: each adds locals and returns the result -------------------------------------------


def _reduced(to: _Lets, x: Value) -> tuple[Value, Value]:
    """n and r with x = n log(2) + r and |r| <= log(2) / 2, for a finite x."""
    hi, lo = to.constants.ln2
    n = to.let("n", prim("rint", prim("mul", x, table.LOG2_E)))
    r = to.let("r", prim("fma", n, -lo, prim("fma", n, -hi, x)))  # the inner fma is exact
    return n, r


def _exp(to: _Lets, x: Value) -> Value:
    lowest, highest = to.constants.exp_range
    inside = to.let("x", prim("min", prim("max", x, lowest), highest))
    n, r = _reduced(to, inside)
    q = to.horner((1.0, 1.0, *to.constants.exp), r)
    return to.let("exp", prim("scale2", q, n))


def _expm1_reduced(to: _Lets, x: Value) -> tuple[Value, Value]:
    """m and n with exp(x) - 1 = 2^n m + (2^n - 1), for a finite x."""
    n, r = _reduced(to, x)
    q = to.horner(to.constants.exp, r)
    return to.let("m", prim("fma", prim("mul", r, r), q, r)), n


def _expm1_inside(to: _Lets, x: Value) -> Value:
    """exp(x) - 1 inside its range, halved so that 2^n fits."""
    m, n = _expm1_reduced(to, x)
    half = to.let("t", prim("scale2", Lit(0.5), n))
    return to.let("h", prim("mul", prim("fma", m, half, prim("sub", half, 0.5)), 2.0))


def _expm1(to: _Lets, x: Value) -> Value:
    inside = prim("min", prim("max", x, to.constants.expm1_least), to.constants.exp_range[1])
    m = _expm1_inside(to, to.let("x", inside))
    return to.let("expm1", prim("copysign", m, x))


def _log_finite(to: _Lets, x: Value, shift: Value | None) -> Value:
    """log(x) for a positive normal x; `shift` is added to the exponent."""
    hi, lo = to.constants.ln2
    half = to.let("m", prim("mul", prim("mantissa", x), 0.5))  # in [0.5, 1)
    low = to.let("low", prim("lt", half, math.sqrt(0.5)))
    f = to.let("f", prim("sub", prim("select", low, prim("add", half, half), half), 1.0))
    e = prim("add", prim("exponent", x), prim("sub", 1.0, low))
    e = to.let("e", e if shift is None else prim("add", e, shift))
    square = to.let("sq", prim("mul", f, f))
    if to.constants.single:
        y = prim("mul", prim("fma", f, to.horner(to.constants.log, f), -0.5), square)
    else:
        s = to.let("s", prim("div", f, prim("add", f, 2.0)))
        z = to.let("z", prim("mul", s, s))
        h = to.let("hsq", prim("mul", square, 0.5))
        y = prim("fma", s, prim("fma", z, to.horner(to.constants.log, z), h), prim("neg", h))
    return to.let("log", prim("fma", e, hi, prim("add", f, prim("fma", e, lo, y))))


def _log_limits(to: _Lets, x: Value, log: Value) -> Value:
    """log where x is positive and finite, and its limits elsewhere."""
    at_end = prim("select", prim("eq", x, 0.0), -math.inf, math.nan)
    positive = prim("select", prim("lt", x, math.inf), log, math.inf)
    return to.let("log", prim("select", prim("lt", 0.0, x), positive, at_end))


def _log(to: _Lets, x: Value) -> Value:
    """Denormals are scaled up first."""
    point = to.constants.point
    tiny = to.let("tiny", prim("lt", x, to.constants.least_normal))
    normal = to.let("x", prim("select", tiny, prim("mul", x, 2.0**point), x))
    log = _log_finite(to, normal, prim("mul", tiny, float(-point)))
    return _log_limits(to, x, log)


def _log1p(to: _Lets, x: Value) -> Value:
    """What rounding took from u = 1 + x is added to the logarithm; NaN at u = 0 and infinity."""
    u = to.let("u", prim("add", x, 1.0))
    log = _log_limits(to, u, _log_finite(to, u, None))
    lost = to.let("c", prim("div", prim("sub", x, prim("sub", u, 1.0)), u))
    known = prim("select", prim("eq", lost, lost), lost, 0.0)
    return to.let("log1p", prim("copysign", prim("add", log, known), x))


def _tanh(to: _Lets, x: Value) -> Value:
    end = 2 * to.constants.tanh_end
    # A constant comes first: a machine's minimum gives its second operand where one is NaN.
    twice = to.let("a", prim("min", end, prim("mul", prim("abs", x), 2.0)))
    m, n = _expm1_reduced(to, twice)
    power = to.let("t", prim("power2", n))  # fits: the argument ends
    m = to.let("h", prim("fma", m, power, prim("sub", power, 1.0)))
    return to.let("tanh", prim("copysign", prim("div", m, prim("add", m, 2.0)), x))


def _sigmoid(to: _Lets, x: Value) -> Value:
    e = _exp(to, to.let("x", prim("neg", x)))
    return to.let("sigmoid", prim("div", 1.0, prim("add", e, 1.0)))


def _erf(to: _Lets, x: Value) -> Value:
    a = to.let("a", prim("min", to.constants.erf_end, prim("abs", x)))
    square = to.let("sq", prim("mul", a, a))
    small = to.let("small", prim("fma", a, to.horner(to.constants.erf, square), a))
    if to.constants.single:
        erfc = _exp_small(to, to.let("x", to.horner(to.constants.erfc, a)))
    else:
        t = to.let("t", prim("div", 2.0, prim("add", a, 2.0)))
        log = to.let("x", prim("sub", to.horner(to.constants.erfc, t), square))
        erfc = prim("mul", t, _exp_small(to, log))
    chosen = prim("select", prim("lt", a, 1.0), small, prim("sub", 1.0, erfc))
    return to.let("erf", prim("copysign", chosen, x))


def _exp_small(to: _Lets, x: Value) -> Value:
    """exp of an x that is known to be far from the ends of the range."""
    n, r = _reduced(to, x)
    return to.let("exp", prim("scale2", to.horner((1.0, 1.0, *to.constants.exp), r), n))


_FUNCTIONS: dict[str, Callable[[_Lets, Value], Value]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
}
