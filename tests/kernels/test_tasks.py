"""Tasks: chunks that fit a cache, shared evenly by the threads."""

from __future__ import annotations

import pytest

from cnncc.targets.cpu import tasks
from cnncc.targets.cpu.tasks import busiest, rows_per_task


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
