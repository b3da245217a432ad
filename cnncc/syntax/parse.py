"""Text to tree. Words come from the scanner, the LALR tables from Lark; this module drives them and
goes on after a mistake in one of two ways. Where a rule of mistakes.py knows what was meant, the
parser reads that instead. Otherwise it gives up the statement, as yacc does: it takes back words
until the special word ERROR may follow, and skips to where the next statement, a closing bracket or
the next net begins. So all mistakes of a file are reported at once, each of them once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lark import Token, Tree

from cnncc.errors import Diagnostics, Source
from cnncc.syntax import limits
from cnncc.syntax.construct import construct
from cnncc.syntax.machine import Machine
from cnncc.syntax.mistakes import diagnose
from cnncc.syntax.placement import check_placement
from cnncc.syntax.scan import CLOSING, OPENING, Scan, scan
from cnncc.syntax.stuck import (
    ITEMS,
    STATEMENTS,
    Repair,
    Stuck,
    bracket_partners,
    starts_line,
)
from cnncc.syntax.tree import File


def parse(text: str, file: str = "<text>") -> File:
    """The tree of a text of the language; `file` is the name that diagnostics print.

    Raises SpecError with every mistake that was found (at most limits.ERRORS of them), in the order
    of the text: codes E01xx, and E0305 for a name that is given twice.
    """
    source = Source(file, text)
    found = Diagnostics()
    words = scan(source, found)
    root = _Reader(source, words, found).read()
    tree = construct(root, source, words.comments)
    check_placement(tree, found)
    found.raise_if_any()
    return tree


class _Reader:
    """One reading of one file."""

    def __init__(self, source: Source, words: Scan, found: Diagnostics) -> None:
        self.source = source
        self.found = found
        self.faulty_lines = words.faulty_lines
        end = len(source.text)
        self.tokens = (*words.tokens, Token("$END", "", start_pos=end, end_pos=end))
        self.partner = bracket_partners(self.tokens)
        self.machine = Machine()
        self.mended = 0

    def read(self) -> Tree[Any]:
        """Lark's tree of the file, without the parts that were given up."""
        at = 0
        while at < len(self.tokens):
            if self.machine.feed(self.tokens[at]):
                at += 1
                continue
            at = self._mend(at)
            self.mended += 1
            if max(self.mended, len(self.found)) >= limits.ERRORS:
                self.found.raise_if_any()
        root: Tree[Any] = self.machine.values[0]
        return root

    # --- after a mistake ---

    def _mend(self, at: int) -> int:
        """Report the mistake at tokens[at] and make the parser able to go on; the index to go on
        at."""
        expected, brackets = self.machine.expected(), tuple(self._open_brackets())
        stuck = Stuck(self.source, self.tokens, at, expected, brackets, self.partner)
        repair = diagnose(stuck)
        if self._line(at) not in self.faulty_lines and self._line(at - 1) not in self.faulty_lines:
            self.found.add(repair.diagnostic)
        resumed = self._apply(repair)
        if resumed is not None:
            return resumed
        return self._give_up(at if repair.restart is None else repair.restart)

    def _line(self, index: int) -> int:
        if index < 0:
            return 0
        return self.source.line_column(int(self.tokens[index].start_pos or 0))[0]

    def _apply(self, repair: Repair) -> int | None:
        """Carry a repair out if the parser can go on after it, else leave everything as it is."""
        if repair.resume is None:
            return None
        states = self.machine.states
        kept = len(states) - repair.undo
        kinds = [token.type for token in (*repair.instead, self.tokens[repair.resume])]
        skips_only = not repair.instead and not repair.undo
        if not skips_only and self.machine.after(states[:kept], *kinds) is None:
            return None
        self.machine.keep(kept)
        for token in repair.instead:
            self.machine.feed(token)
        return repair.resume

    def _give_up(self, at: int) -> int:
        """Drop the statement that cannot be read; the index of the word to go on at."""
        for index in self._resting_places(at):
            kind = str(self.tokens[index].type)
            states = self.machine.states
            # Only a new item or the end of the file says that an open curly bracket is meant to be
            # closed; anything else goes on within it.
            lowest = 1 if kind in ITEMS | {"$END"} else self._states_in_body()
            for size in range(len(states), lowest - 1, -1):
                if self.machine.after(states[:size], "ERROR", kind) is not None:
                    self.machine.keep(size)
                    place = self.tokens[index].start_pos
                    self.machine.feed(Token("ERROR", "", start_pos=place, end_pos=place))
                    return index
        # The end of the file can always follow an ERROR between items.
        raise AssertionError("no place to go on at, not even the end of the file")

    def _states_in_body(self) -> int:
        """How many states lead up to the innermost open curly bracket."""
        curly = [b for b in self._open_brackets() if b.type == "LBRACE"]
        values = self.machine.values
        return 1 if not curly else 2 + next(i for i, v in enumerate(values) if v is curly[-1])

    def _resting_places(self, at: int) -> Iterator[int]:
        """Where reading may go on: statements, items, curly brackets, the end, from `at` on."""
        enclosing = [b for b in self._open_brackets() if b.type != "LBRACE"]
        outermost = self.partner.get(int(enclosing[0].start_pos or 0)) if enclosing else None
        unclosed = bool(enclosing) and outermost is None
        index = at if outermost is None else outermost + 1
        while index < len(self.tokens):
            token = self.tokens[index]
            begins_line = starts_line(self.source, self.tokens, index)
            is_assignment = token.type == "NAME" and self.tokens[index + 1].type == "EQUAL"
            is_statement = token.type in STATEMENTS or is_assignment
            further = index > at and not unclosed
            if (
                token.type in ("LBRACE", "RBRACE", "$END")
                or (token.type in ITEMS and begins_line)
                or (is_statement and (begins_line or further))
                or (token.type == "NAME" and begins_line and further)
            ):
                yield index
            partner = self.partner.get(int(token.start_pos or 0))
            skip = token.type in OPENING and partner is not None
            index = partner + 1 if skip and partner is not None else index + 1

    def _open_brackets(self) -> list[Token]:
        """Brackets that are read but not closed, outermost first."""
        brackets: list[Token] = []
        for value in self.machine.values:
            if isinstance(value, Token) and value.type in OPENING:
                brackets.append(value)
            elif isinstance(value, Token) and value.type in CLOSING:
                brackets.pop()
        return brackets
