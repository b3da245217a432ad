"""Where something stands in a text. A `Source` is one file (or one string) of the language, and a
`Span` is a half-open range of character offsets in it; lines and columns are computed only when
somebody asks. Every tree node and every diagnostic carries spans, so that any later stage can point
at the characters that caused it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """One text of the language. `file` is what diagnostics print (a path, or `<text>`)."""

    file: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of each line; a line ends at a line feed only."""
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return tuple(starts)

    def line_column(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column of a character offset."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a 1-based line, without its line end."""
        start = self.line_starts[line - 1]
        end = self.line_starts[line] - 1 if line < len(self.line_starts) else len(self.text)
        return self.text[start:end].removesuffix("\r")

    def __repr__(self) -> str:
        return f"Source({self.file!r}, {len(self.text)} characters)"


@dataclass(frozen=True)
class Span:
    """The characters `start` to `end` (offsets, `end` not included) of a source."""

    source: Source
    start: int
    end: int

    @property
    def file(self) -> str:
        return self.source.file

    @property
    def line(self) -> int:
        """The 1-based line of the first character."""
        return self.source.line_column(self.start)[0]

    @property
    def column(self) -> int:
        """The 1-based column, in characters, of the first character."""
        return self.source.line_column(self.start)[1]

    @property
    def end_line(self) -> int:
        """The 1-based line of the position just after the last character."""
        return self.source.line_column(self.end)[0]

    @property
    def end_column(self) -> int:
        """The 1-based column just after the last character."""
        return self.source.line_column(self.end)[1]

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    @property
    def known(self) -> bool:
        """False for `NOWHERE`, the span of nodes that were made without a text."""
        return self.source is not NOWHERE.source

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other` (of the same source)."""
        return Span(self.source, self.start, max(self.end, other.end))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def __repr__(self) -> str:
        return f"Span({self.file!r}, {self.start}, {self.end})"


NOWHERE = Span(Source("<nowhere>", ""), 0, 0)
"""The span of a node that no text was parsed for. Diagnostics print it as no place at all."""
