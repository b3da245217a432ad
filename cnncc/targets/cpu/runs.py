"""Runs of statements between the loops of a register tile: done all at once, or position by
position.

A short run (a step of a sum, a bias, a residual) works on the whole tile in registers. A long one,
such as tanh, has more values under way than registers are left beside the accumulators, and as
straight code for all parts it would be most of a kernel. It becomes a loop over the positions,
which takes them from memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from cnncc.loops.ir import Assign, Body, For, Guard, Int, Let, Prim, Ref, Statement
from cnncc.loops.walk import statements, values

SHORT = 6  # operations per element
MANY = 128  # vectors that wait in memory at a time: two thirds of the smallest L1 caches are left


@dataclass(frozen=True)
class Windows:
    """Loops around a sum and a long run that ends each turn, as of a pool behind tanh(conv). The
    sums of all turns come first and wait in memory, then the run of all: turn by turn, each would
    wait for the last results of the other, more operations than a processor looks ahead.
    """

    loops: tuple[For, ...]
    first: Body
    run: Body

    @property
    def turns(self) -> int:
        return prod(s.extent.value for s in self.loops if isinstance(s.extent, Int))

    @property
    def waiting(self) -> list[str]:
        """The locals that the run takes from what comes first."""
        return [n for n in dict.fromkeys(refs(self.run)) if n in defined(self.first)]


def windows_of(loop: For) -> Windows | None:
    """None where a loop has another form, or turns depend on each other but in the run."""
    loops: list[For] = []
    body: Body = (loop,)
    while len(body) == 1 and isinstance(body[0], For) and isinstance(body[0].extent, Int):
        loops.append(body[0])
        body = body[0].body
    parts = [part for part, _ in runs_of(body)]
    if not loops or len(parts) < 2 or not is_long(parts[-1]):
        return None
    first, run = tuple(s for part in parts[:-1] for s in part), parts[-1]
    changed = {n for n in assigned(run) if n not in defined(run)}
    apart = not changed & {*refs(first), *assigned(first)}
    local = not any(n not in defined(first) for n in assigned(first))
    plain = all(isinstance(s, (Let, Assign)) for s in run)
    summed = any(isinstance(s, For) for s in first)
    return Windows(tuple(loops), first, run) if apart and local and plain and summed else None


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
