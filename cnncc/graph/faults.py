"""Collects what is wrong while a network is built. A mistake inside a block is found again for
every use of the block and every turn of a `repeat`; it is reported once, with the use that showed
it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cnncc.errors import Diagnostics, Note, Span
from cnncc.graph import limits
from cnncc.graph.layer import Word
from cnncc.graph.values import POISON, Poison, Value

MOST = 50
"""Mistakes after which building stops: more would not be read."""

LONGEST = 400
"""Characters of a line of a message; a value of the text can be longer."""

BLOCK_LEVELS = 10
"""Levels of nesting that a use of a block counts for."""

CONTEXT = 3
"""Uses of blocks that a diagnostic names, the innermost ones."""


class Faults:
    """The mistakes of one program, and the budget that bounds how long it may be worked on."""

    def __init__(self) -> None:
        self.found = Diagnostics()
        self._places: set[tuple[str, str, int]] = set()
        self._uses: list[tuple[str, Span]] = []
        self._steps = 0
        self._depth = 0

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        label: str = "",
        notes: Iterable[Note] = (),
        helps: Iterable[str] = (),
    ) -> Poison:
        """Report a mistake; the value that stands for it. Raises SpecError after too many."""
        place = (code, span.file, span.start)
        if place in self._places:
            return POISON
        self._places.add(place)
        innermost = dict.fromkeys(reversed(self._uses))  # a block that uses itself once
        uses = [Note(f"while `{name}` is used here", w) for name, w in [*innermost][:CONTEXT]]
        shown = tuple(Note(_cut(note.text), note.span) for note in (*notes, *uses))
        self.found.error(
            code, _cut(message), span, label=_cut(label), notes=shown, helps=tuple(helps)
        )
        if len(self.found) >= MOST:
            self.found.raise_if_any()
        return POISON

    def stop(self, code: str, message: str, span: Span, *, helps: Iterable[str] = ()) -> None:
        """Report that a limit is reached and give up: raises SpecError with all that was found."""
        self.error(code, message, span, helps=helps)
        self.found.raise_if_any()

    def enter(self, span: Span, levels: int = 1) -> None:
        """Count an evaluated expression, `levels` deeper than the one around it, until `leave`."""
        self._count_step(span)
        if self._depth + levels > limits.DEPTH:
            self.stop(
                "E0123",
                "blocks and expressions are nested too deep",
                span,
                helps=("a block that uses itself needs an `if` that ends it",),
            )
        self._depth += levels

    def leave(self, levels: int = 1) -> None:
        """Leave what `enter` entered."""
        self._depth -= levels

    def spend(self, value: Value, span: Span) -> None:
        """Count what a tuple, list or word consists of: they can be made of themselves."""
        stack: list[tuple[Value, int]] = [(value, 0)]
        while stack:
            top, depth = stack.pop()
            self._count_step(span)
            if depth > limits.VALUE_DEPTH:
                self.stop("E0123", "a value is nested too deep", span)
            if isinstance(top, tuple | list):
                stack.extend((part, depth + 1) for part in top)
            elif isinstance(top, Word):
                parts = (*top.args, *(v for _, v in top.named))
                stack.extend((part, depth + 1) for part in parts)

    def _count_step(self, span: Span) -> None:
        self._steps += 1
        if self._steps > limits.STEPS:
            self.stop(
                "E0122", f"building a network takes at most {limits.STEPS:_} evaluations", span
            )

    @contextmanager
    def using(self, name: str, span: Span) -> Iterator[None]:
        """Within a use of a block."""
        self._uses.append((name, span))
        try:
            self.enter(span, BLOCK_LEVELS)
            yield
        finally:
            self._uses.pop()
        self.leave(BLOCK_LEVELS)


def _cut(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(x if len(x) <= LONGEST else x[: LONGEST - 3] + "..." for x in lines)
