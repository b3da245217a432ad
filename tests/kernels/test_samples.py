"""The CPU target on every operator: its kernels give the interpreter's bits, and derivatives their
slopes.

All samples that share a batch size are one program (see joined.py): a program compiles its kernels
on all cores, and equal kernels once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from keyword import kwlist

import numpy as np
import pytest

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.loops.elementary import expand
from cnncc.loops.walk import names_of
from cnncc.ops import OPERATORS, Op, Sample, all_samples
from cnncc.ops.base import Array
from cnncc.passes.retype import retyped
from cnncc.targets.cpu import vector
from cnncc.tensor import DType
from tests.kernels.joined import Twice, both_targets, joined, joined_arrays, operand, source
from tests.kernels.primitives import same_bits
from tests.ops.evaluate import floats, integers

# Samples of one operator that are compiled in every run: in float32, and with gradients in float64.
SHARE, MOST = 4, 2


def thinned(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many of them, the first and the last included."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]


EVERY = list(all_samples())
SAMPLES = [s for name in OPERATORS for s in thinned([s for s in EVERY if s.op.name == name], SHARE)]
BATCHES = sorted({s.batch for s in SAMPLES})
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38, -3e38]
STEP, SLOPE_ERROR = 1e-6, 1e-5  # finite differences in float64
DIRECTIONS = 2  # random directions per operand whose slope is measured

# narrower vectors run the last sample of each operator: their kernels are other ones
LAST = list({s.op.name: s for s in SAMPLES if s.batch == 2}.values())


def of_batch(samples: Sequence[Sample], batch: int) -> list[Sample]:
    return [s for s in samples if s.batch == batch]


def parts_of(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples of one batch size, at most TOGETHER of them: what one program runs."""
    parts = []
    for batch in BATCHES:
        own = of_batch(samples, batch)
        parts += [own[k : k + TOGETHER] for k in range(0, len(own), TOGETHER)]
    return parts


TOGETHER = 80  # compiling and planning one program of all samples takes longer than several
PARTS = parts_of(SAMPLES)
assert any(s.exact for s in SAMPLES)
each_part = pytest.mark.parametrize("part", range(len(PARTS)))


@cache
def program(part: int) -> Twice:
    return both_targets(joined([(s.op, s.types) for s in PARTS[part]]))


def data(samples: Sequence[Sample], make: Callable[[Sample], list[Array]]) -> dict[str, Array]:
    return joined_arrays([make(s) for s in samples])


def label(s: Sample) -> str:
    return f"{s.op} on {', '.join(map(str, s.types))}"


def differing(samples: Sequence[Sample], a: dict[str, Array], b: dict[str, Array]) -> list[str]:
    return [label(s) for i, s in enumerate(samples) if not same_bits(a[f"y{i}"], b[f"y{i}"])]


def wild(sample: Sample) -> list[Array]:
    """Floats among which every third is NaN, an infinity, a zero, tiny or huge."""
    rng = np.random.default_rng(7)

    def spoiled(x: Array) -> Array:
        chosen = rng.choice(np.array(SPECIAL, x.dtype), x.shape)
        return np.where(rng.integers(0, 3, x.shape) == 0, chosen, x)

    return [spoiled(x) if x.dtype.kind == "f" else x for x in floats(sample)]


@each_part
@pytest.mark.parametrize("make", [floats, wild, integers], ids=lambda make: make.__name__)
def test_kernels_give_the_bits_of_the_interpreter(
    part: int, make: Callable[[Sample], list[Array]]
) -> None:
    samples = PARTS[part]
    cpu, interp = program(part).run(data(samples, make))
    assert len(cpu) == len(samples)
    assert differing(samples, cpu, interp) == []


