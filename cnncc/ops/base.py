"""What every operator's room contains, and the registry that the rest of the compiler reads.

A room is one file with, in this order: the operator (a frozen dataclass) with its shape rule, its
NumPy oracle, its gradient as more graph, its loop nest, the facts that passes ask for, its sample
cases, and the layer: the function behind its name in the language. Adding an operator means adding
a room; nothing else lists operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from cnncc.graph.ir import Builder, Node, Operator, ShapeError
from cnncc.graph.layer import Layer, layer_of
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Nest, Value, Var
from cnncc.tensor import Extent, TensorType

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Cost:
    """Work of one sample: multiply-accumulates as papers count them, and all floating-point
    operations.
    """

    macs: Extent = 0
    flops: Extent = 0


@dataclass(frozen=True)
class Sample:
    """A small case of an operator: the operator and its input types (concrete); `integers` bounds
    integer test data.

    `exact`: on small integers the result equals the oracle bit for bit.
    """

    op: Op
    types: tuple[TensorType, ...]
    exact: bool = True
    batch: int = 2
    low: int = -4
    high: int = 4  # integer data are drawn from low..high
    positive: tuple[int, ...] = ()  # inputs whose data must be above zero, such as variances
    note: str = ""


class Op(Operator):
    """An operator with everything the compiler knows about it."""

    pointwise: ClassVar[bool] = (
        False  # result[i] depends on the inputs at i (or at i's channel) only
    )
    linear: ClassVar[
        tuple[int, ...]
    ] = ()  # inputs in which the operator is linear (or affine), the others held fixed

    @property
    def reads_once(self) -> bool:
        """Whether each element of the first input is read at most once (a pool whose windows do not
        overlap, a reshape to a vector).
        """
        return self.pointwise

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        raise NotImplementedError

    def reference(self, *arrays: Array) -> Array:
        """The definition, slow and obvious, on logical arrays (batch first, channels second), in
        any dtype.
        """
        raise NotImplementedError

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        """`reference` on operands of these types, for callers that hold a graph."""
        return self.reference(*arrays)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        """Add the gradient to the graph: one node per input, None where nothing flows (integers,
        statistics).
        """
        raise NotImplementedError

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        """The target-neutral loops. Buffers in order: inputs `a`, `b`, ... or the operator's own
        names, then the output last.
        """
        raise NotImplementedError

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements)

    def nonzeros(self, types: tuple[TensorType, ...], out: TensorType) -> Extent:
        """Elements of the result that are not zero by construction, as a table of connections
        makes them: no connection is counted and no work for a weight that is always zero.
        """
        return out.elements

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        raise NotImplementedError


class Pointwise(Op):
    """An operator that is a scalar function. Rooms give `scalar` and `reference`; the nest follows.

    Inputs have the result's type, or broadcast: [C] or [C, 1, ...] per channel (batched: per sample
    and channel), [1] for a number (batched: per sample), unbatched of the result's shape for all
    samples. `reference` is given arrays that already broadcast against each other in NumPy's way;
    `oracle` prepares them.
    """

    pointwise = True

    def scalar(self, *args: Value) -> Value:
        """The result for one element."""
        raise NotImplementedError

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        result = types[0]
        for i, t in enumerate(types[1:], 1):
            if operand_axes(t, result) is None:
                raise ShapeError(
                    "E0201",
                    f"{self.name}: the operands' shapes must agree",
                    arithmetic=[f"operand 1: {result}", f"operand {i + 1}: {t}"],
                )
        return result

    def oracle(self, types: tuple[TensorType, ...], arrays: Sequence[Array]) -> Array:
        out = self.infer(types)
        return self.reference(*(broadcast(a, t, out) for a, t in zip(arrays, types, strict=True)))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = axis_names(out)
        index = tuple(Var(f"i_{a}") for a in axes)
        operands = []
        for i, t in enumerate(types):
            kept = operand_axes(t, out)
            assert kept is not None, f"{self.name}: operand {i} {t} against {out}"
            names = [axes[k] if k >= 0 else "1" for k in kept]
            x = n.input(f"x{i}", t, " ".join(names))
            operands.append(x[tuple(index[k] if k >= 0 else 0 for k in kept)])
        y = n.output("y", out, " ".join(axes))
        extents = n.buffers[-1].extents
        body = y.store(index, self.scalar(*operands))
        return n.nest(parallel([(v.name, e) for v, e in zip(index, extents, strict=True)], body))


def axis_names(t: TensorType) -> tuple[str, ...]:
    """Size names of a tensor's axes: n, c, then s0, s1, ..."""
    own = ("c", *(f"s{i}" for i in range(len(t.shape) - 1)))
    return ("n", *own) if t.batched else own


def operand_axes(t: TensorType, out: TensorType) -> tuple[int, ...] | None:
    """For each axis of an operand the axis of the result it runs along (-1: extent 1); None when it
    does not fit.
    """
    first = 1 if out.batched else 0  # position of the channel axis in the result
    if t.batched and not out.batched:
        return None
    lead: tuple[int, ...] = (0,) if t.batched else ()
    if t.shape == out.shape:
        return lead + tuple(range(first, first + len(out.shape)))
    if t.shape == (1,):
        return (*lead, -1)
    if t.shape[0] == out.shape[0] and all(e == 1 for e in t.shape[1:]):
        return (*lead, first, *([-1] * (len(t.shape) - 1)))
    return None


def broadcast(a: Array, t: TensorType, out: TensorType) -> Array:
    """A NumPy view of an operand that broadcasts against the result (for oracles)."""
    kept = operand_axes(t, out)
    assert kept is not None
    rank = len(out.shape) + (1 if out.batched else 0)
    shape = [1] * rank
    for k, extent in zip(kept, a.shape, strict=True):
        if k >= 0:
            shape[k] = extent
    return a.reshape(shape)


# --- registry ---

OPERATORS: dict[str, type[Op]] = {}  # by the name that graph text uses
LAYERS: dict[str, Layer] = {}  # by the name that the language uses

AnyOp = TypeVar("AnyOp", bound=type[Op])


def operator(name: str) -> Callable[[AnyOp], AnyOp]:
    """Register an operator under its graph name."""

    def register(cls: AnyOp) -> AnyOp:
        cls.name = name
        if name in OPERATORS:
            raise AssertionError(f"two operators named {name}")
        OPERATORS[name] = cls
        return cls

    return register


def layer(name: str, category: str) -> Callable[[Callable[..., Node]], Callable[..., Node]]:
    """Register a layer function under its name in the language."""

    def register(function: Callable[..., Node]) -> Callable[..., Node]:
        if name in LAYERS:
            raise AssertionError(f"two layers named {name}")
        LAYERS[name] = layer_of(function, name, category)
        return function

    return register


def all_samples() -> Iterator[Sample]:
    """Every sample of every operator, for the generic tests."""
    for cls in OPERATORS.values():
        yield from cls.samples()
