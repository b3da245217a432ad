"""The rules of mistakes.py that are about brackets: one that closes nothing, one that closes the
wrong kind, one that is never closed. Each shows where the open bracket stands."""

from __future__ import annotations

from cnncc.errors import Diagnostic
from cnncc.syntax.scan import CLOSING, OPENING
from cnncc.syntax.stuck import EXPRESSION_STARTS, ITEMS, STATEMENTS, Repair, Stuck
from cnncc.syntax.wording import name_of


def unmatched(stuck: Stuck) -> Repair | None:
    """A closing bracket where none of its kind is open."""
    if stuck.kind not in CLOSING or any(OPENING[b.type] == stuck.kind for b in stuck.open):
        return None
    inner = stuck.bracket
    if inner is not None and inner.type != "LBRACE":
        return None
    diagnostic = Diagnostic(
        "E0109",
        f"`{stuck.token}` closes nothing: no bracket of its kind is open here",
        stuck.span_at(0),
        helps=("delete it",),
    )
    return Repair(diagnostic, (), stuck.index + 1)


def mismatched(stuck: Stuck) -> Repair | None:
    """`[1, 2)`: the wrong kind of closing bracket."""
    inner = stuck.bracket
    if inner is None or stuck.kind not in ("RPAR", "RSQB") or inner.type == "LBRACE":
        return None
    wanted = OPENING[inner.type]
    if wanted == stuck.kind or wanted not in stuck.expected:
        return None
    closer = stuck.make(wanted)
    diagnostic = Diagnostic(
        "E0109",
        f"`{inner}` is closed by `{closer}`, but got `{stuck.token}`",
        stuck.span_at(0),
        notes=stuck.opened(),
    )
    others = [b for b in stuck.open[:-1] if OPENING[b.type] == stuck.kind]
    # In f([1, 2) the ")" belongs to the "(" further out, and only the "]" is missing.
    missing = others and not stuck.bracket_is_closed and stuck.kind_at(1) != stuck.kind
    resume = stuck.index if missing else stuck.index + 1
    return Repair(diagnostic, (closer,), resume)


def unclosed(stuck: Stuck) -> Repair | None:
    """A bracket that is still open where the next statement, the next item or the end comes."""
    inner = stuck.bracket
    if inner is None:
        return None
    wanted = OPENING[inner.type]
    if inner.type == "LBRACE":
        if stuck.kind not in ITEMS | {"$END"} or "RBRACE" not in stuck.expected:
            return None
    elif not _statement_ends(stuck):
        return None
    closer = stuck.make(wanted)
    got = "the file ends" if stuck.kind == "$END" else f"got {name_of(stuck.token)}"
    diagnostic = Diagnostic(
        "E0109",
        f"`{inner}` is never closed: expected `{closer}`, but {got}",
        stuck.span,
        notes=stuck.opened(),
    )
    if wanted not in stuck.expected:
        return Repair(diagnostic)
    still_open = stuck.open[::-1]
    if inner.type != "LBRACE":
        inside = [b.type for b in still_open]
        still_open = still_open[: inside.index("LBRACE")] if "LBRACE" in inside else still_open
    closers = tuple(stuck.make(OPENING[bracket.type]) for bracket in still_open)
    return Repair(diagnostic, closers, stuck.index)


def _statement_ends(stuck: Stuck) -> bool:
    """True when the word can only belong to what comes after the open round or square bracket."""
    if stuck.kind in ("RBRACE", "$END"):
        return True
    if stuck.bracket_is_closed:
        return False
    if stuck.starts_line() and stuck.kind in STATEMENTS | ITEMS:
        return True
    return stuck.starts_line() and stuck.kind in EXPRESSION_STARTS and "COMMA" in stuck.expected
