"""Lays text out within a line width, after Wadler, "A prettier printer" (2003), and Leijen's
extension by alignment. A document says where lines may be broken; `lay_out` keeps every group on
one line when it fits and breaks all the lines of a group when it does not. Comments are documents
too: a group that holds one is always broken, so that it stays beside what it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True)
class Line:
    """A blank in a group that fits, else a line end; `flat` is what stands for it when it fits."""

    flat: str = " "


@dataclass(frozen=True)
class HardLine:
    """Always a line end."""


@dataclass(frozen=True)
class Comment:
    """Written at the end of the line that is being written, two blanks behind it."""

    text: str


@dataclass(frozen=True)
class Concat:
    parts: tuple[Doc, ...]


@dataclass(frozen=True)
class Group:
    """On one line if it fits."""

    doc: Doc


@dataclass(frozen=True)
class Nest:
    """Lines within are indented by `columns` more."""

    columns: int
    doc: Doc


@dataclass(frozen=True)
class Align:
    """Lines within begin in the column where the document begins."""

    doc: Doc


Doc: TypeAlias = str | Line | HardLine | Comment | Concat | Group | Nest | Align


def concat(*parts: Doc) -> Doc:
    """The parts one after the other."""
    return Concat(parts)


def join(separator: Doc, parts: Iterable[Doc]) -> Doc:
    """The parts with a separator between any two."""
    joined: list[Doc] = []
    for part in parts:
        joined += [separator, part] if joined else [part]
    return Concat(tuple(joined))


_Frame: TypeAlias = tuple[int, bool, Doc]
"""Indentation, whether lines are flat, and the document that is still to be written."""


class Laid(NamedTuple):
    """Text, and whether its last line ends in a comment, so that no other can be put there."""

    text: str
    commented: bool


def lay_out(doc: Doc, width: int, indent: int = 0, below: int | None = None) -> Laid:
    """The document as text whose lines take at most `width` columns where that is possible.

    The first line is not indented; the others are by at least `indent`. Of several comments at the
    end of a line the second and later ones get lines of their own: within the document where they
    stand in it, at its end indented by `below` (or by `indent`).
    """
    lines: list[str] = [""]
    comments: list[tuple[int, str]] = []
    column = indent
    stack: list[_Frame] = [(indent, False, doc)]
    while stack:
        indentation, flat, top = stack.pop()
        match top:
            case str():
                lines[-1] += top
                column += len(top)
            case Line() if flat:
                lines[-1] += top.flat
                column += len(top.flat)
            case Line() | HardLine():
                _end_line(lines, comments)
                lines.append(" " * indentation)
                comments, column = [], indentation
            case Comment():
                comments.append((indentation, top.text))
            case Concat():
                stack.extend((indentation, flat, part) for part in reversed(top.parts))
            case Nest():
                stack.append((indentation + top.columns, flat, top.doc))
            case Align():
                stack.append((column, flat, top.doc))
            case Group():
                fits = flat or _fits((indentation, True, top.doc), stack, width - column)
                stack.append((indentation, fits, top.doc))
    last = indent if below is None else below
    _end_line(lines, [(last, text) for _, text in comments])
    return Laid("\n".join(lines), bool(comments))


def _end_line(lines: list[str], comments: list[tuple[int, str]]) -> None:
    lines[-1] = lines[-1].rstrip()
    for index, (indentation, text) in enumerate(comments):
        if index == 0:
            lines[-1] += f"  {text}"
        else:
            lines.append(" " * indentation + text)


def _fits(first: _Frame, rest: list[_Frame], room: int) -> bool:
    """True when `first`, laid flat, and what follows it up to the next line end fit in `room`."""
    stack, behind = [first], len(rest)
    while room >= 0:
        if not stack:
            if behind == 0:
                return True
            behind -= 1
            stack.append(rest[behind])
        indentation, flat, top = stack.pop()
        match top:
            case str():
                room -= len(top)
            case Line():
                if not flat:
                    return True
                room -= len(top.flat)
            case HardLine():
                return not flat
            case Comment():
                if flat:
                    return False
            case Concat():
                stack.extend((indentation, flat, part) for part in reversed(top.parts))
            case Nest() | Align():
                stack.append((indentation, flat, top.doc))
            case Group():
                # A group further on may break at its own lines, so the line may end there.
                stack.append((indentation, flat, top.doc))
    return False
