"""Loop IR as Python text in the words of `targets.cpu.vector`.

The printer is given bodies in which the lane variable has become `k0 + 16 * vector + lane` and the
variable of a register tile `i0 + position`. What depends on `lane` prints as a vector, what depends
on `position` or `vector` as a tile, the rest as scalars. It refuses what has no such form
(`NotInTile`, `NotInLanes`), and the caller prints the parts of the tile one by one, or the scalar
schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from cnncc.errors import CompilerBug
from cnncc.loops.ir import (
    Accumulate,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Choose,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Load,
    Mod,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.transform import accesses
from cnncc.loops.walk import indices, statements, subindices, subvalues, value_indices, values
from cnncc.targets.cpu.bases import parted, shared, total
from cnncc.targets.cpu.indices import IndexPrinter, Spread, Steps
from cnncc.targets.cpu.lane import (
    LANE,
    POSITION,
    VECTOR,
    NotInLanes,
    NotInTile,
    spaced,
    split_block,
    split_lane,
)
from cnncc.targets.cpu.runs import assigned, defined, is_long, refs, runs_of
from cnncc.targets.cpu.tile_shape import Shape

TILE_STATEMENTS = 8  # a loop body of so many statements, counted per part, is a register tile

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_CALLS = {
    "fma": "fma", "sqrt": "sqrt", "abs": "absolute", "floor": "floor", "rint": "rint",
    "max": "maximum", "min": "minimum",
    "copysign": "copysign", "scale2": "scale2", "exponent": "exponent", "mantissa": "mantissa",
}  # fmt: skip


_SAME = Spread()  # everywhere


@dataclass
class Printer(IndexPrinter):
    """Prints the bodies of one kernel."""

    padded: frozenset[str] = field(
        kw_only=True
    )  # buffers that may be read up to the next whole block
    lanes: int = field(kw_only=True)
    generator: bool = False  # the text draws random numbers
    tail: str = ""  # lanes left, when the block is not full
    positions: int = 1  # of a register tile
    vectors: int = 1
    shapes: set[Shape] = field(default_factory=set)  # of tiles, constants of the module
    fixed: int = 0  # how many quotients have names
    _spreads: dict[str, Spread] = field(default_factory=dict)  # of locals

    # --- bodies ---

    def body(self, body: Body, indent: int) -> list[str]:
        """The lines of a body."""
        self._spreads, self.bases = {}, {}
        self._learn(body)
        pad = "    " * indent
        return [*self._named_bases(body, pad), *self._lines(body, pad)]

    def _named_bases(self, body: Body, pad: str) -> Iterator[str]:
        """Names for what the addresses of a body without loops have in common. A fetched index may
        exist only where a guard holds, so it is no part of one.
        """
        if any(isinstance(s, For) for s in statements(body)):
            return
        if any(isinstance(i, Fetch) for i in indices(body)):
            return
        try:
            places = [(b, self.place(b, index)[0]) for b, index in accesses(body, fetches=False)]
        except NotInTile:  # the body will be printed position by position
            return
        bases = [(b, parted(place, Size(f"{b}_at"))[0]) for b, place in places]
        for number, (buffer, base) in enumerate(shared(bases)):
            yield f"{pad}place{number} = {self.index(total(base))}"
            self.bases[buffer, base] = f"place{number}"

    def _lines(self, body: Body, pad: str) -> Iterator[str]:
        if not body:
            yield f"{pad}pass"
        for part, after in runs_of(body):
            if self.positions > 1 and is_long(part) and self._differ(part):
                yield from self._by_position(part, after, pad)
            else:
                for s in part:
                    yield from self._statement(s, pad)

    def _differ(self, body: Body) -> bool:
        """Whether what a body does differs between positions."""
        return any(self._spread(v).positions for v in values(body))

    def _by_position(self, body: Body, after: Body, pad: str) -> Iterator[str]:
        """A long run of statements as a loop over the tile's positions. What it takes from before
        or leaves for later lies in memory meanwhile.
        """
        taken = [n for n in dict.fromkeys(refs(body)) if n not in defined(body)]
        taken = [n for n in taken if self._spreads[n].positions]
        changed = [n for n in assigned(body) if n not in defined(body)]
        left = [n for n in defined(body) if n in refs(after) and self._spreads[n].positions]
        rows = {n: f"{n}_row" for n in dict.fromkeys([*taken, *changed, *left])}
        whole = [self._spreads[n] for n in (*changed, *left)]
        if not all(spread.lanes and spread.positions for spread in whole):
            raise NotInTile("a number per position that changes, or a sum that all share")
        for n in rows:
            if n in left:
                memory = self.call("blank", self._shape(self._spreads[n]), self._literal(0.0))
                yield f"{pad}{n}_rows = {memory}"
            else:
                yield f"{pad}{n}_rows = {self.call('in_memory', n)}"
        yield f"{pad}for nth in range({self.call('rolled', str(self.positions))}):"
        for n in (*taken, *(n for n in changed if n not in taken)):
            yield f"{pad}    {rows[n]} = {self.call('take', f'{n}_rows', 'nth')}"
        one = substitute(body, {POSITION.name: Var("nth")}, lambda n: rows.get(n, n))
        for n, new in rows.items():
            self._spreads[new] = self._spreads[n]._replace(positions=False)
        kept = {n: self._spreads.pop(n) for n in defined(body)}
        self._learn(one)
        for s in one:
            yield from self._statement(s, pad + "    ")
        self._spreads.update(kept)
        for n in (*changed, *left):
            yield f"{pad}    {self.call('put', f'{n}_rows', 'nth', rows[n])}"
        for n in (*changed, *left):
            yield f"{pad}{n} = {self.call('from_memory', f'{n}_rows')}"

    def _statement(self, s: Statement, pad: str) -> Iterator[str]:
        match s:
            case For(var, extent, _, inner):
                fixed = self._fixed(s)
                for i, name in fixed.items():
                    yield f"{pad}{name} = {self.index(i)}"
                inner = Rewrite(index=lambda i: Var(fixed[i]) if i in fixed else None).on_body(
                    inner
                )
                yield f"{pad}for {var} in range({self._trips(extent, inner)}):"
                yield from self._lines(inner, pad + "    ")
                work = len(inner) * self.positions * self.vectors
                if work >= TILE_STATEMENTS and not any(isinstance(t, For) for t in inner):
                    # Unrolled, a tile no longer fits the registers. At the end: LLVM takes nothing
                    # that could fail, such as a division, out of a loop from behind it.
                    yield f"{pad}    {self.word('keep_rolled')}()"
            case Guard(condition, inner):
                yield f"{pad}if {self.condition(condition)}:"
                yield from self._lines(inner, pad + "    ")
            case Let(name, v) | Assign(name, v):
                spread = self._spreads.get(name, _SAME)
                if isinstance(s, Assign) and spread.tiled and not spread.lanes:
                    raise NotInTile("a number per position that changes")
                yield f"{pad}{name} = {self._as(v, spread)}"
            case Store(buffer, index, v):
                yield pad + self._store(buffer, index, v)
            case Accumulate(buffer, index, v):
                total = Prim("add", (Load(buffer, index), v))
                yield pad + self._store(buffer, index, total)
            case Barrier():
                raise NotInLanes("a barrier inside a body")
            case _:
                assert_never(s)

    def _fixed(self, loop: For) -> dict[Index, str]:
        """Names for the quotients and remainders that are the same in every turn of a loop: Numba
        guards each division by branches, which LLVM does not take out of a loop.
        """
        inside = {loop.var, *(s.var for s in statements(loop.body) if isinstance(s, For))}
        moving = {Var(v) for v in inside} | {LANE, POSITION, VECTOR}
        found: dict[Index, str] = {}
        for i in indices(loop.body):
            parts = set(subindices(i))
            known = i in found or any(i in set(subindices(k)) for k in found)
            safe = not any(isinstance(part, Fetch) for part in parts)  # a guard may protect it
            if isinstance(i, (Div, Mod)) and not moving & parts and not known and safe:
                found[i] = f"fixed{self.fixed}"
                self.fixed += 1
        return found

    def _trips(self, extent: Index, inner: Body) -> str:
        """The text of a loop's extent. Copies of a loop inside would be most of a kernel."""
        text = self.index(extent)
        nested = any(isinstance(s, For) for s in statements(inner))
        return self.call("rolled", text) if nested and isinstance(extent, Int) else text

    def _store(self, buffer: str, index: tuple[Index, ...], v: Value) -> str:
        place, steps = self.address(buffer, index)
        element = self.nest.buffer(buffer).dtype
        if self.lanes > 1 and steps.lane is None:
            raise NotInLanes(f"{buffer} is stored at one place by all lanes")
        text = self._as(v, steps.spread)
        if element is not self.dtype:
            text = self.call(f"to_{element.value}", text)
        tail = [self.tail] if self.tail and steps.lane is not None else []
        strided = [] if steps.lane in (None, Int(1)) else [self.index(steps.lane)]
        word = f"store{'_tile' * steps.tiled}{'_strided' * bool(strided)}{'_tail' * bool(tail)}"
        apart = self._apart(steps) if steps.tiled else []
        return self.call(word, buffer, place, *apart, *strided, text, *tail)

    def _apart(self, steps: Steps) -> list[str]:
        """The steps between positions and between vectors."""
        return [self.index(step or Int(0)) for step in (steps.position, steps.vector)]

    # --- values ---

    def _learn(self, body: Body) -> None:
        """Note between what the body's locals differ."""
        while True:
            before = dict(self._spreads)
            for s in statements(body):
                if isinstance(s, (Let, Assign)):
                    known = self._spreads.get(s.name, _SAME)
                    self._spreads[s.name] = known.joined(self._spread(s.value))
            if self._spreads == before:
                return

    def _spread(self, v: Value) -> Spread:
        """Between what a value differs."""
        found = _SAME
        for part in subvalues(v):
            if isinstance(part, Ref):
                found = found.joined(self._spreads.get(part.name, _SAME))
            for i in value_indices(part):
                used = {p.name for p in subindices(i) if isinstance(p, Var)}
                found = found.joined(Spread(*(v.name in used for v in (POSITION, VECTOR, LANE))))
        return found._replace(lanes=found.lanes and self.lanes > 1)

    def _shape(self, spread: Spread) -> str:
        """The name of the shape of values with that spread."""
        shape = Shape(
            self.positions if spread.positions else 1,
            self.vectors if spread.vectors else 1,
            self.lanes if spread.lanes else 1,
        )
        self.shapes.add(shape)
        return str(shape)

    def _as(self, v: Value, wanted: Spread) -> str:
        text = self.value(v)
        if self._spread(v) == wanted:
            return text
        if wanted.tiled and not wanted.lanes:
            raise NotInTile("a number per position that is the same for all")
        if wanted.tiled:
            return self.call("splat_tile", self._shape(wanted), text)
        return self.call(f"splat{self.lanes}", text)

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
                if LANE in subindices(i):
                    raise NotInLanes("an index that differs between lanes is used as a number")
                return self.call(self.dtype.value, self.index(i))
            case Uniform(key, counter):
                return self._uniform(key, counter)
            case Prim(fn, args):
                return self._prim(fn, args)
            case Choose(c, a, b):
                spread = self._spread(v)
                if spread.tiled and not spread.lanes:
                    raise NotInTile("a number per position that is chosen")
                return f"({self._as(a, spread)} if {self.condition(c)} else {self._as(b, spread)})"
            case _:
                assert_never(v)

    def _uniform(self, key: Index, counter: Index) -> str:
        """A number of the counter-based generator; the lanes' counters are evenly spaced."""
        step, rest = spaced(counter)
        count = self.call("u64", self.index(rest))
        if self.lanes > 1 and step is not None:
            lanes = self.call(f"count{self.lanes}", self.call("u64", "0"))
            apart = self.call("wrap_mul", lanes, self.call("u64", self.index(step)))
            count = self.call("wrap_add", apart, count)
        self.generator = True
        return f"uniform_{self.dtype.value}(mixed_key({self.index(key)}), {count})"

    def _prim(self, fn: str, args: tuple[Value, ...]) -> str:
        texts = [self.value(a) for a in args]  # a word repeats what differs less
        if fn in _INFIX:
            return f"({texts[0]} {_INFIX[fn]} {texts[1]})"
        if fn == "neg":
            return f"(-{texts[0]})"
        if fn in _COMPARE:
            return self.call("flag", f"{texts[0]} {_COMPARE[fn]} {texts[1]}", texts[0])
        if fn == "select":
            return self._select(args)
        return self.call(_CALLS[fn], *texts)

    def _select(self, args: tuple[Value, ...]) -> str:
        match args[0]:
            case Prim(fn, (a, b)) if fn in _COMPARE:
                test = f"{self.value(a)} {_COMPARE[fn]} {self.value(b)}"
            case other:
                test = f"{self.value(other)} != {self._literal(0.0)}"
        return self.call("select", test, *map(self.value, args[1:]))

    def _literal(self, x: float) -> str:
        if x != x:
            return self.call(self.dtype.value, "nan")
        if x in (float("inf"), float("-inf")):
            return self.call(self.dtype.value, "inf" if x > 0 else "-inf")
        return self.call(self.dtype.value, repr(x))

    def _load(self, buffer: str, index: tuple[Index, ...]) -> str:
        element = self.nest.buffer(buffer).dtype
        place, steps = self.address(buffer, index)
        if steps.lane is None and not steps.tiled:
            text = self.call("load1", buffer, place)
        else:
            dense = steps.lane in (None, Int(1))
            whole = steps.lane is None or (dense and self._in_panel(buffer, index))
            tail = [self.tail] if self.tail and not whole else []
            strided = [] if dense else [self.index(steps.lane or Int(0))]
            how = f"{'_strided' * bool(strided)}{'_tail' * bool(tail)}"
            if steps.tiled:
                shape, apart = self._shape(steps.spread), self._apart(steps)
                text = self.call(f"load_tile{how}", shape, buffer, place, *apart, *strided, *tail)
            else:
                text = self.call(f"load{how}{self.lanes}", buffer, place, *strided, *tail)
        if element is not self.dtype:
            text = self.call(f"to_{self.dtype.value}", text)
        return text

    def _in_panel(self, buffer: str, index: tuple[Index, ...]) -> bool:
        """Whether a whole vector may be read: the lanes are those of a block, which is padded."""
        if buffer not in self.padded:
            return False
        block, rest = split_block(split_lane(index[self.innermost[buffer]])[1], self.group)
        return block is not None and rest in (Int(0), Var("k1"))

    def copy(self) -> Printer:
        """A printer that knows as much, for an attempt that may fail."""
        return replace(
            self, names=set(self.names), arguments=dict(self.arguments), shapes=set(self.shapes)
        )
