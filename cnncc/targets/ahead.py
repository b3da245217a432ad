"""Compiling many kernels at once: other processes fill the cache while this one compiles its part.

Numba compiles one function at a time in a process, whatever the number of threads. A large network
has a hundred kernels, so without other processes all cores but one would wait. Whatever goes wrong
in one of them, the kernel is merely compiled here when it is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from cnncc.targets.cpu.compiled import JIT, PACKAGE
from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import Kind, is_stored, load_module, module_name

__all__ = ["compile_ahead", "load_kernels"]

WORTH_A_PROCESS = (
    8  # kernels: starting an interpreter and Numba takes as long as compiling about four
)
LONG = 40_000  # characters of entries that take as long to compile as eight kernels

_WORKER = """
import json, sys
sys.path[:], kind, texts = json.load(sys.stdin)
from cnncc.targets.load import load_module
for text in texts:
    load_module(text, kind=kind)
"""


def load_kernels(texts: Sequence[str]) -> None:
    """Load kernel modules, compiling those that are not in the cache on all cores of this
    process's. A kernel that calls others comes after them.
    """
    _compile([t for t in texts if f"from {PACKAGE}." not in t], "kernel")
    for text in dict.fromkeys(texts):
        load_module(text, kind="kernel")


def compile_ahead(kernels: Sequence[str], entries: Sequence[str]) -> None:
    """Compile the kernels of several programs and then their entries, on all cores of this
    process's: the programs then find all in the cache.
    """
    load_kernels(kernels)
    _compile(entries, "entry")


def _compile(texts: Sequence[str], kind: Kind) -> None:
    """Compile those of some modules that are not in the cache, if they are worth a process."""
    different = {module_name(t, kind=kind): t for t in texts}.values()
    missing = [t for t in different if not is_stored(t, kind=kind)]
    worth = len(missing) if kind == "kernel" else sum(map(len, missing)) * WORTH_A_PROCESS // LONG
    possible = min(detect().cores, worth // WORTH_A_PROCESS, len(missing))
    processes = possible if JIT and sys.executable else 1
    if processes < 2:
        return
    # longest first, dealt out in turn: every process gets about the same work
    missing.sort(key=len, reverse=True)
    workers = [_start(missing[i::processes], kind) for i in range(1, processes)]
    for text in missing[::processes]:
        load_module(text, kind=kind)
    for worker in workers:
        worker.wait()


def _start(texts: Sequence[str], kind: str) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", _WORKER],  # nothing is imported from the current folder
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps([sys.path, kind, list(texts)]).encode())
        worker.stdin.close()
    except BrokenPipeError:
        worker.kill()  # it could not start; what it should have compiled is compiled here
    return worker
