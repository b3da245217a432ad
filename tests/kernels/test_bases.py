"""What addresses of a body share has a name, and every address stays what it was."""

from __future__ import annotations

import pytest

import cnncc
from cnncc.loops.ir import Add, Index, Int, Mul, Size, Var, add, mul
from cnncc.targets.cpu.bases import FEWEST, named

CORNER = (Size("x_at"), mul(Var("n"), Size("x_step0")), mul(Size("lo"), mul(Int(-1), Size("w"))))


def total(*terms: Index) -> Index:
    found: Index = Int(0)
    for term in terms:
        found = add(found, term)
    return found


def value(i: Index, known: dict[str, int]) -> int:
    match i:
        case Int(n):
            return n
        case Var(name) | Size(name):
            return known[name]
        case Add(a, b):
            return value(a, known) + value(b, known)
        case Mul(a, b):
            return value(a, known) * value(b, known)
        case _:
            raise AssertionError(f"{i} is no sum of products")


def window(down: int, along: int) -> list[tuple[str, Index]]:
    """The addresses of a window, from a corner outside of the tensor."""
    return [
        ("x", total(*CORNER, mul(Size("w"), y), mul(Size("c"), x)))
        for y in range(down)
        for x in range(along)
    ]


@pytest.mark.parametrize(("down", "along"), [(1, 4), (3, 3), (6, 6), (2, 5)])
def test_every_address_is_what_it_was(down: int, along: int) -> None:
    known = {"x_at": 7, "n": 3, "x_step0": 1000, "lo": 2, "w": 50, "c": 4}
    places = [*window(down, along), ("y", add(Size("y_at"), Var("n")))]
    known["y_at"] = 90_000
    found = named(places)
    later = dict(known)
    for name, i in found.names:
        assert name not in later
        later[name] = value(i, later)
    assert [value(i, later) for i in found.places] == [value(i, known) for _, i in places]


def test_corner_and_rows_have_names() -> None:
    found = named(window(6, 6))
    corner, *steps = found.names
    assert corner == ("place0", total(*CORNER))
    assert {i for _, i in steps} == {mul(Size(s), k) for s in "wc" for k in range(2, 6)}
    assert found.places[7] == total(Var("place0"), Size("w"), Size("c"))


def test_few_addresses_keep_their_own() -> None:
    places = window(1, FEWEST - 1)
    assert named(places).names == ()
    assert named(places).places == tuple(i for _, i in places)


def test_corner_of_a_transform_stands_in_one_line() -> None:
    text = "net t() { input x: f32[64, 56, 56] output y = x -> conv(64, 3x3, pad = 1) }"
    emitted = cnncc.compile(text + "\n").emitted
    (transform,) = (t for t in emitted.values() if t.startswith('"""x -> v'))
    corners = [line for line in transform.splitlines() if "lo0 *" in line or "* lo0" in line]
    assert len(corners) == 1
    assert transform.count("load") > 16
