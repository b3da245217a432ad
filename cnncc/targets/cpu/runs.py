"""Runs of statements between the loops of a register tile: done all at once, or position by
position.

A short run (a step of a sum, a bias, a residual) works on the whole tile in registers. A long one,
such as tanh, has more values under way than registers are left beside the accumulators, and as
straight code for all parts it would be most of a kernel. It becomes a loop over the positions,
which takes them from memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cnncc.loops.ir import Assign, Body, For, Guard, Let, Prim, Ref, Statement
from cnncc.loops.walk import statements, values

SHORT = 6  # operations per element


def runs_of(body: Body) -> Iterator[tuple[Body, Body]]:
    """The body cut at its loops and guards, each run with what follows it."""
    run: list[Statement] = []
    for k, s in enumerate(body):
        if isinstance(s, (For, Guard)):
            if run:
                yield tuple(run), body[k:]
                run = []
            yield (s,), body[k + 1 :]
        else:
            run.append(s)
    if run:
        yield tuple(run), ()


def is_long(body: Body) -> bool:
    """Whether a run of statements has too many operations to be done for all positions at once."""
    if any(isinstance(s, (For, Guard)) for s in body):
        return False
    return sum(isinstance(v, Prim) for v in values(body)) > SHORT


def defined(body: Body) -> list[str]:
    """The locals that a body introduces, in order."""
    return [s.name for s in body if isinstance(s, Let)]


def assigned(body: Body) -> list[str]:
    """The locals that a body changes, each once."""
    return list(dict.fromkeys(s.name for s in statements(body) if isinstance(s, Assign)))


def refs(body: Body) -> list[str]:
    """The locals that a body refers to, as often as it does."""
    return [v.name for v in values(body) if isinstance(v, Ref)]


def alive(body: Body, names: Collection[str]) -> int:
    """How many of some locals wait at most at a time for their last use in straight code."""
    last = {name: k for k, s in enumerate(body) for name in refs((s,)) if name in names}
    waiting = most = 0
    for k, s in enumerate(body):
        waiting += isinstance(s, Let) and s.name in last
        most = max(most, waiting)
        waiting -= sum(end == k for end in last.values())
    return most
