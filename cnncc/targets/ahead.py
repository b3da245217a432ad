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

from cnncc.targets.cpu.compiled import JIT
from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import is_stored, load_module

__all__ = ["load_kernels"]

WORTH_A_PROCESS = (
    8  # kernels: starting an interpreter and Numba takes as long as compiling about four
)

_WORKER = """
import json, sys
sys.path[:], texts = json.load(sys.stdin)
from cnncc.targets.load import load_module
for text in texts:
    load_module(text, kind="kernel")
"""


def load_kernels(texts: Sequence[str]) -> None:
    """Load kernel modules, compiling those that are not in the cache on all cores of this
    process's.
    """
    missing = [t for t in dict.fromkeys(texts) if not is_stored(t, kind="kernel")]
    processes = (
        min(detect().cores, len(missing) // WORTH_A_PROCESS) if JIT and sys.executable else 1
    )
    workers = []
    if processes > 1:
        # longest first, dealt out in turn: every process gets about the same work
        missing.sort(key=len, reverse=True)
        workers = [_start(missing[i::processes]) for i in range(1, processes)]
        for text in missing[::processes]:
            load_module(text, kind="kernel")
    for worker in workers:
        worker.wait()
    for text in dict.fromkeys(texts):
        load_module(text, kind="kernel")


def _start(texts: Sequence[str]) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", _WORKER],  # nothing is imported from the current folder
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps([sys.path, list(texts)]).encode())
        worker.stdin.close()
    except BrokenPipeError:
        worker.kill()  # it could not start; what it should have compiled is compiled here
    return worker
