"""The memory that is planned before anything is compiled: what the compiled program then takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.cli.memory import memory_lines, planned_memory
from cnncc.passes.fuse import fuse
from cnncc.passes.retype import retyped
from cnncc.passes.training import training_graph
from cnncc.targets.cpu import memory
from cnncc.targets.cpu.machine import detect, last_cache, memory_limit, vector_lanes
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime, Shape
from cnncc.tensor import DType

NET = """
net small(classes = 5) {
  input image: f32[3, H, 12]
  a = image -> conv(6, 3x3, pad = same, bias = none) -> batchnorm -> relu
  b = a -> conv(6, 5x5, pad = reflect(2))
  c = concat(a, b) -> maxpool(2x2)
  d = (c -> conv(24, 3x3, pad = 1)) + (c -> conv(24, 1x1))
  output scores = d -> globalavgpool -> dense(classes)
}
train small {
  target label: class[classes]
  loss = cross_entropy(scores, label)
  optimizer = adam(lr = 0.1)
  batch = 7
}
"""


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("fuse", [False, True])
def test_the_plan_is_that_of_the_compiled_program(train: bool, fuse: bool) -> None:
    checked = compiler.front(NET, train=train)
    graph, phases = checked.graph, None
    if train:
        assert checked.module.training is not None
        step = training_graph(graph, checked.module, checked.module.training.optimizer)
        graph, phases = step.graph, dict(step.phases)
    fused = compiler.kernels(graph, checked.module, fuse=fuse, phases=phases)
    runtime = Runtime(fused, store=Store(), phases=phases, threads=1)
    for batch, height in ((1, 8), (3, 20)):
        need = compiler.planned(fused, phases=phases, batch=batch, symbols={"H": height})
        binding = runtime.planned(Shape(batch, (("H", height),)))
        constants = sum(c.nbytes for c in binding.constants.values())
        assert need.activations == binding.plan.size
        assert need.parameters == runtime.store.bytes + constants
    assert runtime.peak == need.peak, "the larger binding came last"


def test_the_plan_in_float64_is_that_of_the_compiled_program() -> None:
    text = "net a {\n  input x: f32[3, 12, 12]\n  output y = x -> conv(33, 3x3) -> relu\n}\n"
    fused = fuse(retyped(compiler.front(text).graph, DType.F64))
    runtime = Runtime(fused, store=Store(), dtype=DType.F64, threads=1)
    binding, need = runtime.planned(Shape(1, ())), compiler.planned(fused)
    assert (need.activations, need.parameters) == (binding.plan.size, runtime.store.bytes)


def test_inference_of_a_model_that_trains_takes_what_is_claimed_of_it() -> None:
    model = cnncc.compile(NET.replace("H,", "12,"), train=True)
    model.step(np.zeros((7, 3, 12, 12), np.float32), np.zeros(7, np.int64))
    variant, runtime = model._programs.network.inference, model._programs.inference
    need = compiler.planned(compiler.kernels(variant.graph, variant.module))
    assert isinstance(runtime, Runtime)
    binding = runtime.planned(Shape(1, ()))
    assert need.activations == binding.plan.size
    assert need.parameters == sum(
        memory.lasting(runtime.program.tensors, binding.placements).values()
    )
    besides = runtime.store.bytes_besides(runtime.program.outline.kept)
    assert besides > need.parameters, "Adam keeps two of each weight beside it"


def test_portions_shrink_when_the_store_has_grown() -> None:
    checked = compiler.front(NET)
    fused = compiler.kernels(checked.graph, checked.module)
    symbols = {"H": 40}
    one = compiler.planned(fused, batch=1, symbols=symbols)
    whole = compiler.planned(fused, batch=7, symbols=symbols, limit=1 << 40)
    assert whole.portion == 7
    runtime = Runtime(fused, store=Store(), threads=1, max_memory=whole.peak)
    shape = Shape(7, tuple(symbols.items()))
    assert runtime.portion(shape) == 7
    inputs = {"image": np.zeros((7, 3, 40, 12), np.float32)}
    expected = runtime.run(inputs)
    again = runtime.ready(inputs)
    assert again is not None
    repeated = again.run((), inputs)
    assert repeated is not None
    assert all(np.array_equal(repeated[k], expected[k]) for k in expected)
    runtime.store.write("of another program", np.zeros((whole.peak - one.peak) // 4, np.float32))
    assert again.run((), inputs) is None
    assert runtime.portion(shape) == 1
    assert runtime.planned(shape).batch == 1
    assert runtime.ready(inputs) is None


@pytest.mark.parametrize("portion", [1, 4, 7])
def test_the_plan_of_portions_is_that_of_the_compiled_program(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    """As the cache and as the limit have it; a plan over the limit names both sizes."""
    checked = compiler.front(NET)
    fused = compiler.kernels(checked.graph, checked.module)
    symbols = {"H": 40}
    monkeypatch.setattr(
        memory, "samples_at_once", lambda traffic, batch, cache: min(portion, batch)
    )
    need = compiler.planned(fused, batch=7, symbols=symbols)
    assert need.portion == portion
    assert need == compiler.planned(fused, batch=portion, symbols=symbols)
    runtime = Runtime(fused, store=Store(), threads=1)
    binding = runtime.planned(Shape(7, tuple(symbols.items())))
    assert (binding.batch, binding.plan.size) == (portion, need.activations)
    monkeypatch.setattr(memory, "samples_at_once", lambda traffic, batch, cache: batch)
    limited = compiler.planned(fused, batch=7, symbols=symbols, limit=need.peak)
    assert limited == need
    tight = Runtime(fused, store=Store(), threads=1, max_memory=need.peak)
    assert tight.planned(Shape(7, tuple(symbols.items()))).batch == portion
    short = Runtime(fused, store=Store(), threads=1, max_memory=need.parameters)
    with pytest.raises(compiler.SpecError, match="E0801") as caught:
        short.planned(Shape(7, tuple(symbols.items())))
    (found,) = caught.value.diagnostics
    assert found.notes[0].text.startswith("activations at batch 7, 1 sample at a time: ")


def test_what_is_found_without_numba_is_what_kernels_are_made_for() -> None:
    assert vector_lanes() == detect().lanes_f32
    assert (last_cache(), memory_limit()) == (detect().l3, detect().memory_limit)


def test_a_report_plans_inference_and_a_step_of_training() -> None:
    plans = planned_memory(NET.replace("H,", "12,"), {"classes": 4})
    inference, training = plans["inference"], plans["training"]
    assert (inference["batch"], training["batch"]) == (1, 7)
    assert training["parameters"] > 2 * inference["parameters"], "Adam keeps two of each weight"
    assert training["peak"] == training["activations"] + training["parameters"]
    assert [line.split(": ")[-1] for line in memory_lines(plans)] == [
        "inference at batch 1",
        "training at batch 7",
    ]
    assert planned_memory(NET, {}) == {}, "the extent H is open"


def test_a_network_larger_than_any_memory_is_planned() -> None:
    """4.8e9 weights, of which nothing is allocated."""
    text = (
        "net wide {\n  input x: f32[1, 1000, 1200]\n  output y = x -> flatten -> dense(4_000)\n}\n"
    )
    tracemalloc.start()
    plan = planned_memory(text, {})["inference"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan["parameters"] >= 4 * 4_800_004_000
    assert plan["activations"] >= 4 * 1_200_000
    assert most < 64 << 20


def test_memory_of_symbolic_extents_is_checked_once_they_are_known() -> None:
    text = "net a {\n  input x: f32[4, H, 32]\n  output y = x -> maxpool(2x2)\n  expect %s\n}\n"
    assert compiler.check_file(text % "memory <= 1") == ()
    checked = compiler.front(text % "memory <= 20_480")
    compiler.check_claims(checked.graph, checked.module, symbols={"H": 32})
    # two samples, and a line between them
    with pytest.raises(compiler.SpecError, match=r"E0501.* it is 41_024"):
        compiler.check_claims(checked.graph, checked.module, batch=2, symbols={"H": 32})


def test_the_text_of_a_plan_is_checked_too() -> None:
    (found,) = compiler.check_file(
        "net a {\n  input x: f32[4, 32, 32]\n  output y = x -> maxpool(2x2)\n"
        "  expect memory < 20_480\n}\n"
    )
    assert found.code == "E0501"
    assert "20_480 bytes of activations, 0 of parameters" in found.notes[0].text
