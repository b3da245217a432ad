"""The two ways in which cnncc fails, for two audiences. `SpecError` is the user's: it carries every
diagnostic of a file at once. `CompilerBug` is ours: it names the stage, the node and the invariant
that does not hold, and is never the answer to a wrong spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cnncc.errors.diagnostic import Diagnostic, Note
from cnncc.errors.render import render
from cnncc.errors.source import Span


class SpecError(Exception):
    """The user's text, arguments or files are wrong; `diagnostics` says all that was found."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        found = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        if not found:
            raise ValueError("a SpecError needs at least one diagnostic")
        super().__init__(found)
        self.diagnostics: tuple[Diagnostic, ...] = found

    def __str__(self) -> str:
        return "\n\n".join(render(diagnostic) for diagnostic in self.diagnostics)


class CompilerBug(Exception):
    """cnncc itself is wrong: after `stage`, `invariant` does not hold at `node`."""

    def __init__(self, stage: str, node: str, invariant: str) -> None:
        super().__init__(stage, node, invariant)
        self.stage = stage
        self.node = node
        self.invariant = invariant

    def __str__(self) -> str:
        return f"bug in cnncc: {self.stage} broke an invariant at {self.node}: {self.invariant}"


class Diagnostics:
    """Collects the diagnostics of a stage, so that a user sees all mistakes of a file at once."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep one diagnostic; an exact repetition is dropped."""
        if diagnostic not in self._found:
            self._found.append(diagnostic)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        label: str = "",
        notes: tuple[Note, ...] = (),
        helps: tuple[str, ...] = (),
    ) -> None:
        """Make a diagnostic from its parts and keep it."""
        self.add(Diagnostic(code, message, span, label, notes, helps))

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Keep several diagnostics."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Everything found, in the order of the text; what has no place comes last."""
        return tuple(sorted(self._found, key=_place_key))

    def raise_if_any(self) -> None:
        """Raise SpecError with everything found; return when nothing was."""
        if self._found:
            raise SpecError(self.sorted())

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self._found)


def _place_key(diagnostic: Diagnostic) -> tuple[bool, str, int]:
    place = diagnostic.place
    return (True, "", 0) if place is None else (False, place.file, place.start)
