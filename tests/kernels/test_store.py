"""The memory of parameters: values that are made when they are needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import cnncc
from cnncc.model import programs
from cnncc.targets.cpu.layout import Placement, place
from cnncc.targets.cpu.store import WORTH_A_THREAD, Store
from cnncc.tensor import DType, TensorType


def placement(*shape: int) -> Placement:
    return place(TensorType(DType.F32, shape, batched=False), 1, 0, (), 16, True)


class Source:
    """Values that count how often they were made."""

    def __init__(self, *shape: int) -> None:
        self.values = np.random.default_rng(0).random(shape, np.float32)
        self.times = 0
        self.threads: set[int] = set()

    def make(self) -> np.ndarray:
        self.times += 1
        self.threads.add(threading.get_ident())
        return self.values


def test_a_tensor_is_made_once_it_has_a_layout():
    store, source = Store(), Source(20, 3, 3, 3)
    store.write_later("w", source.values.nbytes, source.make)
    assert (source.times, store.bytes) == (0, source.values.nbytes)
    flat = store.allocate("w", placement(20, 3, 3, 3))
    store.fill()
    assert source.times == 1
    assert np.array_equal(placement(20, 3, 3, 3).unpack(flat), source.values)
    assert np.array_equal(store.read("w"), source.values)
    store.fill()
    assert source.times == 1


def test_a_tensor_that_is_read_first_is_made_once():
    store, source = Store(), Source(4, 5)
    store.write_later("w", source.values.nbytes, source.make)
    read = store.read("w")
    read[:] = 0  # a copy
    assert np.array_equal(store.read("w"), source.values)
    store.allocate("w", placement(4, 5))
    assert np.array_equal(store.read("w"), source.values)  # before `fill`
    store.fill()
    assert source.times == 1


@pytest.mark.parametrize("laid_out", [False, True])
def test_what_is_written_meanwhile_stays(laid_out: bool):
    store, source = Store(), Source(4, 5)
    store.write_later("w", source.values.nbytes, source.make)
    if laid_out:
        store.allocate("w", placement(4, 5))
    store.write("w", source.values + 1)
    store.allocate("w", placement(4, 5))
    store.fill()
    assert source.times == 0
    assert np.array_equal(store.read("w"), source.values + 1)


def test_large_tensors_are_made_by_several_threads():
    store = Store()
    sources = [Source(WORTH_A_THREAD // 256, 64) for _ in range(6)]
    together = threading.Barrier(2, timeout=60)

    def make(i: int) -> np.ndarray:
        if i >= 4:  # the last two are taken first: neither is done before the other has begun
            together.wait()
        return sources[i].make()

    for i, source in enumerate(sources):
        store.write_later(f"w{i}", source.values.nbytes + i, lambda i=i: make(i))
        store.allocate(f"w{i}", placement(*source.values.shape))
    store.fill(2)
    assert len({t for s in sources[4:] for t in s.threads}) == 2
    for i, source in enumerate(sources):
        assert source.times == 1
        assert np.array_equal(store.read(f"w{i}"), source.values)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_source_raises_is_raised_and_it_is_asked_again(threads: int):
    store, source = Store(), Source(WORTH_A_THREAD // 256, 64)
    broken = True

    def make() -> np.ndarray:
        if broken:
            raise MemoryError("no room")
        return source.make()

    for name in "ab":
        store.write_later(name, source.values.nbytes, make)
        store.allocate(name, placement(*source.values.shape))
    with pytest.raises(MemoryError, match="no room"):
        store.fill(threads)
    broken = False
    store.fill(threads)
    assert np.array_equal(store.read("a"), source.values)
    assert np.array_equal(store.read("b"), source.values)


GROWTH = """
import sys
import numpy as np
import cnncc

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))

text = '''net large {
  input x: f32[2048]
  output y = x -> dense(2500) -> relu -> dense(3100) -> relu -> dense(1000)
}
'''
model = cnncc.compile(text)
x = np.ones((1, 2048), np.float32)
before = resident()
model(x)
print(resident() - before, model.peak_memory)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_process_holds_what_was_planned_and_no_second_copy_of_the_parameters():
    root = Path(__file__).parents[2]
    for _ in range(2):  # the second process has nothing to compile
        done = subprocess.check_output(
            [sys.executable, "-c", GROWTH], cwd=root, text=True, timeout=300
        )
    grown, planned = map(int, done.split())
    assert planned > 60 << 20
    assert 0.9 * planned < grown < 1.1 * planned + (4 << 20)  # stacks and the like


def test_a_model_draws_what_is_not_loaded_before_its_first_run(monkeypatch: pytest.MonkeyPatch):
    text = """
    net n {
      input x: f32[3, 8, 8]
      output y = x -> conv(20, 3x3) -> batchnorm -> relu -> globalavgpool -> dense(5)
    }
    """
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    whole = cnncc.compile(text, seed=1)
    state, expected = whole.state_dict(), whole(x)
    drawn: list[str] = []

    def initial(node, seed):
        drawn.append(node.name)
        return original(node, seed)

    original = programs.initial
    monkeypatch.setattr(programs, "initial", initial)
    model = cnncc.compile(text, batch=2)
    model.load_state_dict(state)
    assert np.array_equal(model(x), expected)
    assert drawn == []
    part = cnncc.compile(text, batch=2, seed=1)
    missing = next(iter(state))
    part.load_state_dict({k: v for k, v in state.items() if k != missing}, strict=False)
    assert np.array_equal(part(x), expected)
    assert np.array_equal(part(x[:1]), expected[:1])
    assert drawn == [missing]
