"""A piece of the arena for every sample: what lies there is of this sample alone, as large as one
sample's plan, and computed with the bits of the definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.passes import fuse as fusing
from cnncc.passes.choices import Choices
from cnncc.passes.retype import retyped
from cnncc.targets.cpu import bands
from cnncc.targets.cpu.layout import ALIGN
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime, Shape
from cnncc.tensor import DType
from tests.kernels.primitives import same_bits

NET = """
net n(h = 21, w = 19) {
  input x: f32[3, h, w]
  a = x -> conv(6, 3x3, pad = same) -> batchnorm -> relu
  b = a -> conv(20, 3x3, pad = same) -> relu
  c = concat(a, b) -> maxpool(3x3, stride = 2, pad = 1, fit = floor)
  d = (c -> conv(26, 3x3, pad = reflect(1))) + c
  e = d -> conv(26, 3x3, pad = same, connect = depthwise) -> tanh
  f = e -> conv(8, 3x3, pad = same, share = none)
  output map = f
  output scores = concat(e, f) -> globalavgpool -> dense(9) -> relu -> dense(5)
}
"""
TRAINED = (
    NET
    + """
train n {
  target label: class[5]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.1)
  batch = 3
}
"""
)


def runtime_of(batch: int, *, fuse: bool = True) -> Runtime:
    checked = compiler.front(NET)
    fused = compiler.kernels(checked.graph, checked.module, fuse=fuse, choices=Choices(batch=batch))
    return Runtime(fused, store=Store(), threads=1)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("batch", [2, 3, 16])
def test_what_lives_at_the_same_time_does_not_meet(
    batch: int, fuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "FEWEST", 1)
    runtime = runtime_of(batch, fuse=fuse)
    binding = runtime.bind(Shape(batch, ()))
    plan, places, tensors = binding.plan, binding.placements, runtime.program.tensors
    own, step = binding.arrangement.inside, binding.arrangement.piece
    assert own == {
        n for n in plan.lives if len(tensors[n].type.shape) > 1 and tensors[n].type.batched
        and not tensors[n].cut
    }  # fmt: skip
    assert {places[n].strides[0] * places[n].type.dtype.bytes for n in own} == {step}
    assert step % (2 * ALIGN) == ALIGN, "an odd number of lines"
    for name in own:
        assert plan.offsets[name] + places[name].sample_bytes <= step
    ends = [plan.offsets[n] + places[n].sample_bytes for n in own]
    others = plan.lives.keys() - own
    assert others, "what has no positions, at least"
    for name in others:
        behind = (batch - 1) * step + max(ends)
        assert behind <= plan.offsets[name] <= plan.size - places[name].bytes
    for one, other in combinations(sorted(own), 2):
        if plan.lives[one].meets(plan.lives[other]):
            first, second = sorted((one, other), key=plan.offsets.__getitem__)
            assert plan.offsets[first] + places[first].sample_bytes <= plan.offsets[second]
    assert plan.size == compiler.planned(runtime.fused, batch=batch).activations
    for name in own:
        short = batch * places[name].sample_bytes - places[name].bytes  # samples end with a line
        assert 0 <= short < batch * ALIGN


def test_one_sample_and_samples_that_meet_have_no_pieces() -> None:
    alone = runtime_of(1).bind(Shape(1, ())).placements
    assert all(p.gap == 0 for p in alone.values())
    model = cnncc.compile(TRAINED, train=True)
    model.step(np.zeros((3, 3, 21, 19), np.float32), np.zeros(3, np.int64))
    step = model._programs.step.runtime
    assert isinstance(step, Runtime)
    assert all(p.gap == 0 for p in step.planned(Shape(3, ())).placements.values())
    flat = cnncc.compile("net f {\n  input x: f32[9]\n  output y = x -> dense(4) -> dense(3)\n}\n")
    flat(np.zeros((3, 9), np.float32))
    runtime = flat._programs.inference
    assert isinstance(runtime, Runtime)
    assert runtime.planned(Shape(3, ())).arrangement.piece == 0, "without positions"


@pytest.mark.parametrize("fuse", [True, False])
def test_the_bits_are_those_of_the_definition(fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "FEWEST", 1)
    x = np.random.default_rng(0).standard_normal((5, 3, 21, 19)).astype(np.float32)
    expected = cnncc.compile(NET, target="interp", batch=5)(x)
    for threads in (1, 2, 3):
        model = cnncc.compile(NET, batch=5, fuse=fuse, num_threads=threads)
        for count in (5, 2, 1, 5):
            found = model(x[:count])
            for name in ("map", "scores"):
                assert same_bits(found[name], expected[name][:count])


KINDS = {
    "1d": """
