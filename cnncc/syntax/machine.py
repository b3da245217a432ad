"""The LALR machine: a stack of states and a stack of values, driven by the tables that Lark made.
Lark has a machine of its own, but that one closes rules before it finds that a word cannot follow.
This one looks first and changes nothing when a word does not fit, so that a mistake leaves
everything open that the text left open; and it can be asked what would happen."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from lark import Token
from lark.parsers.lalr_analysis import Shift

from cnncc.syntax.grammar import grammar

State: TypeAlias = int
Rule: TypeAlias = Any
"""One of Lark's grammar rules; the key of the function that makes its tree."""


class Tables:
    """Lark's tables with plain numbers and strings for keys, which are several times faster."""

    def __init__(self) -> None:
        conf = grammar().lark.parse_interactive().parser_state.parse_conf
        self.start: State = conf.start_state
        self.end: State = conf.end_state
        self.make: dict[Rule, Callable[[list[Any]], Any]] = conf.callbacks
        self.shift: dict[State, dict[str, State]] = {}
        self.reduce: dict[State, dict[str, tuple[Rule, int, str]]] = {}
        for state, actions in conf.states.items():
            shifts = self.shift[state] = {}
            reductions = self.reduce[state] = {}
            for kind, (move, what) in actions.items():
                if move is Shift:
                    shifts[str(kind)] = what
                else:
                    reductions[str(kind)] = (what, len(what.expansion), str(what.origin.name))


@cache
def tables() -> Tables:
    return Tables()


class Machine:
    """Reads words one by one. `states` has one element more than `values`."""

    def __init__(self) -> None:
        self.tables = tables()
        self.states: list[State] = [self.tables.start]
        self.values: list[Any] = []

    def feed(self, token: Token) -> bool:
        """Read a word if it can follow; otherwise change nothing and return False."""
        walked = self._walk(self.states, token.type)
        if walked is None:
            return False
        kept, pushed, rules = walked
        values, make = self.values, self.tables.make
        for rule, size in rules:
            children = values[len(values) - size :]
            del values[len(values) - size :]
            values.append(make[rule](children))
        if token.type != "$END":
            values.append(token)
        del self.states[kept:]
        self.states += pushed
        return True

    def keep(self, states: int) -> None:
        """Forget all but so many states, and the values that led to the others."""
        del self.states[states:]
        del self.values[states - 1 :]

    def expected(self) -> frozenset[str]:
        """The kinds of word that can follow."""
        state = self.states[-1]
        kinds = [*self.tables.shift[state], *self.tables.reduce[state]]
        words = (kind for kind in kinds if kind.isupper())
        return frozenset(kind for kind in words if self._walk(self.states, kind) is not None)

    def after(self, states: list[State], *kinds: str) -> list[State] | None:
        """The states after reading words in `states`, or None where one cannot follow."""
        for kind in kinds:
            walked = self._walk(states, kind)
            if walked is None:
                return None
            states = states[: walked[0]] + walked[1]
        return states

    def _walk(
        self, states: list[State], kind: str
    ) -> tuple[int, list[State], list[tuple[Rule, int]]] | None:
        """What reading a word would do: how many of `states` stay, the states on top of them, and
        the rules that are closed, with their lengths. None when the word cannot follow."""
        shift, reduce, kept = self.tables.shift, self.tables.reduce, len(states)
        pushed: list[State] = []
        rules: list[tuple[Rule, int]] = []
        top = states[-1]
        while True:
            following = shift[top].get(kind)
            if following is not None:
                pushed.append(following)
                return kept, pushed, rules
            closing = reduce[top].get(kind)
            if closing is None:
                return None
            rule, size, origin = closing
            rules.append((rule, size))
            if size > len(pushed):
                kept -= size - len(pushed)
                pushed.clear()
            elif size:
                del pushed[-size:]
            top = shift[pushed[-1] if pushed else states[kept - 1]][origin]
            pushed.append(top)
            if top == self.tables.end and kind == "$END":
                return kept, pushed, rules
