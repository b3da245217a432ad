"""Random nests that are valid by construction, with data for them."""

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from cnncc.loops.ir import (
    Accumulate,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Both,
    Buffer,
    Choose,
    Condition,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Least,
    Let,
    Lit,
    Load,
    Nest,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Uniform,
    Value,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.tensor import DType

SIZES = ("a", "b", "c")
BUFFERS = (
    Buffer("x", DType.F32, (Size("a"), Size("b")), "in"),
    Buffer("w", DType.F32, (Size("c"),), "in"),
    Buffer("t", DType.I32, (Size("b"),), "in"),
    Buffer("u", DType.U8, (Size("a"), Int(2)), "in"),
    Buffer("y", DType.F32, (Size("a"), Size("c")), "out"),
    Buffer("z", DType.F32, (Size("c"), Size("a"), Int(2)), "out"),
)
PARALLEL = [Kind.PARALLEL, Kind.VECTOR, Kind.BLOCK, Kind.THREAD]
FUNCTIONS = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "fma": 3, "sqrt": 1, "abs": 1, "floor": 1,
    "rint": 1, "max": 2, "min": 2, "lt": 2, "le": 2, "eq": 2, "ne": 2, "select": 3, "copysign": 2,
    "exponent": 1, "mantissa": 1,
}  # fmt: skip
LITERALS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e30, -3.4e-39, float("inf")]


