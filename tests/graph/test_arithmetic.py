"""Compile-time arithmetic: exact, bounded, and honest about extents that are not known yet."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnncc.graph.arithmetic import Impossible, apply, equal, negative
from cnncc.graph.layer import Size, Word
from cnncc.tensor import evaluate, symbol

INTEGERS = st.integers(-(10**6), 10**6)
H, W = symbol("H"), symbol("W")


@given(INTEGERS, INTEGERS)
def test_integers_are_exact(a: int, b: int) -> None:
    assert apply("+", a, b) == a + b
    assert apply("-", a, b) == a - b
    assert apply("*", a, b) == a * b
    assert apply("<", a, b) is (a < b)
    assume(b != 0)
    assert apply("//", a, b) == a // b
    assert apply("%", a, b) == a % b
    quotient = apply("/", a, b)
    assert isinstance(quotient, int) == (Fraction(a, b).denominator == 1)
    assert quotient == a / b


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 6))
def test_formulas_of_extents_have_the_value_of_their_parts(h: int, w: int, k: int) -> None:
    values = {"H": h, "W": w}

    def both(sign: str, left: object, right: object) -> tuple[object, object]:
        def known(v: object) -> object:
            return v if isinstance(v, int) else evaluate(v, values)  # type: ignore[arg-type]

        a = apply(sign, left, right)  # type: ignore[arg-type]
        b = apply(sign, known(left), known(right))  # type: ignore[arg-type]
        return known(a), b

    for sign in ("+", "-", "*"):
        assert len(set(both(sign, H + k, W))) == 1
    for sign in ("//", "%"):
        assert len(set(both(sign, H + k, k))) == 1


def test_extents_cancel() -> None:
    assert apply("-", H + 3, H) == 3
    assert apply("==", H + 1, H + 1) is True
    assert apply("!=", H + 1, H) is True
    assert apply("<", H, H + 1) is True
    assert negative(negative(H)) == H


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
def test_what_depends_on_the_data_is_not_guessed(sign: str) -> None:
    with pytest.raises(Impossible) as caught:
        apply(sign, H, 3)  # type: ignore[arg-type]
    assert caught.value.code == "E0315"
    with pytest.raises(Impossible):
        apply(sign, H, W)  # type: ignore[arg-type]
    with pytest.raises(Impossible):
        apply(sign, H, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sign", "left", "right", "code"),
    [
        ("/", 1, 0, "E0309"),
        ("//", 1, 0, "E0309"),
        ("%", 1.0, 0.0, "E0309"),
        ("*", 1 << 40, 1 << 40, "E0125"),
        ("*", 1e200, 1e200, "E0125"),
        ("+", (1 << 63) - 1, 1, "E0125"),
        ("/", 10**18, 1e-300, "E0125"),
        ("+", True, 1, "E0308"),
        ("+", [1], [2], "E0308"),
        ("<", Word("same"), 1, "E0308"),
        ("*", H, 0.5, "E0308"),
        ("/", H, 2, "E0315"),
        ("//", H, 0, "E0315"),
        ("//", H, -2, "E0315"),
        ("//", 7, H, "E0315"),
    ],
)
def test_what_cannot_be(sign: str, left: object, right: object, code: str) -> None:
    with pytest.raises(Impossible) as caught:
        apply(sign, left, right)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_equality_compares_structure() -> None:
    assert equal([1, (2, H)], [1, (2, H)])
    assert not equal([1, 2], (1, 2))
    assert not equal([1, 2], [1, 2, 3])
    assert equal(Word("same"), Word("same"))
    assert not equal(Word("const", (1,)), Word("const", (2,)))
    assert equal(Size((3, 3)), Size((3, 3)))
    assert equal(1, 1.0)
    assert not equal(True, 1)
    assert not equal(3, Word("same"))
