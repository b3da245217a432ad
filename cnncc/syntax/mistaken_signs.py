"""Rules of mistakes.py about signs: one equal sign for two, a colon for an equal sign, arrows and
operators where none can be, comments that begin as in another language."""

from __future__ import annotations

from cnncc.errors import Diagnostic, Span
from cnncc.syntax.stuck import COMPARISONS, EXPRESSION_ENDS, OPERATORS, Repair, Stuck
from cnncc.syntax.wording import name_of, quote


def one_equal_sign(stuck: Stuck) -> Repair | None:
    """`expect params = 3`"""
    if stuck.kind != "EQUAL" or "EQEQ" not in stuck.expected:
        return None
    diagnostic = Diagnostic(
        "E0115",
        "`=` gives a name to a value; two values are compared with `==`",
        stuck.span_at(0),
        helps=("write `==`",),
    )
    return Repair(diagnostic, (stuck.make("EQEQ"),), stuck.index + 1)


def equal_sign_in_repeat(stuck: Stuck) -> Repair | None:
    """`repeat i = 3 { ... }`"""
    if stuck.kind != "EQUAL" or stuck.kind_at(-2) != "REPEAT" or "IN" not in stuck.expected:
        return None
    index, count = stuck.word_at(-1), stuck.word_at(1)
    diagnostic = Diagnostic(
        "E0104",
        "the counter of a repeat is followed by `in`",
        stuck.span_at(0),
        helps=(f"write `repeat {index} in {count} {{ ... }}`: {index} counts from 0",),
    )
    return Repair(diagnostic, (stuck.make("IN"),), stuck.index + 1)


def two_equal_signs(stuck: Stuck) -> Repair | None:
    """`y == relu(x)`"""
    if stuck.kind != "EQEQ" or "EQUAL" not in stuck.expected:
        return None
    diagnostic = Diagnostic(
        "E0115",
        "`==` compares two values; a name is given to a value with `=`",
        stuck.span_at(0),
        helps=("write `=`",),
    )
    return Repair(diagnostic, (stuck.make("EQUAL"),), stuck.index + 1)


def missing_equal_sign(stuck: Stuck) -> Repair | None:
    """`batch 64`"""
    literal = stuck.kind in ("INT", "FLOAT", "SIZE", "TRUE", "FALSE")
    if not literal or stuck.expected != {"EQUAL"} or stuck.starts_line():
        return None
    name, value = stuck.word_at(-1), stuck.word_at(0)
    diagnostic = Diagnostic(
        "E0104",
        f"expected `=` between {quote(name)} and {quote(value)}",
        stuck.span_at(-1, 0),
        helps=(f"write `{name} = {value}`",),
    )
    return Repair(diagnostic, (stuck.make("EQUAL"),), stuck.index)


def missing_value(stuck: Stuck) -> Repair | None:
    """`a =` or `a = x ->` at the end of a line: the next name was read as what is missing."""
    if stuck.kind != "EQUAL" or stuck.kind_at(-1) != "NAME" or not stuck.starts_line(-1):
        return None
    if stuck.kind_at(-2) in EXPRESSION_ENDS | {"COMMA", "LPAR", "LBRACE", "RBRACE"}:
        return None
    end = int(stuck.tokens[stuck.index - 2].end_pos or 0)
    what = "the name of an operator" if stuck.kind_at(-2) == "ARROW" else "an expression"
    diagnostic = Diagnostic(
        "E0104",
        f"expected {what} after {quote(stuck.word_at(-2))}, but a new statement begins",
        Span(stuck.source, end, end),
        f"expected {what}",
    )
    instead = (stuck.make("NAME"), stuck.tokens[stuck.index - 1])
    return Repair(diagnostic, instead, stuck.index, undo=1, restart=stuck.index - 1)


def colon_for_equal_sign(stuck: Stuck) -> Repair | None:
    """`conv(6, 5x5, pad: 2)`, `input x = f32[1]`"""
    in_call = stuck.kind_at(-1) == "NAME" and stuck.kind_at(-2) in ("LPAR", "COMMA")
    if stuck.kind == "COLON" and ("EQUAL" in stuck.expected or in_call):
        diagnostic = Diagnostic(
            "E0115",
            f"the value of {quote(stuck.word_at(-1))} follows after `=`, not `:`",
            stuck.span_at(0),
            helps=(f"write `{stuck.word_at(-1)} = ...`",),
        )
        return Repair(diagnostic, (stuck.make("EQUAL"),), stuck.index + 1)
    if stuck.kind == "EQUAL" and stuck.expected == {"COLON"}:
        diagnostic = Diagnostic(
            "E0115",
            f"the type of {quote(stuck.word_at(-1))} follows after `:`, not `=`",
            stuck.span_at(0),
            helps=(f"write `{stuck.word_at(-1)}: f32[...]`",),
        )
        return Repair(diagnostic, (stuck.make("COLON"),), stuck.index + 1)
    return None


