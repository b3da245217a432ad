"""The loop IR once more, in the slowest and plainest way: one iteration after the other, one number
at a time, straight from the words above the classes. The interpreter is tested against it."""

import math
from typing import Any

import numpy as np

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
    Store,
    Test,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.primitives import PRIMITIVES
from cnncc.loops.random import uniform


class Outside(Exception):
    """An index is out of range."""


class Sequential:
    def __init__(
        self, arrays: dict[str, np.ndarray], sizes: dict[str, int], dtype: type[np.floating]
    ) -> None:
        self.arrays = arrays
        self.sizes = sizes
        self.dtype = dtype
        self.variables: dict[str, int] = {}
        self.locals: dict[str, Any] = {}

    def body(self, body: Body) -> None:
        outer = set(self.locals)
        for s in body:
            match s:
                case For(var, extent, _, inner):
                    for i in range(self.index(extent)):
                        self.variables[var] = i
                        self.body(inner)
                    self.variables.pop(var, None)
                case Let(name, v):
                    assert name not in self.locals
                    self.locals[name] = self.value(v)
                case Assign(name, v):
                    assert name in self.locals
                    self.locals[name] = self.value(v)
                case Guard(c, inner):
                    if self.condition(c):
                        self.body(inner)
                case Store(buffer, index, v):
                    value = self.value(v)
                    self.arrays[buffer][self.place(buffer, index)] = value
                case Accumulate(buffer, index, v):
                    value, place = self.value(v), self.place(buffer, index)
                    self.arrays[buffer][place] = self.dtype(self.arrays[buffer][place]) + value
                case Barrier():
                    pass
        for name in set(self.locals) - outer:
            del self.locals[name]

    def place(self, buffer: str, index: tuple[Index, ...]) -> tuple[int, ...]:
        at = tuple(self.index(i) for i in index)
        shape = self.arrays[buffer].shape
        if not all(0 <= i < n for i, n in zip(at, shape, strict=True)):
            raise Outside(f"{buffer}{at} of {shape}")
        return at

    def index(self, i: Index) -> int:
        match i:
            case Int(n):
                return n
            case Var(name):
                return self.variables[name]
            case Size(name):
                return self.sizes[name]
            case Add(a, b):
                return self.index(a) + self.index(b)
            case Mul(a, b):
                return self.index(a) * self.index(b)
            case Div(a, b):
                return math.floor(self.index(a) / self.index(b))
            case Mod(a, b):
                return self.index(a) - self.index(b) * math.floor(self.index(a) / self.index(b))
            case Least(a, b):
                return min(self.index(a), self.index(b))
            case Fetch(buffer, at):
                return int(self.arrays[buffer][self.place(buffer, at)])

    def condition(self, c: Condition) -> bool:
        match c:
            case Test(op, left, right):
                a, b = self.index(left), self.index(right)
                return {"<": a < b, "<=": a <= b, "==": a == b, "!=": a != b}[op]
            case Both(a, b):
                return self.condition(a) and self.condition(b)

    def value(self, v: Value) -> Any:
        match v:
            case Lit(x):
                return self.dtype(x)
            case Ref(name):
                return self.locals[name]
            case Load(buffer, index, None):
                return self.dtype(self.arrays[buffer][self.place(buffer, index)])
            case Load(buffer, index, outside):
                try:
                    return self.dtype(self.arrays[buffer][self.place(buffer, index)])
                except Outside:
                    return self.dtype(outside)
            case AsFloat(i):
                return self.dtype(self.index(i))
            case Uniform(key, counter):
                return uniform(self.index(key), self.index(counter), self.dtype)
            case Prim(fn, args):
                return PRIMITIVES[fn](*(self.value(a) for a in args))
            case Choose(c, a, b):
                return self.value(a) if self.condition(c) else self.value(b)


def run_sequentially(
    nest: Nest, arrays: dict[str, np.ndarray], sizes: dict[str, int], dtype: type[np.floating]
) -> None:
    with np.errstate(all="ignore"):
        Sequential(arrays, sizes, dtype).body(nest.body)
