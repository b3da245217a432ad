"""The interpreter of the loop IR, and thereby its definition: what a nest does to NumPy arrays, bit
for bit.

SERIAL loops run in order in Python; every other loop becomes a NumPy axis, so a statement runs for
all its lanes at once. Loop variables are `arange`s shaped for their axis and locals are arrays that
broadcast against the axes in scope (as small as what they depend on). Guards, the operands of
Choose and extents that differ between lanes become masks: under a mask, Assign and Store change
only the lanes that are on, and a Load may be out of range in lanes that are off. Large index spaces
are run in pieces. With `check=True` the interpreter also watches that iterations of parallel loops
are independent: no two write one address, and none reads what another wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np

from cnncc.errors import CompilerBug
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    For,
    Guard,
    Index,
    Kind,
    Let,
    Nest,
    Statement,
    Store,
    Var,
)
from cnncc.loops.lanes import Array, Axis, Float, Lanes, Mask, any_on, bug, largest
from cnncc.loops.numerics import from_bf16, to_bf16
from cnncc.loops.text import print_statement
from cnncc.loops.walk import subindices
from cnncc.tensor import DType

LANES_AT_ONCE = 1 << 16  # larger index spaces are run in pieces, which stay in the cache


def interpret(
    nest: Nest,
    arrays: Mapping[str, Array],
    sizes: Mapping[str, int],
    dtype: Float,
    *,
    check: bool = False,
) -> None:
    """Run a nest on arrays, in place.

    `arrays` has one array per buffer in the buffer's logical shape: floats for a float buffer (of
    either width; for bf16 its values), integers for an integer buffer. `sizes` has a value for
    every run-time size. `dtype` is the type in which all values are computed. Raises ValueError
    when these do not fit the nest, and CompilerBug for an access out of range, or, with `check`,
    for parallel iterations that depend on each other.
    """
    missing = [name for name in nest.sizes if name not in sizes]
    if missing:
        raise ValueError(f"no value for the sizes {', '.join(missing)}")
    run = _Run({b.name: arrays.get(b.name) for b in nest.buffers}, sizes, dtype, check, nest)
    for buffer in nest.buffers:
        shape = tuple(int(run.index(e, None)) for e in buffer.extents)
        _check_array(arrays.get(buffer.name), buffer.name, buffer.dtype, shape)
    with np.errstate(all="ignore"):
        run.body(nest.body, None)


def _check_array(array: Array | None, name: str, dtype: DType, shape: tuple[int, ...]) -> None:
    if array is None:
        raise ValueError(f"no array for the buffer {name}")
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, the nest says {shape}")
    if array.dtype.kind not in ("iu" if dtype.is_integer else "f"):
        raise ValueError(f"{name} is {dtype.value} in the nest, but the array is {array.dtype}")


class _Run(Lanes):
    """One execution of a nest: what each statement does."""

    def body(self, body: Body, mask: Mask) -> None:
        for s in body:
            self.statement(s, mask)
        for s in body:
            if isinstance(s, Let):
                del self.locals[s.name]

    def statement(self, s: Statement, mask: Mask) -> None:
        match s:
            case For(var, _, Kind.SERIAL, _):
                self.new_name(var, self.variables)
                self.serial(s, mask)
            case For(var, _, _, _):
                self.new_name(var, self.variables)
                self.parallel(s, mask)
            case Let(name, value):
                self.new_name(name, self.locals)
                self.locals[name] = self.value(value, mask)
                self.home[name] = len(self.axes)
            case Assign(name, value):
                self.assign(name, self.value(value, mask), mask)
            case Guard(condition, body):
                on, inner = self.narrowed(mask, self.condition(condition, mask))
                if on:
                    self.body(body, inner)
            case Store(buffer, index, value):
                self.store(s, buffer, index, self.value(value, mask), mask)
            case Accumulate(buffer, index, value):
                self.store(s, buffer, index, self.value(value, mask), mask)
            case Barrier():
                return  # statements run one after the other for all lanes
            case _:
                assert_never(s)

    def new_name(self, name: str, known: Mapping[str, Any]) -> None:
        if name in known:
            raise bug(name, "a name is introduced where it is already visible")

    def serial(self, s: For, mask: Mask) -> None:
        extent = self.index(s.extent, mask)
        for i in range(largest(extent)):
            on, inner = self.narrowed(mask, i < extent)
            if on:
                self.variables[s.var] = i
                self.body(s.body, inner)
        self.variables.pop(s.var, None)

    def parallel(self, s: For, mask: Mask) -> None:
        extent = self.index(s.extent, mask)
        total = largest(extent)
        axis = Axis(s.var, total)
        position = len(self.axes)
        around = 1
        for a in self.axes:
            around *= a.lanes
        piece = max(1, LANES_AT_ONCE // (around * self.volume(s.body)))
        self.axes.append(axis)
        for start in range(0, total, piece):
            stop = min(start + piece, total)
            shape = [1] * self.depth
            shape[position] = axis.lanes = stop - start
            lane = self.variables[s.var] = np.arange(start, stop).reshape(shape)
            exists = True if isinstance(extent, int) else lane < extent
            on, inner = self.narrowed(mask, exists)
            if on:
                self.body(s.body, inner)
        self.axes.pop()
        self.variables.pop(s.var, None)

    def volume(self, body: Body) -> int:
        """The lanes that one iteration of the parallel loops in a body needs, as far as known
        before they run."""
        most = 1
        for s in body:
            match s:
                case For(_, extent, kind, inner):
                    own = 1 if kind is Kind.SERIAL else self.known_extent(extent)
                    most = max(most, own * self.volume(inner))
                case Guard(_, inner):
                    most = max(most, self.volume(inner))
                case _:
                    pass
        return most

    def known_extent(self, extent: Index) -> int:
        try:
            return max(1, largest(self.index(extent, None)))
        except (KeyError, CompilerBug):  # it depends on an inner loop: that loop will be cut itself
            return 1

    def assign(self, name: str, value: Any, mask: Mask) -> None:
        if name not in self.locals:
            raise bug(name, "Assign to a local that is not visible")
        if self.home[name] != len(self.axes):
            raise bug(name, "parallel iterations assign to one local")
        self.locals[name] = value if mask is None else np.where(mask, value, self.locals[name])

    def store(
        self, s: Store | Accumulate, buffer: str, index: tuple[Index, ...], value: Any, mask: Mask
    ) -> None:
        array, places, wrong = self.places(buffer, index, mask)
        if wrong is not None and any_on(wrong, mask):
            raise bug(print_statement(s), f"out of the range {array.shape}")
        shape = [1] * self.depth
        for k, axis in enumerate(self.axes):
            shape[k] = axis.lanes
        suspect = isinstance(s, Accumulate) or self.check or self.forgotten(index)
        if self.axes and (mask is not None or suspect):
            on = np.broadcast_to(True if mask is None else mask, shape)
            places = tuple(np.broadcast_to(p, shape)[on] for p in places)
            value = np.broadcast_to(value, shape)[on]
        if suspect:
            _check_distinct(array, places, s)
        if self.check:
            self.claim(buffer, places, shape, mask)
        if isinstance(s, Accumulate):
            value = array[places].astype(self.dtype) + value
        if buffer in self.halved:
            value = from_bf16(to_bf16(value))
        array[places] = value

    def forgotten(self, index: tuple[Index, ...]) -> bool:
        """Whether an index leaves out the variable of a parallel loop in scope, so that iterations
        may collide."""
        used = {p.name for i in index for p in subindices(i) if isinstance(p, Var)}
        return any(a.extent > 1 and a.var not in used for a in self.axes)


def _check_distinct(array: Array, places: tuple[Any, ...], s: Statement) -> None:
    """No two lanes may write one address."""
    addresses = np.ravel(np.ravel_multi_index(np.broadcast_arrays(*places), array.shape))
    if len(np.unique(addresses)) != len(addresses):
        raise bug(print_statement(s), "parallel iterations write one address")
