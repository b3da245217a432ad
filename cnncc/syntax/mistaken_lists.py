"""Rules of mistakes.py about literals and lists: sizes in several words, missing commas, quotes
where none belong or where they are missing."""

from __future__ import annotations

from cnncc.errors import Diagnostic, Span
from cnncc.syntax.stuck import EXPRESSION_ENDS, EXPRESSION_STARTS, Repair, Stuck
from cnncc.syntax.wording import expectation, quote


def spaced_size(stuck: Stuck) -> Repair | None:
    """`conv(6, 3 x 3)`"""
    if stuck.kind != "NAME" or stuck.kind_at(-1) != "INT":
        return None
    word, tail = stuck.word_at(0), stuck.word_at(0)[1:]
    if word[0] not in "xX" or not (tail.isdigit() or (not tail and stuck.kind_at(1) == "INT")):
        return None
    width = tail or stuck.word_at(1)
    last = 0 if tail else 1
    diagnostic = Diagnostic(
        "E0114",
        "a size is one word, without blanks",
        stuck.span_at(-1, last),
        helps=(f"write `{stuck.word_at(-1)}x{width}`",),
    )
    size = stuck.make("SIZE", "1x1")
    return Repair(diagnostic, (size,), stuck.index + last + 1, undo=1)


def incomplete_declaration(stuck: Stuck) -> Repair | None:
    """`input x: f32(1, 8, 8)`, `input x f32[1]`, `block b { ... }`"""
    if stuck.expected == {"LSQB"}:
        example = f"{stuck.word_at(-1)}[3, 224, 224]"
        message = "the extents of a type stand in square brackets"
    elif stuck.expected == {"COLON"}:
        example = f"{stuck.word_at(-1)}: f32[3, 224, 224]"
        message = f"the type of {quote(stuck.word_at(-1))} is missing"
    elif stuck.expected == {"LPAR"} and stuck.kind_at(-2) == "BLOCK":
        example = f"block {stuck.word_at(-1)}(x) {{ ... }}"
        message = "a block has parameters, the first for the value that is piped in"
    else:
        return None
    wanted = f"expected {expectation(stuck.expected)}"
    return Repair(Diagnostic("E0104", message, stuck.span, wanted, helps=(f"write `{example}`",)))


def missing_comma(stuck: Stuck) -> Repair | None:
    """`conv(6 5x5)`"""
    if "COMMA" not in stuck.expected or stuck.bracket is None or stuck.bracket.type == "LBRACE":
        return None
    if stuck.kind not in EXPRESSION_STARTS or stuck.kind_at(-1) not in EXPRESSION_ENDS:
        return None
    if not stuck.bracket_is_closed:
        return None
    left, right = stuck.word_at(-1), stuck.word_at(0)
    helps: tuple[str, ...] = (f"write `{left}, {right}`",)
    if stuck.kind_at(-1) == "NAME" and stuck.kind_at(-2) in ("LPAR", "COMMA"):
        helps = (f"to give the argument `{left}`, write `{left} = {right}`",)
    end = int(stuck.tokens[stuck.index - 1].end_pos or 0)
    between = Span(stuck.source, end, int(stuck.token.end_pos or 0))
    diagnostic = Diagnostic(
        "E0116",
        f"a comma is missing between {quote(left)} and {quote(right)}",
        between if not stuck.starts_line() else Span(stuck.source, end, end),
        helps=helps,
    )
    return Repair(diagnostic, (stuck.make("COMMA"),), stuck.index)


def string_outside_import(stuck: Stuck) -> Repair | None:
    """`init = "he"`"""
    if stuck.kind != "STRING" or "NAME" not in stuck.expected:
        return None
    inner = stuck.word_at(0)[1:-1]
    helps = (f"write the bare word: `{inner}`",) if inner.isidentifier() else ()
    diagnostic = Diagnostic(
        "E0119",
        "text in quotes stands only after `import`",
        stuck.span_at(0),
        helps=helps,
    )
    return Repair(diagnostic, (stuck.make("NAME"),), stuck.index + 1)


def unquoted_import(stuck: Stuck) -> Repair | None:
    """`import tables.cnn`"""
    if stuck.kind_at(-1) != "IMPORT" or stuck.kind == "$END":
        return None
    diagnostic = Diagnostic(
        "E0119",
        "the file to import stands in double quotes",
        stuck.span,
        helps=('write `import "file.cnn"`',),
    )
    return Repair(diagnostic)
