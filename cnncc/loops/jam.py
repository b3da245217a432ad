"""Unroll and jam: the turns of a short loop around sums, all sums in one loop.

A window around a sum, such as a 2x2 pool above a convolution, computes one sum after the other.
Each is a chain of additions that wait for each other, and where a register tile has few of them,
the processor waits as well. Side by side in one loop, the sums of a window's row fill its units,
and what they share, such as weights, is read once. Every sum keeps its own order and what is made
of them comes one turn after the other, so bits do not change.
"""

from __future__ import annotations

from collections.abc import Sequence

from cnncc.loops.ir import Assign, Body, For, Guard, Int, Kind, Let, Load, Ref, Statement, Var
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.walk import Names, statements, subindices, values

__all__ = ["jammed"]


def jammed(body: Body, names: Names, most: int) -> Body:
    """The body with each innermost loop around sums, of at most so many turns, unrolled, and its
    sums in one loop.
    """
    return tuple(new for s in body for new in _statement(s, names, most))


def _statement(s: Statement, names: Names, most: int) -> Body:
    if isinstance(s, Guard):
        return (Guard(s.condition, jammed(s.body, names, most)),)
    if not isinstance(s, For):
        return (s,)
    inner = jammed(s.body, names, most)
    if inner != s.body or not _fits(s, most):
        return (For(s.var, s.extent, s.kind, inner),)
    assert isinstance(s.extent, Int)
    at = next(k for k, part in enumerate(s.body) if isinstance(part, For))
    turns = [_turn(s, turn, names) for turn in range(s.extent.value)]
    before = tuple(part for turn in turns for part in turn[:at])
    after = tuple(part for turn in turns for part in turn[at + 1 :])
    return (*before, *_side_by_side([turn[at : at + 1] for turn in turns]), *after)


def _fits(loop: For, most: int) -> bool:
    """Whether the turns of a loop are few, and each is a sum, and what is made of it."""
    if loop.kind is not Kind.SERIAL or not isinstance(loop.extent, Int):
        return False
    sums = [k for k, part in enumerate(loop.body) if isinstance(part, For)]
    if not 2 <= loop.extent.value <= most or len(sums) != 1:
        return False
    (at,) = sums
    inside = statements(loop.body[at : at + 1])
    straight = (*loop.body[:at], *loop.body[at + 1 :])
    if not all(isinstance(part, (Let, Assign)) for part in straight):
        return False
    for part in inside:
        turns = isinstance(part, For) and part.kind is Kind.SERIAL
        if not (turns or isinstance(part, (Let, Assign))):
            return False
        if isinstance(part, For) and Var(loop.var) in subindices(part.extent):
            return False
    own = _names(loop.body)
    changed = {part.name for part in statements(loop.body) if isinstance(part, Assign)} - own
    first = (*loop.body[:at], *inside)  # of all turns, in front of what any makes of its sum
    summed = {part.name for part in first if isinstance(part, Assign)}
    read = {v.name for v in values(loop.body[: at + 1]) if isinstance(v, Ref)}
    return summed <= own and not changed & read


def _names(body: Body) -> set[str]:
    """The locals that a body introduces."""
    return {part.name for part in statements(body) if isinstance(part, Let)}


def _turn(loop: For, turn: int, names: Names) -> Body:
    """The body of a loop in one turn, with locals of its own."""
    body = substitute(loop.body, {loop.var: Int(turn)})
    if turn == 0:
        return body
    new = {name: names.fresh(name) for name in sorted(_names(loop.body))}
    return Rewrite(rename=lambda name: new.get(name, name)).on_body(body)


def _side_by_side(turns: Sequence[Body]) -> Body:
    """Bodies of the same form as one: their loops together, their statements one turn's behind the
    other's. What several turns load from one place is loaded once, unless it changes then, as a sum
    that begins with a bias does.
    """
    changed = {s.name for turn in turns for s in statements(turn) if isinstance(s, Assign)}
    body: list[Statement] = []
    same: dict[str, str] = {}  # locals that are no others than those of the first turn
    for parts in zip(*turns, strict=True):
        first, *others = parts
        if isinstance(first, For):
            inner = [part.body for part in parts if isinstance(part, For)]
            body.append(For(first.var, first.extent, first.kind, _side_by_side(inner)))
            continue
        body.append(first)
        for part in others:
            match first, part:
                case Let(name, Load() as v), Let(again, w) if v == w and again not in changed:
                    same[again] = name
                case _:
                    body.append(part)
    if not same:
        return tuple(body)
    return Rewrite(rename=lambda name: same.get(name, name)).on_body(tuple(body))
