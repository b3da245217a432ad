"""Which output channels of a convolution read which input channels: the argument `connect`.

A table has one row per output, with the inputs that it reads. Rows that are blocks of equal size
are groups, and rows with everything are no table at all, so that what means the same is the same:
in bits, in speed and in the weights that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnncc.graph.ir import ShapeError
from cnncc.graph.layer import LayerBuilder, Word
from cnncc.ops.conv_channels import check_groups
from cnncc.tensor import Extent

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Connections:
    """All pairs of output and input within each of `groups`; or, with `rows`, those of a table."""

    groups: int = 1
    rows: Rows | None = None


def connections(
    b: LayerBuilder, connect: Word, ins: Extent, outs: Extent, *, adjoint: bool = False
) -> Connections:
    """What `connect` says for a conv from `ins` to `outs` channels, or for its adjoint, a layer
    from `outs` to `ins` channels.

    Raises ShapeError E0204 (groups that do not divide), E0219 (a table that does not fit), and
    ArgumentError E0304 for a word that says nothing.
    """
    sides = (outs, ins) if adjoint else (ins, outs)
    match connect:
        case Word("all", (), ()):
            found = Connections()
        case Word("depthwise", (), ()) if isinstance(sides[0], int):
            found = Connections(sides[0])
        case Word("groups", (int(g),), ()) if not isinstance(g, bool) and g >= 1:
            found = Connections(g)
        case Word("table", (list(rows),), ()):
            if not (isinstance(ins, int) and isinstance(outs, int)):
                raise ShapeError(
                    "E0204",
                    f"a table needs fixed numbers of channels, but they are {ins} and {outs}",
                )
            return of_table(rows, ins, outs)
        case Word("table", (Word(name, (), ()),), ()):
            b.error(
                "E0304",
                f"there is no table `{name}`",
                argument="connect",
                fixes=[f"declare it beside the nets: table {name} {{ [0, 1], [1, 2] }}"],
            )
        case _:
            b.error(
                "E0304",
                f"`connect` must be all, groups(g), depthwise or table(T), but got {connect}",
                argument="connect",
                fixes=["connect = groups(2)"],
            )
    check_groups(*sides, found.groups)
    return found


def of_table(table: Sequence[Any], ins: int, outs: int) -> Connections:
    """The connections of a table. Raises ShapeError E0219 where it does not fit the channels."""
    if len(table) != outs:
        raise _misfit(
            f"a table has one row per output, but this one has {len(table)} for {outs} outputs",
            [f"rows: {len(table)}", f"outputs: {outs}"],
        )
    rows = tuple(tuple(sorted(_row(k, row, ins))) for k, row in enumerate(table))
    if all(len(row) == ins for row in rows):
        return Connections()
    groups = _groups(rows, ins, outs)
    return Connections(groups) if groups else Connections(rows=rows)


def _row(k: int, row: Any, ins: int) -> list[int]:
    numbers = row if isinstance(row, list) else [row]
    if not numbers:
        raise _misfit(f"row {k} of the table is empty: output {k} would read nothing", [])
    for c in numbers:
        if not isinstance(c, int) or isinstance(c, bool) or not 0 <= c < ins:
            raise _misfit(
                f"row {k} of the table names input {c}, but there are inputs 0 to {ins - 1}",
                [f"row {k}: {list(numbers)}"],
            )
    twice = [c for c in numbers if numbers.count(c) > 1]
    if twice:
        raise _misfit(
            f"row {k} of the table names input {twice[0]} twice", [f"row {k}: {list(numbers)}"]
        )
    return numbers


def _misfit(rule: str, arithmetic: list[str]) -> ShapeError:
    return ShapeError("E0219", rule, arithmetic=arithmetic, argument="connect")


def _groups(rows: Rows, ins: int, outs: int) -> int:
    """The number of groups that the rows are; 0 when they are none."""
    width = len(rows[0])
    groups = ins // width
    if ins % width or outs % groups:
        return 0
    per_group = outs // groups
    blocks = all(
        row == tuple(range(k // per_group * width, (k // per_group + 1) * width))
        for k, row in enumerate(rows)
    )
    return groups if blocks else 0
