"""What the machine offers, and the limits that a container sets."""

import os

import pytest

from cnncc.targets.cpu import machine


def test_this_machine_is_described_consistently():
    found = machine.detect()
    assert found.lanes_f32 == {"avx512": 16, "avx2": 8, "sse": 4, "neon": 4, "scalar": 1}[found.isa]
    assert found.lanes_f64 == max(found.lanes_f32 // 2, 1)
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 4 << 10 <= found.l1 <= found.l2
    assert found.memory_limit > 64 << 20


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"cpu.max": "150000 100000", "memory.max": "123456789"}, 1, 123456789),
        ({"cpu.max": "50000 100000"}, 1, None),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}, 1, None),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None, None),
        ({"memory.limit_in_bytes": "1000000"}, None, 1000000),
    ],
)
def test_a_containers_limits_are_respected(tmp_path, monkeypatch, files, cores, memory):
    monkeypatch.setattr(machine, "_control_groups", lambda: [tmp_path / "missing", tmp_path])
    free = machine._cores(), machine._memory_limit()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert machine._cores() == (cores or free[0])
    assert machine._memory_limit() == (memory or free[1])


def test_affinity_limits_the_cores(monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        assert machine._cores() <= (os.cpu_count() or 1)
        return
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
    monkeypatch.setattr(machine, "_control_groups", lambda: [])
    assert machine._cores() == 3


def test_an_instruction_set_wider_than_the_processors_is_refused(monkeypatch):
    monkeypatch.setenv("CNNCC_ISA", "avx512")
    monkeypatch.setattr(machine, "_widest", lambda features: "avx2")
    with pytest.raises(ValueError, match="only avx2"):
        machine.detect.__wrapped__()


@pytest.mark.parametrize(
    ("name", "features", "far"),
    [
        ("graniterapids", {}, True),
        ("rocketlake", {"amx-tile": True}, True),  # what a hypervisor may call the same processor
        ("rocketlake", {"amx-tile": False}, False),
        ("znver4", {}, False),
    ],
)
def test_a_mesh_is_recognised_behind_another_name(monkeypatch, name, features, far):
    monkeypatch.setattr(machine.llvm, "get_host_cpu_name", lambda: name)
    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: features)
    assert machine.last_cache_is_far.__wrapped__() is far


@pytest.mark.parametrize(("far", "counted"), [(False, 16 << 20), (True, 4 << 20)])
def test_of_a_cache_that_many_cores_share_less_counts(monkeypatch, far, counted):
    monkeypatch.setattr(machine, "last_cache_is_far", lambda: far)
    monkeypatch.setattr(machine, "last_cache", lambda: 32 << 20)
    assert machine.lasting_cache.__wrapped__() == counted


@pytest.mark.parametrize(
    ("name", "tiles", "bits", "hungry"),
    [
        ("znver4", False, 512, False),
        ("znver4", False, 256, True),
        ("rocketlake", False, 512, False),
        ("rocketlake", True, 512, True),  # a server by another name
        ("sapphirerapids", True, 512, True),
    ],
)
def test_a_core_with_one_sum_a_cycle_takes_its_time(monkeypatch, name, tiles, bits, hungry):
    monkeypatch.setattr(machine.llvm, "get_host_cpu_name", lambda: name)
    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: {"amx-tile": tiles})
    assert machine.hungry_cache.__wrapped__(bits) == (machine._caches()[0] if hungry else 0)
