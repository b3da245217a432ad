"""The formatter: one canonical layout, nothing lost, nothing changed in meaning."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnncc.syntax import format_text, format_tree, parse
from cnncc.syntax.format import WIDTH


def _sibling(name: str) -> ModuleType:
    """A module beside this one: the tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


trees = _sibling("trees")
slow = settings(
    max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@slow
@given(trees.files)
def test_a_tree_is_read_back_from_its_text(tree):
    text = format_tree(tree)
    assert parse(text) == tree
    assert format_text(text) == text


@slow
@given(trees.files, st.data())
def test_comments_survive_wherever_they_stand(tree, data):
    words = re.findall(r'"[^"]*"|->|//|[=!<>]=|[\w.]+(?:(?<=e)[+-]\d+)?|\S', format_tree(tree))
    pieces, count = [], 0
    gaps = data.draw(st.lists(st.integers(0, 11), min_size=len(words), max_size=len(words)))
    for word, gap in zip(words, gaps, strict=True):
        pieces.append(word)
        if gap == 0:
            pieces.append(f" # remark {count}\n")
            count += 1
        elif gap == 1:
            pieces.append(f"\n\n   # remark {count}\n")
            count += 1
        else:
            pieces.append("\n" if gap == 2 else " ")
    text = "".join(pieces)
    once = format_text(text)
    assert parse(once) == tree
    found = re.findall(r"# remark (\d+)$", once, re.MULTILINE)
    assert sorted(map(int, found)) == list(range(count))
    assert format_text(once) == once


def test_the_canonical_layout():
    text = """
      # about the file
      import   "a.cnn"  # one
      import "b.cnn"
      net   n (classes=10,k=3){input x:f32[1,8,8](scale=255) # pixels


        y=x->conv(6,5x5)->stanh  output scores=y->flatten->dense(classes)
        expect params==60_850,receptive_field( y )==16   }   # end
      net empty { }
      block b(x){return -(x+1)*2}
    """
    assert (
        format_text(text)
        == """\
# about the file
import "a.cnn"  # one
import "b.cnn"

net n(classes = 10, k = 3) {
  input x: f32[1, 8, 8] (scale = 255)  # pixels

  y = x -> conv(6, 5x5) -> stanh
  output scores = y -> flatten -> dense(classes)
  expect params == 60_850, receptive_field(y) == 16
}  # end

net empty { }

block b(x) {
  return -(x + 1) * 2
}
"""
    )


def test_long_pipelines_break_before_operators_with_arguments():
    line = (
        "y = x -> conv(width, 1x1, bias = none) -> batchnorm -> relu -> conv(width, 3x3, pad = 1)"
        " -> batchnorm -> relu"
    )
    assert format_text(f"block b(x) {{ {line} return y }}").splitlines()[1:-2] == [
        "  y = x -> conv(width, 1x1, bias = none) -> batchnorm -> relu",
        "        -> conv(width, 3x3, pad = 1) -> batchnorm -> relu",
    ]


def test_long_conditions_sums_and_arguments_break():
    text = """block b(x) {
  skip = if stride == 1 and channels(x) == 4 * width then x
         else x -> conv(4 * width, 1x1, stride = stride, bias = none) -> batchnorm
  h = relu(
    conv(x, 16, 3x3, pad = same, weights = U, bias = none)
    + conv(y, 16, 3x3, pad = same, weights = R, bias = none)
  )
  expect some_quantity(of, several, things) == 1_000_000_000,
         another_quantity(of, several, more, things) == 2_000_000_000
  return h
}
"""
    assert format_text(text) == text
    joined = " ".join(text.split())
    assert format_text(joined) == text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_comments_within_a_statement():
    text = """net n {
  # above
  y = x  # the source
    # its own line
    -> conv(
      16,  # channels
      # the size
      3x3
      # nothing more
    )  # first
    -> relu
  z = a  # left
      + b  # right
      - c
  w = if y  # condition
      then 1  # yes
      # otherwise
      else 2
  # below
}  # end
# last
"""
    assert format_text(text) == text


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("(a + b) + c", "a + b + c"),
        ("a + (b + c)", "a + (b + c)"),
        ("(a * b) + c", "a * b + c"),
        ("a * (b + c)", "a * (b + c)"),
        ("a - (b - c)", "a - (b - c)"),
        ("-(-a)", "--a"),
        ("not (a == b)", "not a == b"),
        ("(not a) == b", "(not a) == b"),
        ("(a -> f) + b", "(a -> f) + b"),
        ("(a + b) -> f", "a + b -> f"),
        ("(a -> f) -> g()", "a -> f -> g"),
        ("(if a then b else c) -> f", "(if a then b else c) -> f"),
        ("if a then b else (c -> f)", "if a then b else c -> f"),
        ("if (if a then b else c) then d else e", "if (if a then b else c) then d else e"),
        ("if a then b else (if c then d else e)", "if a then b else if c then d else e"),
        ("(a and b) or c", "a and b or c"),
        ("a and (b or c)", "a and (b or c)"),
        ("(a == b) == c", "(a == b) == c"),
        ("((a))", "a"),
        ("(a,)", "(a,)"),
        ("(a, b,)", "(a, b)"),
        ("f((a, b), [1, 2,], )", "f((a, b), [1, 2])"),
        ("relu()", "relu()"),
    ],
)
def test_the_fewest_parentheses(written, canonical):
    def text(expression: str) -> str:
        return f"net n {{\n  y = {expression}\n}}\n"

    assert format_text(text(written)) == text(canonical)
