"""Affine indices: what they are made of, and the loop variables of an element."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.loops.affine import extent_of, linear, unpack
from cnncc.loops.ir import Add, Fetch, Index, Int, Least, Mul, Size, Var
from cnncc.tensor import symbol
from tests.loops.sequential import Sequential

SIZES = {"a": 2, "b": 3, "c": 4, "h": symbol("H")}
A, B, C, H = Size("a"), Size("b"), Size("c"), Size("h")
I, J, K = Var("i"), Var("j"), Var("k")  # noqa: E741 - loop variables are called so


@pytest.mark.parametrize(
    ("index", "loops", "axes"),
    [
        ((I, J), {"j": B, "i": A}, (A, B)),
        ((J, I), {"i": A, "j": B}, (B, A)),
        ((I * B + J,), {"i": A, "j": B}, (Mul(A, B),)),
        ((J + Mul(B, I),), {"i": A, "j": B}, (Int(6),)),
        ((Add(Mul(Add(Mul(I, B), J), C), K),), {"i": A, "j": B, "k": C}, (Int(24),)),
        ((I * 12 + J * 4 + K,), {"i": A, "j": B, "k": C}, (Int(24),)),
        ((K, I * B + J), {"i": A, "j": B, "k": C}, (C, Int(6))),
        ((I, Int(0), J), {"i": A, "j": B}, (A, Int(1), B)),
        ((I, J), {"i": A, "j": B, "k": Int(1)}, (A, B)),
        ((I * 1 + K,), {"i": Int(1), "k": C}, (C,)),
        ((H * I + J,), {"i": A, "j": H}, (H * 2,)),
    ],
)
def test_unpack_finds_the_variables(
    index: tuple[Index, ...], loops: dict[str, Index], axes: tuple[Index, ...]
) -> None:
    element = tuple(Var(f"e{k}") for k in range(len(index)))
    found = unpack(index, loops, axes, SIZES, element)
    assert found is not None
    assert set(found) == set(loops)
    sizes = {**SIZES, "h": 5}
    run = Sequential({}, {k: int(str(v)) for k, v in sizes.items()}, float)  # type: ignore[arg-type]
    extents = [range(run.index(e)) for e in loops.values()]
    for values in product(*extents):
        run.variables = dict(zip(loops, values, strict=True))
        at = [run.index(i) for i in index]
        variables = run.variables
        run.variables = {f"e{k}": i for k, i in enumerate(at)}
        assert {var: run.index(i) for var, i in found.items()} == variables


@pytest.mark.parametrize(
    ("index", "loops", "axes"),
    [
        ((I,), {"i": A}, (B,)),  # too few
        ((I, I), {"i": A}, (A, A)),  # the diagonal
        ((I,), {"i": A, "j": B}, (A,)),  # j is missing
        ((I + J,), {"i": A, "j": B}, (Int(4),)),  # collisions
        ((I * 2 + J,), {"i": A, "j": B}, (Int(6),)),  # overlaps
        ((I * 4 + J,), {"i": A, "j": B}, (Int(7),)),  # gaps
        ((I + 1,), {"i": A}, (B,)),
        ((I * (-1) + 1,), {"i": A}, (A,)),
        ((I // 2,), {"i": C}, (A,)),
        ((Fetch("t", (I,)),), {"i": A}, (A,)),
        ((I,), {"i": Least(A, K)}, (A,)),
        ((I,), {"i": H}, (Size("a"),)),
    ],
)
def test_unpack_refuses(
    index: tuple[Index, ...], loops: dict[str, Index], axes: tuple[Index, ...]
) -> None:
    assert unpack(index, loops, axes, SIZES, tuple(Int(0) for _ in index)) is None


@given(st.integers(0, 3), st.integers(0, 3))
def test_linear_has_the_value_of_the_index(i: int, j: int) -> None:
    """On products, sums and quotients; what is not affine counts as one atom."""
    run = Sequential({}, {"a": 2, "b": 3, "c": 4}, float)  # type: ignore[arg-type]
    run.variables = {"i": i, "j": j}
    for index in (
        I * 3 + J * B + (-4), (I + J) * C + I * (-4), (I + 2) // 2 * C + J, Least(I, J) * 2 + B % 2,
        I * J + I * J, (I + 1) * (J + B),
    ):  # fmt: skip
        sum_ = linear(index, {"a": 2, "b": 3, "c": 4})
        total = sum_.constant
        for atom, c in sum_.terms.items():
            total = total + c * run.index(atom)
        assert total == run.index(index)


def test_extents() -> None:
    assert extent_of((H + 3) // 2 * 2 + C, SIZES) == (symbol("H") + 3) // 2 * 2 + 4
    assert extent_of(H % 2, SIZES) == symbol("H") - (symbol("H") // 2) * 2
    assert extent_of(Least(B, C), SIZES) == 3
    for unknown in (I, Least(H, B), C // H, Fetch("t", (Int(0),))):
        assert extent_of(unknown, SIZES) is None
