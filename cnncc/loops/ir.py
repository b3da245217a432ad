"""The loop IR: nests over logical tensor indices.

    index     i ::= Int(n) | Var(name) | Size(name) | i + i | i * i | i // i | i % i | Least(i, i) |
        Fetch(buffer, (i, ...))
    condition c ::= Test(op, i, i) | Both(c, c)                       op: < <= == !=
    value     v ::= Lit(x) | Ref(name) | Load(buffer, (i, ...), outside?) | AsFloat(i) | Uniform(i,
        i)
                  | Prim(fn, (v, ...)) | Choose(c, v, v)
    statement s ::= For(var, extent, kind, (s, ...)) | Let(name, v) | Assign(name, v) | Guard(c, (s,
    ...))
                  | Store(buffer, (i, ...), v) | Accumulate(buffer, (i, ...), v) | Barrier()
    nest        ::= Nest(buffers, sizes, (s, ...))

Meaning. Indices are exact integers; `//` and `%` round towards minus infinity and their right side
is positive. All values are floats of the nest's one compute type (f32 or f64): loading u8, integers
or bf16 converts, storing converts back (to bf16: an f32, rounded to nearest even), and comparisons
yield 1.0 or 0.0. Every primitive rounds once (`fma` once in all); nothing is reassociated, so a
nest has exactly one result, and each schedule and target must give its bits. A Load with `outside`
yields that constant when any index lies outside the buffer; without it an index outside is a bug of
the compiler. `Let` introduces a local, `Assign` changes one (`acc = fma(x, w, acc)`), visible to
the end of the enclosing body. A `For` of kind PARALLEL asserts that its iterations are independent:
each Store address is written by one iteration only. SERIAL iterations run in order. `Size` is a
run-time argument of the kernel, so one kernel serves all extents; its value is in `Nest.sizes`.
Indices follow the axes of the tensor type, batch first when the tensor has one: layouts are the
target's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from cnncc.tensor import DType, Extent


class Kind(StrEnum):
    """The kind of a loop axis. Operators write SERIAL and PARALLEL; schedules refine PARALLEL into
    the others.
    """

    SERIAL = "serial"
    PARALLEL = "parallel"
    VECTOR = "vector"  # lanes
    BLOCK = "block"  # CUDA
    THREAD = "thread"


# --- indices ---


class _Arithmetic:
    """Operators on indices, folding constants and the units of + and *."""

    def __add__(self, other: Index | int) -> Index:
        return add(self, other)  # type: ignore[arg-type]

    def __radd__(self, other: int) -> Index:
        return add(other, self)  # type: ignore[arg-type]

    def __sub__(self, other: int) -> Index:
        return add(self, -other)  # type: ignore[arg-type]

    def __mul__(self, other: Index | int) -> Index:
        return mul(self, other)  # type: ignore[arg-type]

    def __rmul__(self, other: int) -> Index:
        return mul(other, self)  # type: ignore[arg-type]

    def __floordiv__(self, other: Index | int) -> Index:
        return floordiv(self, other)  # type: ignore[arg-type]

    def __mod__(self, other: Index | int) -> Index:
        return mod(self, other)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Int(_Arithmetic):
    value: int


@dataclass(frozen=True)
class Var(_Arithmetic):
    """A loop variable."""

    name: str


@dataclass(frozen=True)
class Size(_Arithmetic):
    """A run-time integer argument of the kernel."""

    name: str


@dataclass(frozen=True)
class Add(_Arithmetic):
    a: Index
    b: Index


@dataclass(frozen=True)
class Mul(_Arithmetic):
    a: Index
    b: Index


@dataclass(frozen=True)
class Div(_Arithmetic):
    a: Index
    b: Index


@dataclass(frozen=True)
class Mod(_Arithmetic):
    a: Index
    b: Index


@dataclass(frozen=True)
class Least(_Arithmetic):
    a: Index
    b: Index


@dataclass(frozen=True)
class Fetch(_Arithmetic):
    """An index that is read from an integer buffer (embeddings, tables)."""

    buffer: str
    index: tuple[Index, ...]


Index = Int | Var | Size | Add | Mul | Div | Mod | Least | Fetch


def ix(i: Index | int) -> Index:
    return Int(i) if isinstance(i, int) else i


def add(a: Index | int, b: Index | int) -> Index:
    a, b = ix(a), ix(b)
    match a, b:
        case Int(x), Int(y):
            return Int(x + y)
        case (Int(0), other) | (other, Int(0)):
            return other
        case Int(), _:
            return add(b, a)
        case Add(inner, Int(x)), Int(y):
            return add(inner, x + y)
        case _:
            return Add(a, b)


def mul(a: Index | int, b: Index | int) -> Index:
    a, b = ix(a), ix(b)
    match a, b:
        case Int(x), Int(y):
            return Int(x * y)
        case (Int(0), _) | (_, Int(0)):
            return Int(0)
        case (Int(1), other) | (other, Int(1)):
            return other
        case Int(), _:
            return Mul(b, a)
        case _:
            return Mul(a, b)


def floordiv(a: Index | int, b: Index | int) -> Index:
    a, b = ix(a), ix(b)
    match a, b:
        case Int(x), Int(y):
            return Int(x // y)
        case other, Int(1):
            return other
        case _:
            return Div(a, b)


def mod(a: Index | int, b: Index | int) -> Index:
    a, b = ix(a), ix(b)
    match a, b:
        case Int(x), Int(y):
            return Int(x % y)
        case _, Int(1):
            return Int(0)
        case _:
            return Mod(a, b)


# --- conditions ---


@dataclass(frozen=True)
class Test:
    op: str  # < <= == !=
    a: Index
    b: Index


@dataclass(frozen=True)
class Both:
    a: Condition
    b: Condition


Condition = Test | Both


def test(op: str, a: Index | int, b: Index | int) -> Test:
    return Test(op, ix(a), ix(b))


def all_of(first: Condition, *more: Condition) -> Condition:
    for c in more:
        first = Both(first, c)
    return first


# --- values ---

# Every primitive with its number of arguments. Comparisons give 1.0 or 0.0; `select` takes such a
# value first and is true where it is not zero. `max` and `min` propagate NaN. `rint` rounds to
# nearest even. `scale2(x, n)` is x * 2^n for integer-valued n, `power2(n)` is 2^n where that is a
# normal number, and else no power; `exponent` and `mantissa` take x = mantissa * 2^exponent apart,
# mantissa in [1, 2).
PRIMITIVES = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "fma": 3, "sqrt": 1, "abs": 1, "floor": 1,
    "rint": 1,
    "max": 2, "min": 2, "lt": 2, "le": 2, "eq": 2, "ne": 2, "select": 3, "copysign": 2, "scale2": 2,
    "power2": 1, "exponent": 1, "mantissa": 1,
}  # fmt: skip

# Functions that are not primitive: loops/elementary.py replaces them by polynomials in the
# primitives, so that every target computes the same bits. Operators use them like primitives.
ELEMENTARY = {"exp": 1, "expm1": 1, "log": 1, "log1p": 1, "tanh": 1, "sigmoid": 1, "erf": 1}


@dataclass(frozen=True)
class Lit:
    value: float


@dataclass(frozen=True)
class Ref:
    name: str


@dataclass(frozen=True)
class Load:
    buffer: str
    index: tuple[Index, ...]
    outside: float | None = None


@dataclass(frozen=True)
class AsFloat:
    index: Index


@dataclass(frozen=True)
class Uniform:
    """A number in [0, 1) that depends on key and counter only (loops/random.py), so backward can
    draw it again.
    """

    key: Index
    counter: Index


@dataclass(frozen=True)
class Prim:
    fn: str
    args: tuple[Value, ...]

    def __post_init__(self) -> None:
        takes = PRIMITIVES.get(self.fn) or ELEMENTARY[self.fn]
        if takes != len(self.args):
            raise ValueError(f"{self.fn} takes {takes} arguments, got {len(self.args)}")


@dataclass(frozen=True)
class Choose:
    condition: Condition
    then: Value
    otherwise: Value


Value = Lit | Ref | Load | AsFloat | Uniform | Prim | Choose


def prim(fn: str, *args: Value | float) -> Value:
    return Prim(fn, tuple(Lit(float(a)) if isinstance(a, (int, float)) else a for a in args))


# --- statements ---


@dataclass(frozen=True)
class For:
    var: str
    extent: Index
    kind: Kind
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Let:
    name: str
    value: Value


@dataclass(frozen=True)
class Assign:
    name: str
    value: Value


@dataclass(frozen=True)
class Guard:
    condition: Condition
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Store:
    buffer: str
    index: tuple[Index, ...]
    value: Value


@dataclass(frozen=True)
class Accumulate:
    """buffer[index] += value, in loop order; the buffer must have been stored before, all its loops
    SERIAL.
    """

    buffer: str
    index: tuple[Index, ...]
    value: Value


@dataclass(frozen=True)
class Barrier:
    """All threads finish what is above before any starts what is below; only at the top level of a
    nest.
    """


Statement = For | Let | Assign | Guard | Store | Accumulate | Barrier
Body = tuple[Statement, ...]


@dataclass(frozen=True)
class Buffer:
    """A kernel argument: `extents` are indices built from Int and Size, one per logical axis (batch
    first).
    """

    name: str
    dtype: DType
    extents: tuple[Index, ...]
    role: str  # "in", "out"


@dataclass(frozen=True)
class Nest:
    """One kernel: buffers in argument order, the run-time sizes with their values for this use, and
    the body.
    """

    buffers: tuple[Buffer, ...]
    sizes: dict[str, Extent] = field(hash=False)
    body: Body

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)

    def with_body(self, body: Body) -> Nest:
        return replace(self, body=body)
