"""A training step of a network that has most operators: the compiler's passes on real gradients.

Fused and unfused kernels, run by the interpreter in float32, give the same bits, and both are close
to the operators' oracles in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.graph.ir import Node
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.ops.base import Array
from cnncc.passes.fuse import fuse
from cnncc.passes.training import StepGraph, training_graph
from cnncc.targets.interp.program import run_interp
from cnncc.tensor import DType
from tests.ops.evaluate import NUMPY, evaluate

BATCH, CLASSES = 3, 4
ERROR = 1e-5  # relative L2 per tensor, float32

TEXT = """
net mixed(classes = 4) {
  input image: u8[3, 8, 8] (scale = 0.004, mean = (0.4, 0.5, 0.6), std = (0.2, 0.3, 0.25))
  a = image -> conv(6, 3x3, pad = same, bias = none) -> batchnorm -> relu
  b = a -> conv(6, 3x3, pad = same, bias = none) -> batchnorm
  c = relu(a + b) -> maxpool(2x2)
  d = concat(c, c -> conv(2, 1x1) -> gelu) -> groupnorm(2) -> lrn(3) -> elu
  gate = d -> globalavgpool -> dense(8) -> sigmoid
  e = d * gate -> flatten -> dense(16) -> layernorm -> softplus -> dropout(0.5)
  output scores = e -> stanh -> dense(classes)
}
train mixed {
  target label: class[classes]
  loss = cross_entropy(scores, label)
  optimizer = adam(lr = 0.01)  batch = 4  epochs = 1
}
"""


@pytest.fixture(scope="module")
def step() -> StepGraph:
    checked = front(TEXT, train=True)
    assert checked.module.training is not None
    return training_graph(checked.graph, checked.module, checked.module.training.optimizer)


@pytest.fixture(scope="module")
def given(step: StepGraph) -> dict[str, Array]:
    rng = np.random.default_rng(0)

    def data(node: Node) -> Array:
        shape = node.type.dims(BATCH)
        if node.type.dtype is DType.U8:
            return rng.integers(0, 256, shape).astype(np.uint8)
        if not node.type.dtype.is_float:
            return rng.integers(0, CLASSES, shape).astype(NUMPY[node.type.dtype])
        x = rng.standard_normal(shape).astype(np.float32)
        must_be_positive = node.name.startswith("step.") or node.name.endswith(("_var", ".square"))
        return np.abs(x) + np.float32(0.5) if must_be_positive else x

    return {n.name: data(n) for n in step.graph.nodes if isinstance(n.op, (Parameter, Input))}


def results(step: StepGraph) -> list[str]:
    graph = step.graph
    names = [name for _, name in graph.outputs] + [new for _, new in graph.updates]
    return [*names, *step.gradients.values()]


@pytest.fixture(scope="module")
def unfused(step: StepGraph, given: dict[str, Array]) -> dict[str, Array]:
    kernels = fuse(step.graph, enabled=False, phases=dict(step.phases))
    return run_interp(kernels, given, BATCH, np.float32)


def test_fused_kernels_give_the_same_bits(
    step: StepGraph, given: dict[str, Array], unfused: dict[str, Array]
) -> None:
    kernels = fuse(step.graph, phases=dict(step.phases))
    fused = run_interp(kernels, given, BATCH, np.float32)
    assert len(kernels.kernels) < len([n for n in step.graph.nodes if n.inputs])
    for name in results(step):
        np.testing.assert_array_equal(fused[name], unfused[name], err_msg=name)


def test_training_step_is_close_to_the_oracles(
    step: StepGraph, given: dict[str, Array], unfused: dict[str, Array]
) -> None:
    wide = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in given.items()}
    for node in step.graph.nodes:
        if isinstance(node.op, Constant):
            wide[node.name] = np.full(node.type.dims(BATCH), node.op.value)
    expected = evaluate(step.graph, wide)
    parameters = [n for n in step.graph.of("parameter") if n.name in step.gradients]
    assert len(parameters) == 18
    for name in results(step):
        norm = float(np.linalg.norm(expected[name])) or 1.0
        error = float(np.linalg.norm(unfused[name] - expected[name])) / norm
        assert error <= ERROR, name
