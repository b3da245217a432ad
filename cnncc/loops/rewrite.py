"""Rewriting of the loop IR: indices, conditions, values and bodies with some of their parts
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from cnncc.loops.ir import (
    Accumulate,
    Add,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Both,
    Choose,
    Condition,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Least,
    Let,
    Lit,
    Load,
    Mod,
    Mul,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Test,
    Uniform,
    Value,
    Var,
    add,
    floordiv,
    mod,
    mul,
)

__all__ = ["Rewrite", "map_condition", "map_index", "substitute"]


def map_index(i: Index, f: Callable[[Index], Index | None]) -> Index:
    """Rebuild an index; `f` returns a replacement, or None to go on into the parts. The same object
    comes back where nothing was replaced.
    """
    new = f(i)
    if new is not None:
        return new
    if isinstance(i, (Int, Var, Size)):
        return i
    if isinstance(i, Fetch):
        return Fetch(i.buffer, tuple(map_index(p, f) for p in i.index))
    a, b = map_index(i.a, f), map_index(i.b, f)
    if a is i.a and b is i.b:
        return i
    match i:
        case Add():
            return add(a, b)
        case Mul():
            return mul(a, b)
        case Div():
            return floordiv(a, b)
        case Mod():
            return mod(a, b)
        case Least():
            return Least(a, b)
        case _:
            assert_never(i)


def map_condition(c: Condition, f: Callable[[Index], Index | None]) -> Condition:
    match c:
        case Test(op, a, b):
            return Test(op, map_index(a, f), map_index(b, f))
        case Both(a, b):
            return Both(map_condition(a, f), map_condition(b, f))
        case _:
            assert_never(c)


@dataclass(frozen=True)
class Rewrite:
    """A bottom-free rewriting of bodies: `index` and `value` return a replacement or None to go on
    into the parts.
    """

    index: Callable[[Index], Index | None] = lambda _: None
    value: Callable[[Value], Value | None] = lambda _: None
    rename: Callable[[str], str] = lambda name: name  # locals
    buffer: Callable[[str], str] = lambda name: name  # of Load, Store and Accumulate

    def on_index(self, i: Index) -> Index:
        return map_index(i, self.index)

    def on_value(self, v: Value) -> Value:
        new = self.value(v)
        if new is not None:
            return new
        match v:
            case Lit():
                return v
            case Ref(name):
                new_name = self.rename(name)
                return v if new_name == name else Ref(new_name)
            case Load(buffer, index, outside):
                return Load(self.buffer(buffer), tuple(map(self.on_index, index)), outside)
            case AsFloat(i):
                return AsFloat(self.on_index(i))
            case Uniform(key, counter):
                return Uniform(self.on_index(key), self.on_index(counter))
            case Prim(fn, args):
                return Prim(fn, tuple(map(self.on_value, args)))
            case Choose(c, a, b):
                return Choose(map_condition(c, self.index), self.on_value(a), self.on_value(b))
            case _:
                assert_never(v)

    def on_body(self, body: Body) -> Body:
        return tuple(map(self.on_statement, body))

    def on_statement(self, s: Statement) -> Statement:
        match s:
            case For(var, extent, kind, body):
                return For(var, self.on_index(extent), kind, self.on_body(body))
            case Let(name, v):
                return Let(self.rename(name), self.on_value(v))
            case Assign(name, v):
                return Assign(self.rename(name), self.on_value(v))
            case Guard(c, body):
                return Guard(map_condition(c, self.index), self.on_body(body))
            case Store(buffer, index, v):
                at = tuple(map(self.on_index, index))
                return Store(self.buffer(buffer), at, self.on_value(v))
            case Accumulate(buffer, index, v):
                at = tuple(map(self.on_index, index))
                return Accumulate(self.buffer(buffer), at, self.on_value(v))
            case Barrier():
                return s
            case _:
                assert_never(s)


def substitute(
    body: Body, variables: dict[str, Index], rename: Callable[[str], str] = lambda n: n
) -> Body:
    """The body with loop variables replaced by indices and locals renamed."""

    def index(i: Index) -> Index | None:
        return variables.get(i.name) if isinstance(i, Var) else None

    return Rewrite(index=index, rename=rename).on_body(body)
