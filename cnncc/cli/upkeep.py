"""Verbs about the installation and what lies around it: `doctor`, `data info`, `cache`."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Any

from cnncc import __version__
from cnncc.cli.failures import DONE, MISTAKE
from cnncc.cli.output import amount, print_json
from cnncc.cli.verbs import Verbs, add_json, natural

PACKAGES = ("numpy", "numba", "llvmlite", "lark", "rich", "safetensors")

SMALL = """\
net small {
  input x: f32[2, 6, 6]
  output y = x -> conv(4, 3x3, pad = same) -> relu -> maxpool(2x2)
}
"""


def add(verbs: Verbs) -> None:
    """Add `data`, `cache` and `doctor`."""
    data = verbs.group("data", "look at data sets")
    parser = data.add(
        "info",
        "say what a data set holds",
        data_info,
        [
            "cnncc data info digits",
            "cnncc data info images.npz --json",
            "cnncc data info synthetic:3x32x32:10:1000",
        ],
        "A data set is digits, synthetic[:shape[:classes[:samples]]], an npz file with x and y,\n"
        "or a folder: MNIST as IDX files, CIFAR in the binary version, images in class folders.\n"
        "All of it is read, and so all of it is checked.",
    )
    parser.add_argument("name", metavar="DATA", help="the name or path of a data set")
    parser.add_argument(
        "--seed", type=natural, default=0, help="of the split of a set that is not divided"
    )
    add_json(parser)

    cache = verbs.group("cache", "look at or empty the cache of compiled kernels")
    parser = cache.add(
        "info", "say where the cache is and how large", cache_info, ["cnncc cache info"]
    )
    add_json(parser)
    parser = cache.add(
        "clear",
        "remove all compiled kernels",
        cache_clear,
        ["cnncc cache clear"],
        "They are compiled again when they are needed. What `cnncc tune` has measured goes too.",
    )
    add_json(parser)

    parser = verbs.add(
        "doctor",
        "check that this installation works",
        doctor,
        ["cnncc doctor", "cnncc doctor --json"],
        "Shows versions and the machine, and compiles a small network forward, comparing its\n"
        "result with the interpreter's bit by bit. Exits with 1 when something is wrong.",
    )
    add_json(parser)


# --- data --------------------------------------------------------------------------------------


def data_info(options: argparse.Namespace) -> int:
    """Print what a data set holds."""
    from cnncc.train.data import info

    facts = info(options.name, options.seed)
    if options.json:
        print_json(facts)
        return DONE
    print(f"{facts['name']} ({facts['kind']})")
    print(f"  sample   {facts['dtype']}[{', '.join(map(str, facts['shape']))}]")
    print(f"  classes  {facts['classes'] if facts['classes'] is not None else 'none'}")
    for part in ("train", "test"):
        if facts[part] is not None:
            print(f"  {part:8} {_describe(facts[part])}")
    print(f"  memory   {amount(facts['bytes'])}")
    if facts["attribution"]:
        print(f"  source   {facts['attribution']}")
    return DONE


def _describe(part: dict[str, Any]) -> str:
    text = f"{part['samples']} samples, values {part['min']:.4g} to {part['max']:.4g}, mean "
    text += f"{part['mean']:.4g}"
    counts = part["class_counts"]
    return f"{text}, {min(counts)} to {max(counts)} per class" if counts else text


# --- cache -------------------------------------------------------------------------------------


def cache_info(options: argparse.Namespace) -> int:
    """Print where the cache is, how many files it has, and their size."""
    from cnncc.targets import load

    return _show_cache(load.cache_info(), "holds", options.json)


def cache_clear(options: argparse.Namespace) -> int:
    """Empty the cache and print what was removed."""
    from cnncc.targets import load

    return _show_cache(load.cache_clear(), "removed", options.json)


def _show_cache(info: Any, word: str, as_json: bool) -> int:
    if as_json:
        print_json({"path": str(info.path), "files": info.files, "bytes": info.bytes})
    else:
        print(f"{info.path}\n{word} {info.files} files, {amount(info.bytes)}")
    return DONE


# --- doctor ------------------------------------------------------------------------------------


def doctor(options: argparse.Namespace) -> int:
    """Print the facts and the result of each check; 1 when one fails."""
    facts: dict[str, Any] = {
        "cnncc": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in PACKAGES},
    }
    checks: dict[str, str | None] = {}
    for name, look in CHECKS.items():
        try:
            facts |= look()
            checks[name] = None
        except Exception as error:  # whatever is wrong here is what the doctor reports
            checks[name] = f"{type(error).__name__}: {error}"
    if options.json:
        print_json({"facts": facts, "checks": {n: fault or "ok" for n, fault in checks.items()}})
    else:
        for name, value in facts.items():
            print(f"{name:12} {value}")
        for name, fault in checks.items():
            print(f"ok           {name}" if fault is None else f"FAILED       {name}: {fault}")
    return DONE if not any(checks.values()) else MISTAKE


def _machine() -> dict[str, Any]:
    from cnncc.targets.cpu.machine import detect

    facts = asdict(detect())
    return {
        "processor": f"{facts['cpu_name']}, {facts['isa']}, {facts['lanes_f32']} float32 lanes",
        "caches": " ".join(amount(facts[level]) for level in ("l1", "l2", "l3")),
        "cores": facts["cores"],
        "memory": amount(facts["memory_limit"]),
    }


def _cache() -> dict[str, Any]:
    from cnncc.targets import load

    info = load.cache_info()
    return {"cache": f"{info.path}, {info.files} files, {amount(info.bytes)}"}


def _specs() -> dict[str, Any]:
    from cnncc.compiler import check_file
    from cnncc.graph.locate import built_in

    names = built_in()
    broken = [name for name in names if check_file(name)]
    if broken:
        raise AssertionError(f"mistakes in {', '.join(broken)}")
    return {"networks": f"{len(names)} built in"}


def _digits() -> dict[str, Any]:
    from cnncc.train.data import load

    return {"digits": f"{len(load('digits'))} samples to train with"}


def _kernels() -> dict[str, Any]:
    import numpy as np

    from cnncc.model import compile

    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    fast, slow = compile(SMALL)(x), compile(SMALL, target="interp")(x)
    if not np.array_equal(fast, slow):
        raise AssertionError(
            f"a kernel differs from the interpreter by {np.abs(fast - slow).max()}"
        )
    return {}


CHECKS: dict[str, Callable[[], dict[str, Any]]] = {
    "the machine is known": _machine,
    "the cache folder can be used": _cache,
    "the built-in networks are there and correct": _specs,
    "the digits are there": _digits,
    "compiled kernels and the interpreter agree bit for bit": _kernels,
}
