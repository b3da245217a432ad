"""Machine code is kept under a key of everything that decides what it is."""

from __future__ import annotations

import ast
from pathlib import Path

import cnncc
from cnncc.targets import cache

TARGETS = Path(cnncc.__file__).parent / "targets"

# What emitted modules import: kernels the words, entries also the team and its steps.
ROOTS = ("cpu/compiled.py", "cpu/step.py", "cpu/team.py", "cpu/vector/__init__.py")

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
    assert len(reached) > 12
    digested = {
        path.relative_to(TARGETS).as_posix()
        for pattern in cache._RUNTIME
        for path in TARGETS.glob(pattern)
    }
    assert reached - digested == BY_VALUE