def chained_comparison(stuck: Stuck) -> Repair | None:
    """`1 < n < 3`"""
    if stuck.kind not in COMPARISONS or "AND" not in stuck.expected:
        return None
    middle = stuck.word_at(-1) if stuck.kind_at(-1) in ("NAME", "INT", "FLOAT") else "b"
    diagnostic = Diagnostic(
        "E0117",
        "comparisons do not chain",
        stuck.span_at(0),
        helps=(f"compare twice: `a < {middle} and {middle} < c`",),
    )
    return Repair(diagnostic, (stuck.make("AND"),), stuck.index + 1)


def operator_after_pipeline(stuck: Stuck) -> Repair | None:
    """`x -> relu + y`"""
    if stuck.kind not in OPERATORS or "ARROW" not in stuck.expected:
        return None
    diagnostic = Diagnostic(
        "E0104",
        f"`->` binds loosest, so {quote(stuck.word_at(0))} cannot follow a pipeline",
        stuck.span_at(0),
        helps=(f"put the pipeline in parentheses: `(x -> ...) {stuck.word_at(0)} ...`",),
    )
    return Repair(diagnostic)


def no_operator_after_arrow(stuck: Stuck) -> Repair | None:
    """`x -> 3`, `x -> (relu)`"""
    if stuck.kind_at(-1) != "ARROW" or stuck.kind == "NAME":
        return None
    if stuck.word_at(0).isalpha() and not stuck.starts_line():
        return None  # a reserved word, which has a rule of its own
    line_ends = stuck.kind == "$END" or stuck.starts_line()
    what = "" if line_ends else f", but got {name_of(stuck.token)}"
    diagnostic = Diagnostic(
        "E0104",
        f"after `->` comes the name of an operator{what}",
        stuck.span,
        helps=("write `x -> relu` or `x -> conv(16, 3x3)`",),
    )
    return Repair(diagnostic)


def no_value_before_arrow(stuck: Stuck) -> Repair | None:
    """`y = -> relu`"""
    if stuck.kind != "ARROW" or "INT" not in stuck.expected:
        return None
    diagnostic = Diagnostic(
        "E0104",
        "a pipeline begins with a value: nothing stands before this `->`",
        stuck.span_at(0),
        helps=("write `x -> relu`",),
    )
    return Repair(diagnostic, (stuck.make("NAME"),), stuck.index)


def missing_operator(stuck: Stuck) -> Repair | None:
    """`c1 = image conv(6, 5x5)`: `conv` was read as the name of the next assignment."""
    if stuck.expected != {"EQUAL"} or stuck.kind_at(-1) != "NAME" or stuck.starts_line(-1):
        return None
    if stuck.kind_at(-2) not in EXPRESSION_ENDS:
        return None
    left, right = stuck.word_at(-2), stuck.word_at(-1)
    slashes = _slashes_before(stuck)
    if slashes is not None:
        diagnostic = Diagnostic(
            "E0104",
            "a comment begins with `#`; `//` is the division of whole numbers",
            stuck.span_at(slashes),
            helps=("write `#` in place of `//`",),
        )
        return Repair(diagnostic)
    source = "..." if stuck.kind_at(-2) in ("RPAR", "RSQB") else left
    stage = f"{right}(...)" if stuck.kind == "LPAR" else right
    helps: tuple[str, ...] = (f"to apply an operator, write `{source} -> {stage}`",)
    place = stuck.span_at(-1)
    diagnostic = Diagnostic(
        "E0116",
        f"an operator is missing between {quote(left)} and {quote(right)}",
        Span(place.source, int(stuck.tokens[stuck.index - 2].end_pos or 0), place.end),
        helps=helps,
    )
    return Repair(diagnostic)


def _slashes_before(stuck: Stuck) -> int | None:
    """The distance of a `//` that stands earlier on the line, if one does."""
    distance = -1
    while not stuck.starts_line(distance):
        if stuck.kind_at(distance) == "SLASHSLASH":
            return distance
        distance -= 1
    return None


def slash_comment(stuck: Stuck) -> Repair | None:
    """`// first layer` where no division can be."""
    if stuck.kind != "SLASHSLASH":
        return None
    diagnostic = Diagnostic(
        "E0104",
        "a comment begins with `#`",
        stuck.span_at(0),
        helps=("write `#` in place of `//`",),
    )
    line_end = stuck.index + 1
    while stuck.tokens[line_end].type != "$END" and not stuck.starts_line(line_end - stuck.index):
        line_end += 1
    return Repair(diagnostic, (), line_end)


def power(stuck: Stuck) -> Repair | None:
    """`x ** 2`"""
    if stuck.kind != "STAR" or stuck.kind_at(-1) != "STAR":
        return None
    diagnostic = Diagnostic(
        "E0104",
        "there is no power operator",
        stuck.span_at(-1, 0),
        helps=("multiply: `x * x`",),
    )
    return Repair(diagnostic, (), stuck.index + 1)
