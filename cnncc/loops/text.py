"""The text form of nests, which `--emit=loops` prints and `parse` reads back.

    size n = *                                   run-time sizes with their values
    in x: f32[$n, $c]                            buffers in argument order
    out y: f32[$n]

    parallel i < $n:                             loops, written with their kind
      let acc = 0.0                              a new local
      serial k < $c:
        acc = fma(x[i, k], x[i, k], acc)         a local changes
      if i < 3 and $c != 4:
        y[i] = (sqrt(acc) if i < 1 else acc)     stores; += accumulates

Sizes have a `$`, so that a loop variable and a size of one name can be told apart. `x[i - 1, k;
0.0]` is a load that gives 0.0 outside. Values are floats (`float(i)` converts an index), and their
operators + - * / are the primitives add, sub, mul, div; indices are integers with + - * // % and
min.
"""

from __future__ import annotations

from typing import assert_never

from cnncc.loops.ir import (
    Accumulate,
    Add,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Both,
    Choose,
    Condition,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Least,
    Let,
    Lit,
    Load,
    Mod,
    Mul,
    Nest,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Test,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.parse import parse

__all__ = ["parse", "print_access", "print_index", "print_nest", "print_statement", "print_value"]

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}


def print_nest(nest: Nest) -> str:
    """The text of a nest; `parse` gives the nest back."""
    lines = [f"size {name} = {value}" for name, value in nest.sizes.items()]
    for b in nest.buffers:
        extents = ", ".join(print_index(e) for e in b.extents)
        lines.append(f"{b.role} {b.name}: {b.dtype.value}[{extents}]")
    return "\n".join([*lines, "", *_body(nest.body, "")]) + "\n"


def _body(body: Body, indent: str) -> list[str]:
    lines = []
    for s in body:
        lines.append(indent + print_statement(s))
        if isinstance(s, (For, Guard)):
            lines += _body(s.body, indent + "  ")
    return lines


def print_statement(s: Statement) -> str:
    """One line: a loop or a guard without its body."""
    match s:
        case For(var, extent, kind, _):
            return f"{kind.value} {var} < {print_index(extent)}:"
        case Guard(condition, _):
            return f"if {print_condition(condition)}:"
        case Let(name, value):
            return f"let {name} = {print_value(value)}"
        case Assign(name, value):
            return f"{name} = {print_value(value)}"
        case Store(buffer, index, value):
            return f"{print_access(buffer, index)} = {print_value(value)}"
        case Accumulate(buffer, index, value):
            return f"{print_access(buffer, index)} += {print_value(value)}"
        case Barrier():
            return "barrier"
        case _:
            assert_never(s)


def print_access(buffer: str, index: tuple[Index, ...], outside: float | None = None) -> str:
    inside = ", ".join(print_index(i) for i in index)
    return f"{buffer}[{inside}]" if outside is None else f"{buffer}[{inside}; {outside!r}]"


def print_index(i: Index, around: int = 0) -> str:
    """An index; `around` is the precedence of the operator that it is an operand of."""
    match i:
        case Int(n):
            return str(n)
        case Var(name):
            return name
        case Size(name):
            return f"${name}"
        case Add(a, Int(n)) if n < 0:
            return _infix(print_index(a, 1), "-", str(-n), 1, around)
        case Add(a, b):
            return _infix(print_index(a, 1), "+", print_index(b, 2), 1, around)
        case Mul(a, b):
            return _infix(print_index(a, 2), "*", print_index(b, 3), 2, around)
        case Div(a, b):
            return _infix(print_index(a, 2), "//", print_index(b, 3), 2, around)
        case Mod(a, b):
            return _infix(print_index(a, 2), "%", print_index(b, 3), 2, around)
        case Least(a, b):
            return f"min({print_index(a)}, {print_index(b)})"
        case Fetch(buffer, index):
            return print_access(buffer, index)
        case _:
            assert_never(i)


def _infix(a: str, operator: str, b: str, precedence: int, around: int) -> str:
    text = f"{a} {operator} {b}"
    return f"({text})" if precedence < around else text


def print_condition(c: Condition) -> str:
    match c:
        case Test(op, a, b):
            return f"{print_index(a)} {op} {print_index(b)}"
        case Both(a, Both() as b):
            return f"{print_condition(a)} and ({print_condition(b)})"
        case Both(a, b):
            return f"{print_condition(a)} and {print_condition(b)}"
        case _:
            assert_never(c)


def print_value(v: Value, around: int = 0) -> str:
    """A value; `around` is the precedence of the operator that it is an operand of."""
    match v:
        case Lit(x):
            return repr(float(x))
        case Ref(name):
            return name
        case Load(buffer, index, outside):
            return print_access(buffer, index, outside)
        case AsFloat(i):
            return f"float({print_index(i)})"
        case Uniform(key, counter):
            return f"uniform({print_index(key)}, {print_index(counter)})"
        case Prim(fn, (a, b)) if fn in INFIX:
            operator, own = INFIX[fn]
            return _infix(print_value(a, own), operator, print_value(b, own + 1), own, around)
        case Prim(fn, args):
            return f"{fn}({', '.join(print_value(a) for a in args)})"
        case Choose(condition, a, b):
            return f"({print_value(a)} if {print_condition(condition)} else {print_value(b)})"
        case _:
            assert_never(v)
