"""Every operator with its derivative: the dense matrix and the adjoint identities where it is
linear, exactly, on whole numbers and from the emitted kernels; where it is not, difference
quotients of the NumPy definition in float64 against the gradient's nests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.sources import Constant, Input, Parameter, Source
from cnncc.ops.base import Array, Op
from cnncc.passes.differentiate import prune
from cnncc.passes.fuse import Fused, fuse
from cnncc.passes.retype import retyped
from cnncc.tensor import DType, TensorType
from cnncc.verify.certificate import Check, Outcome, Verdict
from cnncc.verify.isolate import own_source
from cnncc.verify.kernels import Data, always_exact, oracle
from cnncc.verify.running import Arrays, Target, close, drawn, dyadic, same_numbers

STEP, SLOPE_ERROR, VALUE_ERROR = 1e-6, 1e-5, 1e-12
DIRECTIONS, DRAWS = 2, 4
MOST_ENTRIES, MOST_COLUMNS = 1 << 20, 512
"""Of the largest dense matrix that is built; the definition runs once for each column."""


@dataclass(frozen=True)
class Case:
    """An operator of the network with sources of its own: node y, upstream gradient dy, and by
    operand the node of its gradient.
    """

    y: Node
    dy: Node
    operands: tuple[str, ...]
    gradients: dict[int, str]
    sources: dict[str, str]
    places: tuple[str, ...]

    @property
    def op(self) -> Op:
        assert isinstance(self.y.op, Op)
        return self.y.op


def cases(b: Builder, graph: Graph, forward: Sequence[Node], prefix: str) -> list[Case]:
    """Add to `b` every differentiable operator among `forward`, equal ones once."""
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in forward:
        if not isinstance(node.op, Op) or type(node.op).gradient is Op.gradient:
            continue
        if node.type.dtype.is_float:
            groups.setdefault((node.op, graph.types(node)), []).append(node)
    return [
        _case(b, graph, own[0], f"{prefix}{i}.", tuple(n.name for n in own))
        for i, own in enumerate(groups.values())
    ]


def _case(b: Builder, graph: Graph, node: Node, prefix: str, places: tuple[str, ...]) -> Case:
    operands, sources = [], {}
    for position, name in enumerate(node.inputs):  # one source per operand, equal tensors or not
        made = own_source(graph[name], f"{prefix}{position}.")
        operands.append(b.add(made.op, name=made.name))
        sources[made.name] = name
    y = b.add(node.op, *operands, name=prefix + node.name)
    seed = Input(y.type) if y.type.batched else Parameter(y.type)
    dy = b.add(seed, name=f"{prefix}dy")
    parts = node.op.gradient(b, y, dy)  # type: ignore[attr-defined]
    gradients = {k: part.name for k, part in enumerate(parts) if part is not None}
    return Case(y, dy, tuple(o.name for o in operands), gradients, sources, places)


class Operators:
    """All operators with a derivative of some forward graphs: the linear ones as a compiled program
    in float32, the gradients of the others by their nests in float64: in float32 these have the
    bits of the kernels.
    """

    def __init__(
        self,
        graphs: Sequence[tuple[Graph, Sequence[Node]]],
        batch: int,
        *,
        machine: bool,
        threads: int | None,
    ) -> None:
        b = Builder("operators")
        self.batch, self.cases = batch, list[Case]()
        self.sources: dict[str, tuple[int, str]] = {}
        seen: set[tuple[object, ...]] = set()
        for number, (graph, forward) in enumerate(graphs):
            new = [n for n in forward if (n.op, graph.types(n)) not in seen]
            seen |= {(n.op, graph.types(n)) for n in new}
            some = cases(b, graph, new, f"o{number}_")
            self.cases += some
            self.sources |= {s: (number, t) for c in some for s, t in c.sources.items()}
        self.linear = [c for c in self.cases if c.op.linear]
        self.curved = [c for c in self.cases if _curved(b, c)]
        self.graph = b.graph([])
        exact = _program(self.graph, self.linear, DType.F32)
        self.exact = Target(exact, batch, machine=machine, threads=threads) if exact else None
        most = max((k for c in self.curved for k in _curved(b, c)), default=-1)
        results = _results(self.graph, [c.y.name for c in self.curved], DType.F64)
        self.results = self._defined(results) if results else None
        self.slopes = [self._slopes(k) for k in range(most + 1)]

    def _slopes(self, k: int) -> Slopes:
        moved = [c for c in self.curved if k in _curved(self.graph, c)]
        gradients = [c.gradients[k] for c in moved if k in c.gradients]
        program = _results(self.graph, gradients, DType.F64)
        return Slopes(moved, self._defined(program) if program else None)

    def _defined(self, program: Fused) -> Target:
        return Target(program, self.batch, machine=False, dtype=DType.F64)

    def verdicts(self, actual: Sequence[Arrays], seed: int) -> list[Verdict]:
        """One per operator; `actual` holds the tensors of the graphs in a run."""
        own = {s: actual[number][t] for s, (number, t) in self.sources.items()}
        run = _Runs(self, own, np.random.default_rng(seed))
        found = [
            Verdict("operator", f"{c.places[0]} ({c.op.name})", tuple(run.checks(c)), c.places)
            for c in self.cases
        ]
        return [v for v in found if v.checks]


@dataclass(frozen=True)
class Slopes:
    """The cases that are not linear in their operand at one position, and their gradients there."""

    moved: Sequence[Case]
    gradients: Target | None


class _Runs:
    """The numbers of one run."""

    def __init__(self, of: Operators, own: Data, rng: np.random.Generator) -> None:
        self.batch, self.rng, self.graph = of.batch, rng, of.graph
        self.exact = of.exact
        self.whole = self._data(of.graph, own, of.cases, whole=True)
        self.smooth = self._data(retyped(of.graph, DType.F64), own, of.cases, whole=False)
        self.at = self.exact.run(_of(self.exact, self.whole)) if self.exact else {}
        self.defined = oracle(of.exact.fused.graph, self.whole, self.batch) if of.exact else {}
        self.without = self._without(of.linear)
        self.measured: dict[str, list[tuple[int, float, float]]] = {c.y.name: [] for c in of.curved}
        self.results = of.results.run(_of(of.results, self.smooth)) if of.results else {}
        for k, slopes in enumerate(of.slopes):
            self._measure(k, slopes)

    def _data(
        self, graph: Graph, own: Data, found: Sequence[Case], *, whole: bool
    ) -> dict[str, Array]:
        positive = {
            c.operands[k]
            for c in found
            for sample in type(c.op).samples()
            for k in sample.positive
            if k < len(c.operands)
        }
        given = {}
        for node in graph.nodes:
            if not isinstance(node.op, Source) or isinstance(node.op, Constant):
                continue
            if node.type.dtype.is_float:
                given[node.name] = drawn(
                    node.type, self.batch, self.rng, whole=whole, positive=node.name in positive
                )
            else:
                given[node.name] = own[node.name]
        return given

    def _without(self, linear: Sequence[Case]) -> dict[int, Arrays]:
        """Results with the operand at a position 0, of all cases together."""
        found: dict[int, Arrays] = {}
        for k in sorted({k for c in linear for k in c.op.linear}):
            zeroed = {
                c.operands[k]: np.zeros_like(self.whole[c.operands[k]])
                for c in linear
                if k in c.op.linear and c.operands[k] in self.whole
            }
            assert self.exact is not None
            found[k] = self.exact.run(_of(self.exact, {**self.whole, **zeroed}))
        return found

    def _measure(self, k: int, of: Slopes) -> None:
        """By case: operand, slope and <gradient, direction>, for random directions. Slopes are
        those of the NumPy definition, with which `_value` compares the nests.
        """
        at = of.gradients.run(_of(of.gradients, self.smooth)) if of.gradients else {}
        for c in of.moved:
            types = self.graph.types(c.y)
            arrays = [self._wide(self.graph[o], self.smooth) for o in c.operands]
            name = c.gradients.get(k)
            g = self._gradient(name, at, self.smooth) if name else np.zeros(1)
            dy = self.smooth[c.dy.name]
            for _ in range(DIRECTIONS):
                d = np.asarray(self.rng.standard_normal(arrays[k].shape))
                d = np.asarray(d / np.linalg.norm(d))
                ahead, behind = (
                    self._with(c, types, arrays, k, arrays[k] + s * STEP * d) for s in (1, -1)
                )
                slope = float(np.sum((ahead - behind) * dy) / (2 * STEP))
                self.measured[c.y.name].append((k, slope, float(np.sum(g * d))))

    def checks(self, c: Case) -> list[Check]:
        """Everything that is said of one operator."""
        found = []
        for k in c.op.linear:
            if k < len(c.operands) and c.operands[k] in self.whole:
                found += [self._matrix(c, k), self._adjoint(c, k)]
        if c.y.name in self.measured:
            found += [self._value(c), self._slope(c)]
        return found

    def _adjoint(self, c: Case, k: int) -> Check:
        """<f(x) - f(0), y> = <x, gradient(y)>: to the number where the definition needs no
        rounding, else within a share of what its own sums are made of.
        """
        name = f"adjoint in operand {k + 1}"
        x, dy = self.whole[c.operands[k]].astype(np.float64), self.whole[c.dy.name]
        if k not in c.gradients:
            return Check(name, "skipped", 0, "no gradient flows there")
        value = self.at[c.y.name].astype(np.float64) - self.without[k][c.y.name]
        gradient = self._gradient(c.gradients[k], self.at, self.whole).astype(np.float64)
        size = int(value.size + x.size)
        with np.errstate(all="ignore"):
            left, right = float(np.sum(value * dy)), float(np.sum(x * gradient))
        if not abs(left - right) <= self._adjoint_bound(c, k):  # so NaN and infinity differ
            return Check(name, "differs", size, f"{left:.9g} and {right:.9g}")
        if left == right:
            return Check(name, "equal", size, f"both {left:g}")
        return Check(name, "close", size, f"{left:.9g} and {right:.9g}")

    def _adjoint_bound(self, c: Case, k: int) -> float:
        """By how much the two sides may differ, from definitions alone: what kernels computed must
        not decide how they are judged. 0 where whole numbers have short results, from which the
        gradient has short coefficients: such sums are exact.
        """
        types = self.graph.types(c.y)
        arrays = [self._wide(self.graph[o], self.whole) for o in c.operands]
        x, dy = arrays[k], self.whole[c.dy.name]
        # one sum of thirds may be whole by chance, all sums of several draws are not
        draws: list[Array] = [np.zeros_like(x), x]
        for _ in range(DRAWS):
            draws.append(np.asarray(self.rng.integers(-4, 5, x.shape), np.float64))
        points = [self._with(c, types, arrays, k, at) for at in draws]
        if dyadic(*points):
            return 0.0
        gradient = self._gradient(c.gradients[k], self.defined, self.whole)
        with np.errstate(all="ignore"):
            sizes = np.sum(np.abs((points[1] - points[0]) * dy)) + np.sum(np.abs(x * gradient))
        return SLOPE_ERROR * float(sizes) if np.isfinite(sizes) else 0.0

    def _gradient(self, name: str, results: Arrays, given: Data) -> Array:
        """A gradient; that of a sum is the upstream gradient itself, which no kernel computes."""
        return np.asarray(results[name] if name in results else given[name])

    def _matrix(self, c: Case, k: int) -> Check:
        """The kernel's result against the dense matrix of the operator's definition."""
        name = f"matrix in operand {k + 1}"
        types = self.graph.types(c.y)
        arrays = [self._wide(self.graph[o], self.whole) for o in c.operands]
        # Samples share one shape of unit vectors where each has a result of its own.
        shared = self.graph[c.operands[k]].type.batched and c.y.type.batched
        shape = arrays[k].shape[1:] if shared else arrays[k].shape
        inputs = int(np.prod(shape))
        zero = self._with(c, types, arrays, k, np.zeros_like(arrays[k]))
        samples = self.batch if c.y.type.batched else 1
        results = zero.size // samples
        if inputs * zero.size > MOST_ENTRIES or inputs > MOST_COLUMNS:
            limits = f"{MOST_COLUMNS} columns or {MOST_ENTRIES:_} entries"
            note = f"{results} x {inputs}: more than {limits}"
            return Check(name, "skipped", 0, note)
        columns = []
        for j in range(inputs):
            unit = np.zeros(inputs)
            unit[j] = 1.0
            full = np.array(np.broadcast_to(unit.reshape(shape), arrays[k].shape))
            made = self._with(c, types, arrays, k, full) - zero
            columns.append(made.reshape(samples, -1))
        a = np.stack(columns, axis=-1)  # [samples, results, inputs]
        flat = np.broadcast_to(arrays[k].reshape(-1, inputs), (samples, inputs))
        expected = (a @ flat[..., None])[..., 0].reshape(zero.shape) + zero
        got = self.at[c.y.name].astype(np.float64)
        if dyadic(expected, a) and always_exact(c.op):
            return same_numbers(name, got, expected, f"{results} x {inputs}")
        return close(name, got, expected, f"{results} x {inputs}", SLOPE_ERROR)

    def _with(
        self, c: Case, types: tuple[TensorType, ...], arrays: Sequence[Array], k: int, x: Array
    ) -> Array:
        """The definition with another array in the place of operand k."""
        operands = [x if j == k else a for j, a in enumerate(arrays)]
        return np.asarray(c.op.oracle(types, operands), np.float64)

    def _wide(self, node: Node, given: Data) -> Array:
        if isinstance(node.op, Constant):
            return oracle(self.graph.with_nodes([node]), {}, self.batch)[node.name]
        array = given[node.name]
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def _value(self, c: Case) -> Check:
        """The operator by itself, where a kernel might hide what follows it."""
        arrays = [self._wide(self.graph[o], self.smooth) for o in c.operands]
        expected = self._with(c, self.graph.types(c.y), arrays, 0, arrays[0])
        return close("oracle, float64", self.results[c.y.name], expected, c.y.name, VALUE_ERROR)

    def _slope(self, c: Case) -> Check:
        measured = self.measured[c.y.name]
        wrong = [
            f"operand {k + 1}: {slope:.9g}, the gradient says {expected:.9g}"
            for k, slope, expected in measured
            if not abs(slope - expected) <= SLOPE_ERROR + 1e-6 * abs(expected)
        ]
        if wrong:
            return Check("difference quotients", "differs", len(measured), wrong[0])
        worst = max((abs(a - b) for _, a, b in measured), default=0.0)
        outcome: Outcome = "close" if measured else "skipped"
        note = f"largest error {worst:.1e}" if measured else "no operand holds floats"
        return Check("difference quotients", outcome, len(measured), note)


def _floats(graph: Graph | Builder, c: Case) -> set[int]:
    """Operands that can be moved."""
    return {
        k
        for k, name in enumerate(c.operands)
        if graph[name].type.dtype.is_float and not isinstance(graph[name].op, Constant)
    }


def _curved(graph: Graph | Builder, c: Case) -> set[int]:
    """Operands in which the operator is not linear. For the others the adjoint identity says
    more.
    """
    return _floats(graph, c) - set(c.op.linear)


def _program(graph: Graph, found: Sequence[Case], dtype: DType) -> Fused | None:
    """The kernels of some cases with their gradients, None for no case."""
    return _results(graph, [n for c in found for n in (c.y.name, *c.gradients.values())], dtype)


def _results(graph: Graph, names: Sequence[str], dtype: DType) -> Fused | None:
    """The kernels that some tensors need, None where no kernel computes one."""
    results = [n for n in dict.fromkeys(names) if not isinstance(graph[n].op, Source)]
    whole = Graph(graph.name, graph.nodes, tuple((n, n) for n in results))
    return fuse(retyped(prune(whole), dtype)) if results else None


def _of(target: Target, given: Data) -> dict[str, Array]:
    """The arrays that a target's graph reads; dy passed through as a gradient is one of them."""
    graph = target.fused.graph
    return {n.name: given[n.name] for n in graph.nodes if n.name in given}
