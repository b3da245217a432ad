"""Collects what is wrong while a network is built. A mistake inside a block is found again for
every use of the block and every turn of a `repeat`; it is reported once, with the use that showed
it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cnncc.errors import Diagnostics, Note, Span
from cnncc.graph import limits
from cnncc.graph.values import POISON, Poison

MOST = 50
"""Mistakes after which building stops: more would not be read."""

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
        uses = [
            Note(f"while `{name}` is used here", where)
            for name, where in reversed(self._uses[-CONTEXT:])
        ]
        self.found.error(
            code, message, span, label=label, notes=(*notes, *uses), helps=tuple(helps)
        )
        if len(self.found) >= MOST:
            self.found.raise_if_any()
        return POISON

    def stop(self, code: str, message: str, span: Span, *, helps: Iterable[str] = ()) -> None:
        """Report that a limit is reached and give up: raises SpecError with all that was found."""
        self.error(code, message, span, helps=helps)
        self.found.raise_if_any()

    @contextmanager
    def within(self, span: Span, levels: int = 1) -> Iterator[None]:
        """Count one evaluated expression, `levels` deeper than the one around it."""
        self._steps += 1
        if self._steps > limits.STEPS:
            self.stop("E0122", f"building a network takes at most {limits.STEPS} evaluations", span)
        if self._depth + levels > limits.DEPTH:
            self.stop(
                "E0123",
                "blocks and expressions are nested too deep",
                span,
                helps=("a block that uses itself needs an `if` that ends it",),
            )
        self._depth += levels
        try:
            yield
        finally:
            self._depth -= levels

    @contextmanager
    def using(self, name: str, span: Span) -> Iterator[None]:
        """Within a use of a block."""
        self._uses.append((name, span))
        try:
            with self.within(span, levels=10):
                yield
        finally:
            self._uses.pop()
