"""The form of an entry in the table of codes: what `cnncc explain E0203` prints."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

WIDTH = 88
"""Columns of an explanation's prose."""


@dataclass(frozen=True)
class Explanation:
    """What a code stands for.

    `title` is one line; `law` says the rule and its reason; `wrong` is a text, or a shell command,
    that gets the code; `right` is how to write it instead.
    """

    title: str
    law: str
    wrong: str
    right: str

    def text(self, code: str) -> str:
        """The whole explanation, as `cnncc explain` prints it."""
        law = textwrap.fill(self.law, WIDTH)
        parts = [f"{code}: {self.title}", law, "Wrong:", _indented(self.wrong)]
        return "\n\n".join([*parts, "Right:", _indented(self.right)]) + "\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
