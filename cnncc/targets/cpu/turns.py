"""Turns of a register tile's innermost loop that are written out one after the other.

A turn adds one term to all sums of the tile, and steps its pointers, counts, hides from LLVM where
pointers come from, and names what comes next: of 6 x 2 vectors 12 multiply-adds, 8 loads and up to
8 other instructions. Of the tiles that 32 registers allow these are a small part. With 16 they are
a quarter, and cost as much where a core has no cycles to spare for them: its other thread is busy,
or its loads take all it can start. So a few turns share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Body, For, Guard, Index, Int, Load, Size, Var
from cnncc.loops.rewrite import map_index, substitute
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.indices import Steps
from cnncc.targets.cpu.lane import spaced
from cnncc.targets.cpu.runs import defined, is_long
from cnncc.targets.cpu.schedule import FEW
from cnncc.tensor import Extent

TURNS_AT_ONCE = 4

Address = Callable[[str, tuple[Index, ...]], tuple[Index, Steps]]
"""The place of an element in the memory of its buffer, and the steps from there."""


def turns_at_once(body: Body, extent: Index, sizes: Mapping[str, Extent], registers: int) -> int:
    """How many turns of an innermost loop of a tile to write out: 1, or a number that divides its
    extent wherever the nest is run.
    """
    straight = not any(isinstance(s, (For, Guard)) for s in body) and not is_long(body)
    own = all(i.name in sizes for i in subindices(extent) if isinstance(i, Size))
    if registers != FEW or not straight or not own:
        return 1
    known = extent_of(extent, sizes)
    return TURNS_AT_ONCE if isinstance(known, int) and known % TURNS_AT_ONCE == 0 else 1


def turns_of(body: Body, var: str, count: int) -> list[Body]:
    """What each of so many turns does, by the variable of the first; their locals are their own."""
    locals_ = set(defined(body))

    def turn(number: int) -> Body:
        def own(name: str) -> str:
            return f"{name}_{number}" if number and name in locals_ else name

        return substitute(body, {var: Var(var) + number}, own)

    return [turn(number) for number in range(count)]


def later(i: Index, var: str, turn: int) -> Index:
    """An index as so many turns later."""
    return map_index(i, lambda part: part + turn if part == Var(var) else None)


@dataclass(frozen=True)
class InARow:
    """Numbers per position of which each turn of a loop reads the next: the load, by the variable
    of the loop, its place, and how far apart positions are.
    """

    load: Load
    place: Index
    step: Index

    def access(self, var: str, turn: int) -> tuple[str, tuple[Index, ...]]:
        """What is loaded so many turns later."""
        return self.load.buffer, tuple(later(i, var, turn) for i in self.load.index)


def in_a_row(body: Body, var: str, address: Address) -> Iterator[InARow]:
    """The numbers per position of an innermost loop that lie in a row. Raises as `address`."""
    for v in dict.fromkeys(values(body)):
        if isinstance(v, Load):
            place, steps = address(v.buffer, v.index)
            numbers = steps.spread == (True, False, False)
            if numbers and steps.position and spaced(place, Var(var))[0] == Int(1):
                yield InARow(v, place, steps.position)
