"""The situation in which the parser meets a word that cannot follow, and what may be done about it.
`Stuck` is all that a rule in mistakes.py looks at; a `Repair` is its answer: what to tell the user,
and, where the mistake is plain, which words to read instead, so that one mistake gives one message
and the rest of the file is still read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lark import Token

from cnncc.errors import Diagnostic, Note, Source, Span
from cnncc.syntax.grammar import grammar
from cnncc.syntax.scan import OPENING

STATEMENTS = frozenset(
    {
        "DEFAULT",
        "INPUT",
        "OUTPUT",
        "WEIGHTS",
        "REPEAT",
        "EXPECT",
        "REQUIRE",
        "NOFUSE",
        "TARGET",
        "RETURN",
    }
)
ITEMS = frozenset({"IMPORT", "NET", "BLOCK", "TRAIN", "TABLE"})
COMPARISONS = frozenset({"EQEQ", "NOTEQ", "LESS", "LESSEQ", "MORE", "MOREEQ"})
OPERATORS = COMPARISONS | frozenset(
    {"PLUS", "MINUS", "STAR", "SLASH", "SLASHSLASH", "PERCENT", "AND", "OR", "ARROW"}
)
EXPRESSION_STARTS = frozenset(
    {"INT", "FLOAT", "SIZE", "TRUE", "FALSE", "NAME", "LPAR", "LSQB", "MINUS", "NOT", "IF"}
)
EXPRESSION_ENDS = frozenset({"INT", "FLOAT", "SIZE", "TRUE", "FALSE", "NAME", "RPAR", "RSQB"})


@dataclass(frozen=True)
class Repair:
    """What to tell, and how to read on.

    `undo` words are taken back, `instead` is read in place of the words up to `resume`. Without
    `resume`, or where that reading fails too, the parser gives the statement up and looks for the
    next one from here on, or from the word `restart`.
    """

    diagnostic: Diagnostic
    instead: tuple[Token, ...] = ()
    resume: int | None = None
    undo: int = 0
    restart: int | None = None


@dataclass(frozen=True)
class Stuck:
    """The word at `index` cannot follow what stands before it; `expected` are the kinds that can.

    `open` are the brackets not yet closed there, outermost first; `partner` gives for each bracket
    of the file the index of the one that closes it, where there is one.
    """

    source: Source
    tokens: tuple[Token, ...]
    index: int
    expected: frozenset[str]
    open: tuple[Token, ...]
    partner: dict[int, int]

    @property
    def token(self) -> Token:
        return self.tokens[self.index]

    @property
    def kind(self) -> str:
        return str(self.token.type)

    def kind_at(self, distance: int) -> str:
        """The kind of a word relative to this one; empty outside the file."""
        at = self.index + distance
        return str(self.tokens[at].type) if 0 <= at < len(self.tokens) else ""

    def word_at(self, distance: int) -> str:
        at = self.index + distance
        return str(self.tokens[at]) if 0 <= at < len(self.tokens) else ""

    def starts_line(self, distance: int = 0) -> bool:
        """True when the word is the first of its line."""
        return starts_line(self.source, self.tokens, self.index + distance)

    def begins_statement(self, distance: int = 0) -> bool:
        """True when the word is the first of a statement rather than of an expression."""
        before = self.kind_at(distance - 1)
        return self.starts_line(distance) or before in ("LBRACE", "RBRACE")

    @property
    def bracket(self) -> Token | None:
        """The innermost open bracket."""
        return self.open[-1] if self.open else None

    @cached_property
    def bracket_is_closed(self) -> bool:
        """True when the innermost open bracket has a partner further on."""
        if self.bracket is None or self.bracket.start_pos is None:
            return False
        return self.bracket.start_pos in self.partner

    @property
    def span(self) -> Span:
        """Where the caret goes: the word, or the end of the line before it when it begins a line
        of its own in the middle of a statement, because what is missing is missing there."""
        between = bool(self.expected & {"NET", "INPUT"}) and self.kind != "$END"
        if self.index > 0 and not between and (self.kind == "$END" or self.starts_line()):
            end = int(self.tokens[self.index - 1].end_pos or 0)
            return Span(self.source, end, end)
        return self.span_at(0)

    def span_at(self, distance: int, to: int | None = None) -> Span:
        """The place of a word, or of the words from one to another."""
        until = distance if to is None else to
        first, last = self.tokens[self.index + distance], self.tokens[self.index + until]
        return Span(self.source, int(first.start_pos or 0), int(last.end_pos or 0))

    def opened(self) -> tuple[Note, ...]:
        """The note that shows the innermost open bracket."""
        if self.bracket is None or self.bracket.start_pos is None:
            return ()
        at = self.bracket.start_pos
        return (Note(f"`{self.bracket}` is opened here", Span(self.source, at, at + 1)),)

    def make(self, kind: str, word: str | None = None) -> Token:
        """A word that the text does not have, to be read in place of one that it has."""
        spelling = grammar().fixed.get(kind, "_") if word is None else word
        return Token(kind, spelling, start_pos=self.token.start_pos, end_pos=self.token.end_pos)


def starts_line(source: Source, tokens: tuple[Token, ...], index: int) -> bool:
    """True when no word stands before tokens[index] on its line."""
    if index <= 0:
        return True
    before, here = tokens[index - 1].end_pos, tokens[index].start_pos
    return "\n" in source.text[before:here]


def bracket_partners(tokens: tuple[Token, ...]) -> dict[int, int]:
    """Offset of each opening bracket that is closed -> index of the word that closes it.

    A curly bracket closes over round and square ones that were left open within it.
    """
    partner: dict[int, int] = {}
    stack: list[Token] = []
    for index, token in enumerate(tokens):
        if token.type in OPENING:
            stack.append(token)
        elif token.type == "RBRACE":
            while stack and stack[-1].type != "LBRACE":
                stack.pop()
            if stack:
                partner[int(stack.pop().start_pos or 0)] = index
        elif stack and OPENING.get(stack[-1].type) == token.type:
            partner[int(stack.pop().start_pos or 0)] = index
    return partner
