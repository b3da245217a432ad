"""Everything that occurs in a body: its values, its indices, and the names it uses.

`Names` hands out new names, so that a rewriting can add locals and loop variables anywhere. Names
of buffers, sizes, loop variables and locals are kept apart in a nest, but a printed kernel has one
name space for all; so a new name differs from all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import assert_never

from cnncc.loops.ir import (
    Accumulate,
    Add,
    AsFloat,
    Assign,
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
    Nest,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Test,
    Uniform,
    Value,
    Var,
)

__all__ = [
    "Names",
    "condition_indices",
    "indices",
    "names_of",
    "statements",
    "subindices",
    "subvalues",
    "value_indices",
    "values",
]


# These are walked so often that they collect lists: a chain of generators passes every part through
# all levels above it.


def subindices(i: Index) -> list[Index]:
    """The index and all its parts."""
    found: list[Index] = []
    _add_indices(i, found)
    return found


def _add_indices(i: Index, found: list[Index]) -> None:
    found.append(i)
    if isinstance(i, (Int, Var, Size)):
        return
    match i:
        case Add(a, b) | Mul(a, b) | Div(a, b) | Mod(a, b) | Least(a, b):
            _add_indices(a, found)
            _add_indices(b, found)
        case Fetch(_, index):
            for part in index:
                _add_indices(part, found)
        case _:
            assert_never(i)


def condition_indices(c: Condition) -> Iterator[Index]:
    match c:
        case Test(_, a, b):
            yield a
            yield b
        case Both(a, b):
            yield from condition_indices(a)
            yield from condition_indices(b)
        case _:
            assert_never(c)


def subvalues(v: Value) -> list[Value]:
    """The value and all its parts."""
    found: list[Value] = []
    _add_values(v, found)
    return found


def _add_values(v: Value, found: list[Value]) -> None:
    found.append(v)
    match v:
        case Prim(_, args):
            for a in args:
                _add_values(a, found)
        case Choose(_, a, b):
            _add_values(a, found)
            _add_values(b, found)
        case Lit() | Ref() | Load() | AsFloat() | Uniform():
            return
        case _:
            assert_never(v)


def statements(body: Body) -> list[Statement]:
    """All statements of a body, outer before inner."""
    found: list[Statement] = []
    _add_statements(body, found)
    return found


def _add_statements(body: Body, found: list[Statement]) -> None:
    for s in body:
        found.append(s)
        if isinstance(s, (For, Guard)):
            _add_statements(s.body, found)


def values(body: Body) -> list[Value]:
    """All values in a body with their parts, in the order of the text."""
    found: list[Value] = []
    for s in statements(body):
        if isinstance(s, (Let, Assign, Store, Accumulate)):
            _add_values(s.value, found)
    return found


def indices(body: Body) -> list[Index]:
    """All indices in a body with their parts: of loops, conditions, loads and stores."""
    found: list[Index] = []
    for s in statements(body):
        match s:
            case For(_, extent, _, _):
                _add_indices(extent, found)
            case Guard(condition, _):
                for i in condition_indices(condition):
                    _add_indices(i, found)
            case Store(_, index, _) | Accumulate(_, index, _):
                for i in index:
                    _add_indices(i, found)
            case _:
                pass
    for v in values(body):
        for i in value_indices(v):
            _add_indices(i, found)
    return found


def value_indices(v: Value) -> tuple[Index, ...]:
    """The indices that a value itself holds, not those of its operands."""
    match v:
        case Load(_, index, _):
            return index
        case AsFloat(i):
            return (i,)
        case Uniform(key, counter):
            return (key, counter)
        case Choose(condition, _, _):
            return tuple(condition_indices(condition))
        case _:
            return ()


def names_of(nest: Nest) -> set[str]:
    """The names of a nest's buffers, sizes, loop variables and locals."""
    names = {b.name for b in nest.buffers} | set(nest.sizes)
    for s in statements(nest.body):
        match s:
            case For(name, _, _, _) | Let(name, _):
                names.add(name)
            case _:
                pass
    return names


class Names:
    """The names that are taken, and new ones that are not."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = set(taken)

    def take(self, names: set[str]) -> None:
        self._taken |= names

    def claim(self, name: str, otherwise: str) -> str:
        """`name` itself if it is free, else `otherwise` or a numbered form of it."""
        new = name if name not in self._taken else otherwise
        if new in self._taken:
            return self.fresh(otherwise)
        self._taken.add(new)
        return new

    def fresh(self, like: str) -> str:
        """A new name that looks like a given one: acc, then acc_1, acc_2, ..."""
        stem = re.sub(r"_\d+$", "", like)
        new = next(name for k in count(1) if (name := f"{stem}_{k}") not in self._taken)
        self._taken.add(new)
        return new
