"""Reading the text form of nests, line by line; loops/text.py describes and prints it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from cnncc.loops.ir import (
    ELEMENTARY,
    PRIMITIVES,
    Accumulate,
    Add,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Both,
    Buffer,
    Choose,
    Condition,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Kind,
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
from cnncc.tensor import DType, Extent, symbol

__all__ = ["parse"]

_TOKEN = re.compile(
    r"\s*(\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|\$?[A-Za-z_]\w*|//|<=|==|!=|\+=|[-+*/%<(),;:\[\]=])"
)
_KINDS = {kind.value for kind in Kind}
_OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
_Part = TypeVar("_Part")


class _Wrong(Exception):
    """The line does not continue as the grammar says."""


def parse(text: str) -> Nest:
    """The nest of a text; ValueError, with the line, where it is not one."""
    sizes: dict[str, Extent] = {}
    buffers: list[Buffer] = []
    open_bodies: list[list[Statement]] = [[]]
    headers: list[Callable[[Body], Statement]] = []

    def close(depth: int) -> None:
        while len(headers) > depth:
            inner = open_bodies.pop()
            open_bodies[-1].append(headers.pop()(tuple(inner)))

    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        try:
            line = _Line(row)
            depth = (len(row) - len(row.lstrip())) // 2
            if depth > len(headers):
                raise _Wrong("is indented too far")
            close(depth)
            match line.peek():
                case "size":
                    name, value = line.size()
                    sizes[name] = value
                case "in" | "out" if line.peek(2) == ":":
                    buffers.append(line.buffer())
                case "if" | "parallel" | "serial" | "vector" | "block" | "thread":
                    headers.append(line.header())
                    open_bodies.append([])
                case _:
                    open_bodies[-1].append(line.simple())
            line.end()
        except _Wrong as wrong:
            raise ValueError(f"line {number}: {wrong}: {row.strip()}") from None
    close(0)
    return Nest(tuple(buffers), sizes, tuple(open_bodies[0]))


class _Line:
    """The tokens of one line, and what stands there, by recursive descent."""

    def __init__(self, row: str) -> None:
        self.tokens: list[str] = []
        self.at = 0
        place = 0
        row = row.rstrip()
        while place < len(row):
            found = _TOKEN.match(row, place)
            if found is None:
                raise _Wrong(f"has an unknown character {row[place:].strip()[0]!r}")
            self.tokens.append(found[1])
            place = found.end()

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.peek(-1)

    def take(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise _Wrong(f"needs {token!r} before {self.peek() or 'its end'!r}")

    def end(self) -> None:
        if self.peek():
            raise _Wrong(f"should end before {self.peek()!r}")

    def name(self) -> str:
        if not self.peek().isidentifier():
            raise _Wrong(f"needs a name before {self.peek() or 'its end'!r}")
        return self.next()

    def number(self) -> int:
        if not self.peek().isdigit():
            raise _Wrong(f"needs an integer before {self.peek() or 'its end'!r}")
        return int(self.next())

    def listed(self, part: Callable[[], _Part], *ends: str) -> tuple[_Part, ...]:
        """Parts between commas, up to one of the tokens `ends`."""
        if self.peek() in ends:
            return ()
        parts = [part()]
        while self.take(","):
            parts.append(part())
        return tuple(parts)

    # Declarations

    def size(self) -> tuple[str, Extent]:
        self.expect("size")
        name = self.name()
        self.expect("=")
        return name, self.extent()

    def buffer(self) -> Buffer:
        role, name = self.name(), self.name()
        self.expect(":")
        try:
            dtype = DType(self.next())
        except ValueError:
            raise _Wrong(f"{self.peek(-1)!r} is no element type") from None
        return Buffer(name, dtype, self.indices(), role)

    def extent(self) -> Extent:
        total = -self.extent_product() if self.take("-") else self.extent_product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.next() == "+" else -1
            total = total + sign * self.extent_product()
        return total

    def extent_product(self) -> Extent:
        total = self.extent_atom()
        while self.take("*"):
            total = total * self.extent_atom()
        return total

    def extent_atom(self) -> Extent:
        if self.take("("):
            inner = self.extent()
            if self.take("//"):
                inner = inner // self.number()
            self.expect(")")
            return inner
        if self.take("*"):
            return symbol("*")
        return self.number() if self.peek().isdigit() else symbol(self.name())

    # Statements

    def header(self) -> Callable[[Body], Statement]:
        """A loop or a guard, waiting for its body."""
        if self.take("if"):
            condition = self.condition()
            self.expect(":")
            return lambda body: Guard(condition, body)
        kind = Kind(self.next())
        var = self.name()
        self.expect("<")
        extent = self.index()
        self.expect(":")
        return lambda body: For(var, extent, kind, body)

    def simple(self) -> Statement:
        if self.take("barrier"):
            return Barrier()
        if self.take("let"):
            name = self.name()
            self.expect("=")
            return Let(name, self.value())
        name = self.name()
        if self.take("="):
            return Assign(name, self.value())
        index = self.indices()
        if self.take("+="):
            return Accumulate(name, index, self.value())
        self.expect("=")
        return Store(name, index, self.value())

    # Indices and conditions

    def indices(self) -> tuple[Index, ...]:
        self.expect("[")
        index = self.listed(self.index, "]")
        self.expect("]")
        return index

    def index(self) -> Index:
        left = self.index_product()
        while self.peek() in ("+", "-"):
            if self.take("-"):
                left = Add(left, Int(-self.number()))
            else:
                self.expect("+")
                left = Add(left, self.index_product())
        return left

    def index_product(self) -> Index:
        left = self.index_atom()
        while self.peek() in ("*", "//", "%"):
            operator = self.next()
            right = self.index_atom()
            match operator:
                case "*":
                    left = Mul(left, right)
                case "//":
                    left = Div(left, right)
                case _:
                    left = Mod(left, right)
        return left

    def index_atom(self) -> Index:
        if self.take("("):
            inner = self.index()
            self.expect(")")
            return inner
        if self.take("-"):
            return Int(-self.number())
        if self.peek().isdigit():
            return Int(self.number())
        if self.peek().startswith("$"):
            return Size(self.next()[1:])
        if self.peek() == "min" and self.peek(1) == "(":
            self.at += 2
            a = self.index()
            self.expect(",")
            b = self.index()
            self.expect(")")
            return Least(a, b)
        name = self.name()
        return Fetch(name, self.indices()) if self.peek() == "[" else Var(name)

    def condition(self) -> Condition:
        left = self.test()
        while self.take("and"):
            left = Both(left, self.test())
        return left

    def test(self) -> Condition:
        start = self.at
        if self.take("("):  # a condition, or an index that begins with a parenthesis
            try:
                inner = self.condition()
                self.expect(")")
                return inner
            except _Wrong:
                self.at = start
        a = self.index()
        op = self.next()
        if op not in ("<", "<=", "==", "!="):
            raise _Wrong(f"has {op or 'its end'!r} in the place of a comparison")
        return Test(op, a, self.index())

    # Values

    def value(self) -> Value:
        left = self.value_product()
        while self.peek() in ("+", "-"):
            fn = _OPERATORS[self.next()]
            left = Prim(fn, (left, self.value_product()))
        return left

    def value_product(self) -> Value:
        left = self.value_atom()
        while self.peek() in ("*", "/"):
            fn = _OPERATORS[self.next()]
            left = Prim(fn, (left, self.value_atom()))
        return left

    def value_atom(self) -> Value:
        if self.take("("):
            inner = self.value()
            if self.take("if"):
                condition = self.condition()
                self.expect("else")
                inner = Choose(condition, inner, self.value())
            self.expect(")")
            return inner
        if self.peek() == "-" or self.peek()[:1].isdigit() or self.peek() in ("inf", "nan"):
            return Lit(self.literal())
        name = self.name()
        if self.take("["):
            index = self.listed(self.index, "]", ";")
            outside = self.literal() if self.take(";") else None
            self.expect("]")
            return Load(name, index, outside)
        if self.take("("):
            return self.call(name)
        return Ref(name)

    def literal(self) -> float:
        sign = "-" if self.take("-") else ""
        try:
            return float(sign + self.next())
        except ValueError:
            raise _Wrong(f"has {self.peek(-1)!r} in the place of a number") from None

    def call(self, fn: str) -> Value:
        value: Value
        match fn:
            case "float":
                value = AsFloat(self.index())
            case "uniform":
                key = self.index()
                self.expect(",")
                value = Uniform(key, self.index())
            case _:
                takes = PRIMITIVES.get(fn) or ELEMENTARY.get(fn)
                if takes is None:
                    raise _Wrong(f"calls an unknown function {fn}")
                args = self.listed(self.value, ")")
                if len(args) != takes:
                    raise _Wrong(f"gives {len(args)} arguments to {fn}, which takes {takes}")
                value = Prim(fn, args)
        self.expect(")")
        return value
