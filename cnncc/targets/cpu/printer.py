"""Loop IR as Python text in the words of `targets.cpu.vector`.

The printer is given bodies in which the lane variable has become `k0 + offset + lane`; whatever
depends on `lane` prints as a vector, the rest as scalars. It refuses (`NotInLanes`) what has no
vector form here, and the caller prints the scalar schedule instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from cnncc.errors import CompilerBug
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
    add,
    mul,
    statements,
    subindices,
    subvalues,
)
from cnncc.loops.walk import value_indices
from cnncc.targets.cpu.lane import (
    LANE,
    NotInLanes,
    spaced,
    split_block,
    split_lane,
)
from cnncc.tensor import DType

TILE_STATEMENTS = 8  # a loop body of so many is a register tile

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_CALLS = {
    "fma": "fma", "sqrt": "sqrt", "abs": "absolute", "floor": "floor", "rint": "rint",
    "max": "maximum", "min": "minimum",
    "copysign": "copysign", "scale2": "scale2", "exponent": "exponent", "mantissa": "mantissa",
}  # fmt: skip


@dataclass
class Printer:
    """Prints the bodies of one kernel. `sizes` collects the run-time arguments that the text
    uses.
    """

    nest: Nest
    dtype: DType  # of all values
    innermost: Mapping[str, int]
    padded: frozenset[str]  # buffers that may be read up to the next whole block
    lanes: int
    names: set[str] = field(default_factory=set)  # words of the vector module
    arguments: dict[str, None] = field(
        default_factory=dict
    )  # run-time arguments, in order of first use
    generator: bool = False  # the text draws random numbers
    tail: str = ""  # lanes left, when the block is not full
    _vectors: set[str] = field(default_factory=set)  # locals that hold vectors

    # --- bodies ---

    def body(self, body: Body, indent: int) -> list[str]:
        """The lines of a body."""
        self._vectors = self._vector_locals(body)
        return list(self._lines(body, "    " * indent))

    def _lines(self, body: Body, pad: str) -> Iterator[str]:
        if not body:
            yield f"{pad}pass"
        for s in body:
            yield from self._statement(s, pad)

    def _statement(self, s: Statement, pad: str) -> Iterator[str]:
        match s:
            case For(var, extent, _, inner):
                yield f"{pad}for {var} in range({self.index(extent)}):"
                if len(inner) >= TILE_STATEMENTS and not any(isinstance(t, For) for t in inner):
                    # unrolled, a tile no longer fits the registers
                    yield f"{pad}    {self._word('keep_rolled')}()"
                yield from self._lines(inner, pad + "    ")
            case Guard(condition, inner):
                yield f"{pad}if {self.condition(condition)}:"
                yield from self._lines(inner, pad + "    ")
            case Let(name, v) | Assign(name, v):
                yield f"{pad}{name} = {self._as(v, name in self._vectors)}"
            case Store(buffer, index, v):
                yield pad + self._store(buffer, index, v)
            case Accumulate(buffer, index, v):
                total = Prim("add", (Load(buffer, index), v))
                yield pad + self._store(buffer, index, total)
            case Barrier():
                raise NotInLanes("a barrier inside a body")
            case _:
                assert_never(s)

    def _store(self, buffer: str, index: tuple[Index, ...], v: Value) -> str:
        place, step = self.address(buffer, index)
        element = self.nest.buffer(buffer).dtype
        if self.lanes > 1 and step is None:
            raise NotInLanes(f"{buffer} is stored at one place by all lanes")
        text = self._as(v, step is not None)
        if element is not self.dtype:
            text = self._call(f"to_{element.value}", text)
        tail = [self.tail] if self.tail and step is not None else []
        word = "store_tail" if tail else "store"
        if step is None or step == Int(1):
            return self._call(word, buffer, place, text, *tail)
        return self._call(
            word.replace("store", "store_strided"), buffer, place, self.index(step), text, *tail
        )

    # --- values ---

    def _vector_locals(self, body: Body) -> set[str]:
        found: set[str] = set()
        while True:
            before = len(found)
            for s in statements(body):
                if isinstance(s, (Let, Assign)) and self._wide(s.value, found):
                    found.add(s.name)
            if len(found) == before:
                return found

    def _wide(self, v: Value, vectors: set[str] | None = None) -> bool:
        """Whether a value differs between lanes."""
        if self.lanes == 1:
            return False
        known = self._vectors if vectors is None else vectors
        return any(
            (isinstance(p, Ref) and p.name in known)
            or any(LANE in set(subindices(i)) for i in value_indices(p))
            for p in subvalues(v)
        )

    def _as(self, v: Value, wide: bool) -> str:
        text = self.value(v)
        if wide and not self._wide(v):
            return self._call(f"splat{self.lanes}", text)
        return text

    def value(self, v: Value) -> str:
        match v:
            case Lit(x):
                return self._literal(x)
            case Ref(name):
                return name
            case Load(buffer, index, None):
                return self._load(buffer, index)
            case Load():
                raise CompilerBug("print", v.buffer, "what lies outside is made explicit before")
            case AsFloat(i):
                if LANE in set(subindices(i)):
                    raise NotInLanes("an index that differs between lanes is used as a number")
                return self._call(self.dtype.value, self.index(i))
            case Uniform(key, counter):
                return self._uniform(key, counter)
            case Prim(fn, args):
                return self._prim(fn, args)
            case Choose(c, a, b):
                wide = self._wide(v)
                return f"({self._as(a, wide)} if {self.condition(c)} else {self._as(b, wide)})"
            case _:
                assert_never(v)

    def _uniform(self, key: Index, counter: Index) -> str:
        """A number of the counter-based generator; the lanes' counters are evenly spaced."""
        step, rest = spaced(counter)
        count = self._call("u64", self.index(rest))
        if self.lanes > 1 and step is not None:
            lanes = self._call(f"count{self.lanes}", self._call("u64", "0"))
            apart = self._call("wrap_mul", lanes, self._call("u64", self.index(step)))
            count = self._call("wrap_add", apart, count)
        self.generator = True
        return f"uniform_{self.dtype.value}(mixed_key({self.index(key)}), {count})"

    def _prim(self, fn: str, args: tuple[Value, ...]) -> str:
        wide = any(self._wide(a) for a in args)
        if fn in _INFIX:
            a, b = (self._as(x, wide) for x in args)
            return f"({a} {_INFIX[fn]} {b})"
        if fn == "neg":
            return f"(-{self.value(args[0])})"
        if fn in _COMPARE:
            a, b = (self._as(x, wide) for x in args)
            return self._call("flag", f"{a} {_COMPARE[fn]} {b}", a)
        if fn == "select":
            return self._select(args, wide)
        return self._call(_CALLS[fn], *(self._as(a, wide) for a in args))

    def _select(self, args: tuple[Value, ...], wide: bool) -> str:
        chosen = [self._as(a, wide) for a in args[1:]]
        match args[0]:
            case Prim(fn, (a, b)) if fn in _COMPARE:
                test = f"{self._as(a, wide)} {_COMPARE[fn]} {self._as(b, wide)}"
            case other:
                test = f"{self._as(other, wide)} != {self._as(Lit(0.0), wide)}"
        return self._call("select", test, *chosen)

    def _literal(self, x: float) -> str:
        if x != x:
            return self._call(self.dtype.value, "nan")
        if x in (float("inf"), float("-inf")):
            return self._call(self.dtype.value, "inf" if x > 0 else "-inf")
        return self._call(self.dtype.value, repr(x))

    def _load(self, buffer: str, index: tuple[Index, ...]) -> str:
        element = self.nest.buffer(buffer).dtype
        place, step = self.address(buffer, index)
        if step is None:
            text = self._call("load1", buffer, place)
        else:
            dense = step == Int(1)
            tail = (
                [self.tail] if self.tail and not (dense and self._in_panel(buffer, index)) else []
            )
            word = f"load{'' if dense else '_strided'}{'_tail' if tail else ''}{self.lanes}"
            text = self._call(word, buffer, place, *([] if dense else [self.index(step)]), *tail)
        if element is not self.dtype:
            text = self._call(f"to_{self.dtype.value}", text)
        return text

    def _in_panel(self, buffer: str, index: tuple[Index, ...]) -> bool:
        """Whether a whole vector may be read: the lanes are those of a block, which is padded."""
        if buffer not in self.padded:
            return False
        block, rest = split_block(split_lane(index[self.innermost[buffer]])[1])
        return block is not None and all(
            isinstance(i, (Int, Add)) or i == Var("k1") for i in subindices(rest)
        )

    # --- indices ---

    def address(self, buffer: str, index: tuple[Index, ...]) -> tuple[str, Index | None]:
        """The element's place in the buffer, and the step between lanes (None: all lanes read the
        same element).
        """
        total: Index = Size(f"{buffer}_at")
        step: Index | None = None
        for axis, i in enumerate(index):
            fastest = axis == self.innermost[buffer]
            lane, rest = split_lane(i)
            if lane:
                step = Int(lane) if fastest else mul(lane, Size(f"{buffer}_step{axis}"))
            if fastest:
                block, rest = split_block(rest)
                total = add(
                    total, add(mul(block, Size(f"{buffer}_panel")), rest) if block else rest
                )
            else:
                total = add(total, mul(rest, Size(f"{buffer}_step{axis}")))
        return self.index(total), step

    def index(self, i: Index | int) -> str:
        """The text of an index."""
        if isinstance(i, int):
            return str(i)
        match i:
            case Int(n):
                return str(n)
            case Var(name):
                return name
            case Size(name):
                self.arguments.setdefault(name)
                return name
            case Add(a, Int(n)) if n < 0:
                return f"{self.index(a)} - {-n}"
            case Add(a, Mul(b, Int(-1))):
                return f"{self.index(a)} - {self._factor(b)}"
            case Add(a, b):
                return f"{self.index(a)} + {self.index(b)}"
            case Mul(a, b):
                return f"{self._factor(a)} * {self._factor(b)}"
            case Div(a, b):
                return f"{self._factor(a)} // {self._factor(b)}"
            case Mod(a, b):
                return f"{self._factor(a)} % {self._factor(b)}"
            case Least(a, b):
                return f"min({self.index(a)}, {self.index(b)})"
            case Fetch(buffer, index):
                place, step = self.address(buffer, index)
                if step is not None:
                    raise NotInLanes("lanes look up different places")
                return self._call("i64", self._call("load1", buffer, place))
            case _:
                assert_never(i)

    def _factor(self, i: Index) -> str:
        text = self.index(i)
        simple = isinstance(i, (Var, Size, Fetch, Least)) or (isinstance(i, Int) and i.value >= 0)
        return text if simple else f"({text})"

    def condition(self, c: Condition) -> str:
        match c:
            case Test(op, a, b):
                if any(LANE in set(subindices(i)) for i in (a, b)):
                    raise NotInLanes("lanes take different branches")
                return f"{self.index(a)} {op} {self.index(b)}"
            case Both(a, b):
                return f"{self.condition(a)} and {self.condition(b)}"
            case _:
                assert_never(c)

    # --- words ---

    def _word(self, name: str) -> str:
        self.names.add(name)
        return name

    def _call(self, name: str, *arguments: str) -> str:
        return f"{self._word(name)}({', '.join(arguments)})"
