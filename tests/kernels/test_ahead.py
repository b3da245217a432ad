"""Kernels that are not in the cache are compiled by several processes, or here if those fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnncc.targets import ahead
from cnncc.targets.ahead import WORTH_A_PROCESS, load_kernels
from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import is_stored, load_module

KERNEL = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *


@compiled("void(f32*)")
def kernel(x):
    store(x, 0, load1(x, 0) * f32({factor}))
"""


def texts(first: int, count: int = 2 * WORTH_A_PROCESS) -> list[str]:
    return [KERNEL.format(factor=float(first + i)) for i in range(count)]


def works(text: str, factor: float) -> bool:
    x = np.array([2.0], np.float32)
    load_module(text, kind="kernel").kernel(x)
    return bool(x[0] == 2 * factor)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, and an empty cache."""
    monkeypatch.setattr(ahead, "detect", lambda: replace(detect(), cores=2))
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(tmp_path / "cache"))


def test_other_process_compiles_half() -> None:
    many = texts(100)
    load_kernels(many)
    loaded = [load_module(t, kind="kernel").kernel for t in many]
    assert sum(k.was_cached for k in loaded) == WORTH_A_PROCESS
    assert all(works(t, 100 + i) for i, t in enumerate(many))
    assert all(is_stored(t, kind="kernel") for t in many)


def test_few_kernels_are_compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no process is started for so few")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    few = texts(200, 3)
    load_kernels(few)
    assert all(works(t, 200 + i) for i, t in enumerate(few))


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true"])
def test_process_that_fails_is_made_up_for(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path(program).exists():
        pytest.skip(f"there is no {program}")
    monkeypatch.setattr(sys, "executable", program)
    many = texts(300 if program.endswith("true") else 400)
    load_kernels(many)
    assert all(is_stored(t, kind="kernel") for t in many)
    assert works(many[-1], float(many[-1].split("f32(")[1].split(")")[0]))
