"""Which values an index can take: intervals whose ends may be symbolic, narrowed by what is known.

A loop variable v of extent n lies in [0, n - 1]; sums, products, quotients and remainders follow by
interval arithmetic. Facts (from guards, from Choose, from loops whose extent varies) are affine
functions that are known to be at least 0. Adding a fact to an index gives something at least as
large, so its upper end bounds the index too; where variables cancel, the bound becomes tighter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from cnncc.loops.affine import Linear, linear
from cnncc.loops.ir import Both, Condition, Div, Index, Int, Least, Mod, Mul, Test, Var
from cnncc.tensor import Extent, Floor, Poly, Symbol, symbol

__all__ = ["Range", "Scope", "at_least", "nonnegative"]


@dataclass(frozen=True)
class Range:
    """lo <= index <= hi; None: no bound is known."""

    lo: Extent | None
    hi: Extent | None

    def __str__(self) -> str:
        return f"[{'?' if self.lo is None else self.lo}, {'?' if self.hi is None else self.hi}]"


@dataclass(frozen=True)
class Scope:
    """What is known at a statement: the values of sizes, the ranges of variables, and facts."""

    sizes: Mapping[str, Extent]
    variables: Mapping[str, Range] = field(default_factory=dict)
    facts: tuple[Linear, ...] = ()

    def inside(self, var: str, extent: Index) -> Scope:
        """The scope of a loop's body."""
        hi = self.range(extent).hi
        own = Range(0, None if hi is None else hi - 1)
        inner = Scope(self.sizes, {**self.variables, var: own}, self.facts)
        if not linear(extent, self.sizes).terms:
            return inner
        return inner.where(Test("<", Var(var), extent))

    def where(self, c: Condition, holds: bool = True) -> Scope:
        """The scope in which a condition is known to hold, or to fail."""
        return Scope(self.sizes, self.variables, (*self.facts, *self._facts(c, holds)))

    def _facts(self, c: Condition, holds: bool) -> Iterator[Linear]:
        match c:
            case Both(a, b):
                if holds:  # that one of two fails says nothing about either
                    yield from self._facts(a, True)
                    yield from self._facts(b, True)
            case Test("<", a, b):
                yield from self._less(a, b, 1) if holds else self._less(b, a, 0)
            case Test("<=", a, b):
                yield from self._less(a, b, 0) if holds else self._less(b, a, 1)
            case Test(op, a, b):
                if (op == "==") == holds:
                    yield from self._less(a, b, 0)
                    yield from self._less(b, a, 0)

    def _less(self, a: Index, b: Index, gap: int) -> Iterator[Linear]:
        """a + gap <= b; below a minimum is below both."""
        if isinstance(b, Least):
            yield from self._less(a, b.a, gap)
            yield from self._less(a, b.b, gap)
        yield linear(b, self.sizes).plus(linear(a, self.sizes), -1).plus(Linear(-gap, {}))

    def range(self, i: Index) -> Range:
        """The range of an index without the facts."""
        return self._sum(linear(i, self.sizes))

    def narrowed(self, i: Index, highest: Extent) -> Range:
        """The range of an index with the facts, made as narrow as needed to show [0, highest]."""
        value = linear(i, self.sizes)
        lo = _best(self._lowers(value), lambda e: nonnegative(e), max)
        hi = _best(self._uppers(value), lambda e: nonnegative(highest - e), min)
        return Range(lo, hi)

    def _uppers(self, value: Linear) -> Iterator[Extent | None]:
        yield self._sum(value).hi
        facts = [f.scaled(times) for f in self.facts for times in _multiples(value, f, -1)]
        for f in facts:
            yield self._sum(value.plus(f)).hi
        for f, g in combinations(facts, 2):
            yield self._sum(value.plus(f).plus(g)).hi

    def _lowers(self, value: Linear) -> Iterator[Extent | None]:
        yield self._sum(value).lo
        facts = [f.scaled(times) for f in self.facts for times in _multiples(value, f, 1)]
        for f in facts:
            yield self._sum(value.plus(f, -1)).lo
        for f, g in combinations(facts, 2):
            yield self._sum(value.plus(f, -1).plus(g, -1)).lo

    def _sum(self, value: Linear) -> Range:
        lo: Extent | None = value.constant
        hi: Extent | None = value.constant
        for atom, c in value.terms.items():
            r = self._atom(atom)
            if nonnegative(c):
                low, high = r.lo, r.hi
            elif nonnegative(-c):
                low, high = r.hi, r.lo
            else:
                return Range(None, None)
            lo = None if lo is None or low is None else lo + c * low
            hi = None if hi is None or high is None else hi + c * high
        return Range(lo, hi)

    def _atom(self, i: Index) -> Range:
        match i:
            case Var(name):
                return self.variables[name]
            case Div(a, Int(d)):
                r = self.range(a)
                return Range(
                    None if r.lo is None else r.lo // d, None if r.hi is None else r.hi // d
                )
            case Div(a, b):
                r = self.range(b)
                if isinstance(r.lo, int) and r.lo == r.hi:
                    return self._atom(Div(a, Int(r.lo)))
                return self._quotient(self.range(a), r)
            case Mod(a, b):
                return self._remainder(self.range(a), self.range(b))
            case Least(a, b):
                x, y = self.range(a), self.range(b)
                lo = _chosen(x.lo, y.lo, smaller=True)
                return Range(lo, _either(x.hi, y.hi))
            case Mul(a, b):
                x, y = self.range(a), self.range(b)
                if not (at_least(x.lo, 0) and at_least(y.lo, 0)):
                    return Range(None, None)
                assert x.lo is not None
                assert y.lo is not None
                hi = None if x.hi is None or y.hi is None else x.hi * y.hi
                return Range(x.lo * y.lo, hi)
            case _:
                return Range(None, None)

    def _quotient(self, a: Range, b: Range) -> Range:
        """By a divisor that is not a number: not below 0, and not above the dividend."""
        if not (at_least(a.lo, 0) and at_least(b.lo, 1)):
            return Range(None, None)
        if isinstance(b.lo, int):
            return Range(0, None if a.hi is None else a.hi // b.lo)
        return Range(0, a.hi)

    def _remainder(self, a: Range, b: Range) -> Range:
        if not at_least(b.lo, 1):
            return Range(None, None)
        below = None if b.hi is None else b.hi - 1
        return Range(0, _either(below, a.hi) if at_least(a.lo, 0) else below)


def _multiples(value: Linear, fact: Linear, sign: int) -> list[int]:
    """Once the fact, and so often that one of its terms cancels in value - sign * times * fact."""
    found = {1}
    for atom, c in fact.terms.items():
        own = value.terms.get(atom, 0)
        if isinstance(c, int) and isinstance(own, int) and own % c == 0 and sign * own // c > 1:
            found.add(sign * own // c)
    return sorted(found)


def _best(
    candidates: Iterator[Extent | None],
    enough: Callable[[Extent], bool],
    tightest: Callable[[list[int]], int],
) -> Extent | None:
    """The first bound that is enough; else the tightest number, else any bound."""
    found: list[Extent] = []
    for e in candidates:
        if e is None:
            continue
        if enough(e):
            return e
        found.append(e)
    numbers = [e for e in found if isinstance(e, int)]
    return tightest(numbers) if numbers else next(iter(found), None)


def _either(a: Extent | None, b: Extent | None) -> Extent | None:
    """Two upper bounds of one thing: the lower, if it is known which is lower, else the first."""
    if a is None or b is None:
        return b if a is None else a
    return b if nonnegative(a - b) else a


def _chosen(a: Extent | None, b: Extent | None, *, smaller: bool) -> Extent | None:
    """The smaller of two, if it is known which it is."""
    if a is None or b is None:
        return None
    if nonnegative(b - a):
        return a
    return b if nonnegative(a - b) else None


def at_least(e: Extent | None, bound: int) -> bool:
    """Whether e >= bound is proved."""
    return e is not None and nonnegative(e - bound)


def nonnegative(e: Extent) -> bool:
    """Whether e >= 0 is proved for all symbols >= 1.

    Floors are replaced by the line below them (above, where they are subtracted), every symbol s by
    1 + t with t >= 0; then a polynomial without a negative coefficient is not negative.
    """
    while isinstance(e, Poly):
        found = _a_floor(e)
        if found is None:
            break
        bound = _without(e, found)
        if bound is None:
            return False
        e = bound
    if isinstance(e, int):
        return e >= 0
    shifted: Extent = 0
    for monomial, c in e.terms:
        product: Extent = c
        for atom in monomial:
            assert isinstance(atom, Symbol)
            product = product * (symbol(atom.name) + 1)
        shifted = shifted + product
    if isinstance(shifted, int):
        return shifted >= 0
    return all(c >= 0 for _, c in shifted.terms)


def _a_floor(e: Poly) -> Floor | None:
    return next((a for monomial, _ in e.terms for a in monomial if isinstance(a, Floor)), None)


def _without(e: Poly, floor: Floor) -> Extent | None:
    """denominator * e or less, without that floor; None where its factors may be negative."""
    total: Extent = 0
    for monomial, c in e.terms:
        times = sum(a == floor for a in monomial)
        others = [a for a in monomial if a != floor]
        if times > 1 or (times and any(isinstance(a, Floor) for a in others)):
            return None
        product: Extent = c
        for a in others:
            product = product * Poly((((a,), 1),))
        if not times:
            total = total + product * floor.denominator
        elif c > 0:
            total = total + product * (floor.numerator - (floor.denominator - 1))
        else:
            total = total + product * floor.numerator
    return total
