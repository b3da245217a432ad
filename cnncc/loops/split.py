"""Splitting a parallel loop by its phase: v = f * v + phase.

Where a body takes remainders of a loop variable (the gradient of a strided window, kernels that
take turns over the outputs), neighbouring iterations do different things, and every f-th the same.
Split by f, the remainders depend on the phase alone and what is left of the loop is affine, as a
register tile needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import (
    Add,
    Body,
    Condition,
    Div,
    For,
    Index,
    Int,
    Kind,
    Mod,
    Mul,
    Nest,
    Var,
    add,
    floordiv,
    mod,
    mul,
    test,
)
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import indices, subindices

PHASE = "_phase"  # how the name of a phase's loop ends
LARGEST = 16  # more phases than that have too few iterations each


@dataclass(frozen=True)
class Split:
    """A nest after splitting. `limits`: for a loop whose phases are not all equally long the number
    of its iterations, and the condition that one is an iteration; both are functions of the phase.
    """

    nest: Nest
    limits: dict[str, tuple[Index, Condition]]


def split_phases(nest: Nest, keep: Collection[str]) -> Split:
    """The nest with every parallel loop split whose remainders its body takes, but those in `keep`.

    Requires that the nest is one perfect nest of parallel loops around a body. Bits do not change:
    the iterations are the same ones.
    """
    loops, body = parallel_loops(nest)
    limits: dict[str, tuple[Index, Condition]] = {}
    extents: dict[str, Index] = {}
    for var, extent in loops.items():
        factor = _factor(var, body, nest) if var not in keep else None
        if factor is None:
            extents[var] = extent
            continue
        phase = f"{var}{PHASE}"
        whole = mul(Var(var), factor) + Var(phase)
        body = Rewrite(index=_simpler).on_body(substitute(body, {var: whole}))
        body = _reduced(body, Var(phase), factor)
        extents[phase] = factor
        extents[var] = floordiv(add(add(extent, factor), -1), factor)
        n, f = extent_of(extent, nest.sizes), extent_of(factor, nest.sizes)
        if not (isinstance(n, int) and isinstance(f, int) and n % f == 0):
            rest = add(add(extent, mul(Var(phase), -1)), add(factor, -1))
            limits[var] = (floordiv(rest, factor), test("<", whole, extent))
    for var, extent in reversed(extents.items()):
        body = (For(var, extent, Kind.PARALLEL, body),)
    return Split(nest.with_body(body), limits)


def _reduced(body: Body, phase: Var, factor: Index) -> Body:
    """A phase is its own remainder."""
    remainder = Mod(phase, factor)
    return Rewrite(index=lambda i: phase if i == remainder else None).on_body(body)


def _factor(var: str, body: Body, nest: Nest) -> Index | None:
    """By what a loop is to be split: the product of the divisors on the way from the variable to a
    remainder.
    """
    found: list[Index] = []
    for i in indices(body):
        if isinstance(i, Mod):
            found += _divisors(i, var)
    divisors = list(dict.fromkeys(found))
    if not divisors:
        return None
    factor: Index = Int(1)
    for d in divisors:
        factor = mul(factor, d)
    value = extent_of(factor, nest.sizes)
    return factor if isinstance(value, int) and 1 < value <= LARGEST else None


def _divisors(i: Index, var: str) -> Iterator[Index]:
    if Var(var) not in set(subindices(i)):
        return
    match i:
        case Div(a, b) | Mod(a, b):
            yield b
            yield from _divisors(a, var)
        case Add(a, b) | Mul(a, b):
            yield from _divisors(a, var)
            yield from _divisors(b, var)
        case _:
            return


def _simpler(i: Index) -> Index | None:
    """A quotient or remainder without the terms that are multiples of the divisor."""
    if not isinstance(i, (Div, Mod)):
        return None
    inner = Rewrite(index=_simpler)
    whole: Index = Int(0)
    rest: Index = Int(0)
    for term in _terms(inner.on_index(i.a)):
        times = _times(term, i.b)
        if times is None:
            rest = add(rest, term)
        else:
            whole = add(whole, times)
    if isinstance(i, Mod):
        return mod(rest, i.b)
    return add(whole, floordiv(rest, i.b))


def _terms(i: Index) -> Iterator[Index]:
    if isinstance(i, Add):
        yield from _terms(i.a)
        yield from _terms(i.b)
    else:
        yield i


def _times(term: Index, d: Index) -> Index | None:
    """term / d, if the term is written as a multiple of it."""
    match term:
        case Mul(a, b) if b == d:
            return a
        case Mul(a, b) if a == d:
            return b
        case Mul(a, b):
            left = _times(a, d)
            if left is not None:
                return mul(left, b)
            right = _times(b, d)
            return None if right is None else mul(a, right)
        case Int(n) if isinstance(d, Int) and n % d.value == 0:
            return Int(n // d.value)
        case _:
            return Int(1) if term == d else None
