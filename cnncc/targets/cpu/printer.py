"""Loop IR as Python text in the words of `targets.cpu.vector`.

The printer is given bodies in which the lane variable has become `k0 + 16 * vector + lane` and the
variable of a register tile `i0 + position`. What depends on `lane` prints as a vector, what depends
on `position` or `vector` as a tile, the rest as scalars. It refuses what has no such form
(`NotInTile`, `NotInLanes`), and the caller prints the parts of the tile one by one, or the scalar
schedule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Let,
    Load,
    Mod,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Value,
    Var,
)
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.transform import accesses
from cnncc.loops.walk import indices, statements, subindices, values
from cnncc.targets.cpu.bases import named
from cnncc.targets.cpu.columns import Columns, columns_of
from cnncc.targets.cpu.contiguous import Pair, pair_of
from cnncc.targets.cpu.hinting import HintPrinter
from cnncc.targets.cpu.indices import Spread
from cnncc.targets.cpu.lane import (
    LANE,
    POSITION,
    VECTOR,
    NotInLanes,
    NotInTile,
)
from cnncc.targets.cpu.runs import alive, assigned, defined, is_long, refs, runs_of
from cnncc.targets.cpu.turns import in_a_row, turns_at_once, turns_of
from cnncc.targets.cpu.values import SAME

TILE_STATEMENTS = 8  # a loop body of so many statements, counted per part, is a register tile

TURNS = ("turns", "length")  # of the outer and the inner one of two loops

AT_ONCE = 8
"""Vectors that a long run of statements works on at a time: each hides how long the others take."""


@dataclass
class Printer(HintPrinter):
    """Prints the bodies of one kernel."""

    registers: int = field(default=0, kw_only=True)  # of vectors, for what a tile loads once
    hungry: bool = field(default=False, kw_only=True)  # two multiply-adds of vectors in a cycle
    fixed: int = 0  # how many quotients have names

    # --- bodies ---

    def body(self, body: Body, indent: int) -> list[str]:
        """The lines of a body."""
        self._spreads, self.places = {}, {}
        self._learn(body)
        pad = "    " * indent
        return [*self._named_bases(body, pad), *self._hints(body, pad), *self._lines(body, pad)]

    def _named_bases(self, body: Body, pad: str) -> Iterator[str]:
        """Names for what the addresses of a body without loops have in common. A fetched index may
        exist only where a guard holds, so it is no part of one.
        """
        if _has_loops(body):
            return
        if any(isinstance(i, Fetch) for i in indices(body)):
            return
        found = list(dict.fromkeys(accesses(body, fetches=False)))
        try:
            places = [self.place(*access) for access in found]
        except NotInTile:  # the body will be printed position by position
            return
        shared = named([(b, place) for (b, _), (place, _) in zip(found, places, strict=True)])
        for name, i in shared.names:
            yield f"{pad}{name} = {self.index(i)}"
        steps = [s for _, s in places]
        self.places |= dict(zip(found, zip(shared.places, steps, strict=True), strict=True))

    def _lines(self, body: Body, pad: str) -> Iterator[str]:
        if not body:
            yield f"{pad}pass"
        for part, after in runs_of(body):
            many = self.positions > 1 and self.positions * self.vectors > AT_ONCE
            if many and is_long(part) and self._differ(part):
                yield from self._by_position(part, after, pad)
            else:
                for s in part:
                    yield from self._statement(s, pad)

    def _differ(self, body: Body) -> bool:
        """Whether what a body does differs between positions."""
        return any(self._spread(v).positions for v in values(body))

    def _by_position(self, body: Body, after: Body, pad: str) -> list[str]:
        """A long run of statements as a loop over the tile's positions, some at a time. What it
        takes from before or leaves for later lies in memory meanwhile.
        """
        positions, known = self.positions, dict(self._spreads)
        fitting = (n for n in range(1, positions) if positions % n == 0)
        some = max(n for n in fitting if n * self.vectors <= max(AT_ONCE, self.vectors))
        for group in (some, 1):
            try:
                return list(self._by_group(group, body, after, pad))
            except NotInTile:
                self._spreads = dict(known)
                if group == 1:
                    raise
            finally:
                self.positions = positions
        raise AssertionError

    def _by_group(self, group: int, body: Body, after: Body, pad: str) -> Iterator[str]:
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
        turns = self.call("rolled", str(self.positions))
        yield f"{pad}for nth in range({turns if group == 1 else f'0, {turns}, {group}'}):"
        self.positions = group
        for n in (*taken, *(n for n in changed if n not in taken)):
            some = self._shape(self._spreads[n])
            yield f"{pad}    {rows[n]} = {self.call('take', some, f'{n}_rows', 'nth')}"
        place = Var("nth") + POSITION if group > 1 else Var("nth")
        one = substitute(body, {POSITION.name: place}, lambda n: rows.get(n, n))
        for n, new in rows.items():
            self._spreads[new] = self._spreads[n]._replace(positions=group > 1)
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
                if fixed:
                    known = Rewrite(index=lambda i: Var(fixed[i]) if i in fixed else None)
                    inner = known.on_body(inner)
                columns = self._columns(replace(s, body=inner))
                if columns:
                    yield from self._taps(replace(s, body=inner), columns, pad)
                    return
                pair = self._turns(replace(s, body=inner))
                straight = not any(isinstance(t, For) for t in inner)
                tile = straight and len(inner) * self.positions * self.vectors >= TILE_STATEMENTS
                turns = self._at_once(extent, inner) if tile else 1
                if pair:
                    yield from self._pair(pair, var, inner, pad)
                elif turns > 1:
                    yield f"{pad}for {var} in range(0, {self.index(extent)}, {turns}):"
                    yield from self._written_out(var, inner, turns, pad + "    ")
                else:
                    yield f"{pad}for {var} in range({self._trips(extent, inner)}):"
                    yield from self._turn(inner, pad + "    ")
                if not _has_loops(inner) and self.positions > 1:
                    yield from self._fetched(replace(s, body=inner), pad + "    ", turns)
                if tile:
                    # Unrolled, a tile no longer fits the registers. At the end: LLVM takes nothing
                    # that could fail, such as a division, out of a loop from behind it.
                    yield f"{pad}    {self.word('keep_rolled')}()"
            case Guard(condition, inner):
                yield f"{pad}if {self.condition(condition)}:"
                yield from self._lines(inner, pad + "    ")
            case Let(name, v) | Assign(name, v):
                spread = self._spreads.get(name, SAME)
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

    def _columns(self, loop: For) -> tuple[Columns, ...]:
        """What the tile's positions share in a loop."""
        return columns_of(loop, self.nest.sizes, self.positions, self.vectors, self.registers)

    def _turns(self, loop: For) -> Pair | None:
        """The loop and the one inside it, if they may run as one."""
        if len(loop.body) == 1 and isinstance(loop.body[0], For) and self._columns(loop.body[0]):
            return None
        return pair_of(loop, lambda *access: self.place(*access)[0])

    def _taps(self, loop: For, columns: Sequence[Columns], pad: str) -> Iterator[str]:
        """The turns of a loop one after the other, with what their loads share loaded before."""
        positions = self.positions
        for number, c in enumerate(columns):
            self.positions = c.count(positions)
            yield f"{pad}columns{number} = {self.value(c.all)}"
            self.positions = positions
        for tap in range(columns[0].taps):
            names: dict[Value, Value] = {}
            for number, c in enumerate(columns):
                names[c.load] = Ref(f"column{number}_{tap}")
                spread = self._spreads[f"column{number}_{tap}"] = self._spread(c.load)
                steps = (str(tap), str(c.stride))
                text = self.call("pick", self._shape(spread), f"columns{number}", *steps)
                yield f"{pad}column{number}_{tap} = {text}"
            body = Rewrite(value=names.get).on_body(loop.body)
            for s in substitute(body, {loop.var: Int(tap)}):
                yield from self._statement(s, pad)
        yield f"{pad}{self.word('keep_rolled')}()"  # the loop around them

    def _at_once(self, extent: Index, body: Body) -> int:
        """How many turns of a tile's innermost loop are written out."""
        if self.positions == 1:
            return 1
        if isinstance(extent, Size) and extent.name in self.derived:
            pair, _ = self.derived[extent.name]
            extent = pair.inner if isinstance(pair, Pair) else extent  # it divides both numbers
        return turns_at_once(body, extent, self.nest.sizes, self.registers)

    def _written_out(self, var: str, body: Body, turns: int, pad: str) -> Iterator[str]:
        """The body of a loop for so many turns, each after the loads of the one before."""
        rows = list(in_a_row(body, var, self.place))
        for number, row in enumerate(rows):
            shape = self._shape(Spread(positions=True))
            place = shape, row.load.buffer, self.index(row.place), self.index(row.step)
            yield f"{pad}near{number} = {self.call('anchor', *place)}"
        for turn, part in enumerate(turns_of(body, var, turns)):
            if turn:
                yield f"{pad}{self.word('keep_rolled')}()"
            self.near = {
                row.access(var, turn): self.call("load_near", f"near{number}", str(turn))
                for number, row in enumerate(rows)
            }
            self._learn(part)
            yield from self._turn(part, pad)
        self.near = {}

    def _turn(self, body: Body, pad: str) -> Iterator[str]:
        """The body of a loop. Where it adds to no sum it may be long, and its addresses have names;
        those of a sum are few, and LLVM moves what they share out of the loop.
        """
        known = dict(self.places)
        self._share_numbers(body)
        if not assigned(body):
            yield from self._named_bases(body, pad)
        yield from self._lines(body, pad)
        self.places = known

    def _share_numbers(self, body: Body) -> None:
        """Numbers per position that several sums take wait for them in registers, if these have
        room beside the sums and the vectors, where a core takes numbers faster than its loads
        bring them; where not, loading each twice costs less than one more instruction.
        """
        if not self.hungry or self.positions == 1 or _has_loops(body):
            return
        used = Counter(refs(body))
        locals_ = {name: self._spreads[name] for name in defined(body)}
        numbers = [n for n, of in locals_.items() if of == Spread(positions=True) and used[n] > 1]
        vectors = alive(body, [n for n, of in locals_.items() if of.lanes])
        held = (len(assigned(body)) * self.positions + vectors) * self.vectors
        if held + alive(body, numbers) * self.positions < self.registers:
            for name in numbers:
                self._spreads[name] = Spread(positions=True, lanes=True)

    def _pair(self, pair: Pair, var: str, body: Body, pad: str) -> Iterator[str]:
        """Two loops whose numbers of turns are integers of the kernel."""
        outer, inner = (self.index(self.derive(pair, k, word)) for k, word in enumerate(TURNS))
        yield f"{pad}for {var} in range({outer}):"
        (loop,) = body
        assert isinstance(loop, For)
        yield from self._statement(replace(loop, extent=Size(inner)), pad + "    ")

    def _fixed(self, loop: For) -> dict[Index, str]:
        """Names for the quotients and remainders that are the same in every turn of a loop: Numba
        guards each division by branches, which LLVM does not take out of a loop.
        """
        inside = {loop.var, *(s.var for s in statements(loop.body) if isinstance(s, For))}
        moving = {Var(v) for v in inside} | {LANE, POSITION, VECTOR}
        found: dict[Index, str] = {}
        for i in indices(loop.body):
            if not isinstance(i, (Div, Mod)):
                continue
            parts = set(subindices(i))
            known = i in found or any(i in set(subindices(k)) for k in found)
            safe = not any(isinstance(part, Fetch) for part in parts)  # a guard may protect it
            if not moving & parts and not known and safe:
                found[i] = f"fixed{self.fixed}"
                self.fixed += 1
        return found

    def _trips(self, extent: Index, inner: Body) -> str:
        """The text of a loop's extent. Copies of a loop inside would be most of a kernel."""
        text = self.index(extent)
        nested = _has_loops(inner)
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

    def copy(self) -> Printer:
        """A printer that knows as much, for an attempt that may fail."""
        return replace(
            self, names=set(self.names), arguments=dict(self.arguments),
            shapes=set(self.shapes), derived=dict(self.derived),
        )  # fmt: skip


def _has_loops(body: Body) -> bool:
    return any(isinstance(s, For) for s in statements(body))
