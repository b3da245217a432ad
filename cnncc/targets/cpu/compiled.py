"""`@compiled(signature)` turns a Python function into machine code with a C interface and a
process-wide symbol.

One compiled function calls another through its symbol, as an external C function.  Numba's own
way, linking the callee's code into every caller and optimising it all once more, makes an entry
that calls nine kernels take seconds to compile; this way it takes as long as its own text.  The
machine code is kept in the private cache folder.

With NUMBA_DISABLE_JIT=1 the function stays Python: arrays take the place of pointers and NumPy
that of vectors.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import njit, types
from numba.core import config
from numba.core.ccallback import CFunc

from cnncc.targets.cache import MachineCodeCache
from cnncc.targets.cpu.pipeline import PlainCompiler

__all__ = ["JIT", "CompiledFunction", "called_from_python", "compiled", "inlined", "unjitted"]

JIT = not config.DISABLE_JIT

# No fast-math flag anywhere: fused and unfused kernels must agree bit for bit.  Division by zero
# gives infinity.
_OPTIONS = {"error_model": "numpy", "fastmath": False, "boundscheck": False}

_SCALARS: dict[str, tuple[Any, Any]] = {
    "f32": (types.float32, ctypes.c_float),
    "f64": (types.float64, ctypes.c_double),
    "u8": (types.uint8, ctypes.c_uint8),
    "u16": (types.uint16, ctypes.c_uint16),
    "i32": (types.int32, ctypes.c_int32),
    "i64": (types.int64, ctypes.c_int64),
    "bf16": (types.uint16, ctypes.c_uint16),  # its bits
}


class CompiledFunction:
    """A function with a C interface: call it from Python, from other compiled functions, or
    through its address."""

    def __init__(self, function: Callable[..., Any], arguments: list[str], result: str) -> None:
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self._arguments = arguments
        if JIT:
            c_result = None if result == "void" else _SCALARS[result][1]
            prototype = ctypes.CFUNCTYPE(c_result, *(_c_type(name) for name in arguments))
            numba_result = types.void if result == "void" else _SCALARS[result][0]
            signature = numba_result(*(_numba_type(name) for name in arguments))
            self.symbol = _symbol(function)
            self._compiled = _callback(function, signature)
            self._compiled._cache = MachineCodeCache(function, self.symbol)
            self._compiled.compile()
            self.address: int = self._compiled.address
            llvm.add_symbol(self.symbol, self.address)
            self._numba_type_ = types.ExternalFunction(self.symbol, signature)
            self._call: Any = prototype(self.address)
        else:
            self._call = _quiet(function)
            self.address = len(_unjitted) + 1  # no machine code has an address this low
            _unjitted[self.address] = self._call

    @property
    def was_cached(self) -> bool:
        """Whether the machine code came from the cache folder."""
        return JIT and self._compiled._cache_hits > 0

    def __call__(self, *arguments: Any) -> Any:
        """Run it.  Pointers are given as contiguous arrays of the element type, which must outlive
        the call."""
        if not JIT:
            return self._call(*arguments)
        if len(arguments) != len(self._arguments):
            wanted = len(self._arguments)
            raise TypeError(f"{self.__name__} takes {wanted} arguments, got {len(arguments)}")
        return self._call(*map(self._as_c, arguments, self._arguments))

    def _as_c(self, value: Any, kind: str) -> Any:
        if not kind.endswith("*") or not isinstance(value, np.ndarray):
            return value
        if value.dtype != np.dtype(_SCALARS[kind[:-1]][1]) or not value.flags.c_contiguous:
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
        """A library that still has its text: one that was loaded from the cache holds machine code
        only."""
        if not JIT:
            raise RuntimeError("there is no machine code while NUMBA_DISABLE_JIT is set")
        signature = self._numba_type_.sig
        again = _callback(self.__wrapped__, signature)
        again.compile()
        return again._library

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}({', '.join(self._arguments)})>"


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
    return lambda function: CompiledFunction(function, arguments, result.strip())


def called_from_python(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that Python calls often: Numba's call path takes 0.2 us where ctypes
    takes 2 us.

    The signature is Numba's, such as `void(int64[::1], int64)`.  The interpreter lock is released.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not JIT:
            return _quiet(function)
        dispatcher = njit(nogil=True, **_OPTIONS)(function)
        dispatcher._cache = MachineCodeCache(function, _symbol(function))
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def inlined(function: Callable[..., Any]) -> Any:
    """Decorate a small function that compiled functions call: its code becomes part of the
    caller's."""
    return njit(**_OPTIONS)(function)


def _callback(function: Callable[..., Any], signature: Any) -> CFunc:
    types_of = (signature.args, signature.return_type)
    return CFunc(function, types_of, {}, dict(_OPTIONS), PlainCompiler)


def _symbol(function: Callable[..., Any]) -> str:
    """A symbol unique to the function: emitted modules are named by content, our own by their
    place."""
    name = f"{function.__module__}.{function.__qualname__}"
    digest = hashlib.sha256(f"{name}\n{function.__code__.co_firstlineno}".encode()).hexdigest()[:16]
    return f"cnncc_{function.__name__}_{digest}"


def _numba_type(name: str) -> Any:
    return types.CPointer(_SCALARS[name[:-1]][0]) if name.endswith("*") else _SCALARS[name][0]


def _c_type(name: str) -> Any:
    return ctypes.POINTER(_SCALARS[name[:-1]][1]) if name.endswith("*") else _SCALARS[name][1]


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as compiled code behaves: infinities and NaN arise without a warning."""

    def run(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return run
