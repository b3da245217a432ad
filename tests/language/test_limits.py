"""Hostile texts: each is refused with a coded diagnostic, in well under a second."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnncc.errors import Diagnostic, Span, SpecError, render, to_json
from cnncc.syntax import format_text, limits, parse
from cnncc.syntax.grammar import grammar
from cnncc.syntax.machine import tables

HEAD = "net n { input x: f32[1]\n y = "
SECONDS = 3.0
"""Several times what the slowest case takes, as other work may share the processors."""


@pytest.fixture(scope="module", autouse=True)
def grammar_is_built():
    tables()


HOSTILE = {
    "parentheses": (HEAD + "(" * 100_000 + "x" + ")" * 100_000 + "}", "E0105"),
    "curly brackets": ("net n {" + "repeat 2 {" * 50_000, "E0105"),
    "mixed brackets": (HEAD + "([" * 50_000, "E0105"),
    "a million digits": (HEAD + "9" * 1_000_000 + "}", "E0108"),
    "a million digits, with underscores": (HEAD + "9_" * 500_000 + "9}", "E0108"),
    "a fraction of a million digits": (HEAD + "1." + "9" * 1_000_000 + "}", "E0108"),
    "an exponent of a million digits": (HEAD + "1e" + "9" * 1_000_000 + "}", "E0108"),
    "an infinite float": (HEAD + "1e999 }", "E0108"),
    "a size of many extents": (HEAD + "9x" * 500_000 + "9}", "E0108"),
    "a size of a million digits": (HEAD + "9" * 500_000 + "x" + "9" * 500_000, "E0108"),
    "a name of a million letters": (HEAD + "a" * 1_000_000 + "}", "E0107"),
    "signs": (HEAD + "-" * 40_000 + "x }", "E0105"),
    "negations": (HEAD + "not " * 40_000 + "x }", "E0105"),
    "conditions": (HEAD + "if a then b else " * 8_000 + "x }", "E0105"),
    "a long sum": (HEAD + "x" + " + x" * 20_000 + "}", "E0105"),
    "too many words": (HEAD + "[" + "1," * 500_000 + "]}", "E0106"),
    "too many comments": ("#\n" * 500_000, "E0106"),
    "two megabytes": ("#" * (2 << 20), "E0106"),
    "two megabytes of UTF-8": ("# " + "é" * (1 << 20), "E0106"),
    "zero bytes": ("\0" * 1_000_000, "E0102"),
    "bidirectional marks": ("# \u202e\n" * 10_000, "E0102"),
    "lone surrogates": (HEAD + "\ud800" * 1000, "E0102"),
    "a lone carriage return": (HEAD + "x\r}", "E0102"),
    "names in other scripts": ("\u0438\u043c\u044f " * 50_000, "E0103"),
    "names with marks": (HEAD + "na\u00efve }", "E0103"),
    "quotes": ('"' * 1_000_000, "E0106"),
    "an open string": ('import "' + "a" * 1_000_000, "E0110"),
    "unknown signs": ("$ " * 500_000, "E0101"),
    "injected code": ("net x);import os# {", "E0101"),
    "many mistakes": (HEAD + "f(" + "x x " * 12_000 + ")}", "E0116"),
    "many broken lines": ("net n {\n" + "y = = =\n" * 12_000, "E0104"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_get_a_diagnostic_at_once(name):
    text, code = HOSTILE[name]
    start = time.process_time()
    with pytest.raises(SpecError) as caught:
        parse(text, "hostile.cnn")
    shown = str(caught.value)
    seconds = time.process_time() - start
    diagnostics = caught.value.diagnostics
    assert code in {diagnostic.code for diagnostic in diagnostics}
    assert len(diagnostics) <= limits.ERRORS
    assert seconds < SECONDS
    assert len(shown) < 1000 * len(diagnostics)
    assert shown.isprintable() or set(c for c in shown if not c.isprintable()) == {"\n"}
    assert max(map(len, shown.splitlines())) < 200


def test_the_limits_themselves_are_allowed():
    deep = limits.NESTING - 1  # the bracket of the net is one level
    parse(HEAD + "(" * deep + "x" + ")" * deep + "}")
    parse(HEAD + "a" * limits.NAME_CHARACTERS + "}")
    parse(HEAD + "9" * limits.DIGITS + "}")
    parse(HEAD + "1" + " + 1" * limits.NESTING + "}")
    parse("#" * limits.TEXT_BYTES)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "(" * limits.NESTING + "x" + ")" * limits.NESTING + "}", "E0105"),
        (HEAD + "a" * (limits.NAME_CHARACTERS + 1) + "}", "E0107"),
        (HEAD + "9" * (limits.DIGITS + 1) + "}", "E0108"),
        (HEAD + "1" + " + 1" * (limits.NESTING + 1) + "}", "E0105"),
        ("#" * (limits.TEXT_BYTES + 1), "E0106"),
    ],
)
def test_one_more_than_the_limit_is_not(text, code):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_the_largest_file_is_read_and_formatted_in_seconds():
    lines = limits.WORDS // 8
    text = "net n {\n" + "y = f(x)  # text\n" * (lines - 2) + "}"
    start = time.process_time()
    formatted = format_text(text)
    assert time.process_time() - start < 4 * SECONDS
    assert formatted.count("# text") == lines - 2
    wide = "net n { y = f(" + "a, #\n" * (limits.WORDS // 3 - 5) + "a) }"
    start = time.process_time()
    assert format_text(wide).count("#") == limits.WORDS // 3 - 5
    assert time.process_time() - start < 4 * SECONDS


def mistakes(text: str) -> tuple[Diagnostic, ...]:
    """What is wrong with a text; anything but a SpecError passes through and fails the test."""
    try:
        parse(text)
    except SpecError as error:
        return error.diagnostics
    return ()


words = st.one_of(
    st.sampled_from([*grammar().fixed.values(), "x", "conv", "3x3", "1", "0.5", '"a.cnn"', "\n"]),
    st.text(max_size=3),
)


@settings(max_examples=400)
@given(st.lists(words, max_size=40), st.sampled_from([" ", "", "\n"]))
def test_any_words_are_read_or_refused(parts, separator):
    text = separator.join(parts)
    for diagnostic in mistakes(text):
        assert diagnostic.code.startswith("E01") or diagnostic.code == "E0305"
        assert isinstance(diagnostic.span, Span)
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
        assert render(diagnostic)
        assert to_json(diagnostic)["span"] is not None


VALID = """import "a.cnn"
net n(k = 3) {
  input x: u8[3, H, W] (scale = 255)
  weights U, V
  y = x -> conv(8, 3x3, weights = U) -> relu
  repeat i in k { y = if i == 0 then y else f([1, 2], (y, -y)) + y -> g }
  expect params == 10, shape(y) == [1, 2]
  output y
}
train n { target t: class[3]  loss = mse(y, t)  batch = 8 }
"""


@settings(max_examples=400)
@given(st.data())
def test_a_changed_word_never_breaks_the_front_end(data):
    at = data.draw(st.integers(0, len(VALID) - 1))
    length = data.draw(st.integers(0, 6))
    text = VALID[:at] + data.draw(words) + VALID[at + length :]
    if not mistakes(text):
        assert parse(format_text(text)) == parse(text)
