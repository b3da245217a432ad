"""Tensor types: a dtype, the extents of one sample, and whether a batch axis stands in front.

An extent is an `int` or a `Poly`, a polynomial with integer coefficients over symbols (`H`, `W`)
and floor divisions of such polynomials. Arithmetic returns an `int` as soon as nothing symbolic is
left, so code that never meets a symbol never sees a `Poly`. The batch axis is not part of `shape`:
it is printed as `*`, as in `f32[*, 6, 28, 28]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class DType(StrEnum):
    """Element types. Values inside kernels are computed in the network's float type (f32 or
    f64); bf16, the upper half of an f32, is a way to keep floats in memory.
    """

    F32 = "f32"
    F64 = "f64"
    U8 = "u8"
    U16 = "u16"
    I32 = "i32"
    I64 = "i64"
    BF16 = "bf16"

    @property
    def bytes(self) -> int:
        return {"f32": 4, "f64": 8, "u8": 1, "u16": 2, "i32": 4, "i64": 8, "bf16": 2}[self.value]

    @property
    def is_float(self) -> bool:
        """Whether values are computed in this type."""
        return self in (DType.F32, DType.F64)

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BF16


@dataclass(frozen=True, order=True)
class Symbol:
    """An extent that is known only when data arrives."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Floor:
    """floor(numerator / denominator), kept as an atom because it cannot be simplified further."""

    numerator: Poly
    denominator: int

    def __str__(self) -> str:
        return f"(({self.numerator}) // {self.denominator})"


Atom = Symbol | Floor
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Poly:
    """A polynomial over atoms; `terms` is sorted, without zero coefficients and never a mere
    constant.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Extent) -> Extent:
        return _collect((*self.terms, *_terms(other)))

    __radd__ = __add__

    def __neg__(self) -> Extent:
        return _collect((m, -c) for m, c in self.terms)

    def __sub__(self, other: Extent) -> Extent:
        return _collect((*self.terms, *((m, -c) for m, c in _terms(other))))

    def __rsub__(self, other: int) -> Extent:
        return _collect((*((m, -c) for m, c in self.terms), *_terms(other)))

    def __mul__(self, other: Extent) -> Extent:
        products = (
            (tuple(sorted((*m, *n), key=str)), c * d)
            for m, c in self.terms
            for n, d in _terms(other)
        )
        return _collect(products)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Extent:
        """floor(self / divisor) for a positive int: what divides leaves the floor, the rest stays
        in it.
        """
        whole = _collect((m, c // divisor) for m, c in self.terms)
        rest = _collect((m, c % divisor) for m, c in self.terms)
        if isinstance(rest, int):
            return whole + rest // divisor
        return whole + Poly((((Floor(rest, divisor),), 1),))

    def __str__(self) -> str:
        text = ""
        for monomial, c in self.terms:
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            atoms = " * ".join(str(a) for a in monomial)
            size = str(abs(c)) if not atoms else atoms if abs(c) == 1 else f"{abs(c)} * {atoms}"
            text += sign + size
        return text


Extent = int | Poly


def _terms(e: Extent) -> tuple[tuple[Monomial, int], ...]:
    return (((), e),) if isinstance(e, int) else e.terms


def _collect(terms: Iterable[tuple[Monomial, int]]) -> Extent:
    total: dict[Monomial, int] = {}
    for monomial, c in terms:
        total[monomial] = total.get(monomial, 0) + c
    left = {m: c for m, c in total.items() if c}
    if not left:
        return 0
    if list(left) == [()]:
        return left[()]
    # constants last, then by name: `H + 3` reads better than `3 + H`
    return Poly(tuple(sorted(left.items(), key=lambda t: (t[0] == (), [str(a) for a in t[0]]))))


def symbol(name: str) -> Poly:
    """The extent that is just the symbol `name`."""
    return Poly((((Symbol(name),), 1),))


def symbols(e: Extent) -> frozenset[str]:
    """The names of all symbols in an extent."""
    if isinstance(e, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in e.terms:
        for atom in monomial:
            match atom:
                case Symbol(name):
                    names.add(name)
                case Floor(numerator, _):
                    names |= symbols(numerator)
    return frozenset(names)


def evaluate(e: Extent, values: Mapping[str, int]) -> int:
    """The extent for given symbol values; KeyError names a symbol without a value."""
    if isinstance(e, int):
        return e
    total = 0
    for monomial, c in e.terms:
        for atom in monomial:
            match atom:
                case Symbol(name):
                    c *= values[name]
                case Floor(numerator, denominator):
                    c *= evaluate(numerator, values) // denominator
        total += c
    return total


def product(extents: Iterable[Extent]) -> Extent:
    """The product, exact (Python integers do not wrap, `np.prod` does)."""
    total: Extent = 1
    for e in extents:
        total = total * e
    return total


@dataclass(frozen=True)
class TensorType:
    """dtype, per-sample shape (channels first, then 1, 2 or 3 spatial extents), and whether
    batched.
    """

    dtype: DType
    shape: tuple[Extent, ...]
    batched: bool = True

    @property
    def rank(self) -> int:
        """Number of spatial axes of a [C, *spatial] tensor."""
        return len(self.shape) - 1

    @property
    def axes(self) -> int:
        """Number of logical axes, the batch included."""
        return len(self.shape) + (1 if self.batched else 0)

    @property
    def channels(self) -> Extent:
        return self.shape[0]

    @property
    def spatial(self) -> tuple[Extent, ...]:
        return self.shape[1:]

    @property
    def elements(self) -> Extent:
        """Elements of one sample (or of the whole tensor when not batched)."""
        return product(self.shape)

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset().union(*(symbols(e) for e in self.shape))

    def with_shape(self, shape: Iterable[Extent]) -> TensorType:
        return TensorType(self.dtype, tuple(shape), self.batched)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.batched)

    def concrete(self, values: Mapping[str, int]) -> TensorType:
        """The same type with every symbol replaced."""
        return self.with_shape(evaluate(e, values) for e in self.shape)

    def dims(self, batch: int) -> tuple[int, ...]:
        """The NumPy shape for a batch size; every extent must be concrete."""
        own = tuple(evaluate(e, {}) for e in self.shape)
        return (batch, *own) if self.batched else own

    def __str__(self) -> str:
        inner = ", ".join((["*"] if self.batched else []) + [str(e) for e in self.shape])
        return f"{self.dtype.value}[{inner}]"
