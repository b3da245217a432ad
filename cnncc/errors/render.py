"""Draws a diagnostic the way rustc does: the message, `file:line:column`, the source line with a
caret under the characters at fault, then notes and helps. Long lines are cropped around the caret,
tabs are expanded, and nothing that a file contains reaches the terminal unescaped."""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.errors.diagnostic import Diagnostic, Note
from cnncc.errors.printable import escape, printable, width
from cnncc.errors.source import Span

TAB = 4
LINE_WIDTH = 100
"""Columns of source text shown beside the gutter before a line is cropped."""
ELLIPSIS = "..."
CONTEXT = 30
"""Columns kept before the caret when the start of a long line is cropped away."""


@dataclass(frozen=True)
class _Paint:
    """ANSI colours, or none at all."""

    on: bool

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.on and text else text


_STYLES = {"error": "1;31", "bold": "1", "gutter": "1;34", "note": "1;32", "help": "1;36"}


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """The diagnostic as text of several lines, without a final line feed."""
    paint = _Paint(color)
    place = diagnostic.place
    margin = _margin(diagnostic)
    title = printable(diagnostic.message)
    lines = [paint("error", f"error[{diagnostic.code}]") + paint("bold", f": {title}")]
    if place is not None:
        lines += _snippet(place, printable(diagnostic.label), margin, "error", paint)
    for text in (note.text for note in diagnostic.notes if not _has_place(note)):
        lines += _remark("note", text, margin, paint)
    for text in diagnostic.helps:
        lines += _remark("help", text, margin, paint)
    for note in diagnostic.notes:
        if note.span is not None and note.span.known:
            lines.append(paint("note", "note") + paint("bold", f": {printable(note.text)}"))
            lines += _snippet(note.span, "", margin, "note", paint)
    return "\n".join(line.rstrip() for line in lines)


def _has_place(note: Note) -> bool:
    return note.span is not None and note.span.known


def _margin(diagnostic: Diagnostic) -> int:
    """Digits of the largest line number shown, so that all gutters of one diagnostic align."""
    spans = [diagnostic.place, *(note.span for note in diagnostic.notes)]
    return max(
        (len(str(span.line)) for span in spans if span is not None and span.known), default=1
    )


def _remark(kind: str, text: str, margin: int, paint: _Paint) -> list[str]:
    pad = " " * (margin + 1)
    head = f"{kind}: "
    first, *rest = printable(text).split("\n")
    lines = [f"{pad}{paint('gutter', '=')} {paint(kind, kind)}: {first}"]
    return lines + [f"{pad}  {' ' * len(head)}{line}" for line in rest]


def _snippet(span: Span, label: str, margin: int, style: str, paint: _Paint) -> list[str]:
    line = span.line
    text = span.source.line_text(line)
    first = min(span.column - 1, len(text))
    # A span over several lines is underlined to the end of its first line.
    last = span.end_column - 1 if span.end_line == line else len(text)
    shown, start, length = _crop(text, first, last)
    bar = paint("gutter", "|")
    gutter = " " * (margin + 1) + bar
    carets = " " * start + paint(style, "^" * length + (f" {label}" if label else ""))
    return [
        f"{' ' * margin}{paint('gutter', '-->')} {printable(span.file)}:{line}:{span.column}",
        gutter,
        f"{paint('gutter', str(line).rjust(margin))} {bar} {shown}",
        f"{gutter} {carets}",
    ]


def _crop(text: str, first: int, last: int) -> tuple[str, int, int]:
    """A window of `text` around characters first to last, with the caret's column and width."""
    lead = _lead(text, first)
    prefix = ELLIPSIS if lead > 0 else ""
    before = prefix + _expand(text[lead:first], len(prefix))
    room = LINE_WIDTH - width(before)
    # Nothing beyond `room` characters can be shown, so a line of a megabyte costs no more.
    marked = _expand(text[first : min(last, first + room)], width(before))
    after = _expand(text[last : last + room], width(before + marked)) if last < first + room else ""
    rest = marked + after
    if width(rest) > room or max(last, first) + room < len(text) or last > first + room:
        rest = _cut(rest, room - len(ELLIPSIS)) + ELLIPSIS
    return before + rest, width(before), max(1, min(width(marked), width(rest)))


def _lead(text: str, first: int) -> int:
    """Where the window begins: at the start of the line when the caret is near it."""
    taken, near = 0, first
    for index in range(first - 1, -1, -1):
        taken += TAB if text[index] == "\t" else width(escape(text[index]))
        if taken <= CONTEXT:
            near = index
        if taken > LINE_WIDTH - CONTEXT:
            return near
    return 0


def _expand(text: str, column: int) -> str:
    """`text` as it stands at a display column: tabs to the next stop, hidden characters named."""
    parts: list[str] = []
    for character in text:
        shown = " " * (TAB - column % TAB) if character == "\t" else escape(character)
        parts.append(shown)
        column += width(shown)
    return "".join(parts)


def _cut(text: str, columns: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += width(character)
        if taken > columns:
            return text[:index]
    return text
