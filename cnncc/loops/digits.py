"""A serial loop over numbers whose digits index a tensor, as loops over the digits.

A flattened tensor that is read where it lies has the index x[i // (H * W), i // W % H, i % W].
Three loops, the last digit innermost, have the same turns in the same order, and no division.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import (
    Body,
    Div,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Load,
    Mod,
    Nest,
    Statement,
    Var,
    add,
    mul,
)
from cnncc.loops.rewrite import Rewrite
from cnncc.loops.walk import Names, names_of, subindices, values
from cnncc.tensor import Extent

__all__ = ["over_digits"]

Digits = list[tuple[Index, Index]]
"""The digits of a number, as they are taken from it, and their radices; the slowest first."""


def over_digits(nest: Nest) -> Nest:
    """The nest with such loops replaced; the same object where there are none."""
    body = _Digits(nest).body(nest.body)
    return nest if body == nest.body else nest.with_body(body)


@dataclass
class _Digits:
    nest: Nest
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names(names_of(self.nest))

    def body(self, body: Body) -> Body:
        return tuple(map(self.statement, body))

    def statement(self, s: Statement) -> Statement:
        match s:
            case For(var, extent, kind, body):
                loop = For(var, extent, kind, self.body(body))
                return self.split(loop) if kind is Kind.SERIAL else loop
            case Guard(condition, body):
                return Guard(condition, self.body(body))
            case _:
                return s

    def split(self, loop: For) -> For:
        """The loop, or loops over the digits if the body reads a tensor by them."""
        digits = next((d for v in values(loop.body) if (d := self.digits(v, loop))), [])
        loops: list[tuple[str, Index]] = []
        named: dict[Index, Index] = {}
        number: Index = Int(0)
        for digit, radix in digits:
            named[digit] = own = Var(self.names.fresh(loop.var))
            loops.append((own.name, radix))
            number = add(mul(number, radix), own)
        if not loops:
            return loop
        named[Var(loop.var)] = number
        body = Rewrite(index=named.get).on_body(loop.body)
        for name, radix in reversed(loops[1:]):
            body = (For(name, radix, Kind.SERIAL, body),)
        return For(*loops[0], Kind.SERIAL, body)

    def digits(self, load: object, loop: For) -> Digits:
        """By which digits of the loop's variable it reads; none unless these are all digits."""
        if not isinstance(load, Load):
            return []
        axes = zip(load.index, self.nest.buffer(load.buffer).extents, strict=True)
        found = [(i, e) for i, e in axes if Var(loop.var) in subindices(i) and i != Var(loop.var)]
        below: Extent = 1  # so many numbers are told apart by faster digits
        for place, (digit, radix) in reversed(list(enumerate(found))):
            value = extent_of(radix, self.nest.sizes)
            rest = digit
            if place:
                if not isinstance(digit, Mod) or extent_of(digit.b, self.nest.sizes) != value:
                    return []
                rest = digit.a
            if value is None or not self.is_quotient(rest, loop.var, below):
                return []
            below = below * value
        return found if below == extent_of(loop.extent, self.nest.sizes) else []

    def is_quotient(self, i: Index, var: str, by: Extent) -> bool:
        """Whether an index is the variable, divided by an extent."""
        if by == 1:
            return i == Var(var)
        return isinstance(i, Div) and i.a == Var(var) and extent_of(i.b, self.nest.sizes) == by
