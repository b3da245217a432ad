"""All kinds of connectivity with each other: cases, their definition in NumPy, and many of them as
one network.

The definition follows the words of the language reference and shares no code with the compiler: a
loop over outputs and taps, with the stored weight behind each.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.compiler import front
from cnncc.graph.ir import Builder, Graph
from cnncc.graph.sources import Input
from cnncc.ops.base import Array
from cnncc.passes.differentiate import gradients
from tests.mission.running import integers

CHANNELS = 4
TABLES = {
    "table(crossed)": [[0, 2], [3], [1, 2, 3], [0]],
    "table(blocks)": [[0, 1], [0, 1], [2, 3], [2, 3]],
    "table(every)": [[0, 1, 2, 3]] * 4,
}
SHARES = ("full", "tiled(1)", "tiled(2)", "tiled(9)", "none", "symmetric", "symmetric(mean)")
CONNECTS = ("all", "groups(2)", "depthwise", *TABLES)
PADS = ("valid", "1", "(2, 0)", "const(2, 1)", "replicate(1)", "reflect(1)", "circular(1)")
SIZES = {1: (3,), 2: (3, 3), 3: (3, 1, 3)}
POSITIONS = {1: (5,), 2: (3, 5), 3: (2, 4, 5)}
"""Of the window along each axis. The same for all cases of a rank, whose inputs differ instead:
then a register tile has the same width in many of them, and they share kernels. Along the last axis
two tiles of four overlap.
"""


@dataclass(frozen=True)
class Case:
    """One layer; `transposed` is a conv_transpose with these arguments."""

    rank: int
    share: str
    connect: str
    kind: str
    bias: str
    pad: str
    stride: int
    dilation: int
    transposed: bool = False

    def text(self, x: str) -> str:
        size = "x".join(map(str, SIZES[self.rank]))
        size = f"({size},)" if self.rank == 1 else size
        name = "conv_transpose" if self.transposed else "conv"
        fit = "" if self.transposed else ", fit = floor"
        return (
            f"{x} -> {name}({CHANNELS}, {size}, share = {self.share}, connect = {self.connect}, "
            f"kind = {self.kind}, bias = {self.bias}, pad = {self.pad}, stride = {self.stride}, "
            f"dilation = {self.dilation}{fit})"
        )

    @property
    def pads(self) -> tuple[int, int]:
        return {"valid": (0, 0), "(2, 0)": (2, 0)}.get(self.pad, (1, 1))

    @property
    def fill(self) -> float:
        return 2.0 if self.pad.startswith("const") else 0.0

    @property
    def wide(self) -> tuple[int, ...]:
        """The extents of what the conv slides over: of a transposed conv those of its result."""
        sizes, (lo, hi) = SIZES[self.rank], self.pads
        least = [
            (n - 1) * self.stride + (k - 1) * self.dilation + 1 - lo - hi
            for n, k in zip(POSITIONS[self.rank], sizes, strict=True)
        ]
        if not self.transposed:
            least[0] += self.stride - 1  # no window reads these last rows
        return tuple(least)

    @property
    def given(self) -> tuple[int, ...]:
        """The extents of the layer's input."""
        return POSITIONS[self.rank] if self.transposed else self.wide

    @property
    def legal(self) -> bool:
        """Whether each axis has two places for a border to be made of."""
        return min(self.wide) >= 2


def cases(number: int) -> list[Case]:
    """So many legal combinations, drawn from all of them, every value of every argument among
    them.
    """
    kinds, biases = ("correlation", "convolution"), ("tied", "untied", "none")
    shared = (SIZES, SHARES, CONNECTS, kinds, biases)
    convs = itertools.product(*shared, PADS, (1, 2), (1, 2))
    transposed = itertools.product(*shared, ("valid", "1"), (1, 2), (1, 2), (True,))
    every = [Case(*arguments) for arguments in (*convs, *transposed)]
    return random.Random(0).sample([case for case in every if case.legal], number)


# --- the definition -------------------------------------------------------------------------------


