"""Machine code is kept under a key of everything that decides what it is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cnncc
from cnncc.targets import cache

TARGETS = Path(cnncc.__file__).parent / "targets"

# What emitted modules import: kernels the words, entries also the team, its protocol and steps.
ROOTS = (
    "cpu/compiled.py",
    "cpu/protocol.py",
    "cpu/step.py",
    "cpu/team.py",
    "cpu/vector/__init__.py",
)

# In the key by what they say: the processor, and its instruction set.
BY_VALUE = {"cpu/machine.py"}


def imported(path: Path) -> set[str]:
    """The modules of `targets` that a file imports, as paths in that folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnncc.targets."):
            assert node.module is not None
            place = node.module.removeprefix("cnncc.targets.").replace(".", "/")
            names = [f"{place}.py", f"{place}/__init__.py"]
            names += [f"{place}/{alias.name}.py" for alias in node.names]
            found |= {name for name in names if (TARGETS / name).exists()}
    return found


def test_every_module_that_becomes_machine_code_is_in_the_key() -> None:
    reached, waiting = set(ROOTS), list(ROOTS)
    while waiting:
        new = imported(TARGETS / waiting.pop()) - reached
        reached |= new
        waiting += new
    assert len(reached) > 20
    digested = {
        path.relative_to(TARGETS).as_posix()
        for pattern in cache._RUNTIME
        for path in TARGETS.glob(pattern)
    }
    assert reached - digested == BY_VALUE


def test_numbas_settings_are_known_without_numba() -> None:
    code = """
import sys
from cnncc.targets.settings import DEFAULTS, setting
before = {name: setting(name) for name in DEFAULTS}
assert "numba" not in sys.modules
import numba
assert before == {name: setting(name) for name in DEFAULTS}, "Numba has other defaults"
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=TARGETS.parents[1], check=True
    )


@pytest.mark.parametrize("variable", ["NUMBA_OPT=1", "NUMBA_OPT=max", "NUMBA_SLP_VECTORIZE=1"])
def test_settings_of_the_environment_are_in_the_key(variable: str) -> None:
    code = "from cnncc.targets.cache import environment_key; print(environment_key())"

    def key(**changes: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        return subprocess.check_output(
            [sys.executable, "-c", code], env=environment | changes, cwd=TARGETS.parents[1]
        ).decode()

    name, _, value = variable.partition("=")
    assert key(NUMBA_COLOR_SCHEME="no_color") == key()  # makes no other code
    assert key(**{name: value}) != key()
