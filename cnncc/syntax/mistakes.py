"""Recognises common mistakes. Each rule looks at the place where the parser is stuck and answers
with what to tell the user and how to read on, or with None when the mistake is not its own. The
first rule that answers is right, so special cases stand before general ones."""

from __future__ import annotations

from collections.abc import Callable

from cnncc.errors import Diagnostic
from cnncc.syntax import brackets, mistaken_lists, mistaken_signs, mistaken_words
from cnncc.syntax.stuck import Repair, Stuck
from cnncc.syntax.wording import expectation, name_of

RULES: tuple[Callable[[Stuck], Repair | None], ...] = (
    mistaken_signs.slash_comment,
    mistaken_signs.missing_value,
    mistaken_lists.unquoted_import,
    mistaken_words.misspelled_item,
    brackets.unmatched,
    mistaken_signs.missing_operator,
    mistaken_words.misspelled_statement,
    mistaken_signs.missing_equal_sign,
    mistaken_lists.spaced_size,
    mistaken_signs.no_operator_after_arrow,
    mistaken_signs.no_value_before_arrow,
    mistaken_signs.equal_sign_in_repeat,
    mistaken_signs.one_equal_sign,
    mistaken_signs.two_equal_signs,
    mistaken_signs.colon_for_equal_sign,
    mistaken_lists.incomplete_declaration,
    mistaken_signs.power,
    mistaken_words.reserved_word,
    mistaken_words.statement_without_name,
    mistaken_words.if_without_else,
    mistaken_signs.chained_comparison,
    mistaken_signs.operator_after_pipeline,
    mistaken_lists.string_outside_import,
    brackets.mismatched,
    brackets.unclosed,
    mistaken_lists.missing_comma,
)


def diagnose(stuck: Stuck) -> Repair:
    """What is wrong where the parser is stuck."""
    for rule in RULES:
        repair = rule(stuck)
        if repair is not None:
            return repair
    wanted = expectation(stuck.expected)
    got = "the file ends" if stuck.kind == "$END" else f"got {name_of(stuck.token)}"
    span = stuck.span
    label = f"expected {wanted}" if span.start == span.end else ""
    return Repair(Diagnostic("E0104", f"expected {wanted}, but {got}", span, label))
