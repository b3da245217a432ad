"""What this machine offers to kernels: vector width, caches, cores and memory that this process
may use.

The vector width follows the processor unless the environment variable CNNCC_ISA (avx512, avx2 or
sse) asks for a narrower one, which lets one machine test the code of another.  Cores are those
that the affinity mask and the container's quota leave to this process, and memory is the smaller
of the installed and the container's.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from cnncc.targets.settings import setting

__all__ = ["Machine", "detect"]

# A processor model that LLVM knows for every instruction set, and the set's float32 lanes.
_MODELS = {"avx512": ("x86-64-v4", 16), "avx2": ("x86-64-v3", 8), "sse": ("x86-64", 4)}
# Server processors whose cores share a last cache over a mesh, as LLVM spells them: a core reads
# from it not much faster than from memory (measured on emeraldrapids: 24 and 16 GB/s; a core of
# znver4 reads 70 from its last cache).
_MESHES = {
    "skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "sapphirerapids",
    "emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids",
}  # fmt: skip
# Tiles of matrices, which so far only such servers have: a hypervisor may call one by the name of
# another processor (a Granite Rapids by rocketlake) and yet report its features.
_MESH_FEATURE = "amx-tile"
# Processors that start one multiply-add of so many bits in a cycle, as they have one unit for it or
# two halves. Servers from before tiles of matrices that have one cannot be told from others.
_ONE_A_CYCLE = {
    512: {"znver4", "cannonlake", "icelake-client", "rocketlake", "tigerlake"},
    256: {"znver1"},
}
_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # what x86-64-v4 requires
_AVX2 = {"avx2", "fma"}


@dataclass(frozen=True)
class Machine:
    """Facts about the processor and limits of this process; sizes in bytes."""

    cpu_name: str  # as LLVM spells it
    features: tuple[str, ...]  # LLVM's names, sorted
    isa: str  # avx512, avx2, sse, neon or scalar
    lanes_f32: int
    l1: int  # data cache of one core
    l2: int
    l3: int  # shared; 0 if there is none
    cores: int
    memory_limit: int

    @property
    def lanes_f64(self) -> int:
        """Lanes of a float64 vector of the same width."""
        return max(self.lanes_f32 // 2, 1)


@cache
def detect() -> Machine:
    """The machine this process runs on; ValueError if CNNCC_ISA names no instruction set."""
    cpu_name = setting("CPU_NAME") or llvm.get_host_cpu_name()
    host = llvm.get_host_cpu_features()
    features = tuple(sorted(name for name, present in host.items() if present))
    offered = _widest(set(features))
    forced = forced_isa()
    if forced is not None:
        widths = list(_MODELS)  # widest first
        if offered not in widths or widths.index(forced) < widths.index(offered):
            raise ValueError(f"CNNCC_ISA asks for {forced}, but this processor has only {offered}")
        cpu_name = _MODELS[forced][0]
    isa = forced or offered
    l1, l2, l3 = _caches()
    return Machine(
        cpu_name=cpu_name,
        features=features,
        isa=isa,
        lanes_f32=_lanes(isa),
        l1=l1,
        l2=l2,
        l3=l3,
        cores=_cores(),
        memory_limit=_memory_limit(),
    )


def vector_lanes() -> int:
    """The float32 lanes of `detect()`, found without Numba."""
    host = llvm.get_host_cpu_features()
    return _lanes(forced_isa() or _widest({name for name, present in host.items() if present}))


def last_cache() -> int:
    """`detect().l3`, found without Numba."""
    return _caches()[2]


@cache
def own_cache() -> int:
    """`detect().l2`, found without Numba."""
    return _caches()[1]


@cache
def hungry_cache(bits: int) -> int:
    """Bytes of the L1 data cache of a core that starts two multiply-adds on vectors of so many bits
    in a cycle: its second cache brings weights hardly as fast as it needs them. 0 of a core that
    starts one.
    """
    one = llvm.get_host_cpu_name() in _ONE_A_CYCLE.get(bits, ()) and not _has_mesh_feature()
    return 0 if one else _caches()[0]


@cache
def last_cache_is_far() -> bool:
    """Whether reading from the last cache costs a core about as much as reading from memory: of
    the processor that is there, whichever code is generated for.
    """
    return llvm.get_host_cpu_name() in _MESHES or _has_mesh_feature()


@cache
def lasting_cache() -> int:
    """Bytes of the last cache in which activations stay until they are read: half of it, since its
    sets do not fill evenly; of one that the many cores of a server share, an eighth, since others
    use it as well (measured where 480 MB are said to be there: batches of 16 take 5 % less time in
    portions that touch 60 MB).
    """
    return last_cache() // (8 if last_cache_is_far() else 2)


def _has_mesh_feature() -> bool:
    return bool(llvm.get_host_cpu_features().get(_MESH_FEATURE))


@cache
def cores() -> int:
    """`detect().cores`, found without Numba."""
    return _cores()


def memory_limit() -> int:
    """`detect().memory_limit`, found without Numba."""
    return _memory_limit()


def _lanes(isa: str) -> int:
    return _MODELS[isa][1] if isa in _MODELS else {"neon": 4, "scalar": 1}[isa]


def forced_isa() -> str | None:
    """The value of CNNCC_ISA, None when unset; ValueError if it is not an instruction set we
    know."""
    isa = os.environ.get("CNNCC_ISA")
    if isa and isa not in _MODELS:
        raise ValueError(f"CNNCC_ISA must be one of {', '.join(_MODELS)}, but got {isa!r}")
    return isa or None


def apply_isa() -> None:
    """Make Numba generate code for CNNCC_ISA.

    It has an effect before Numba compiles its first function; after that, vectors are still as
    narrow as asked, only instructions of the real processor may appear.
    """
    isa = forced_isa()
    if isa is not None:
        from numba.core import config

        config.CPU_NAME = _MODELS[isa][0]
        config.CPU_FEATURES = ""  # none but those that the model implies


def _widest(features: set[str]) -> str:
    if features >= _AVX512:
        return "avx512"
    if features >= _AVX2:
        return "avx2"
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        return "sse"
    return "neon" if machine in ("arm64", "aarch64") else "scalar"


def _caches() -> tuple[int, int, int]:
    """Sizes of L1 data, L2 and L3 as Linux reports them, or modest assumptions elsewhere."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 0}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue  # a container may hide single files
        if kind in ("Data", "Unified") and level in sizes and size.endswith("K"):
            sizes[level] = int(size[:-1]) << 10
    return sizes[1], sizes[2], sizes[3]


def _cores() -> int:
    """Cores that this process may use: affinity mask, then the quotas of its control groups."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    for group in _control_groups():
        quota = _cpu_quota(group)
        if quota is not None:
            available = min(available, max(1, int(quota)))
    return available


def _cpu_quota(group: Path) -> float | None:
    """Processors' worth of time that a control group allows (versions 2 and 1); None if
    unlimited."""
    limit = _words(group / "cpu.max")
    if len(limit) == 2 and limit[0] != "max":
        return int(limit[0]) / int(limit[1])
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _memory_limit() -> int:
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if _has_sysconf() else []
    for group in _control_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _words(group / name)
            if limit and limit[0].isdigit():
                limits.append(int(limit[0]))
    return min(limits, default=4 << 30)


def _has_sysconf() -> bool:
    return hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names


def _control_groups() -> list[Path]:
    """Folders of the control groups that hold this process, from its own up to the root."""
    groups: list[Path] = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, name = line.split(":", 2)
        # Version 2 has one tree, version 1 a tree per list of controllers.
        root = Path("/sys/fs/cgroup") / controllers
        place = root / name.lstrip("/")
        groups += [place, *(up for up in place.parents if up == root or root in up.parents)]
    return groups


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
