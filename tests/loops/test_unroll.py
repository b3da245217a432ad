"""Loops written out: which, what they load, and that bits stay."""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.loops.interp import interpret
from cnncc.loops.parse import parse
from cnncc.loops.text import print_nest
from cnncc.loops.unroll import unrolled, with_numbers
from cnncc.loops.walk import Names, names_of
from tests.kernels.primitives import same_bits

NEST = """
size n = *
size c = 1
size s = 5
size stride = 2
size lo = 1
in x: f32[$n, $c, 12]
in w: f32[$c, 3]
out y: f32[$n, $s]

parallel i_n < $n:
  parallel i_s < $s:
    let a = 0.0
    let b = 0.5
    serial t < 3:
      serial i_c < $c:
        let u = x[i_n, i_c, i_s * $stride + t + $lo * -1; 0.0]
        let v = x[i_n, i_c, i_s * $stride + 1 + t + $lo * -1; 0.0]
        let k = w[i_c, t]
        a = fma(u, k, a)
        b = fma(v, k, b)
    y[i_n, i_s] = a * b
"""


def written_out(text: str, most: int = 7) -> str:
    nest = with_numbers(parse(text))
    return print_nest(nest.with_body(unrolled(nest.body, Names(names_of(nest)), most)))


def test_a_window_is_loaded_once() -> None:
    text = written_out(NEST)
    assert "serial" not in text
    assert text.count("x[") == 4  # two windows of three, of which two elements are the same
    assert text.count("w[") == 3
    assert text.count("fma(") == 6
    assert "i_s * 2 + 2" in text  # the last of both
    assert "$stride" not in text.partition("parallel")[2]


def test_bits_are_the_same() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((3, 1, 12), (1, 3)))
    found = []
    for text in (NEST, written_out(NEST)):
        y = np.zeros((3, 5), np.float32)
        given = {"x": x, "w": w, "y": y}
        sizes = {"n": 3, "c": 1, "s": 5, "stride": 2, "lo": 1}
        interpret(parse(text), given, sizes, np.float32, check=True)
        found.append(y)
    assert same_bits(*found)
    assert found[0].any()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("serial t < 3", "serial t < 8"),  # too many turns
        ("serial t < 3", "serial t < $s"),  # as many as an extent
        ("size c = 1", "size c = 2"),  # a loop inside
    ],
)
def test_other_loops_stay(before: str, after: str) -> None:
    assert before in NEST
    assert "serial" in written_out(NEST.replace(before, after).replace("[$c, 3]", "[$c, 8]"))


def test_a_sum_that_begins_with_a_bias_begins_anew_in_every_turn() -> None:
    text = NEST.replace("let a = 0.0", "let a = 0.0\n    let top = 0.0")
    window = """    serial p < 2:
      let acc = w[0, 0]
      acc = fma(x[i_n, 0, i_s * 2 + p], 2.0, acc)
      top = top + acc
    serial t < 3:"""
    text = text.replace("    serial t < 3:", window).replace("= a * b", "= top")
    found = written_out(text)
    assert found.count("let acc") == 2
    assert found.count("= w[0, 0]") == 3  # two sums begin with it, and a tap keeps it
