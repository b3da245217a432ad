"""Every operator with its derivative: the dense matrix and the adjoint identities where it is
linear, exactly and on whole numbers; difference quotients in float64 where it is not. Both sides
come from the emitted kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.sources import Constant, Input, Parameter, Source
from cnncc.ops.base import Array, Op
from cnncc.passes.fuse import fuse
from cnncc.passes.retype import retyped
from cnncc.tensor import DType, TensorType
from cnncc.verify.certificate import Check, Outcome, Verdict
from cnncc.verify.isolate import own_source
from cnncc.verify.kernels import Data, always_exact, oracle
from cnncc.verify.running import Arrays, Target, close, drawn, dyadic, same_numbers

STEP, SLOPE_ERROR = 1e-6, 1e-5
DIRECTIONS = 2
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


def operator_verdicts(
    graphs: Sequence[tuple[Graph, Sequence[Node]]],
    actual: Sequence[Arrays],
    *,
    batch: int,
    seed: int,
    machine: bool,
    threads: int | None,
) -> list[Verdict]:
    """One verdict per operator of the forward graphs; `actual` holds their tensors in a run."""
    b = Builder("operators")
    found: list[Case] = []
    own: dict[str, Array] = {}
    seen: set[tuple[object, ...]] = set()
    for number, (graph, forward) in enumerate(graphs):
        new = [n for n in forward if (n.op, graph.types(n)) not in seen]
        seen |= {(n.op, graph.types(n)) for n in new}
        some = cases(b, graph, new, f"o{number}_")
        found += some
        own |= {s: actual[number][t] for c in some for s, t in c.sources.items()}
    if not found:
        return []
    run = _Runs(b, found, own, batch, np.random.default_rng(seed), machine, threads)
    return [
        Verdict("operator", f"{c.places[0]} ({c.op.name})", tuple(run.checks(c)), c.places)
        for c in found
    ]


class _Runs:
    """All cases as a program in float32 for the linear ones and one in float64 for the others."""

    def __init__(
        self,
        b: Builder,
        found: Sequence[Case],
        own: Data,
        batch: int,
        rng: np.random.Generator,
        machine: bool,
        threads: int | None,
    ) -> None:
        self.batch, self.rng = batch, rng
        linear = [c for c in found if c.op.linear]
        curved = [c for c in found if _curved(b, c)]
        graph = b.graph([])
        self.whole = self._data(graph, own, found, whole=True)
        self.smooth = self._data(retyped(graph, DType.F64), own, found, whole=False)
        self.graph = graph
        self.exact = _target(graph, linear, batch, DType.F32, machine, threads)
        self.slopes = _target(graph, curved, batch, DType.F64, machine, threads)
        self.at = self.exact.run(_of(self.exact, self.whole)) if self.exact else {}
        self.without = self._without(linear)
        self.gradients = self.slopes.run(_of(self.slopes, self.smooth)) if self.slopes else {}
        self.measured = self._measure(curved)

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

    def _measure(self, curved: Sequence[Case]) -> dict[str, list[tuple[int, float, float]]]:
        """By case: operand, slope and <gradient, direction>, for random directions."""
        found: dict[str, list[tuple[int, float, float]]] = {c.y.name: [] for c in curved}
        if self.slopes is None:
            return found
        for k in range(max(len(c.operands) for c in curved)):
            for _ in range(DIRECTIONS):
                moved = [c for c in curved if k in _floats(self.graph, c)]
                steps = {}
                for c in moved:
                    d = self.rng.standard_normal(self.smooth[c.operands[k]].shape)
                    steps[c.operands[k]] = d / np.linalg.norm(d)
                ahead, behind = (
                    self.slopes.run(
                        _of(self.slopes, self.smooth
                            | {n: self.smooth[n] + s * STEP * d for n, d in steps.items()})
                    )
                    for s in (1, -1)
                )  # fmt: skip
                for c in moved:
                    y, dy = c.y.name, self.smooth[c.dy.name]
                    slope = float(np.sum((ahead[y] - behind[y]) * dy)) / (2 * STEP)
                    name = c.gradients.get(k)
                    g = self._gradient(name, self.gradients, self.smooth) if name else np.zeros(1)
                    expected = float(np.sum(g * steps[c.operands[k]]))
                    found[y].append((k, slope, expected))
        return found

    def checks(self, c: Case) -> list[Check]:
        """Everything that is said of one operator."""
        found = []
        for k in c.op.linear:
            if k < len(c.operands) and c.operands[k] in self.whole:
                found += [self._matrix(c, k), self._adjoint(c, k)]
        if c.y.name in self.measured:
            found.append(self._slope(c))
        return found

    def _adjoint(self, c: Case, k: int) -> Check:
        """<f(x) - f(0), y> = <x, gradient(y)>."""
        name = f"adjoint in operand {k + 1}"
        x, dy = self.whole[c.operands[k]].astype(np.float64), self.whole[c.dy.name]
        if k not in c.gradients:
            return Check(name, "skipped", 0, "no gradient flows there")
        value = self.at[c.y.name].astype(np.float64) - self.without[k][c.y.name]
        gradient = self._gradient(c.gradients[k], self.at, self.whole).astype(np.float64)
        left, right = float(np.sum(value * dy)), float(np.sum(x * gradient))
        size = int(value.size + x.size)
        if left == right:
            return Check(name, "equal", size, f"both {left:g}")
        note = f"{left:.9g} and {right:.9g}"
        norm = float(np.sum(np.abs(value * dy)) + np.sum(np.abs(x * gradient)))
        exact = always_exact(c.op) or dyadic(value, gradient)
        if exact or abs(left - right) > SLOPE_ERROR * norm:
            return Check(name, "differs", size, note)
        return Check(name, "close", size, note)

    def _gradient(self, name: str, results: Arrays, given: Data) -> Array:
        """A gradient; that of a sum is the upstream gradient itself, which no kernel computes."""
        return np.asarray(results[name] if name in results else given[name])

    def _matrix(self, c: Case, k: int) -> Check:
        """The kernel's result against the dense matrix of the operator's definition."""
        name = f"matrix in operand {k + 1}"
        types = self.graph.types(c.y)
        arrays = [self._wide(self.graph[o]) for o in c.operands]
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

    def _wide(self, node: Node) -> Array:
        if isinstance(node.op, Constant):
            return oracle(self.graph.with_nodes([node]), {}, self.batch)[node.name]
        array = self.whole[node.name]
        return array.astype(np.float64) if array.dtype.kind == "f" else array

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


def _curved(b: Builder, c: Case) -> bool:
    return not _floats(b, c) <= set(c.op.linear)


def _target(
    graph: Graph,
    found: Sequence[Case],
    batch: int,
    dtype: DType,
    machine: bool,
    threads: int | None,
) -> Target | None:
    """The program of some cases with their gradients, None for no case."""
    if not found:
        return None
    from cnncc.passes.differentiate import prune

    names = dict.fromkeys(n for c in found for n in (c.y.name, *c.gradients.values()))
    results = [n for n in names if not isinstance(graph[n].op, Source)]
    whole = Graph(graph.name, graph.nodes, tuple((n, n) for n in results))
    own = retyped(prune(whole), dtype)
    return Target(fuse(own), batch, machine=machine, dtype=dtype, threads=threads)


def _of(target: Target, given: Data) -> dict[str, Array]:
    """The arrays that a target's graph reads; dy passed through as a gradient is one of them."""
    graph = target.fused.graph
    return {n.name: given[n.name] for n in graph.nodes if n.name in given}
