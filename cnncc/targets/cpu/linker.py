"""Machine code in this process: object files are loaded, and what they call is found by symbols.

LLVM ends the process when an object file calls a symbol that nobody knows, so `knows` is asked
before.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from cnncc.targets.locks import Lock

__all__ = ["define", "knows", "load"]

_defined: set[str] = set()
_lock = Lock()


def define(symbol: str, address: int) -> None:
    """Let object files that are loaded later call the function at an address by this symbol."""
    llvm.add_symbol(symbol, address)
    _defined.add(symbol)


def knows(symbols: Iterable[str]) -> bool:
    """Whether all symbols are defined, by us or by a library of the process."""
    return all(s in _defined or llvm.address_of_symbol(s) is not None for s in symbols)


def load(symbol: str, code: bytes) -> int:
    """Load an object file, define the symbol that it provides, and return its address."""
    with _lock:
        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = int(engine.get_function_address(symbol))
    define(symbol, address)
    return address


@cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(codemodel="jitdefault", jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