@each_part
def test_kernels_equal_the_oracle_on_integers(part: int) -> None:
    samples = PARTS[part]
    result = program(part).on_cpu(data(samples, integers))
    exact = [(i, s) for i, s in enumerate(samples) if s.exact]
    wrong = [
        label(s)
        for i, s in exact
        if not np.array_equal(result[f"y{i}"], s.op.oracle(s.types, integers(s)))
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
def test_kernels_of_every_sample(batch: int) -> None:
    samples = of_batch(EVERY, batch)
    whole = both_targets(joined([(s.op, s.types) for s in samples]))
    for make in (floats, wild, integers):
        cpu, interp = whole.run(data(samples, make))
        assert differing(samples, cpu, interp) == []
    exact = [(i, s) for i, s in enumerate(samples) if s.exact]
    assert [
        label(s)
        for i, s in exact
        if not np.array_equal(cpu[f"y{i}"], s.op.oracle(s.types, integers(s)))
    ] == []


@pytest.mark.parametrize("lanes", [8, pytest.param(4, marks=pytest.mark.slow), 1])
def test_narrower_vectors_give_the_same_bits(lanes: int) -> None:
    narrow = both_targets(joined([(s.op, s.types) for s in LAST]), lanes=lanes)
    assert narrow.cpu.program.lanes == lanes
    for make in (wild, floats):
        cpu, interp = narrow.run(data(LAST, make))
        assert differing(LAST, cpu, interp) == []


KERNEL_WORDS = {
    *vector.__all__, *kwlist, "compiled", "kernel", "mixed_key", "inf", "nan", "range", "min",
    "table", "first", "share", "shares", "rows", "row", "rest", "task", "tasks", "blocks",
    "first_row", "k0", "k1", "left", "lane", "nth", "stretch0_0", "stretch0_1",
    "begin", "end", "near0", "near1", "mixed0_0", "turns0_0", "length0_0",
}  # fmt: skip


def test_names_of_nests_are_no_words_of_kernels() -> None:
    """A kernel has one name space for what its nest names and for what its frame names."""
    for sample in SAMPLES:
        nest = expand(sample.op.nest(sample.types, sample.op.infer(sample.types)), DType.F32)
        assert names_of(nest) & KERNEL_WORDS == set(), label(sample)


# --- derivatives ---------------------------------------------------------------------------------


def is_differentiable(s: Sample) -> bool:
    return s.op.infer(s.types).dtype.is_float and type(s.op).gradient is not Op.gradient


BY_OPERATOR = [
    [s for s in EVERY if s.op.name == name and is_differentiable(s)] for name in OPERATORS
]


class Slopes:
    """Samples with their gradients as one float64 program: outputs `y<i>`, and `d<i>_<j>` for the
    gradient of operand j under the upstream gradient `dy<i>`.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        b = Builder("slopes")
        outputs: list[tuple[str, Node]] = []
        for i, s in enumerate(samples):
            xs = [source(b, t, operand(i, j)) for j, t in enumerate(s.types)]
            y = b.add(s.op, *xs, name=f"y{i}")
            dy = source(b, y.type, f"dy{i}")
            outputs.append((f"y{i}", y))
            parts = s.op.gradient(b, y, dy)
            outputs += [(f"d{i}_{j}", g) for j, g in enumerate(parts) if g is not None]
        self.graph: Graph = retyped(b.graph(outputs), DType.F64)
        self.targets = both_targets(self.graph, dtype=DType.F64)

    def arrays(self) -> dict[str, Array]:
        rng = np.random.default_rng(11)
        given = joined_arrays([floats(s, dtype=np.float64) for s in self.samples])
        for i, s in enumerate(self.samples):
            given[f"dy{i}"] = rng.standard_normal(s.op.infer(s.types).dims(s.batch))
        return given

    def directions(self, given: dict[str, Array], seed: int) -> dict[str, Array]:
        """A random direction of length 1 for every float operand."""
        rng = np.random.default_rng(seed)
        steps = {}
        for name, x in given.items():
            if x.dtype.kind == "f" and name.startswith("x"):
                d = rng.standard_normal(x.shape)
                steps[name] = d / np.linalg.norm(d)
        return steps


SLOPES = parts_of([s for own in BY_OPERATOR for s in thinned(own, MOST)])


@cache
def slopes(part: int) -> Slopes:
    return Slopes(SLOPES[part])


@pytest.mark.parametrize("part", range(len(SLOPES)))
def test_float64_kernels_give_the_bits_of_the_interpreter(part: int) -> None:
    cpu, interp = slopes(part).targets.run(slopes(part).arrays())
    assert all(a.dtype == np.float64 for a in cpu.values() if a.dtype.kind == "f")
    assert [name for name in cpu if not same_bits(cpu[name], interp[name])] == []


@pytest.mark.parametrize("part", range(len(SLOPES)))
def test_gradients_are_the_slopes_of_the_kernels(part: int) -> None:
    """(f(x + h d) - f(x - h d)) / 2h = <gradient, d>, operand by operand, with the emitted kernels
    on both sides.
    """
    joint = slopes(part)
    given = joint.arrays()
    gradients = joint.targets.on_cpu(given)
    operands = max(len(s.types) for s in joint.samples)
    measured, wrong = 0, []
    for j in range(
        operands
    ):  # the operands at one position move together: the samples do not depend on each other
        for seed in range(DIRECTIONS):
            steps = {n: d for n, d in joint.directions(given, seed).items() if n.endswith(f"_{j}")}
            ahead, behind = (
                joint.targets.on_cpu(
                    given | {n: given[n] + sign * STEP * d for n, d in steps.items()}
                )
                for sign in (1, -1)
            )
            for i, s in enumerate(joint.samples):
                if operand(i, j) not in steps:
                    continue
                slope = float(np.sum((ahead[f"y{i}"] - behind[f"y{i}"]) * given[f"dy{i}"])) / (
                    2 * STEP
                )
                gradient = gradients.get(f"d{i}_{j}", np.zeros(1))
                expected = float(np.sum(gradient * steps[operand(i, j)]))
                measured += 1
                if abs(slope - expected) > SLOPE_ERROR + 1e-6 * abs(expected):
                    wrong.append(f"{label(s)}, operand {j}: {slope} and {expected}")
    assert measured >= DIRECTIONS * len(joint.samples)
    assert wrong == []
