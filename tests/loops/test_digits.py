"""Loops over digits have the bits of the loop over numbers, and take nothing apart."""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.loops.digits import over_digits
from cnncc.loops.interp import interpret
from cnncc.loops.ir import Div, For, Kind, Mod, Nest
from cnncc.loops.parse import parse
from cnncc.loops.verify import verify
from cnncc.loops.walk import indices, statements

TEXT = """\
size n = *
size f = {f}
size a = {a}
size b = {b}
size c = {c}
in x: f32[$n, $a, $b, $c]
in w: f32[$f]
out y: f32[$n]

parallel i_n < $n:
  let acc = 0.5
  serial i_f < {extent}:
    acc = fma(x[i_n, {index}], w[i_f], acc)
  y[i_n] = acc
"""
DIGITS = "i_f // ($c * $b), i_f // $c % $b, i_f % $c"
NUMBERS = {
    "other order": "i_f // ($c * $b), i_f % $b, i_f // $b % $c",
    "another radix": "i_f // ($c * $b), i_f // $c % $b, i_f % $b",
    "not the channel": "0, i_f // $c % $b, i_f % $c",
}


def nest(extent: str = "$f", index: str = DIGITS, a: int = 4, b: int = 3, c: int = 5) -> Nest:
    return parse(TEXT.format(f=a * b * c, a=a, b=b, c=c, extent=extent, index=index))


def run(nest: Nest) -> np.ndarray:
    sizes = {name: 3 if name == "n" else int(e) for name, e in nest.sizes.items()}  # type: ignore[call-overload]
    rng = np.random.default_rng(0)
    shape = tuple(sizes[name] for name in ("n", "a", "b", "c"))
    x = rng.standard_normal(shape).astype(np.float32)
    y = np.zeros(3, np.float32)
    w = rng.standard_normal(sizes["f"]).astype(np.float32)
    interpret(nest, {"x": x, "w": w, "y": y}, sizes, np.float32)
    return y


def loops(nest: Nest) -> list[For]:
    return [s for s in statements(nest.body) if isinstance(s, For) and s.kind is Kind.SERIAL]


@pytest.mark.parametrize(("a", "b", "c"), [(4, 3, 5), (1, 7, 2), (6, 2, 2)])
def test_every_digit_has_a_loop(a: int, b: int, c: int) -> None:
    before = nest(a=a, b=b, c=c)
    after = over_digits(before)
    verify(after)
    assert len(loops(after)) == 3
    assert not [i for i in indices(after.body) if isinstance(i, Div | Mod)]
    assert run(after).tobytes() == run(before).tobytes()


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_not_a_digit_is_left(name: str) -> None:
    before = nest(index=NUMBERS[name])
    assert over_digits(before) is before


def test_a_part_of_the_numbers_is_left() -> None:
    before = nest(extent="30")
    assert over_digits(before) is before
