"""The values of a kernel's text, and between what each differs: what depends on `lane` prints as a
vector, what depends on `position` or `vector` as a tile, the rest as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from cnncc.errors import CompilerBug
from cnncc.loops.affine import extent_of
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    Body,
    Choose,
    Index,
    Int,
    Let,
    Lit,
    Load,
    Prim,
    Ref,
    Size,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.walk import statements, subindices, subvalues, value_indices
from cnncc.targets.cpu.indices import IndexPrinter, Spread, Steps
from cnncc.targets.cpu.lane import (
    LANE,
    POSITION,
    VECTOR,
    NotInLanes,
    NotInTile,
    spaced,
    split_block,
)
from cnncc.targets.cpu.tile_shape import Shape
from cnncc.tensor import DType

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_CALLS = {
    "fma": "fma", "sqrt": "sqrt", "abs": "absolute", "floor": "floor", "rint": "rint",
    "max": "maximum", "min": "minimum",
    "copysign": "copysign", "scale2": "scale2", "power2": "power2",
    "exponent": "exponent", "mantissa": "mantissa",
}  # fmt: skip


SAME = Spread()  # everywhere


@dataclass
class ValuePrinter(IndexPrinter):
    """Prints values."""

    padded: frozenset[str] = field(kw_only=True)  # what may be read up to the next whole block
    lanes: int = field(kw_only=True)
    generator: bool = False  # the text draws random numbers
    tail: str = ""  # lanes left, when the block is not full
    positions: int = 1  # of a register tile
    vectors: int = 1
    shapes: set[Shape] = field(default_factory=set)  # of tiles, constants of the module
    near: dict[tuple[str, tuple[Index, ...]], str] = field(default_factory=dict)
    """The texts of loads near others."""
    _spreads: dict[str, Spread] = field(default_factory=dict)  # of locals

    def _learn(self, body: Body) -> None:
        """Note between what the body's locals differ."""
        found = statements(body)
        again = any(isinstance(s, Assign) for s in found)  # what is read may be assigned later
        while True:
            before = dict(self._spreads)
            for s in found:
                if isinstance(s, (Let, Assign)):
                    known = self._spreads.get(s.name, SAME)
                    self._spreads[s.name] = known.joined(self._spread(s.value))
            if not again or self._spreads == before:
                return

    def _spread(self, v: Value) -> Spread:
        """Between what a value differs."""
        found = SAME
        used: set[str] = set()
        for part in subvalues(v):
            if isinstance(part, Ref):
                found = found.joined(self._spreads.get(part.name, SAME))
            for i in value_indices(part):
                used.update(p.name for p in subindices(i) if isinstance(p, Var))
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
        if (buffer, index) in self.near:
            text = self.near[buffer, index]
        elif steps.lane is None and not steps.tiled:
            text = self.call("load1", buffer, place)
        else:
            apart = self._between_lanes(steps)
            dense = apart in (None, Int(1))
            whole = apart is None or (dense and self._in_panel(buffer, index))
            tail = [self.tail] if self.tail and not whole else []
            strided = [] if dense or apart == Int(2) else [self.index(apart or Int(0))]
            how = "_strided" if strided else "" if dense else "_second"
            how += "_tail" * bool(tail)
            if steps.tiled:
                parts = [self._shape(steps.spread), buffer, place, *self._apart(steps)]
                text = self.call(f"load_tile{how}", *parts, *strided, *tail)
            else:
                text = self.call(f"load{how}{self.lanes}", buffer, place, *strided, *tail)
        if element is DType.BF16:
            text, element = self.call("from_bf16", text), DType.F32
        if element is not self.dtype:
            text = self.call(f"to_{self.dtype.value}", text)
        return text

    def _between_lanes(self, steps: Steps) -> Index | None:
        """How far it is from one lane to the next: a number where the nest knows it."""
        if steps.lane is None:
            return None
        known = all(
            i.name in self.nest.sizes for i in subindices(steps.lane) if isinstance(i, Size)
        )
        value = extent_of(steps.lane, self.nest.sizes) if known else None
        return Int(value) if isinstance(value, int) else steps.lane

    def _in_panel(self, buffer: str, index: tuple[Index, ...]) -> bool:
        """Whether a whole vector may be read: the lanes are those of a block, which is padded."""
        if buffer not in self.padded:
            return False
        _, inside = spaced(index[self.innermost[buffer]], VECTOR)
        block, rest = split_block(spaced(inside)[1], self.group)
        return block is not None and rest in (Int(0), Var("k1"))

    def _apart(self, steps: Steps) -> list[str]:
        """The steps between positions and between vectors."""
        return [self.index(step or Int(0)) for step in (steps.position, steps.vector)]