@dataclass
class Scope:
    """The names that are visible, and where fresh ones come from."""

    draw: st.DrawFn
    variables: tuple[str, ...] = ()
    locals: tuple[str, ...] = ()  # visible
    own: tuple[str, ...] = ()  # those that may be assigned here
    count: list[int] = field(default_factory=lambda: [0])

    def fresh(self, stem: str) -> str:
        self.count[0] += 1
        return f"{stem}{self.count[0]}"

    def pick(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def index(self, depth: int = 2) -> Index:
        kinds = ["int", "size", *(["var"] * 3 if self.variables else [])]
        if depth:
            kinds += ["add", "mul", "div", "mod", "least", "fetch"]
        match self.pick(*kinds):
            case "int":
                return Int(self.draw(st.integers(-3, 5)))
            case "size":
                return Size(self.pick(*SIZES))
            case "var":
                return Var(self.pick(*self.variables))
            case "add":
                return self.index(depth - 1) + self.index(depth - 1)
            case "mul":
                return self.index(depth - 1) * self.index(depth - 1)
            case "div":
                return self.index(depth - 1) // self.divisor()
            case "mod":
                return self.index(depth - 1) % self.divisor()
            case "least":
                return Least(self.index(depth - 1), self.index(depth - 1))
            case _:
                return Fetch("t", (self.index(depth - 1) % Size("b"),))

    def divisor(self) -> Index:
        return self.draw(st.sampled_from([Int(2), Int(3), Size("c"), Size("a") + 1]))

    def condition(self, depth: int = 1) -> Condition:
        if depth and self.draw(st.booleans()):
            return Both(self.condition(depth - 1), self.condition(depth - 1))
        return compare(self.pick("<", "<=", "==", "!="), self.index(1), self.index(1))

    def load(self) -> Value:
        buffer = self.draw(st.sampled_from(BUFFERS[:4]))
        index = tuple(self.index() for _ in buffer.extents)
        if self.draw(st.booleans()):
            return Load(buffer.name, index, self.draw(st.sampled_from(LITERALS)))
        inside = (i % e for i, e in zip(index, buffer.extents, strict=True))
        return Load(buffer.name, tuple(inside))

    def value(self, depth: int = 3) -> Value:
        kinds = ["lit", "load", "load", *(["ref"] * 2 if self.locals else [])]
        kinds += ["prim"] * 4 + ["choose", "guarded", "float", "uniform", "scale2"] if depth else []
        match self.pick(*kinds):
            case "lit":
                return Lit(self.draw(st.sampled_from(LITERALS)))
            case "ref":
                return Ref(self.pick(*self.locals))
            case "load":
                return self.load()
            case "prim":
                fn = self.pick(*FUNCTIONS)
                return Prim(fn, tuple(self.value(depth - 1) for _ in range(FUNCTIONS[fn])))
            case "choose":
                return Choose(self.condition(), self.value(depth - 1), self.value(depth - 1))
            case "guarded":  # in range only where it is chosen
                i = self.index(1)
                inside = Both(compare("<=", 0, i), compare("<", i, Size("c")))
                return Choose(inside, Load("w", (i,)), self.value(depth - 1))
            case "float":
                return AsFloat(self.index())
            case "uniform":
                return Uniform(self.index(1), self.index())
            case _:
                n = prim("rint", prim("min", self.value(depth - 1), 300.0))
                return (
                    prim("power2", n)
                    if self.draw(st.booleans())
                    else prim("scale2", self.value(depth - 1), n)
                )

    def statements(self, depth: int) -> Body:
        """Some statements without stores."""
        body: list[Statement] = []
        scope = self
        for _ in range(self.draw(st.integers(1, 3))):
            kinds = ["let", *(["assign"] * 2 if scope.own else [])]
            match scope.pick(*kinds, *(["loop", "guard"] if depth else [])):
                case "let":
                    name = scope.fresh("l")
                    body.append(Let(name, scope.value()))
                    locals_, own = (*scope.locals, name), (*scope.own, name)
                    scope = replace(scope, locals=locals_, own=own)
                case "assign":
                    body.append(Assign(scope.pick(*scope.own), scope.value()))
                case "loop":
                    var = scope.fresh("k")
                    inner = replace(scope, variables=(*scope.variables, var))
                    extent = Least(scope.index(1), Int(3))
                    body.append(For(var, extent, Kind.SERIAL, inner.statements(depth - 1)))
                case _:
                    body.append(Guard(scope.condition(), scope.statements(depth - 1)))
        return tuple(body)


@st.composite
def nests(draw: st.DrawFn) -> Nest:
    """Two parallel loops with work at both levels, and after a barrier an accumulation."""
    scope = Scope(draw)
    kinds = st.sampled_from(PARALLEL)
    i = replace(scope, variables=("i",))
    first = i.statements(1)
    lets = tuple(s.name for s in first if isinstance(s, Let))
    j = replace(i, variables=("i", "j"), locals=lets)
    second = j.statements(2)
    seen = tuple(s.name for s in second if isinstance(s, Let))
    end = replace(j, locals=(*lets, *seen))
    stores: Body = (
        Store("y", (Var("i"), Var("j")), end.value()),
        Guard(end.condition(), (Store("z", (Var("j"), Var("i"), Int(1)), end.value()),)),
    )
    inner = For("j", Size("c"), draw(kinds), (*second, *stores))
    outer = For("i", Size("a"), draw(kinds), (*first, inner))
    last = replace(scope, variables=("e", "i"))
    column = Fetch("t", (Var("e") % Size("b"),)) % Size("c")
    add = Accumulate("y", (Var("i"), column), last.value(2))
    gather = For("e", Int(3), Kind.SERIAL, (For("i", Size("a"), Kind.PARALLEL, (add,)),))
    sizes = {name: draw(st.integers(1, 4)) for name in SIZES}
    return Nest(BUFFERS, dict(sizes), (outer, Barrier(), gather))


def data_for(nest: Nest, seed: int, dtype: type[np.floating]) -> dict[str, np.ndarray]:
    """Random inputs, with some special numbers, and outputs full of sevens."""
    a, b, c = (int(str(nest.sizes[name])) for name in SIZES)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((a, b)).astype(dtype)
    x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e-40, 3e38])
    return {
        "x": x,
        "w": rng.standard_normal(c).astype(dtype),
        "t": rng.integers(0, 9, b).astype(np.int32),
        "u": rng.integers(0, 256, (a, 2)).astype(np.uint8),
        "y": np.full((a, c), 7, dtype),
        "z": np.full((c, a, 2), 7, dtype),
    }
