"""Arena buffers: aligned, private to the process, bounded in number, and full of NaN when asked."""

import os
import threading

import numpy as np
import pytest

from cnncc.targets.cpu.arena import HUGE_PAGE, LINE, ArenaPool, aligned_bytes, aligned_f32


@pytest.mark.parametrize("count", [1, 63, 64, 1000, HUGE_PAGE - 1])
def test_small_buffers_start_at_a_cache_line(count):
    buffer = aligned_bytes(count)
    assert (buffer.size, buffer.dtype, buffer.ctypes.data % LINE) == (count, np.uint8, 0)
    assert not buffer.any()


@pytest.mark.parametrize("count", [HUGE_PAGE, HUGE_PAGE + 1, 5 * HUGE_PAGE - 4])
def test_large_buffers_start_at_a_huge_page(count):
    buffer = aligned_bytes(count)
    assert (buffer.size, buffer.ctypes.data % HUGE_PAGE) == (count, 0)
    buffer[0] = buffer[-1] = 1
    assert buffer.sum() == 2


def test_float_buffers_count_elements():
    assert aligned_f32(0).size == 0
    buffer = aligned_f32(10)
    assert (buffer.size, buffer.dtype) == (10, np.float32)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        aligned_bytes(-1)
    with pytest.raises(MemoryError):
        aligned_bytes(1 << 62)


def test_a_pool_uses_its_buffers_again():
    pool = ArenaPool(1000, limit=2)
    with pool.acquire() as first, pool.acquire() as second:
        places = {first.ctypes.data, second.ctypes.data}
        assert len(places) == 2
        assert pool.reserved == 2000
        with pytest.raises(TimeoutError), pool.acquire(timeout=0.01):
            pass
    with pool.acquire() as again:
        assert again.ctypes.data in places
    assert pool.reserved == 2000


def test_callers_wait_for_a_buffer_and_never_share_one():
    pool, lock = ArenaPool(64, limit=2), threading.Lock()
    in_use: set[int] = set()
    failures: list[str] = []

    def call() -> None:
        for _ in range(200):
            with pool.acquire() as buffer:
                with lock:
                    if buffer.ctypes.data in in_use or len(in_use) >= 2:
                        failures.append("two callers had one buffer")
                    in_use.add(buffer.ctypes.data)
                buffer[:] = 1
                with lock:
                    in_use.remove(buffer.ctypes.data)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not failures
    assert pool.reserved <= 128


def test_a_buffer_comes_back_after_an_error():
    pool = ArenaPool(64)
    with pytest.raises(RuntimeError, match="in the kernel"), pool.acquire():
        raise RuntimeError("in the kernel")
    with pool.acquire(timeout=0) as buffer:
        assert buffer.size == 64


def test_poison_makes_unwritten_floats_nan_each_time():
    pool = ArenaPool(64, poison=True)
    for _ in range(2):
        with pool.acquire() as buffer:
            assert np.isnan(buffer.view(np.float32)).all()
            assert np.isnan(buffer.view(np.float64)).all()
            buffer[:] = 0


def test_a_pool_needs_a_limit():
    with pytest.raises(ValueError, match="at least 1"):
        ArenaPool(64, limit=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_whole_pool_and_memory_of_its_own():
    pool = ArenaPool(HUGE_PAGE, limit=1)
    taken = threading.Event()
    finish = threading.Event()

    held = []

    def hold() -> None:
        with pool.acquire() as buffer:
            held.append(buffer)
            buffer[:] = 7
            taken.set()
            finish.wait(60)
            buffer[0] += 1

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(60)
    child = os.fork()
    if child == 0:
        status = 1
        try:  # the thread that holds the buffer does not exist here
            with pool.acquire(timeout=5) as buffer:
                buffer[:] = 1
            held[0][:] = 1  # the child's copy of the parent's buffer
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    finish.set()
    holder.join()
    with pool.acquire() as buffer:
        assert (buffer[0], buffer[1]) == (8, 7)
