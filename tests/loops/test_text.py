"""The text of a nest says all of it: parsing gives the nest back."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from cnncc import loops
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.inline import inline
from cnncc.loops.ir import (
    Add,
    Both,
    Choose,
    Div,
    Guard,
    Int,
    Kind,
    Least,
    Let,
    Lit,
    Mod,
    Mul,
    Nest,
    Prim,
    Ref,
    Size,
    Store,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.text import parse, print_index, print_nest, print_statement, print_value
from cnncc.tensor import DType, TensorType, symbol
from tests.loops.nests import conv, guarded_average, max_pool, pointwise
from tests.loops.random_nests import nests


@given(nests())
@settings(max_examples=150)
def test_round_trip(nest: Nest) -> None:
    text = print_nest(nest)
    again = parse(text)
    assert again == nest
    assert print_nest(again) == text


def test_convolution_reads_well() -> None:
    assert print_nest(conv(3, 6, 8, 8, 3, pad=1)) == (
        """\
size n = *
size c = 3
size h = 8
size w = 8
size o = 6
size cg = 3
size kh = 3
size kw = 3
size p = 8
size q = 8
in x: f32[$n, $c, $h, $w]
in w: f32[$o, $cg, $kh, $kw]
out y: f32[$n, $o, $p, $q]

parallel in_ < $n:
  parallel io < $o:
    parallel ip < $p:
      parallel iq < $q:
        let acc = 0.0
        serial ic < $cg:
          serial ki < $kh:
            serial kj < $kw:
              acc = fma(x[in_, ic, ip + ki - 1, iq + kj - 1; 0.0], w[io, ic, ki, kj], acc)
        y[in_, io, ip, iq] = acc
"""
    )


def test_the_example_in_the_readme_is_what_is_printed() -> None:
    readme = (Path(loops.__file__).parent / "README.md").read_text(encoding="utf-8")
    example = readme.split("```")[1].lstrip()
    fused = inline(max_pool(3, 8, 8), pointwise("relu", 3, 8, 8), "x")
    assert print_nest(fused) == example


def test_symbolic_sizes() -> None:
    h, w = symbol("H"), symbol("W")
    n = NestBuilder()
    shape = (3, (h + 2) // 2, 2 * h * w - (w + 1) // 3 + 7, -1 * h + 40)
    y = n.output("y", TensorType(DType.F64, shape), "n c p q r")
    axes = [(f"i{k}", Size(k)) for k in "ncpqr"]
    nest = n.nest(parallel(axes, y.store(tuple(Var(a) for a, _ in axes), Lit(-0.0))))
    assert parse(print_nest(nest)) == nest


def test_statements_of_every_kind() -> None:
    nest = guarded_average(1, 3, 3)
    assert parse(print_nest(nest)) == nest
    i = Var("i")
    for kind in Kind:
        text = f"out y: f32[2]\n\n{kind.value} i < 2:\n  y[i] = 1.0\n"
        assert print_nest(parse(text)) == text
    guard = Guard(compare("<", i, 3), (Let("a", Lit(1.0)),))
    assert print_statement(guard) == "if i < 3:"


A, B, C = Var("a"), Var("b"), Size("c")


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (Add(A, Add(B, C)), "a + (b + $c)"),
        (Add(Add(A, B), Int(-2)), "a + b - 2"),
        (Mul(Add(A, B), Int(-2)), "(a + b) * -2"),
        (Mul(A, Mul(B, C)), "a * (b * $c)"),
        (Div(Mul(A, B), C), "a * b // $c"),
        (Mul(A, Div(B, C)), "a * (b // $c)"),
        (Mod(Div(A, B), C), "a // b % $c"),
        (Add(Int(-1), Least(A, Add(B, Int(1)))), "-1 + min(a, b + 1)"),
    ],
)
def test_index_precedence(index: Add, text: str) -> None:
    assert print_index(index) == text
    nest = Nest((), {}, (Store("y", (index,), Lit(0.0)),))
    assert parse(f"y[{text}] = 0.0") == nest


X, Y, Z = Ref("x"), Ref("y"), Lit(-1.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (prim("sub", X, prim("sub", Y, Z)), "x - (y - -1.5)"),
        (prim("sub", prim("sub", X, Y), Z), "x - y - -1.5"),
        (prim("div", prim("add", X, Y), prim("mul", Y, Z)), "(x + y) / (y * -1.5)"),
        (prim("neg", prim("add", X, Lit(1e-30))), "neg(x + 1e-30)"),
        (Choose(compare("<", A, 1), X, prim("max", X, Y)), "(x if a < 1 else max(x, y))"),
        (prim("add", Lit(float("inf")), Lit(float("-inf"))), "inf + -inf"),
        (Prim("exp", (prim("mul", X, X),)), "exp(x * x)"),
    ],
)
def test_value_precedence(value: Prim, text: str) -> None:
    assert print_value(value) == text
    nest = Nest((), {}, (Store("y", (), value),))
    assert parse(print_nest(nest)) == nest


def test_nested_conditions() -> None:
    a, b, c = (compare("<", Add(A, B), k) for k in range(3))
    for condition in (Both(Both(a, b), c), Both(a, Both(b, c)), Both(Both(a, b), Both(b, c))):
        nest = Nest((), {}, (Guard(condition, (Let("v", Lit(0.0)),)),))
        assert parse(print_nest(nest)) == nest


def test_an_index_in_parentheses_begins_a_condition() -> None:
    nest = parse("if (a + b) * 2 < 3 and (a < 1 and b < 1):\n  let v = 0.0\n")
    assert print_nest(nest).splitlines()[1] == "if (a + b) * 2 < 3 and (a < 1 and b < 1):"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y[i] = 1.0 +", "line 1: needs a name before 'its end'"),
        ("let a = sin(1.0)", "unknown function sin"),
        ("let a = fma(1.0, 2.0)", "gives 2 arguments to fma, which takes 3"),
        ("serial i < 3", "needs ':'"),
        ("  let a = 1.0", "indented too far"),
        ("let a = 1.0 1.0", "should end before '1.0'"),
        ("in x: f16[3]", "'f16' is no element type"),
        ("let a = 1.0\nlet b = @", "line 2: has an unknown character '@'"),
        ("if a = 3:", "in the place of a comparison"),
        ("let a = x[0; q]", "in the place of a number"),
        ("size n = )", "needs a name"),
    ],
)
def test_mistakes_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="line") as caught:
        parse(text)
    assert message in str(caught.value)
