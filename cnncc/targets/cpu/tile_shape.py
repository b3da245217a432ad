"""The shape of a register tile, a constant of a kernel's text: `T14x2x16 = shape(14, 2, 16)`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """`positions` x `vectors` vectors of `lanes` lanes; one lane is a number."""

    positions: int
    vectors: int
    lanes: int

    def __str__(self) -> str:
        return f"T{self.positions}x{self.vectors}x{self.lanes}"


def shape(positions: int, vectors: int, lanes: int) -> Shape:
    return Shape(positions, vectors, lanes)
