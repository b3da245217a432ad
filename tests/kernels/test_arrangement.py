"""A piece of the arena for every sample: what lies there is of this sample alone, as large as one
sample's plan, and computed with the bits of the definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.passes.choices import Choices
from cnncc.targets.cpu import arrangement, bands
from cnncc.targets.cpu.layout import ALIGN
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime, Shape
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
  output scores = concat(e, f) -> globalavgpool -> dense(5)
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


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for samples as small as these."""
    monkeypatch.setattr(arrangement, "LEAST", 0)


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
    own = [n for n in plan.lives if tensors[n].type.batched and not tensors[n].cut]
    (step,) = {places[n].strides[0] * places[n].type.dtype.bytes for n in own}
    assert step % (2 * ALIGN) == ALIGN, "an odd number of lines"
    for name in own:
        assert plan.offsets[name] + places[name].sample_bytes <= step
    ends = [plan.offsets[n] + places[n].sample_bytes for n in own]
    for name in plan.lives.keys() - set(own):
        behind = (batch - 1) * step + max(ends)
        assert behind <= plan.offsets[name] <= plan.size - places[name].bytes
    for one, other in combinations(own, 2):
        if plan.lives[one].meets(plan.lives[other]):
            first, second = sorted((one, other), key=plan.offsets.__getitem__)
            assert plan.offsets[first] + places[first].sample_bytes <= plan.offsets[second]
    assert plan.size == compiler.planned(runtime.fused, batch=batch).activations
    for name in own:
        short = batch * places[name].sample_bytes - places[name].bytes  # samples end with a line
        assert 0 <= short < batch * ALIGN


def test_one_sample_and_samples_that_meet_lie_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = runtime_of(1).bind(Shape(1, ())).placements
    assert all(p.between == 0 for p in alone.values())
    model = cnncc.compile(TRAINED, train=True)
    model.step(np.zeros((3, 3, 21, 19), np.float32), np.zeros(3, np.int64))
    step = model._programs.step.runtime
    assert isinstance(step, Runtime)
    assert all(p.between == 0 for p in step.planned(Shape(3, ())).placements.values())
    monkeypatch.setattr(arrangement, "LEAST", 1 << 30)
    small = runtime_of(3).bind(Shape(3, ())).placements
    assert all(p.between == 0 for p in small.values())


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
