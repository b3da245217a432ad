"""Short loops written out, for kernels whose turns share what they load.

A row of taps under neighbouring windows reads every element several times. Written out, with
numbers for strides and dilations, equal elements are equal indices, and each is loaded once. The
additions and their order are the same.
"""

from __future__ import annotations

from collections.abc import Callable

from cnncc.loops.ir import (
    Assign,
    Body,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Let,
    Load,
    Nest,
    Size,
    Statement,
    Value,
)
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.walk import Names, statements, subindices

__all__ = ["unrolled", "with_numbers"]


def with_numbers(nest: Nest) -> Nest:
    """The nest with the numbers of all sizes that are no extents, such as strides, in its indices,
    and without its serial loops of a single turn.
    """
    loops = [s for s in statements(nest.body) if isinstance(s, For)]
    held = [i for b in nest.buffers for i in b.extents] + [s.extent for s in loops]
    extents = {part.name for i in held for part in subindices(i) if isinstance(part, Size)}
    numbers = {
        name: value
        for name, value in nest.sizes.items()
        if isinstance(value, int) and name not in extents
    }

    def index(i: Index) -> Index | None:
        return Int(numbers[i.name]) if isinstance(i, Size) and i.name in numbers else None

    return nest.with_body(_without_single(Rewrite(index=index).on_body(nest.body), nest))


def _without_single(body: Body, nest: Nest) -> Body:
    found: list[Statement] = []
    for s in body:
        match s:
            case For(var, extent, kind, inner):
                inner = _without_single(inner, nest)
                size = nest.sizes.get(extent.name) if isinstance(extent, Size) else None
                if kind is Kind.SERIAL and (extent == Int(1) or size == 1):
                    found += substitute(inner, {var: Int(0)})
                else:
                    found.append(For(var, extent, kind, inner))
            case Guard(condition, inner):
                found.append(Guard(condition, _without_single(inner, nest)))
            case _:
                found.append(s)
    return tuple(found)


def unrolled(body: Body, names: Names, most: int) -> Body:
    """The body with each innermost serial loop of at most so many turns written out."""
    found: list[Statement] = []
    for s in body:
        match s:
            case For():
                found += _loop(s, names, most)
            case Guard(condition, inner):
                found.append(Guard(condition, unrolled(inner, names, most)))
            case _:
                found.append(s)
    return tuple(found)


def _loop(loop: For, names: Names, most: int) -> Body:
    straight = all(isinstance(s, (Let, Assign)) for s in loop.body)
    if not straight:
        return (For(loop.var, loop.extent, loop.kind, unrolled(loop.body, names, most)),)
    if loop.kind is not Kind.SERIAL or not isinstance(loop.extent, Int) or loop.extent.value > most:
        return (loop,)
    known: dict[Value, str] = {}  # what was loaded and stays, by its place
    changed = {s.name for s in loop.body if isinstance(s, Assign)}
    body: list[Statement] = []
    for turn in range(loop.extent.value):
        new: dict[str, str] = {}  # this turn's locals
        rename = Rewrite(rename=_as(new))
        for s in substitute(loop.body, {loop.var: Int(turn)}):
            match s:
                case Let(name, Load() as v) if v in known and name not in changed:
                    new[name] = known[v]
                case Let(name, v):
                    v = rename.on_value(v)
                    new[name] = names.fresh(name) if turn else name
                    body.append(Let(new[name], v))
                    if isinstance(v, Load) and name not in changed:
                        known[v] = new[name]
                case _:
                    body.append(rename.on_statement(s))
    return tuple(body)


def _as(names: dict[str, str]) -> Callable[[str], str]:
    return lambda name: names.get(name, name)