net n {
  input x: f32[5, 40]
  output y = x -> conv(20, 5, pad = same) -> relu -> maxpool(3, stride = 2, pad = 1, fit = floor)
    -> conv(8, 3, pad = circular(1)) -> flatten -> dense(3)
}
""",
    "3d": """
net n {
  input x: f32[2, 6, 9, 7]
  a = x -> conv(17, 3x3x3, pad = same) -> batchnorm -> relu
  output y = (a -> conv(17, 1x1x1)) + a -> avgpool(2x2x2, fit = floor)
}
""",
    "columns": """
net n {
  input x: f32[1, 28, 28]
  output y = x -> conv(6, 5x5, pad = 2) -> tanh -> avgpool(2x2) -> conv(16, 5x5) -> tanh
    -> avgpool(2x2) -> flatten -> dense(12) -> relu -> dense(10)
}
""",
    "winograd": """
net n {
  input x: f32[32, 28, 28]
  a = x -> conv(64, 3x3, pad = same) -> relu
  output y = (a -> conv(64, 3x3, pad = same) -> batchnorm) + a -> relu -> maxpool(2x2)
}
""",
    "depthwise": """
net n {
  input x: f32[24, 15, 15]
  a = x -> conv(24, 3x3, pad = same, connect = depthwise) -> relu -> conv(40, 1x1) -> relu
  output y = a -> conv(40, 3x3, stride = 2, pad = 1, connect = depthwise, fit = floor)
    -> conv(48, 1x1) -> relu -> conv_transpose(5, 2x2, stride = 2)
}
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_lies_in_pieces(kind: str) -> None:
    """With the bits of the definition, also where a run finds NaN all over its memory."""
    text = KINDS[kind]
    checked = compiler.front(text)
    (node,) = checked.graph.of("input")
    x = np.random.default_rng(0).standard_normal((6, *node.type.shape)).astype(np.float32)
    expected = cnncc.compile(text, target="interp", batch=6)(x)
    for fuse, threads in ((True, 2), (False, 3)):
        model = cnncc.compile(text, batch=6, fuse=fuse, num_threads=threads)
        runtime = model._programs.inference
        assert isinstance(runtime, Runtime)
        binding = runtime.planned(Shape(6, ()))
        binding.pool.poison = True
        assert binding.batch == 6
        assert len(binding.arrangement.inside) >= 2
        for count in (6, 5, 1, 6):
            assert same_bits(model(x[:count]), expected[:count])


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_symbolic_extents_have_pieces_of_their_own(dtype: DType) -> None:
    text = (
        "net n {\n  input x: f32[3, H, 20]\n"
        "  output y = x -> conv(33, 3x3, pad = same) -> relu -> conv(5, 3x3)\n}\n"
    )
    graph = retyped(compiler.front(text).graph, dtype)
    runtime = Runtime(fusing.fuse(graph), store=Store(), dtype=dtype, threads=2)
    rng, item = np.random.default_rng(0), np.dtype(dtype.value.replace("f", "float"))
    for node in graph.of("parameter"):
        runtime.store.write(node.name, rng.standard_normal(node.type.dims(0)).astype(item))
    sizes = []
    for height in (12, 31):
        x = rng.standard_normal((4, 3, height, 20)).astype(item)
        (whole,) = runtime.run({"x": x}).values()
        alone = np.concatenate(
            [*(v for i in range(4) for v in runtime.run({"x": x[i : i + 1]}).values())]
        )
        assert same_bits(whole, alone)
        sizes.append(runtime.planned(Shape(4, (("H", height),))).arrangement.piece)
    assert 0 < sizes[0] < sizes[1]