def _positions(case: Case, a: int) -> Iterator[tuple[int, int, int]]:
    """(output, tap, position in the padded input) along an axis of the conv."""
    for o, t in itertools.product(range(POSITIONS[case.rank][a]), range(SIZES[case.rank][a])):
        yield o, t, o * case.stride + t * case.dilation


def _stored(case: Case, a: int) -> dict[tuple[int, int], tuple[int, float]]:
    """(output, tap) -> (entry of the stored axis, its factor), without taps that are not stored."""
    k, n, lo = SIZES[case.rank][a], case.wide[a], case.pads[0]
    rows = list(_positions(case, a))
    outputs = rows[-1][0] + 1
    wanted = {"tiled(2)": 2, "tiled(9)": 9, "none": outputs}.get(case.share, 1)
    period = min(wanted, outputs)
    zeros = case.pad in ("1", "(2, 0)")
    alone = case.share == "none" or 1 < wanted >= outputs  # no two outputs share a kernel
    order = range(k) if case.kind == "correlation" else range(k - 1, -1, -1)
    numbers = {}
    for p, t in itertools.product(range(period), order):
        dead = zeros and alone and not 0 <= p * case.stride + t * case.dilation - lo < n
        if not dead:
            numbers[p, t] = len(numbers)
    found = {}
    for o, t, _ in rows:
        if case.share.startswith("symmetric"):
            off = abs(t - k // 2)
            found[o, t] = (off, 0.5 if off and "mean" in case.share else 1.0)
        elif (o % period, t) in numbers:
            found[o, t] = (numbers[o % period, t], 1.0)
    return found


def _channel_pairs(case: Case, w: Array) -> Array:
    """The stored weight as [outputs, inputs, entries...], zeros where nothing is connected."""
    rows = TABLES.get(case.connect)
    groups = {"groups(2)": 2, "depthwise": CHANNELS, "table(blocks)": 2}.get(case.connect, 1)
    if rows is not None and case.connect == "table(crossed)":
        full = np.zeros((CHANNELS, CHANNELS, *w.shape[1:]), w.dtype)
        pairs = [(k, c) for k, row in enumerate(rows) for c in sorted(row)]
        for number, (k, c) in enumerate(pairs):
            full[k, c] = w[number]
        return full
    full = np.zeros((CHANNELS, CHANNELS, *w.shape[2:]), w.dtype)
    inner = CHANNELS // groups
    for k, c in np.ndindex(CHANNELS, inner):
        full[k, k // (CHANNELS // groups) * inner + c] = w[k, c]
    return full


def links(case: Case, w: Array) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], Array]]:
    """(output, position in the padded input, [outputs, inputs] weights) of every product."""
    pairs = _channel_pairs(case, w.astype(np.float64))
    tables = [_stored(case, a) for a in range(case.rank)]
    for rows in itertools.product(*(_positions(case, a) for a in range(case.rank))):
        entries = [table.get((o, t)) for table, (o, t, _) in zip(tables, rows, strict=True)]
        if any(entry is None for entry in entries):
            continue
        found = [entry for entry in entries if entry is not None]
        factor = np.prod([f for _, f in found])
        weights = pairs[(slice(None), slice(None), *(e for e, _ in found))] * factor
        yield tuple(o for o, _, _ in rows), tuple(i for _, _, i in rows), weights


MODES = {"replicate(1)": "edge", "reflect(1)": "reflect", "circular(1)": "wrap"}


