"""A batch in portions: as large as the cache holds, with the bits of the whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import cnncc
from cnncc import compiler
from cnncc.graph.ir import Graph
from cnncc.graph.sources import Input
from cnncc.passes.differentiate import prune
from cnncc.passes.fuse import fuse
from cnncc.targets.cpu import memory
from cnncc.targets.cpu.portions import (
    FAR,
    NEAR,
    UNEVEN,
    WIDE,
    Costs,
    Traffic,
    Work,
    largest_that_fits,
    samples_at_once,
)
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import SHAPES, Runtime, Shape
from tests.kernels.primitives import same_bits

MIB = 1 << 20
CACHE = 16 * MIB

NET = """
net n {
  input x: f32[3, 9, 6]
  a = x -> conv(18, 3x3, pad = same) -> batchnorm -> relu
  output wide = a -> maxpool(3x3)
  output scores = a -> flatten -> dense(5) -> softmax
}
"""


TRAINED = """
train n {
  target label: class[5]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.1)
}
"""


def chain(*samples: int, macs: int = 0, parameters: int = 0) -> Traffic:
    """Steps that each read what the one before has written: bytes of the tensors, each step's own
    multiply-accumulates and bytes of parameters.
    """
    steps = enumerate(pairwise(samples))
    return Traffic(
        tuple(
            Work(macs, {f"t{k}": read, f"t{k + 1}": written}, {f"w{k}": parameters})
            for k, (read, written) in steps
        )
    )


def test_activations_that_fit_with_fewer_samples_make_portions() -> None:
    large = chain(*[4 * MIB] * 9)
    assert samples_at_once(large, 16, CACHE) == 1
    assert samples_at_once(chain(*[MIB] * 9), 16, CACHE) in (4, 6)
    assert samples_at_once(chain(*[MIB // 100] * 9), 16, CACHE) == 16
    assert samples_at_once(large, 16, 100 * CACHE) == 16


def test_what_is_used_again_late_makes_portions_smaller() -> None:
    """A residual lies in the cache only if all that is computed meanwhile leaves it room."""
    straight = chain(*[MIB] * 9)
    *before, last = straight.steps
    residual = Traffic((*before, replace(last, samples={**last.samples, "t0": MIB})))
    assert residual.uses[-1][-1].samples > 8 * MIB > straight.uses[-1][-1].samples
    assert samples_at_once(residual, 16, CACHE) < samples_at_once(straight, 16, CACHE)


def test_parameters_that_do_not_fit_are_not_read_again_for_little() -> None:
    activations = [MIB] * 9
    assert samples_at_once(chain(*activations, parameters=CACHE), 16, CACHE) == 16
    few = chain(*activations, parameters=MIB)
    assert samples_at_once(few, 16, CACHE) < 16, "they stay in the cache"


def test_parameters_come_while_others_are_used() -> None:
    """Where a step has much to do with each, they cost little."""
    activations, parameters = [MIB] * 9, 4 * MIB
    idle = chain(*activations, parameters=parameters)
    busy = chain(*activations, parameters=parameters, macs=100_000_000)
    assert samples_at_once(idle, 16, CACHE) > samples_at_once(busy, 16, CACHE)


def test_parameters_weigh_more_where_as_many_bytes_take_more_multiplications() -> None:
    near = chain(*[MIB] * 9, parameters=4 * MIB)
    assert samples_at_once(replace(near, costs=FAR), 16, CACHE) > samples_at_once(near, 16, CACHE)


def test_where_more_is_computed_in_the_time_of_a_byte_parameters_are_read_less_often() -> None:
    near = chain(*[MIB] * 9, parameters=4 * MIB, macs=20_000_000)
    assert samples_at_once(replace(near, costs=WIDE), 16, CACHE) > samples_at_once(near, 16, CACHE)


@pytest.mark.parametrize(
    ("cores", "portion"), [(1, 5), (2, 4), (3, 3), (4, 4), (5, 5), (6, 3), (16, 4)]
)
def test_cores_share_the_samples_of_a_portion(cores: int, portion: int) -> None:
    busy = chain(*[MIB] * 9, macs=50_000_000)
    assert samples_at_once(replace(busy, cores=cores), 48, CACHE) == portion
    idle = chain(*[MIB] * 9)  # what a larger portion spares is more than they lose
    assert samples_at_once(replace(idle, cores=cores), 48, CACHE) == 5
    whole = replace(chain(MIB, MIB), cores=cores)
    assert samples_at_once(whole, 7, 100 * CACHE) == 7


def test_a_sample_that_cores_share_takes_longer() -> None:
    one = chain(*[MIB] * 9)
    two = replace(one, cores=2)
    assert [two.time(p, CACHE) / one.time(p, CACHE) for p in (1, 2, 3, 4)] == [1, 1, UNEVEN, 1]


def test_what_is_left_of_a_batch_is_shared_as_well() -> None:
    """Of seven samples three would be left by four, and one is left by six or two."""
    two = replace(chain(*[2 * MIB] * 9), cores=2)
    assert samples_at_once(two, 7, CACHE) in (2, 6)


@pytest.mark.parametrize(
    ("far", "lanes", "hungry", "costs"),
    [
        (True, 16, 48 << 10, FAR),
        (False, 16, 48 << 10, WIDE),
        (False, 16, 0, NEAR),
        (False, 8, 48 << 10, NEAR),
    ],
)
def test_what_a_byte_costs_is_of_this_machine(
    far: bool, lanes: int, hungry: int, costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "last_cache_is_far", lambda: far)
    monkeypatch.setattr(memory, "vector_lanes", lambda: lanes)
    monkeypatch.setattr(memory, "hungry_cache", lambda bits: hungry)
    assert memory._costs() == costs


def test_activations_that_never_fit_are_left_whole() -> None:
    assert samples_at_once(chain(*[3 * CACHE] * 3), 16, CACHE) == 16


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_what_must_fit_makes_portions_smaller(most: int) -> None:
    asked: list[int] = []

    def fits(portion: int) -> bool:
        asked.append(portion)
        return portion <= most

    sizes = {-(-100 // n) for n in range(1, 101)}
    assert largest_that_fits(100, 50, fits) == max(s for s in sizes if s <= most)
    assert len(asked) <= 8, "every question is a plan"
    assert largest_that_fits(100, 50, lambda p: True) == 50
    assert largest_that_fits(100, 50, lambda p: False) == 1
    assert largest_that_fits(1, 1, lambda p: False) == 1


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cache holds one sample."""
    monkeypatch.setattr(memory, "samples_at_once", lambda traffic, batch, cache: 1)


