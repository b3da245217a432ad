"""The indices and conditions of a kernel's text, and where a buffer's elements lie.

A place is one integer in the memory of a buffer; how far it moves from one lane, vector and
position to the next are its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from cnncc.loops.ir import (
    Add,
    Both,
    Condition,
    Div,
    Fetch,
    Index,
    Int,
    Least,
    Mod,
    Mul,
    Nest,
    Size,
    Test,
    Var,
    add,
    mul,
)
from cnncc.loops.walk import subindices
from cnncc.targets.cpu.lane import (
    LANE,
    POSITION,
    VECTOR,
    NotInLanes,
    NotInTile,
    spaced,
    split_block,
)
from cnncc.tensor import DType


class Spread(NamedTuple):
    """Between what a value differs."""

    positions: bool = False
    vectors: bool = False
    lanes: bool = False

    def joined(self, other: Spread) -> Spread:
        return Spread(self[0] or other[0], self[1] or other[1], self[2] or other[2])

    @property
    def tiled(self) -> bool:
        return self.positions or self.vectors


class Steps(NamedTuple):
    """How far an access moves from one position, vector, lane to the next; None: it does not."""

    position: Index | None
    vector: Index | None
    lane: Index | None

    @property
    def tiled(self) -> bool:
        return self.position is not None or self.vector is not None

    @property
    def spread(self) -> Spread:
        return Spread(*(step is not None for step in self))


@dataclass
class IndexPrinter:
    """Prints the indices of one kernel and notes what the text uses."""

    nest: Nest
    dtype: DType  # of all values
    innermost: Mapping[str, int]  # for every buffer the axis that runs fastest
    group: Index | None = None  # the extent of the lane axis, where it is whole blocks
    across: bool = field(default=False, kw_only=True)  # positions are blocks of lanes
    names: set[str] = field(default_factory=set, kw_only=True)  # words of the vector module
    arguments: dict[str, None] = field(default_factory=dict, kw_only=True)
    """Run-time integers, in order of first use."""
    places: dict[tuple[str, tuple[Index, ...]], tuple[Index, Steps]] = field(
        default_factory=dict, kw_only=True
    )
    """Of a body's accesses, in terms of names for what several share."""

    def address(self, buffer: str, index: tuple[Index, ...]) -> tuple[str, Steps]:
        """The element's place in the buffer, and the steps from there."""
        place, steps = self.places.get((buffer, index)) or self.place(buffer, index)
        return self.index(place), steps

    def place(self, buffer: str, index: tuple[Index, ...]) -> tuple[Index, Steps]:
        """The element's place and the steps from there, as indices."""
        total: Index = Size(f"{buffer}_at")
        position: Index | None = None
        vector: Index | None = None
        lane: Index | None = None
        for axis, i in enumerate(index):
            fastest = axis == self.innermost[buffer]
            apart = Int(1) if fastest else Size(f"{buffer}_step{axis}")
            step, i = spaced(i, POSITION)
            if step is not None:
                far = Size(f"{buffer}_panel") if fastest and self.across else apart
                position = mul(step, far) if position is None else position + mul(step, far)
            step, i = spaced(i, VECTOR)
            if step is not None:
                vector = mul(step, apart) if vector is None else vector + mul(step, apart)
            step, rest = spaced(i)
            if step is not None:
                lane = mul(step, apart) if lane is None else lane + mul(step, apart)
            if fastest:
                block, rest = split_block(rest, self.group)
                total = add(
                    total, add(mul(block, Size(f"{buffer}_panel")), rest) if block else rest
                )
            else:
                total = add(total, mul(rest, apart))
        return total, Steps(position, vector, lane)

    def index(self, i: Index | int) -> str:
        """The text of an index."""
        if isinstance(i, int):
            return str(i)
        match i:
            case Int(n):
                return str(n)
            case Var(name):
                if i == LANE:
                    raise NotInLanes("lanes differ where a number is needed")
                if i in (POSITION, VECTOR):
                    raise NotInTile(f"{name}s differ where a number is needed")
                return name
            case Size(name):
                self.arguments.setdefault(name)
                return name
            case Add(a, Int(n)) if n < 0:
                return f"{self.index(a)} - {-n}"
            case Add(a, Mul(b, Int(-1))):
                return f"{self.index(a)} - {self.factor(b)}"
            case Add(a, b):
                return f"{self.index(a)} + {self.index(b)}"
            case Mul(a, b):
                return f"{self.factor(a)} * {self.factor(b)}"
            case Div(a, b):
                return f"{self.factor(a)} // {self.factor(b)}"
            case Mod(a, b):
                return f"{self.factor(a)} % {self.factor(b)}"
            case Least(a, b):
                return f"min({self.index(a)}, {self.index(b)})"
            case Fetch(buffer, index):
                place, steps = self.address(buffer, index)
                if steps.lane is not None:
                    raise NotInLanes("lanes look up different places")
                if steps.tiled:
                    raise NotInTile("positions look up different places")
                return self.call("i64", self.call("load1", buffer, place))
            case _:
                assert_never(i)

    def factor(self, i: Index) -> str:
        """The text of an index as an operand."""
        text = self.index(i)
        simple = isinstance(i, (Var, Size, Fetch, Least)) or (isinstance(i, Int) and i.value >= 0)
        return text if simple else f"({text})"

    def condition(self, c: Condition) -> str:
        match c:
            case Test(op, a, b):
                if any(LANE in set(subindices(i)) for i in (a, b)):
                    raise NotInLanes("lanes take different branches")
                return f"{self.index(a)} {op} {self.index(b)}"
            case Both(a, b):
                return f"{self.condition(a)} and {self.condition(b)}"
            case _:
                assert_never(c)

    def word(self, name: str) -> str:
        self.names.add(name)
        return name

    def call(self, name: str, *arguments: str) -> str:
        return f"{self.word(name)}({', '.join(arguments)})"
