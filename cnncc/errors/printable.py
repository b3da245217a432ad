"""Text from a file is data, also on a terminal. Everything that a diagnostic prints goes through
`printable`, which shows control, bidirectional and other invisible characters as `<U+202E>`, so
that a file can neither move the cursor nor make a line read differently from what it says."""

from __future__ import annotations

import unicodedata

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_hidden(character: str) -> bool:
    """True for a character with no glyph of its own: control, format, surrogate, unassigned."""
    if " " <= character <= "~":
        return False
    return unicodedata.category(character) in _HIDDEN_CATEGORIES


def escape(character: str) -> str:
    """One character as it may be printed."""
    return f"<U+{ord(character):04X}>" if is_hidden(character) else character


def printable(text: str) -> str:
    """`text` with every hidden character but the line feed shown by its number."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" else escape(c) for c in text)


def width(text: str) -> int:
    """Terminal columns that printable text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_character_width(c) for c in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
