"""How diagnostics speak of the words of the language: `an expression` instead of the eleven kinds
of word that may begin one, `the end of the file` instead of a parser's name for it."""

from __future__ import annotations

from collections.abc import Iterable

from lark import Token

from cnncc.syntax.grammar import grammar
from cnncc.syntax.stuck import COMPARISONS, EXPRESSION_STARTS, ITEMS, OPERATORS, STATEMENTS

_LONGEST = 40
_VARYING = {
    "NAME": "a name",
    "INT": "a whole number",
    "FLOAT": "a number",
    "SIZE": "a size such as `3x3`",
    "STRING": "a text in double quotes",
    "$END": "the end of the file",
}


def quote(word: str) -> str:
    """A word of the text in backticks, shortened when it is long."""
    shown = word if len(word) <= _LONGEST else word[: _LONGEST - 3] + "..."
    return f"`{shown}`"


def name_of(token: Token) -> str:
    """How a message calls a word that stands in the text."""
    if token.type == "$END":
        return "the file ends"
    if token.type == "STRING":
        return f"the text {quote(str(token))}"
    if token.type in grammar().keywords.values():
        return f"the reserved word {quote(str(token))}"
    return quote(str(token))


def expectation(expected: frozenset[str]) -> str:
    """`an expression, `,` or `)``: what may stand at a place, in few words."""
    left = set(expected) - {"ERROR"}
    phrases: list[str] = []
    if left >= EXPRESSION_STARTS - {"NOT", "IF"}:
        left -= EXPRESSION_STARTS
        phrases.append("an expression")
    elif left >= OPERATORS - COMPARISONS - {"ARROW"}:
        # After a complete operand a "(" would make it a call, which is never what is missing.
        left -= OPERATORS | {"LPAR"}
        phrases.append("an operator")
    if left >= STATEMENTS:
        left -= STATEMENTS | {"NAME"}
        phrases.append("a statement")
    if left >= ITEMS:
        left -= ITEMS | {"$END"}
        phrases += ["`net`", "`block`", "`train`", "`table`", "`import`"]
    fixed = grammar().fixed
    signs = [quote(word) for kind, word in fixed.items() if kind in left]
    names = [phrase for kind, phrase in _VARYING.items() if kind in left]
    return join(names + signs + phrases)


def join(phrases: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = list(phrases) or ["nothing"]
    return f"{', '.join(most)} or {last}" if most else last
