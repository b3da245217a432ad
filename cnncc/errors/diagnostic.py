"""What is said to a user about a mistake: a code, one sentence with the rule and the numbers, the
place, remarks, and fixes in the order in which they most likely help. A diagnostic is plain data;
render.py draws it for a terminal and `to_json` prepares it for editors and other tools."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cnncc.errors.printable import printable
from cnncc.errors.source import Span

CODE = re.compile(r"E0[1-8][0-9]{2}")


@dataclass(frozen=True)
class Note:
    """A remark under a diagnostic; with a span it shows that place too."""

    text: str
    span: Span | None = None


@dataclass(frozen=True)
class Diagnostic:
    """One mistake of the user's.

    `code` is a row of `cnncc.errors.CODES`; `message` states the rule and the values; `label` is
    the text beside the caret; `helps` are fixes, the likeliest first. Raises ValueError for a code
    that is not of the form E0101 to E0899.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    notes: tuple[Note, ...] = ()
    helps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not CODE.fullmatch(self.code):
            raise ValueError(f"a diagnostic code has the form E0101, but got {self.code!r}")

    @property
    def place(self) -> Span | None:
        """The span, or None where the diagnostic belongs to no text."""
        return self.span if self.span is not None and self.span.known else None


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """The diagnostic as JSON-ready values; lines, columns and offsets as in `Span`."""
    return {
        "code": diagnostic.code,
        "severity": "error",
        "message": printable(diagnostic.message),
        "label": printable(diagnostic.label),
        "span": _span_to_json(diagnostic.place),
        "notes": [
            {"text": printable(note.text), "span": _span_to_json(note.span)}
            for note in diagnostic.notes
        ],
        "helps": [printable(text) for text in diagnostic.helps],
    }


def _span_to_json(span: Span | None) -> dict[str, Any] | None:
    if span is None or not span.known:
        return None
    return {
        "file": printable(span.file),
        "start": span.start,
        "end": span.end,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
    }


def did_you_mean(word: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that a person who typed `word` may have meant, the likeliest first.

    A candidate that differs only in case or underscores always counts.
    """
    unique = sorted(set(candidates) - {word})
    plain = word.lower().replace("_", "")
    same = [name for name in unique if name.lower().replace("_", "") == plain]
    close = difflib.get_close_matches(word, unique, n=limit, cutoff=0.65)
    return list(dict.fromkeys(same + close))[:limit]
