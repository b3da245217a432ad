"""Row S70 of the lecture table: a complex layer of three stages (convolution, detector, pooling) is
the same as three simple layers. In the language a complex layer is a `block`; nothing else is
needed for it, neither for one kernel nor for the same bits.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.passes.training import training_graph
from tests.mission.running import Run, integers

COMPLEX = """
block stage(x, width) {{
  conv   = x -> conv(width, 3x3, {conv})
  detect = conv -> {detect}
  pool   = detect -> {pool}
  return pool
}}

net complex {{
  input x: f32[2, 9, 9]
  output y = x -> stage(4)
}}
"""
SIMPLE = """
net simple {{
  input x: f32[2, 9, 9]
  a = x -> conv(4, 3x3, {conv})
  b = a -> {detect}
  output y = b -> {pool}
}}
"""
STAGES = [
    {"conv": conv, "detect": detect, "pool": pool}
    for conv, detect, pool in product(
        ["pad = same", "stride = 2, pad = full"],  # 9 and 6 positions
        ["relu", "sigmoid", "stanh"],
        ["maxpool(3x3)", "maxpool(3x3, stride = 2, fit = floor)", "l2pool(3x3)",
         "avgpool(3x3, affine = per_map)", "maxout(2)"],
    )
]  # fmt: skip


def values(text: str, *, fused: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """Value and all gradients on random data; parameters are equal by position, not by name."""
    run = Run(text, fused=fused)
    rng = np.random.default_rng(seed)
    for name, array in run.parameters.items():
        run.parameters[name] = rng.standard_normal(array.shape).astype(np.float32)
    x = rng.standard_normal((2, 2, 9, 9)).astype(np.float32)
    y = run(x)
    gradients = run.backward(x, rng.standard_normal(y.shape).astype(np.float32))
    parts = [gradients["x"], *(gradients[name] for name in run.parameters)]
    return {"y": y, **{f"gradient {i}": g for i, g in enumerate(parts)}}


@pytest.mark.parametrize("stages", STAGES, ids=lambda s: " ".join(s.values()))
def test_s70_a_block_of_three_stages_equals_three_simple_layers(stages: dict[str, str]) -> None:
    expected = values(SIMPLE.format(**stages), fused=False)
    for text, fused in ((COMPLEX, True), (COMPLEX, False), (SIMPLE, True)):
        actual = values(text.format(**stages), fused=fused)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array, err_msg=f"{name}, fused {fused}")


@pytest.mark.parametrize("pool", ["maxpool(3x3)", "avgpool(3x3)", "l2pool(3x3)", "maxout(2)"])
def test_s70_a_complex_layer_is_one_kernel_forward(pool: str) -> None:
    stages = {"conv": "pad = same", "detect": "relu", "pool": pool}
    for text in (COMPLEX, SIMPLE):
        (kernel,) = Run(text.format(**stages)).kernels().kernels
        assert [n.op.name for n in kernel.nodes][:2] == ["conv", "relu"]
        assert len(kernel.nodes) == 3


def test_s70_the_text_may_demand_one_kernel() -> None:
    demand = SIMPLE.replace("{pool}\n", "{pool}\n  require fused(a, b, y)\n")
    stages = {"conv": "pad = same", "detect": "relu", "pool": "maxpool(3x3)"}
    checked = front(demand.format(**stages))
    assert len(compiler.kernels(checked.graph, checked.module).kernels) == 1
    overlapping = front(demand.format(**stages | {"pool": "maxpool(3x3, stride = 1)"}))
    with pytest.raises(SpecError) as refused:
        compiler.kernels(overlapping.graph, overlapping.module)
    assert [d.code for d in refused.value.diagnostics] == ["E0503"]


def test_s70_backward_detector_and_pool_are_one_kernel_and_each_product_another() -> None:
    stages = {"conv": "pad = same", "detect": "relu", "pool": "maxpool(3x3)"}
    text = COMPLEX.format(**stages).replace(
        "input x: f32[2, 9, 9]\n  output y = x -> stage(4)",
        "input x: f32[2, 27, 27]\n  z = x -> stage(4)\n  output y = z -> stage(4)",
    )
    text += "train complex {\n target t: f32[4, 3, 3]\n loss = mse(y, t)\n"
    text += " optimizer = sgd(lr = 0.1)\n}\n"
    checked = front(text, train=True)
    assert checked.module.training is not None
    step = training_graph(checked.graph, checked.module, checked.module.training.optimizer)
    fused = compiler.kernels(step.graph, checked.module, phases=step.phases)
    backward = [
        [n.op.name for n in k.nodes]
        for k in fused.kernels
        if step.phases.get(k.nodes[-1].name, 0) == 1
    ]
    # two stages: each has one kernel for pool and detector together; x itself needs no gradient
    assert backward.count(["maxpool_dx", "relu_grad"]) == 2
    assert backward.count(["conv_dx"]) == 1
    assert backward.count(["conv_dw"]) == 2


def test_s70_emitted_kernels_of_both_forms_give_equal_bits() -> None:
    stages = {"conv": "pad = same", "detect": "relu", "pool": "maxpool(3x3)"}
    x = integers((2, 2, 9, 9)) / np.float32(3)
    run = Run(SIMPLE.format(**stages))
    simple = run.on_cpu(x)
    nested = cnncc.compile(COMPLEX.format(**stages), batch=2)
    names = [name for name, _ in nested.named_parameters()]
    nested.load_state_dict(dict(zip(names, run.parameters.values(), strict=True)))
    unfused = cnncc.compile(SIMPLE.format(**stages), batch=2, fuse=False)
    unfused.load_state_dict(run.parameters)
    for model in (simple, nested, unfused):
        np.testing.assert_array_equal(model(x), run(x))
