"""`@compiled(signature)` turns a Python function into machine code with a C interface and a
process-wide symbol.

One compiled function calls another through its symbol, as an external C function.  Numba's own
way, linking the callee's code into every caller and optimising it all once more, makes an entry
that calls nine kernels take seconds to compile; this way it takes as long as its own text.  The
machine code is kept in the private cache folder, by module: `functions_of` loads that of a whole
module without running the module, and Numba is imported only when something must be compiled.

With NUMBA_DISABLE_JIT=1 the function stays Python: arrays take the place of pointers and NumPy
that of vectors.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from cnncc.targets.cpu.linker import define, knows, load
from cnncc.targets.cpu.machine_code import MachineCode, keep, kept
from cnncc.targets.settings import setting

__all__ = [
    "ENTRY",
    "JIT",
    "CompiledFunction",
    "compiled",
    "entry",
    "functions_of",
    "inlined",
    "keep_functions",
    "unjitted",
]

JIT = not setting("DISABLE_JIT")

PACKAGE = "cnncc_emitted"  # of modules whose text is emitted
ENTRY = "void(i64*, i64*, i64, i64)"  # job, control, tid, size

_SCALARS: dict[str, Any] = {
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    "u8": ctypes.c_uint8,
    "u16": ctypes.c_uint16,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "bf16": ctypes.c_uint16,  # its bits
}


class CompiledFunction:
    """A function with a C interface: call it from Python, from other compiled functions, or
    through its address."""

    def __init__(
        self,
        stored: MachineCode,
        address: int,
        function: Callable[..., Any] | None,
        run_text: Callable[[], object] | None = None,
    ) -> None:
        """`function`: what was compiled now; None where the machine code comes from the cache, and
        `run_text` runs the text of the module, if somebody asks for it.
        """
        self.__name__ = stored.name
        self.symbol = stored.symbol
        self.address = address
        self.was_cached = function is None
        self.stored = stored
        self._function = function
        self._run_text = run_text

    @property
    def function(self) -> Callable[..., Any]:
        """The Python function that the machine code was made from."""
        if self._function is None and self._run_text is not None:
            self._run_text()  # decorates the function, so that `_made` sees it
        assert self._function is not None, "the text of a module defines its functions"
        return self._function

    @cached_property
    def _numba_type_(self) -> Any:
        """How Numba sees it."""
        from cnncc.targets.cpu.jit import external

        return external(self.symbol, self.stored.arguments, self.stored.result)

    @cached_property
    def _call(self) -> Any:
        result = None if self.stored.result == "void" else _SCALARS[self.stored.result]
        return ctypes.CFUNCTYPE(result, *map(_c_type, self.stored.arguments))(self.address)

    def __call__(self, *arguments: Any) -> Any:
        """Run it.  Pointers are given as contiguous arrays of the element type, which must outlive
        the call."""
        kinds = self.stored.arguments
        if len(arguments) != len(kinds):
            raise TypeError(f"{self.__name__} takes {len(kinds)} arguments, got {len(arguments)}")
        return self._call(*map(self._as_c, arguments, kinds))

    def _as_c(self, value: Any, kind: str) -> Any:
        if not kind.endswith("*") or not isinstance(value, np.ndarray):
            return value
        if value.dtype != np.dtype(_SCALARS[kind[:-1]]) or not value.flags.c_contiguous:
            raise TypeError(
                f"{self.__name__} takes a contiguous array for {kind}, but got {value.dtype}"
            )
        return ctypes.cast(value.ctypes.data, _c_type(kind))

    def llvm_ir(self) -> str:
        """Optimised LLVM IR."""
        return str(self._fresh_library().get_llvm_str())

    def assembly(self) -> str:
        """Assembly of this processor."""
        return str(self._fresh_library().get_asm_str())

    def _fresh_library(self) -> Any:
        """A library that has its text: what the cache holds is machine code only."""
        if not JIT:
            raise RuntimeError("there is no machine code while NUMBA_DISABLE_JIT is set")
        from cnncc.targets.cpu.jit import library_of

        symbol = f"{self.symbol}_again"
        return library_of(self.function, symbol, self.stored.arguments, self.stored.result)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}({', '.join(self.stored.arguments)})>"


class _Unjitted(CompiledFunction):
    """The Python function in place of machine code."""

    def __init__(self, stored: MachineCode, function: Callable[..., Any]) -> None:
        address = len(_unjitted) + 1  # no machine code has an address this low
        super().__init__(stored, address, function)
        _unjitted[address] = self._run = _quiet(function)

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)


_unjitted: dict[int, Callable[..., Any]] = {}


def unjitted(address: int) -> Callable[..., Any]:
    """The Python function that stands for the one at `address` while NUMBA_DISABLE_JIT is set."""
    return _unjitted[address]


def compiled(signature: str) -> Callable[[Callable[..., Any]], CompiledFunction]:
    """Decorate a function with its C signature, such as `void(f32*, i64)`.

    Element types are f32, f64, bf16, u8, u16, i32 and i64; a `*` makes a pointer.  The function is
    compiled (or its machine code loaded) right here, so that an importer finds its symbol.  It
    must not raise.  ValueError for a signature that cannot be read.
    """
    result, separator, rest = signature.partition("(")
    if not separator or not rest.endswith(")"):
        raise ValueError(f"a signature has the form result(argument, ...), but got {signature!r}")
    arguments = [name.strip() for name in rest[:-1].split(",") if name.strip()]
    for name in (*(name.removesuffix("*") for name in arguments), result.strip()):
        if name not in _SCALARS and name != "void":
            raise ValueError(f"unknown type {name!r} in signature {signature!r}")
    return lambda function: _made(function, tuple(arguments), result.strip())


def entry(function: Callable[..., Any]) -> CompiledFunction:
    """Decorate an emitted entry: `void(int64* job, int64* control, int64 tid, int64 size)`."""
    return compiled(ENTRY)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Decorate a small function that compiled functions call: its code becomes part of the
    caller's."""
    if not JIT:
        return function
    from cnncc.targets.cpu.jit import inline

    return inline(function)


