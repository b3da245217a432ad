"""Unroll and jam: which loops, and that bits stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import For
from cnncc.loops.jam import jammed
from cnncc.loops.parse import parse
from cnncc.loops.text import print_nest
from cnncc.loops.walk import Names, names_of
from tests.kernels.primitives import same_bits

NEST = """
size n = *
size c = 6
in x: f32[$n, $c, 8]
in w: f32[$c, 3]
out y: f32[$n, 4]

parallel i_n < $n:
  parallel i_s < 4:
    let top = 0.0
    serial t < 2:
      let acc = 1.0
      serial u < 3:
        serial i_c < $c:
          acc = fma(x[i_n, i_c, i_s * 2 + t + u; 0.0], w[i_c, u], acc)
      let z = tanh(acc)
      top = top + z
    y[i_n, i_s] = top
"""
JAMMED = """
    let top = 0.0
    let acc = 1.0
    let acc_1 = 1.0
    serial u < 3:
      serial i_c < $c:
        acc = fma(x[i_n, i_c, i_s * 2 + u; 0.0], w[i_c, u], acc)
        acc_1 = fma(x[i_n, i_c, i_s * 2 + 1 + u; 0.0], w[i_c, u], acc_1)
    let z = tanh(acc)
    top = top + z
    let z_1 = tanh(acc_1)
    top = top + z_1
    y[i_n, i_s] = top
"""


def jam(text: str, most: int = 4) -> str:
    """The nest whose body below its parallel loops is jammed, as text."""
    nest = parse(text)
    (samples,) = nest.body
    assert isinstance(samples, For)
    (positions,) = samples.body
    assert isinstance(positions, For)
    body = jammed(positions.body, Names(names_of(nest)), most)
    return print_nest(nest.with_body((replace(samples, body=(replace(positions, body=body),)),)))


def test_the_sums_of_a_windows_row_share_a_loop() -> None:
    assert JAMMED.strip("\n") in jam(NEST)


def test_what_the_sums_load_from_one_place_is_loaded_once() -> None:
    fma = "acc = fma(x[i_n, i_c, i_s * 2 + t + u; 0.0], w[i_c, u], acc)"
    assert fma in NEST
    named = NEST.replace(fma, "let k = w[i_c, u]\n          " + fma.replace("w[i_c, u]", "k"))
    text = jam(named)
    assert text.count("let k = w[i_c, u]") == 1
    assert text.count("w[i_c, u]") == 1
    assert text.count(", k, acc") == 2


def test_sums_that_begin_with_the_same_number_stay_apart() -> None:
    """The innermost window has too many turns, so the one around it is jammed, biases and all."""
    net = """
net n {
  input x: f32[3, 5, 96]
  output y = x -> conv(16, 3x3, pad = same) -> avgpool(1x8, fit = floor) -> maxpool(1x2)
}
"""
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 96)).astype(np.float32)
    assert same_bits(cnncc.compile(net)(x), cnncc.compile(net, target="interp")(x))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("serial t < 2", "serial t < 5"),  # too many
        ("serial u < 3", "serial u < t + 1"),  # a sum of another length
        ("let acc = 1.0", "let acc = top"),  # that begins with what came before
        ("let acc = 1.0", "top = 5.0\n      let acc = 1.0"),  # or changes it
        ("w[i_c, u], acc)", "w[i_c, u], top)"),  # or takes it
        ("let z = tanh(acc)", "y[i_n, i_s] = acc\n      let z = acc"),  # in memory
    ],
)
def test_other_loops_stay(before: str, after: str) -> None:
    assert before in NEST
    text = NEST.replace(before, after)
    assert jam(text) == print_nest(parse(text))


def test_a_pool_above_a_narrow_convolution_has_the_bits_of_the_definition() -> None:
    net = """
net n {
  input x: f32[3, 12, 14]
  a = x -> conv(16, 3x3) -> tanh -> avgpool(2x2)
  b = a -> conv(16, 3x3) -> relu -> maxpool(3x4)
  output y = b
}
"""
    x = np.random.default_rng(0).standard_normal((3, 3, 12, 14)).astype(np.float32)
    expected = cnncc.compile(net, target="interp")(x)
    for fuse in (True, False):
        assert same_bits(cnncc.compile(net, fuse=fuse)(x), expected)
