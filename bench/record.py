"""The JSON that the scripts of this folder write: one file, in which each replaces its own results
and keeps those of others, and the facts of the machine beside every result.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cnncc
from cnncc.targets.cpu.machine import detect

NETWORKS = (
    "lenet5_modern", "cifar10", "alexnet", "vgg19", "resnet18", "resnet50", "googlenet",
    "mobilenet",
)  # fmt: skip
"""Those that are compared, in the order in which pages show them."""

PACKAGES = ("numpy", "numba", "torch", "onnxruntime", "openvino", "ncnn", "pnnx")


def machine_facts(threads: int) -> dict[str, Any]:
    """What a figure depends on beside the code: processor, caches, threads, load, versions."""
    machine = detect()
    return {
        "processor": _model_name() or machine.cpu_name,
        "isa": machine.isa,
        "l1": machine.l1,
        "l2": machine.l2,
        "l3": machine.l3,
        "cores": machine.cores,
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cnncc": cnncc.__version__,
        "commit": _commit(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def update(path: Path, section: str, key: Sequence[str], results: Iterable[dict[str, Any]]) -> None:
    """Put results into a section of the file; those with the same values of `key` are replaced."""
    record = json.loads(path.read_text()) if path.exists() else {}
    new = list(results)
    replaced = {tuple(r[k] for k in key) for r in new}
    kept = [r for r in record.get(section, []) if tuple(r[k] for k in key) not in replaced]
    record[section] = kept + new
    path.write_text(json.dumps(record, indent=1) + "\n")


def _commit() -> str | None:
    """The commit of this checkout, marked where files differ from it."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _model_name() -> str | None:
    """The processor as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)