@pytest.mark.parametrize("portion", [1, 2, 3, 5])
def test_portions_give_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    model = cnncc.compile(NET)
    x = np.random.default_rng(0).standard_normal((5, 3, 9, 6)).astype(np.float32)
    whole = model(x)
    monkeypatch.setattr(Runtime, "portion", lambda self, shape: min(portion, shape.batch))
    parts = model(x)
    assert all(same_bits(whole[name], parts[name]) for name in ("wide", "scores"))


def test_a_small_memory_makes_portions_with_the_bits_of_the_whole() -> None:
    x = np.random.default_rng(0).standard_normal((16, 3, 9, 6)).astype(np.float32)
    model = cnncc.compile(NET, batch=16)
    tight = cnncc.compile(NET, batch=16, max_memory=model.peak_memory // 2)
    whole, parts = model(x), tight(x)
    assert all(same_bits(whole[name], parts[name]) for name in ("wide", "scores"))
    assert 0 < tight.peak_memory <= model.peak_memory // 2
    with pytest.raises(cnncc.SpecError, match=r"at batch 16, 1 sample at a time"):
        cnncc.compile(NET, batch=16, max_memory=100)


def runtime_of(graph: Graph, phases: dict[str, int] | None = None) -> Runtime:
    return Runtime(fuse(graph), store=Store(), phases=phases, threads=1)


@pytest.mark.usefixtures("one_at_a_time")
def test_samples_by_themselves_run_one_at_a_time() -> None:
    runtime = runtime_of(compiler.front(NET).graph)
    assert runtime.portion(Shape(64, ())) == 1


@pytest.mark.usefixtures("one_at_a_time")
def test_batch_statistics_keep_the_batch_whole() -> None:
    """Inputs and outputs have a batch axis, but the statistics between them are of all samples."""
    graph = compiler.front(NET + TRAINED, train=True).graph
    outputs = tuple(o for o in graph.outputs if o[0] != "loss")
    forward = prune(replace(graph, outputs=outputs, updates=()))
    ends = [*forward.of("input"), *(forward[name] for _, name in forward.outputs)]
    assert all(n.type.batched for n in ends)
    assert not forward.updates
    assert runtime_of(forward).portion(Shape(64, ())) == 64


@pytest.mark.usefixtures("one_at_a_time")
def test_an_input_of_all_samples_keeps_the_batch_whole() -> None:
    graph = compiler.front(NET).graph
    name = next(iter(graph.of("parameter"))).name
    own = replace(graph[name], op=Input(graph[name].type))
    given = replace(graph, nodes=tuple(own if n.name == name else n for n in graph.nodes))
    assert runtime_of(given).portion(Shape(64, ())) == 64


@pytest.mark.usefixtures("one_at_a_time")
def test_a_step_of_training_keeps_the_batch_whole() -> None:
    step = cnncc.compile(NET + TRAINED, train=True)._programs.step.runtime
    assert isinstance(step, Runtime)
    assert step.portion(Shape(64, ())) == 64


def test_portions_of_the_latest_shapes_are_remembered() -> None:
    runtime = runtime_of(compiler.front(NET).graph)
    for batch in range(2, 3 * SHAPES):
        assert runtime.portion(Shape(batch, ())) == batch
        assert len(runtime._portions) <= SHAPES
