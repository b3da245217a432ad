"""Sums that many addresses of a body have in common, such as the corner of a tile.

Numba types and lowers every operation of the text, which takes far longer than LLVM takes to find
that they repeat. So a sum that several places of one buffer share gets a name of its own, and so
does a multiple of a step that several of them add to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cnncc.loops.ir import Add, Index, Int, Mul, Size, Var, add, mul
from cnncc.loops.walk import subindices

FEWEST = 4  # addresses that make a name worth a line


@dataclass(frozen=True)
class Named:
    """`names`: each with what it stands for, in the order in which they are to be assigned.
    `places`: the addresses, in terms of them.
    """

    names: tuple[tuple[str, Index], ...]
    places: tuple[Index, ...]


@dataclass(frozen=True)
class _Parts:
    """An address. `base`: the summands that name a variable or its buffer's beginning, in order;
    `rest`: the others, which are multiples of steps.
    """

    base: tuple[Index, ...]
    rest: tuple[Index, ...]


def named(places: Sequence[tuple[str, Index]]) -> Named:
    """The addresses of a body, each with its buffer, with names for what they share."""
    parts = [_parted(place, Size(f"{buffer}_at")) for buffer, place in places]
    groups: dict[tuple[str, tuple[Index, ...]], list[_Parts]] = {}
    for (buffer, _), p in zip(places, parts, strict=True):
        groups.setdefault((buffer, p.base), []).append(p)
    names: list[tuple[str, Index]] = []
    corner: dict[tuple[str, tuple[Index, ...]], tuple[Var, Counter[Index]]] = {}
    for group, of in groups.items():
        if len(of) >= FEWEST:
            common = Counter(of[0].rest)
            for p in of[1:]:
                common &= Counter(p.rest)
            name = Var(f"place{len(corner)}")
            names.append((name.name, _total((*group[1], *common.elements()))))
            corner[group] = name, common
    left: list[tuple[Index, list[Index]] | None] = []
    for (buffer, _), p in zip(places, parts, strict=True):
        found = corner.get((buffer, p.base))
        left.append(found and (found[0], list((Counter(p.rest) - found[1]).elements())))
    times = Counter(term for pair in left if pair for term in pair[1] if isinstance(term, Mul))
    steps: dict[Index, Index] = {
        term: Var(f"step{number}")
        for number, term in enumerate(t for t, count in times.items() if count >= FEWEST)
    }
    names += [(step.name, term) for term, step in steps.items() if isinstance(step, Var)]
    return Named(
        tuple(names),
        tuple(
            _total((pair[0], *(steps.get(term, term) for term in pair[1]))) if pair else place
            for (_, place), pair in zip(places, left, strict=True)
        ),
    )


def _parted(place: Index, start: Size) -> _Parts:
    base: list[Index] = []
    rest: list[Index] = []
    for term in _summands(place):
        constant = term != start and all(isinstance(p, (Int, Size, Mul)) for p in subindices(term))
        (rest if constant else base).append(term)
    return _Parts(tuple(base), tuple(rest))


def _summands(i: Index) -> list[Index]:
    """The terms of a sum, products of sums multiplied out."""
    match i:
        case Add(a, b):
            return _summands(a) + _summands(b)
        case Mul(a, b):
            return [mul(x, y) for x in _summands(a) for y in _summands(b)]
        case _:
            return [i]


def _total(terms: Sequence[Index]) -> Index:
    found: Index = Int(0)
    for term in terms:
        found = add(found, term)
    return found
