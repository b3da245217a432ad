"""Tasks: chunks that fit a cache, shared evenly by the threads."""

from __future__ import annotations

import pytest

import cnncc
from cnncc.targets.cpu import tasks
from cnncc.targets.cpu.table import _summed_bytes
from cnncc.targets.cpu.tasks import busiest, rows_per_task, rows_that_stay
from cnncc.targets.runtime import Runtime, Shape
from cnncc.tensor import evaluate


def loads(rows: int, blocks: int, size: int, threads: int) -> list[int]:
    """What each thread has, counted task by task as a kernel does."""
    sizes = [min(size, rows - first) for first in range(0, rows, size) for _ in range(blocks)]
    n = len(sizes)
    return [sum(sizes[n * t // threads : n * (t + 1) // threads]) for t in range(threads)]


@pytest.mark.parametrize("rows", [1, 2, 7, 14, 27, 28, 56, 113])
@pytest.mark.parametrize("blocks", [1, 2, 3, 8])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_busiest_thread_has_little_more_than_its_part(
    rows: int, blocks: int, threads: int
) -> None:
    for most in {1, 4, 9, rows}:
        if most > rows:
            continue
        size = rows_per_task(rows, blocks, most, threads)
        assert 1 <= size <= most
        load = busiest(rows, blocks, size, threads)
        assert load == max(loads(rows, blocks, size, threads))
        smallest = min(busiest(rows, blocks, s, threads) for s in range(1, most + 1))
        assert load <= max(1.02 * rows * blocks / threads, 1.1 * smallest, smallest + 1)


def test_chunks_are_no_smaller_than_they_need_to_be() -> None:
    assert rows_per_task(28, 8, 9, 2) == 7
    assert rows_per_task(14, 16, 9, 2) == 7
    assert rows_per_task(56, 8, 56, 1) == 56


@pytest.mark.parametrize("threads", [24, 64, 192])
@pytest.mark.parametrize("blocks", [1, 3, 8])
def test_many_threads_share_evenly_after_few_tries(
    monkeypatch: pytest.MonkeyPatch, blocks: int, threads: int
) -> None:
    tried: list[int] = []

    def counted(rows: int, blocks: int, size: int, threads: int) -> int:
        tried.append(size)
        return busiest(rows, blocks, size, threads)

    monkeypatch.setattr(tasks, "busiest", counted)
    rows = 12_544
    size = rows_per_task.__wrapped__(rows, blocks, rows, threads)
    assert len(tried) <= 16
    assert busiest(rows, blocks, size, threads) <= 1.02 * rows * blocks / threads


@pytest.mark.parametrize(
    ("rows", "read", "weights", "most"),
    [
        (56, 512 << 10, 64 << 10, 28),  # a quarter of a megabyte of half a megabyte
        (56, 128 << 10, 64 << 10, 56),
        (7, 400 << 10, 8 << 20, 7),  # weights that come from further away come once
        (14, 1 << 20, 8 << 20, 7),
        (4, 64 << 20, 64 << 10, 1),
        (3, 0, 0, 3),
    ],
)
def test_the_input_of_a_chunk_stays_in_the_cache(
    rows: int, read: int, weights: int, most: int
) -> None:
    assert rows_that_stay(rows, read, weights, cache=1 << 20) == most


@pytest.mark.parametrize(
    ("layer", "residual", "taken"),
    [
        ("conv(32, 1x1)", False, 16 * 12 * 12),
        ("conv(32, 1x1, stride = 2, fit = floor)", False, 16 * 6 * 6),  # the others are left out
        ("conv(32, 3x3, stride = 2, fit = floor)", False, 16 * 12 * 12),
        ("conv(16, 1x1)", True, 16 * 12 * 12),  # what is added behind the sums comes once
    ],
)
def test_what_sums_take_is_counted_once(layer: str, residual: bool, taken: int) -> None:
    end = " + x" if residual else ""
    text = f"net n {{\n  input x: f32[16, 12, 12]\n  output y = (x -> {layer}){end}\n}}"
    runtime = cnncc.compile(text)._programs.inference
    assert isinstance(runtime, Runtime)
    (step,) = (s for s in runtime.program.steps if "fma(" in s.text)
    assert step.emitted is not None
    assert step.nest is not None
    binding = runtime.bind(Shape(1, ()))
    sizes = {n: evaluate(e, {"*": 1}) for n, e in step.nest.sizes.items()}
    placed = dict(
        zip(
            (b.name for b in step.nest.buffers),
            (binding.placements[t] for t in step.tensors),
            strict=True,
        )
    )
    assert _summed_bytes(step.emitted.segments[0], sizes, placed) == 4 * taken
