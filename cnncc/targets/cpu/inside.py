"""Loads that may lie outside their buffer, made explicit: a border in memory holds the value, or a
test chooses it.

What lies inside for certain (shown by interval arithmetic on the loops and conditions around)
is loaded without a test.
"""

from __future__ import annotations

from collections.abc import Collection

from cnncc.loops.ir import (
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
    Statement,
    Store,
    Value,
    all_of,
    test,
)
from cnncc.loops.ranges import Scope, at_least, nonnegative


def explicit(nest: Nest, haloed: Collection[str]) -> Nest:
    """The nest without `outside`: loads of `haloed` buffers reach into their border, the others are
    behind a Choose where they must be.
    """
    rewrite = _Explicit(nest, haloed)
    return nest.with_body(rewrite.body(nest.body, Scope(nest.sizes)))


class _Explicit:
    def __init__(self, nest: Nest, haloed: Collection[str]) -> None:
        self.nest, self.haloed = nest, haloed

    def body(self, body: Body, scope: Scope) -> Body:
        return tuple(self.statement(s, scope) for s in body)

    def statement(self, s: Statement, scope: Scope) -> Statement:
        match s:
            case For(var, extent, kind, inner):
                return For(var, extent, kind, self.body(inner, scope.inside(var, extent)))
            case Guard(condition, inner):
                return Guard(condition, self.body(inner, scope.where(condition)))
            case Let(name, v):
                return Let(name, self.value(v, scope))
            case Assign(name, v):
                return Assign(name, self.value(v, scope))
            case Store(buffer, index, v):
                return Store(buffer, index, self.value(v, scope))
            case Accumulate(buffer, index, v):
                return Accumulate(buffer, index, self.value(v, scope))
            case Barrier():
                return s

    def value(self, v: Value, scope: Scope) -> Value:
        match v:
            case Prim(fn, args):
                return Prim(fn, tuple(self.value(a, scope) for a in args))
            case Choose(c, a, b):
                then = self.value(a, scope.where(c))
                return Choose(c, then, self.value(b, scope.where(c, False)))
            case Load(buffer, index, outside) if outside is not None:
                load = Load(buffer, index)
                tests = [] if buffer in self.haloed else self.tests(load, scope)
                return Choose(all_of(*tests), load, Lit(outside)) if tests else load
            case _:
                return v

    def tests(self, load: Load, scope: Scope) -> list[Condition]:
        """The conditions that are not known to hold."""
        found: list[Condition] = []
        for i, extent in zip(load.index, self.nest.buffer(load.buffer).extents, strict=True):
            r, e = scope.range(i), scope.range(extent).hi
            if not at_least(r.lo, 0):
                found.append(test("<=", 0, i))
            if r.hi is None or e is None or not nonnegative(e - 1 - r.hi):
                found.append(test("<", i, extent))
        return found
