"""Finds the grammar file, has Lark build the LALR tables from it once per process, and answers the
questions that the scanner and the diagnostics ask about it: which words exist, which of them are
keywords, and how each is written. The grammar file is the only place that spells a word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from lark import Lark
from lark.lexer import PatternStr

IGNORED = ("COMMENT", "BLANK")
CONTEXTUAL = frozenset({"TABLE"})
"""Words that are keywords at the top of a file only, and ordinary names elsewhere."""


@dataclass(frozen=True)
class Grammar:
    """The parse tables and the words of the language."""

    lark: Lark
    fixed: dict[str, str]
    """Kind -> spelling of every keyword and sign, such as ARROW -> `->`."""
    patterns: dict[str, str]
    """Kind -> regular expression of the words that vary: names, numbers, strings."""

    @property
    def keywords(self) -> dict[str, str]:
        """Spelling -> kind of the reserved words."""
        reserved = {kind: word for kind, word in self.fixed.items() if kind not in CONTEXTUAL}
        return {word: kind for kind, word in reserved.items() if word.isalpha()}


@cache
def grammar() -> Grammar:
    """The grammar, built on first use."""
    lark = Lark(grammar_text(), parser="lalr", lexer="basic", start="file", keep_all_tokens=True)
    fixed: dict[str, str] = {}
    patterns: dict[str, str] = {}
    for terminal in lark.terminals:
        if isinstance(terminal.pattern, PatternStr):
            fixed[terminal.name] = terminal.pattern.value
        else:
            patterns[terminal.name] = terminal.pattern.to_regexp()
    return Grammar(lark, fixed, patterns)


def grammar_text() -> str:
    """The text of `cnn.lark`: of the installed package, or of the checkout this file stands in."""
    try:
        folder = resources.files("cnncc.grammar")
    except ModuleNotFoundError:
        checkout = Path(__file__).resolve().parents[2] / "grammar" / "cnn.lark"
        return checkout.read_text(encoding="utf-8")
    return (folder / "cnn.lark").read_text(encoding="utf-8")
