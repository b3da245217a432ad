"""Evaluating indices, conditions and values of the loop IR for all lanes at once, with NumPy.

Every parallel loop in scope is an axis of the arrays of lanes. An index or a value is a plain
number where it is the same in all lanes, else an array that has extent 1 along the axes on which it
does not depend. A mask says which lanes are on: the others may compute nonsense, but never fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np

from cnncc.errors import CompilerBug
from cnncc.loops.ir import (
    Add,
    AsFloat,
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
    Kind,
    Least,
    Lit,
    Load,
    Mod,
    Mul,
    Nest,
    Prim,
    Ref,
    Size,
    Test,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.primitives import PRIMITIVES
from cnncc.loops.random import uniform
from cnncc.loops.text import print_access, print_condition, print_index
from cnncc.tensor import DType

Array = np.ndarray[Any, np.dtype[Any]]
Integer = int | Array  # the same in all lanes, or one per lane
Mask = Array | None  # the lanes that are on; None: all
Float = type[np.float32] | type[np.float64]


@dataclass
class Axis:
    """A parallel loop that is being run; `owners` tells for each address of a buffer which
    iteration wrote it."""

    var: str
    extent: int  # of the whole loop
    lanes: int = 0  # of the piece that is running
    owners: dict[str, Array] = field(default_factory=dict)


class Lanes:
    """What is visible at a point of a nest, and the evaluation of its expressions there."""

    def __init__(
        self,
        arrays: Mapping[str, Array | None],
        sizes: Mapping[str, int],
        dtype: Float,
        check: bool,
        nest: Nest,
    ) -> None:
        # a buffer without axes is run as one with a single element
        self.arrays: dict[str, Any] = {
            name: a.reshape(1) if a is not None and a.ndim == 0 else a for name, a in arrays.items()
        }
        self.numbers = {b.name for b in nest.buffers if not b.extents}
        self.halved = {b.name for b in nest.buffers if b.dtype is DType.BF16}
        self.sizes = sizes
        self.dtype = dtype
        self.check = check
        self.depth = _parallel_depth(nest.body)  # every array of lanes has this many axes
        self.axes: list[Axis] = []
        self.variables: dict[str, Integer] = {}
        self.locals: dict[str, Any] = {}
        self.home: dict[str, int] = {}  # how many parallel loops are around the Let of a local

    def narrowed(self, mask: Mask, condition: bool | Array) -> tuple[bool, Mask]:
        """Whether any lane is on, and the mask, when a condition is added."""
        if isinstance(condition, bool):
            return condition, mask
        both = condition if mask is None else mask & condition
        if both.all():
            return True, None
        return bool(both.any()), both

    # Indices and conditions

    def index(self, i: Index, mask: Mask) -> Integer:
        match i:
            case Int(n):
                return n
            case Var(name):
                return self.variables[name]
            case Size(name):
                return self.sizes[name]
            case Add(a, b):
                return self.index(a, mask) + self.index(b, mask)
            case Mul(a, b):
                return self.index(a, mask) * self.index(b, mask)
            case Div(a, b):
                return self.index(a, mask) // self.divisor(b, mask)
            case Mod(a, b):
                return self.index(a, mask) % self.divisor(b, mask)
            case Least(a, b):
                x, y = self.index(a, mask), self.index(b, mask)
                if isinstance(x, int) and isinstance(y, int):
                    return min(x, y)
                return np.minimum(x, y)
            case Fetch(buffer, index):
                array, places, wrong = self.places(buffer, index, mask)
                if wrong is not None and any_on(wrong, mask):
                    raise bug(print_index(i), f"out of the range {array.shape}")
                number = array[places]
                return number.astype(np.int64) if number.ndim else int(number)
            case _:
                assert_never(i)

    def divisor(self, i: Index, mask: Mask) -> Integer:
        d = self.index(i, mask)
        if isinstance(d, int):
            if d <= 0:
                raise bug(print_index(i), "a divisor must be positive")
            return d
        if any_on(d <= 0, mask):
            raise bug(print_index(i), "a divisor must be positive")
        return np.maximum(d, 1)

    def condition(self, c: Condition, mask: Mask) -> bool | Array:
        match c:
            case Test(op, left, right):
                a, b = self.index(left, mask), self.index(right, mask)
                match op:
                    case "<":
                        return a < b
                    case "<=":
                        return a <= b
                    case "==":
                        return a == b
                    case "!=":
                        return a != b
                    case _:
                        raise bug(print_condition(c), f"no such test: {op}")
            case Both(first, second):
                on, inner = self.narrowed(mask, x := self.condition(first, mask))
                if not on:  # the second may divide or fetch under the protection of the first
                    return False
                return x & self.condition(second, inner)
            case _:
                assert_never(c)

    def places(
        self, buffer: str, index: tuple[Index, ...], mask: Mask
    ) -> tuple[Array, tuple[Any, ...], Array | None]:
        """The array, the indices cut to its range, and where they had to be cut (None: nowhere)."""
        array = self.arrays[buffer]
        if buffer in self.numbers and not index:
            index = (Int(0),)
        if len(index) != array.ndim:
            raise bug(buffer, f"{len(index)} indices for {array.ndim} axes")
        places = []
        wrong: Array | None = None
        for part, extent in zip(index, array.shape, strict=True):
            i = self.index(part, mask)
            if isinstance(i, int):
                out = None if 0 <= i < extent else np.ones([1] * self.depth, bool)
            else:
                out = None if i.min() >= 0 and i.max() < extent else (i < 0) | (i >= extent)
            if out is not None:
                wrong = out if wrong is None else wrong | out
                i = np.clip(i, 0, max(extent - 1, 0))
            places.append(i)
        return array, tuple(places), wrong

    # Values

    def value(self, v: Value, mask: Mask) -> Any:
        match v:
            case Lit(x):
                return self.dtype(x)
            case Ref(name):
                if name not in self.locals:
                    raise bug(name, "Ref to a local that is not visible")
                return self.locals[name]
            case Load(buffer, index, outside):
                return self.load(buffer, index, outside, mask)
            case AsFloat(i):
                return np.asarray(self.index(i, mask), np.int64).astype(self.dtype)[()]
            case Uniform(key, counter):
                return uniform(self.index(key, mask), self.index(counter, mask), self.dtype)
            case Prim(fn, args):
                if fn not in PRIMITIVES:
                    raise bug(fn, "an elementary function must be expanded before")
                return PRIMITIVES[fn](*(self.value(a, mask) for a in args))
            case Choose(c, then, otherwise):
                return self.choose(self.condition(c, mask), then, otherwise, mask)
            case _:
                assert_never(v)

    def choose(self, c: bool | Array, then: Value, otherwise: Value, mask: Mask) -> Any:
        """Each operand is evaluated for the lanes that take it."""
        if isinstance(c, (bool, np.bool_)):
            return self.value(then if c else otherwise, mask)
        some, taken = self.narrowed(mask, c)
        if not some:
            return self.value(otherwise, mask)
        others, left = self.narrowed(mask, ~c)
        if not others:
            return self.value(then, mask)
        return np.where(c, self.value(then, taken), self.value(otherwise, left))

    def load(self, buffer: str, index: tuple[Index, ...], outside: float | None, mask: Mask) -> Any:
        array, places, wrong = self.places(buffer, index, mask)
        if wrong is None:
            if self.check:
                self.check_read(buffer, places, mask)
            return array[places].astype(self.dtype, copy=False)
        if outside is None and any_on(wrong, mask):
            raise bug(print_access(buffer, index), f"out of the range {array.shape}")
        constant = self.dtype(0.0 if outside is None else outside)
        if wrong.all():
            return constant
        if self.check:
            self.check_read(buffer, places, ~wrong if mask is None else mask & ~wrong)
        return np.where(wrong, constant, array[places].astype(self.dtype, copy=False))

    # Independence of parallel iterations

    def iteration(self, depth: int) -> Integer:
        """One number per iteration of the first `depth` parallel loops in scope together."""
        number: Integer = 0
        for axis in self.axes[:depth]:
            number = number * axis.extent + self.variables[axis.var]
        return number

    def claim(self, buffer: str, places: tuple[Any, ...], shape: list[int], mask: Mask) -> None:
        """Note who writes, and insist that in each parallel loop nobody else wrote there."""
        for depth, axis in enumerate(self.axes, 1):
            array = self.arrays[buffer]
            owner = axis.owners.setdefault(buffer, np.full(array.shape, -1, np.int64))
            me = np.broadcast_to(np.asarray(self.iteration(depth)), shape)
            me = me[np.broadcast_to(True if mask is None else mask, shape)]
            before = owner[places]
            if ((before != -1) & (before != me)).any():
                raise bug(buffer, f"iterations of the parallel loop {axis.var} write one address")
            owner[places] = me

    def check_read(self, buffer: str, places: tuple[Any, ...], mask: Mask) -> None:
        for depth, axis in enumerate(self.axes, 1):
            if buffer not in axis.owners:
                continue
            owner = axis.owners[buffer][places]
            foreign = (owner != -1) & (owner != self.iteration(depth))
            if any_on(foreign, mask):
                raise bug(buffer, f"an iteration of {axis.var} reads what another one wrote")


def bug(node: str, invariant: str) -> CompilerBug:
    return CompilerBug("interpreting loops", node, invariant)


def largest(extent: Integer) -> int:
    return extent if isinstance(extent, int) else int(extent.max(initial=0))


def any_on(lanes: Array, mask: Mask) -> bool:
    return bool((lanes if mask is None else lanes & mask).any())


def _parallel_depth(body: Body) -> int:
    """The largest number of loops around each other that are not SERIAL."""
    deepest = 0
    for s in body:
        match s:
            case For(_, _, kind, inner):
                deepest = max(deepest, (kind is not Kind.SERIAL) + _parallel_depth(inner))
            case Guard(_, inner):
                deepest = max(deepest, _parallel_depth(inner))
            case _:
                pass
    return deepest
