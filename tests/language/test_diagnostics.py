"""What is said about mistakes: codes, places and words, and how it is drawn.

Whole files with several mistakes, and the text of their diagnostics to the letter, are in
tests/errors; here are single mistakes, and the renderer.
"""

from __future__ import annotations

import json

import pytest

from cnncc.errors import (
    NOWHERE,
    CompilerBug,
    Diagnostic,
    Diagnostics,
    Note,
    Source,
    Span,
    SpecError,
    did_you_mean,
    render,
    to_json,
)
from cnncc.syntax import parse


def said(text: str) -> list[str]:
    """`code line:column message` of every mistake."""
    with pytest.raises(SpecError) as caught:
        parse(text)
    return [
        f"{d.code} {d.span.line}:{d.span.column} {d.message}"
        for d in caught.value.diagnostics
        if d.span is not None
    ]


STATEMENTS = {
    "y = x conv(6)": "E0116 2:6 an operator is missing between `x` and `conv`",
    "y = x -> conv(6 5x5)": "E0116 2:16 a comma is missing between `6` and `5x5`",
    "y = x -> conv(6, pad 2)": "E0116 2:21 a comma is missing between `pad` and `2`",
    "y = x -> conv(6, pad: 2)": "E0115 2:21 the value of `pad` follows after `=`, not `:`",
    "y: relu(x)": "E0115 2:2 the value of `y` follows after `=`, not `:`",
    "y == relu(x)": "E0115 2:3 `==` compares two values; a name is given to a value with `=`",
    "expect n = 3": "E0115 2:10 `=` gives a name to a value; two values are compared with `==`",
    "input x = f32[1]": "E0115 2:9 the type of `x` follows after `:`, not `=`",
    "input x: f32(1)": "E0104 2:13 the extents of a type stand in square brackets",
    "input x f32[1]": "E0104 2:9 the type of `x` is missing",
    "imput x: f32[1]": "E0118 2:1 unknown statement `imput`",
    "Output x": "E0118 2:1 unknown statement `Output`",
    "weigths U, V": "E0118 2:1 unknown statement `weigths`",
    "nofuze(a, b)": "E0118 2:1 unknown statement `nofuze`",
    "var y = x": "E0104 2:1 a value gets its name without `var`",
    "y = x -> conv(6, 3 x 3)": "E0114 2:18 a size is one word, without blanks",
    "y = x -> conv(6, 3x0)": "E0114 2:18 every extent of a size is at least 1, "
    "but this one is `3x0`",
    "y = relu(x": "E0109 2:12 `(` is never closed: expected `)`, but got `}`",
    "y = f([1, 2)": "E0109 2:12 `[` is closed by `]`, but got `)`",
    "y = relu(x))": "E0109 2:12 `)` closes nothing: no bracket of its kind is open here",
    "y = ": "E0104 2:6 expected an expression, but got `}`",
    "y = x +\nz = y": "E0104 2:8 expected an expression after `+`, but a new statement begins",
    "y = x ->\nz = y": "E0104 2:9 expected the name of an operator after `->`, "
    "but a new statement begins",
    "y = x -> 3": "E0104 2:10 after `->` comes the name of an operator, but got `3`",
    "y = x -> f + x": "E0104 2:12 `->` binds loosest, so `+` cannot follow a pipeline",
    "y = -> relu": "E0104 2:5 a pipeline begins with a value: nothing stands before this `->`",
    "y = 1 < x < 3": "E0117 2:11 comparisons do not chain",
    "y = x ** 2": "E0104 2:7 there is no power operator",
    "y = if a then b": "E0104 2:16 an `if` needs an `else`: it is a value either way",
    "if a then b else c": "E0104 2:1 `if` chooses between two values; it is not a statement",
    "relu(x)": "E0104 2:1 a value without a name does nothing",
    "a, b = f(x)": "E0104 2:2 a statement gives one name to one value",
    "output = x": "E0111 2:1 `output` is a reserved word and cannot name a value",
    "y = x -> target": "E0111 2:10 `target` is a reserved word and cannot be used as a name",
    'y = f("same")': "E0119 2:7 text in quotes stands only after `import`",
    "y = 'same'": "E0101 2:5 `'` is not part of the language",
    "y = x  // some text": "E0104 2:8 a comment begins with `#`; `//` is the division of whole "
    "numbers",
    "// text": "E0104 2:1 a comment begins with `#`",
    "repeat i = 3 { y = i }": "E0104 2:10 the counter of a repeat is followed by `in`",
    "repeat 3 y = x": "E0104 2:10 expected `{` or an operator, but got `y`",
    "batch 64": "E0104 2:1 expected `=` between `batch` and `64`",
    "y = f(a,, b)": "E0104 2:9 expected `)` or an expression, but got `,`",
    "y = x;": "E0101 2:6 unexpected character `;`",
    "y = x => f": "E0101 2:7 `=>` is not part of the language",
    "y = a && b": "E0101 2:7 `&&` is not part of the language",
    "y = 1.5.2": "E0108 2:5 `1.5.2` is not a number",
    "y = 1_": "E0108 2:5 `1_` is not a number",
    "y = 12ab": "E0108 2:5 `12ab` is not a number",
    "y = x\u200b": "E0102 2:6 a file has no control or invisible characters, "
    "but here is U+200B (zero width space)",
    "y = na\u00efve": "E0103 2:5 a name has only the letters a to z and A to Z, "
    "digits and underscores",
    "return x": "E0112 2:1 `return` has no meaning in a net",
    "target t: f32[1]": "E0112 2:1 `target` has no meaning in a net",
    "y = f(a = 1, 2)": "E0113 2:14 arguments by position come before arguments by name",
    "y = f(a = 1, a = 2)": "E0305 2:14 the argument `a` is given twice",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_one_mistake_gets_one_message(statement):
    closed = "\n}" if "//" in statement else " }"
    assert said(f"net n {{\n{statement}{closed}") == [STATEMENTS[statement]]


FILES = {
    "nett n { }": "E0118 1:1 unknown word `nett` at the top of a file",
    "hello": "E0104 1:1 expected `net`, `block`, `train`, `table` or `import`, but got `hello`",
    "}": "E0109 1:1 `}` closes nothing: no bracket of its kind is open here",
    "net n {": "E0109 1:8 `{` is never closed: expected `}`, but the file ends",
    "net n { y = x\nnet m { }": "E0109 2:1 `{` is never closed: expected `}`, "
    "but got the reserved word `net`",
    "net { }": "E0104 1:5 expected a name, but got `{`",
    "net n": "E0104 1:6 expected `(` or `{`, but the file ends",
    "net n(3) { }": "E0104 1:7 expected a name or `)`, but got `3`",
    "net repeat { }": "E0111 1:5 `repeat` is a reserved word and cannot be used as a name",
    "block b { return 1 }": "E0104 1:9 a block has parameters, the first for the value that is "
    "piped in",
    "block b(x) { y = x }": "E0112 1:7 the block `b` returns nothing",
    "block b(x = 1, y) { return y }": "E0113 1:16 parameters with a default come last, "
    "but `y` has none",
    "block b(x, x) { return x }": "E0305 1:12 the parameter `x` is given twice",
    "import tables": "E0119 1:8 the file to import stands in double quotes",
    'import "tables': "E0110 1:8 this string is not closed on its line",
    "train n { input x: f32[1] }": "E0112 1:11 `input` has no meaning in a train block",
}


@pytest.mark.parametrize("text", FILES)
def test_one_mistake_in_a_file_gets_one_message(text):
    assert said(text) == [FILES[text]]


def test_mistakes_of_different_statements_are_all_reported():
    text = (
        "net n {\n a = f(1 2)\n b = x y\n c = (1 +\n d = [3\n e = x -> 7\n output e\n}\nnett m { }"
    )
    assert [line.split()[:2] for line in said(text)] == [
        ["E0116", "2:9"],
        ["E0116", "3:7"],
        ["E0104", "4:10"],
        ["E0109", "5:8"],
        ["E0104", "6:11"],
        ["E0118", "9:1"],
    ]


# --- drawing -------------------------------------------------------------------------------------

SOURCE = Source("dir/net.cnn", "net n {\n\ty = conv(x, 30)\n  z = y\n}\n")


def at(word: str) -> Span:
    start = SOURCE.text.index(word)
    return Span(SOURCE, start, start + len(word))


def test_render_as_rustc_does():
    diagnostic = Diagnostic(
        "E0204",
        "input channels must be divisible by groups, but got 30 and 4",
        at("30"),
        "not divisible",
        (Note("x: 8x30x28x28"), Note("`y` is used here", at("z = y"))),
        ("groups = 2", "groups = 3\nor 5"),
    )
    assert (
        render(diagnostic)
        == """\
error[E0204]: input channels must be divisible by groups, but got 30 and 4
 --> dir/net.cnn:2:14
  |
2 |     y = conv(x, 30)
  |                 ^^ not divisible
  = note: x: 8x30x28x28
  = help: groups = 2
  = help: groups = 3
          or 5
note: `y` is used here
 --> dir/net.cnn:3:3
  |
3 |   z = y
  |   ^^^^^"""
    )
    colored = render(diagnostic, color=True)
    assert "\x1b[1;31merror[E0204]\x1b[0m" in colored
    assert "\x1b" not in render(diagnostic)


def test_render_without_a_place():
    for span in (None, NOWHERE):
        assert render(Diagnostic("E0701", "no file", span, helps=("make one",))) == (
            "error[E0701]: no file\n  = help: make one"
        )


def test_render_several_lines_and_the_end_of_a_text():
    body = Span(SOURCE, SOURCE.text.index("{"), len(SOURCE.text))
    assert render(Diagnostic("E0104", "m", body)).splitlines()[3:] == [
        "1 | net n {",
        "  |       ^",
    ]
    end = Span(SOURCE, len(SOURCE.text), len(SOURCE.text))
    assert render(Diagnostic("E0104", "m", end)).splitlines()[1:] == [
        " --> dir/net.cnn:5:1", "  |", "5 |", "  | ^",
    ]  # fmt: skip


@pytest.mark.parametrize("column", [0, 40, 69, 71, 100, 5000, 9_990])
def test_long_lines_are_cropped_around_the_caret(column):
    source = Source("f", "a" * column + "BAD" + "z" * (10_000 - column))
    diagnostic = Diagnostic("E0104", "m", Span(source, column, column + 3))
    *_, line, carets = render(diagnostic).splitlines()
    assert len(line) <= 110
    assert line[carets.index("^") : carets.rindex("^") + 1] == "BAD"


def test_a_long_span_is_cropped():
    source = Source("f", "x" * 100_000)
    *_, line, carets = render(Diagnostic("E0104", "m", Span(source, 0, 100_000))).splitlines()
    assert len(line) <= 110
    assert len(carets) <= 110


def test_nothing_hidden_is_printed():
    source = Source("a\x1b[2Jb", "x \u202e\x07 \ud800 \u7573 y\x9b")
    diagnostic = Diagnostic(
        "E0104", "bad \x1b]0;title\x07", Span(source, 9, 10), "l\u2066", (Note("n\r"),), ("h\0",)
    )
    shown = render(diagnostic)
    assert "<U+001B>" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    *_, line, carets, _, _ = shown.splitlines()
    # The wide character before the caret takes two columns of a terminal.
    assert carets.index("^") == line.index("y") + 1
    assert all(c.isprintable() for c in json.dumps(to_json(diagnostic)))


def test_to_json():
    note = Note("opened here", at("conv"))
    diagnostic = Diagnostic("E0204", "message", at("30"), "label", (Note("n"), note), ("h",))
    place = {
        "file": "dir/net.cnn", "start": 21, "end": 23,
        "line": 2, "column": 14, "end_line": 2, "end_column": 16,
    }  # fmt: skip
    result = to_json(diagnostic)
    assert result["span"] == place
    assert (result["code"], result["severity"], result["message"]) == ("E0204", "error", "message")
    assert result["notes"][0] == {"text": "n", "span": None}
    assert result["notes"][1]["span"]["column"] == 6
    assert (result["label"], result["helps"]) == ("label", ["h"])
    assert json.loads(json.dumps(result)) == result


def test_collecting_sorts_and_drops_repetitions():
    found = Diagnostics()
    found.raise_if_any()
    found.error("E0301", "later", at("z = y"))
    found.error("E0301", "nowhere")
    found.extend([Diagnostic("E0302", "earlier", at("conv"))] * 2)
    assert len(found) == 3
    with pytest.raises(SpecError) as caught:
        found.raise_if_any()
    assert [d.message for d in caught.value.diagnostics] == ["earlier", "later", "nowhere"]
    assert str(caught.value).count("error[") == 3


def test_two_kinds_of_error():
    bug = CompilerBug("fuse", "c1", "every edge has a reason")
    assert (bug.stage, bug.node, bug.invariant) == ("fuse", "c1", "every edge has a reason")
    assert "fuse" in str(bug)
    assert not isinstance(bug, SpecError)
    with pytest.raises(ValueError, match="at least one"):
        SpecError(())
    with pytest.raises(ValueError, match="E0101"):
        Diagnostic("X1", "message")


def test_did_you_mean():
    words = ["relu", "conv", "batchnorm", "leaky_relu", "max_pool"]
    assert did_you_mean("rellu", words)[0] == "relu"
    assert did_you_mean("BatchNorm", words)[0] == "batchnorm"
    assert did_you_mean("maxpool", words)[0] == "max_pool"
    assert did_you_mean("banana", words) == []
    assert did_you_mean("relu", ["relu"]) == []
