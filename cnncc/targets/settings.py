"""Numba's settings and version, known without importing it where nobody has changed a setting:
importing Numba takes longer than loading the machine code of a large network.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["DEFAULTS", "numba_version", "setting"]

DEFAULTS: dict[str, Any] = {
    "OPT": 3,
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "DEBUGINFO_DEFAULT": 0,
    "CPU_NAME": None,
    "CPU_FEATURES": None,
    "DISABLE_JIT": 0,
}
"""What Numba's configuration says where neither the environment nor a file says otherwise."""

_FILE = ".numba_config.yaml"  # Numba looks for it in the current folder


def setting(name: str) -> Any:
    """A value of Numba's configuration, one of DEFAULTS."""
    if "numba.core.config" not in sys.modules and not _changed():
        return DEFAULTS[name]
    from numba.core import config

    value = getattr(config, name)
    if name == "OPT":  # a number that knows whether it was given as `max`
        return "max" if value.is_opt_max else int(value)
    return value


@cache
def _changed() -> bool:
    """Whether something may give Numba other settings than its defaults."""
    return any(name.startswith("NUMBA_") for name in os.environ) or os.path.exists(_FILE)


@cache
def numba_version() -> bytes:
    """What tells one version of Numba from another: its file about its version."""
    spec = find_spec("numba")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the CPU target needs Numba", name="numba")
    return Path(spec.origin).with_name("_version.py").read_bytes()
