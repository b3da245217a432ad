"""What must hold for every operator, on each of its sample cases: the shape rule, the oracle, the
loop nest and the gradient agree with each other.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.graph.ir import Builder
from cnncc.graph.sources import Input
from cnncc.graph.text import parse_graph, print_graph
from cnncc.loops.elementary import expand
from cnncc.loops.parse import parse
from cnncc.loops.text import print_nest
from cnncc.loops.verify import verify
from cnncc.ops import OPERATORS, Op, Sample, all_samples
from cnncc.ops.base import Array
from cnncc.tensor import DType
from cnncc.tensor import evaluate as extent
from tests.ops.evaluate import derive, floats, integers, run_nest

F32_ERROR = 1e-5  # relative L2 error of a result in float32
F64_ERROR = 1e-12
STEP, SLOPE_ERROR = 1e-6, 1e-5  # finite differences in float64
DIRECTIONS = 24  # entries per input whose slope is measured


def named(samples: list[Sample]) -> list[object]:
    """Samples with readable and unique test names."""
    seen: dict[str, int] = {}
    parameters = []
    for sample in samples:
        seen[sample.op.name] = seen.get(sample.op.name, -1) + 1
        label = f"{sample.op.name}-{seen[sample.op.name]}" + (
            f"-{sample.note}" if sample.note else ""
        )
        parameters.append(pytest.param(sample, id=label))
    return parameters


SAMPLES = list(all_samples())
FLOATING = [s for s in SAMPLES if s.op.infer(s.types).dtype.is_float]
DIFFERENTIABLE = [s for s in FLOATING if type(s.op).gradient is not Op.gradient]
each = pytest.mark.parametrize("sample", named(SAMPLES))


def run(sample: Sample, arrays: list[Array], dtype: type = np.float32) -> Array:
    return run_nest(sample.op, sample.types, arrays, dtype, batch=sample.batch)


def distance(actual: Array, expected: Array) -> float:
    """The relative L2 error; absolute where zero is expected."""
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(actual.astype(np.float64) - expected)) / (norm or 1.0)


def test_every_operator_has_samples() -> None:
    assert {s.op.name for s in SAMPLES} == set(OPERATORS)


@each
def test_shape_rule_agrees_with_oracle(sample: Sample) -> None:
    out = sample.op.infer(sample.types)
    result = sample.op.oracle(sample.types, floats(sample))
    assert result.shape == out.dims(sample.batch)


@each
def test_nest_is_valid_in_range_and_readable(sample: Sample) -> None:
    nest = sample.op.nest(sample.types, sample.op.infer(sample.types))
    verify(nest)
    verify(nest, {name: extent(e, {"*": sample.batch}) for name, e in nest.sizes.items()})
    for dtype in (DType.F32, DType.F64):
        verify(expand(nest, dtype))
    assert parse(print_nest(nest)) == nest


@each
def test_operator_survives_graph_text(sample: Sample) -> None:
    b = Builder("text")
    inputs = [b.add(Input(t), name=f"x{i}") for i, t in enumerate(sample.types)]
    graph = b.graph([("y", b.add(sample.op, *inputs, name="y"))])
    assert parse_graph(print_graph(graph), OPERATORS) == graph


@pytest.mark.parametrize("sample", named([s for s in SAMPLES if s.exact]))
def test_nest_equals_oracle_on_integers(sample: Sample) -> None:
    arrays = integers(sample)
    expected = sample.op.oracle(sample.types, arrays)
    np.testing.assert_array_equal(run(sample, arrays), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@each
def test_nest_is_close_to_oracle_on_floats(sample: Sample, dtype: type) -> None:
    arrays = floats(sample, dtype=dtype)
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    expected = sample.op.oracle(sample.types, wide)
    error = distance(run(sample, arrays, dtype), expected)
    assert error <= (F32_ERROR if dtype is np.float32 else F64_ERROR)


@pytest.mark.parametrize("sample", named(DIFFERENTIABLE))
def test_gradient_is_the_slope_of_the_oracle(sample: Sample) -> None:
    rng = np.random.default_rng(3)
    arrays = floats(sample, dtype=np.float64)
    dy = rng.standard_normal(sample.op.infer(sample.types).dims(sample.batch))
    gradients = derive(sample.op, sample.types)(arrays, dy)
    for i, (x, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        if x.dtype.kind != "f":
            assert gradient is None, f"input {i} has no floats"
            continue
        expected = np.zeros_like(x) if gradient is None else gradient
        entries = [np.unravel_index(k, x.shape) for k in range(x.size)]
        if len(entries) > DIRECTIONS:
            entries = [entries[k] for k in rng.choice(len(entries), DIRECTIONS, replace=False)]
        for at in entries:
            slope = 0.0
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[i][at] += sign * STEP
                slope += sign * float(np.sum(sample.op.oracle(sample.types, moved) * dy))
            assert slope / (2 * STEP) == pytest.approx(expected[at], abs=SLOPE_ERROR, rel=1e-6), (
                i,
                at,
            )


def dyadic(*arrays: Array) -> bool:
    """Whether all values have so few binary digits that sums of their products are exact."""
    return all(bool(np.all(a * 2.0**12 == np.rint(a * 2.0**12))) for a in arrays)


@pytest.mark.parametrize("sample", named([s for s in DIFFERENTIABLE if s.op.linear]))
def test_adjoint_identity_on_integers(sample: Sample) -> None:
    """<f(x) - f(0), y> = <x, gradient(y)> for every input in which the operator is linear.

    Exactly, where no quotients or roots need rounding.
    """
    arrays = integers(sample, dtype=np.float64)
    y = np.random.default_rng(5).integers(-4, 5, sample.op.infer(sample.types).dims(sample.batch))
    gradients = derive(sample.op, sample.types)(arrays, y.astype(np.float64))
    value = sample.op.oracle(sample.types, arrays)
    for i in sample.op.linear:
        gradient = gradients[i]
        assert gradient is not None
        zeroed = [np.zeros_like(a) if k == i else a for k, a in enumerate(arrays)]
        forward = (value - sample.op.oracle(sample.types, zeroed)) * y
        backward = arrays[i] * gradient
        if dyadic(value, gradient):
            assert np.sum(forward) == np.sum(backward)
        else:
            scale = float(np.sum(np.abs(backward)))
            assert np.sum(forward) == pytest.approx(np.sum(backward), abs=F64_ERROR * scale)