# --- modules ---

_modules: dict[str, dict[str, CompiledFunction]] = {}  # by full name, in order of definition


def functions_of(
    module: str, run_text: Callable[[], object] | None = None
) -> Mapping[str, CompiledFunction]:
    """The functions of a module by name, loaded from the cache; empty if they are not all there.
    Modules that it calls must be loaded before. `run_text` runs the module's text.
    """
    if not JIT:
        return {}
    found = _modules.get(module)
    if not found:
        stored = kept(module)
        own = {f.symbol for f in stored}
        if not knows({symbol for f in stored for symbol in f.needs} - own):
            return {}
        found = {f.name: _loaded(f, run_text) for f in stored}
        if found:
            _modules[module] = found
    return found


def _loaded(f: MachineCode, run_text: Callable[[], object] | None) -> CompiledFunction:
    address = load(f.symbol, f.code)
    return CompiledFunction(replace(f, code=b""), address, None, run_text)


def keep_functions(module: str) -> None:
    """Keep the machine code of a module that has just been run, unless that is where it came
    from.
    """
    found = _modules.get(module, {}).values()
    if not found or any(f.was_cached for f in found):
        return  # nothing is compiled where Numba's compiler is off
    keep(module, [f.stored for f in found])
    for f in found:
        f.stored = replace(f.stored, code=b"")


def _made(function: Callable[..., Any], arguments: tuple[str, ...], result: str) -> Any:
    """The machine code of a function, loaded already or compiled now."""
    symbol = _symbol(function)
    if not JIT:
        return _Unjitted(
            MachineCode(function.__name__, symbol, arguments, result, (), b""), function
        )
    known = functions_of(function.__module__).get(function.__name__)
    if known is not None and known.symbol == symbol:
        known._function = function
        return known
    from cnncc.targets.cpu.jit import object_of

    stored, address = object_of(function, symbol, arguments, result)
    define(symbol, address)
    made = CompiledFunction(stored, address, function)
    _modules.setdefault(function.__module__, {})[function.__name__] = made
    return made


def _symbol(function: Callable[..., Any]) -> str:
    """A symbol unique to the function: emitted modules are named by content, our own by their
    place. Comments of an emitted module do not count, so its lines do not either.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    if not function.__module__.startswith(f"{PACKAGE}."):
        name += f"\n{function.__code__.co_firstlineno}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"cnncc_{function.__name__}_{digest}"


def _c_type(name: str) -> Any:
    return ctypes.POINTER(_SCALARS[name[:-1]]) if name.endswith("*") else _SCALARS[name]


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as compiled code behaves: infinities and NaN arise without a warning."""

    def run(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return run