def defined(case: Case, x: Array, w: Array, bias: Array | None) -> Array:
    """What the layer computes on a batch, by definition, in float64."""
    n, rank = len(x), case.rank
    products = list(links(case, w))
    amounts = [(0, 0), (0, 0), *[case.pads] * rank]
    if case.transposed:
        padded = [e + sum(case.pads) for e in case.wide]
        y = np.zeros((n, CHANNELS, *padded))
        for o, i, weights in products:
            y[(slice(None), slice(None), *i)] += x[(slice(None), slice(None), *o)] @ weights
        lo = case.pads[0]
        y = y[(..., *(slice(lo, lo + e) for e in case.wide))]
    else:
        if case.pad in MODES:
            seen = np.pad(x.astype(np.float64), amounts, mode=MODES[case.pad])  # type: ignore[call-overload]
        else:
            seen = np.pad(x.astype(np.float64), amounts, constant_values=case.fill)
        outputs = tuple(max(o for o, _, _ in _positions(case, a)) + 1 for a in range(rank))
        y = np.zeros((n, CHANNELS, *outputs))
        for o, i, weights in products:
            y[(slice(None), slice(None), *o)] += seen[(slice(None), slice(None), *i)] @ weights.T
    if bias is not None:
        y += bias.reshape(CHANNELS, *([1] * rank if bias.ndim == 1 else bias.shape[1:]))
    return y


# --- many cases as one network --------------------------------------------------------------------


@dataclass(frozen=True)
class Joined:
    """A graph that computes every case and its gradients, and data for it."""

    cases: tuple[Case, ...]
    graph: Graph
    data: dict[str, Array]
    results: tuple[dict[str, str], ...]  # per case: y, dx, dw, dbias -> node

    def check(self, values: dict[str, Array]) -> list[str]:
        """What is wrong with the values of the nodes: empty."""
        return [
            f"{what}: {case}"
            for number, case in enumerate(self.cases)
            for what in self._wrong(number, case, values)
        ]

    def _wrong(self, number: int, case: Case, values: dict[str, Array]) -> Iterator[str]:
        x, dy = self.data[f"x{number}"], self.data[f"dy{number}"].astype(np.float64)
        w, bias = self.data[f"y{number}.weight"], self.data.get(f"y{number}.bias")
        found = {
            name: values[node].astype(np.float64) for name, node in self.results[number].items()
        }
        y = defined(case, x, w, bias)
        if not np.array_equal(found["y"], y):
            yield "value"
        product = float(np.sum((y - defined(case, 0 * x, w, bias)) * dy))
        if product != float(np.sum(x * found["dx"])):
            yield "gradient of the input"
        if float(np.sum((y - defined(case, x, 0 * w, bias)) * dy)) != float(
            np.sum(w * found["dw"])
        ):
            yield "gradient of the weight"
        if bias is not None:
            axes = (0,) if bias.ndim > 1 else (0, *range(2, dy.ndim))
            if not np.array_equal(found["dbias"], dy.sum(axis=axes)):
                yield "gradient of the bias"


def joined(chosen: Sequence[Case], batch: int = 2) -> Joined:
    """One network of all cases, each with an input of its own."""
    tables = "\n".join(f"table {k[6:-1]} {{ {str(v)[1:-1]} }}" for k, v in TABLES.items())
    lines = [tables, "net product {"]
    for i, case in enumerate(chosen):
        extents = ", ".join(map(str, (CHANNELS, *case.given)))
        lines += [f"  input x{i}: f32[{extents}]", f"  output y{i} = {case.text(f'x{i}')}"]
    graph = front("\n".join([*lines, "}"])).graph
    b = Builder.of(graph)
    ends = {public: node for public, node in graph.outputs}
    seeds = {node: b.add(Input(graph[node].type), name=f"d{p}") for p, node in ends.items()}
    wanted = [n.name for n in graph.of("input", "parameter")]
    found = gradients(b, seeds, wanted)
    names = {"dx": "x{}", "dw": "y{}.weight", "dbias": "y{}.bias"}
    results, outputs = [], []
    for i in range(len(chosen)):
        own = {"y": ends[f"y{i}"]}
        for what, pattern in names.items():
            if pattern.format(i) in found:
                own[what] = found[pattern.format(i)].name
        results.append(own)
        outputs += [(f"{what}{i}", b[node]) for what, node in own.items()]
    whole = b.graph(outputs)
    data = {
        n.name: integers(n.type.dims(batch), k)
        for k, n in enumerate(whole.of("input", "parameter"))
    }
    return Joined(tuple(chosen), whole, data, tuple(results))
