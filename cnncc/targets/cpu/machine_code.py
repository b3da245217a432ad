"""Machine code of a module's functions in the cache: one file per module, which is read without
Numba and without running anything of it.

The file is a line of JSON, which describes the functions in the order of their definition, and
then their object files, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnncc.targets.cache import load_code, save_code

__all__ = ["MachineCode", "keep", "kept"]


@dataclass(frozen=True)
class MachineCode:
    """A function's object file and C interface. It provides `symbol` and calls `needs`."""

    name: str
    symbol: str
    arguments: tuple[str, ...]
    result: str
    needs: tuple[str, ...]
    code: bytes


def keep(module: str, functions: Sequence[MachineCode]) -> None:
    """Write the functions of a module, by its full name, for the next process."""
    head = [
        {
            "name": f.name, "symbol": f.symbol, "arguments": f.arguments, "result": f.result,
            "needs": f.needs, "bytes": len(f.code),
        }
        for f in functions
    ]  # fmt: skip
    save_code(module, json.dumps(head).encode() + b"\n" + b"".join(f.code for f in functions))


def kept(module: str) -> tuple[MachineCode, ...]:
    """What `keep` wrote for a module; empty if nothing was or if it is damaged."""
    stored = load_code(module)
    if stored is None:
        return ()
    line, _, code = stored.partition(b"\n")
    head: list[dict[str, Any]] = json.loads(line)
    found, start = [], 0
    for f in head:
        end = start + f["bytes"]
        arguments, needs = tuple(f["arguments"]), tuple(f["needs"])
        found.append(
            MachineCode(f["name"], f["symbol"], arguments, f["result"], needs, code[start:end])
        )
        start = end
    return tuple(found)
