"""A Python function as an object file with a C interface, made by Numba.

Numba's own wrapper for C reports Python exceptions; compiled functions raise none, so the wrapper
here returns the result and calls nothing of Python's. The object file can then be loaded by a
process that has never imported Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler
from numba.core.registry import cpu_target

from cnncc.targets.cpu.machine_code import MachineCode
from cnncc.targets.cpu.pipeline import PlainCompiler

__all__ = ["external", "inline", "library_of", "object_of"]

# No fast-math flag anywhere: fused and unfused kernels must agree bit for bit.  Division by zero
# gives infinity.
_OPTIONS = {"error_model": "numpy", "fastmath": False, "boundscheck": False}

_SCALARS: dict[str, Any] = {
    "f32": types.float32,
    "f64": types.float64,
    "u8": types.uint8,
    "u16": types.uint16,
    "i32": types.int32,
    "i64": types.int64,
    "bf16": types.uint16,  # its bits
    "void": types.void,
}


class _Compiler(_FunctionCompiler):
    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.no_compile = True  # the wrapper is still to come
        flags.enable_pyobject = False
        return flags


def signature_of(arguments: Sequence[str], result: str) -> Any:
    """Numba's signature of a C interface."""
    return _SCALARS[result](*map(_type, arguments))


def external(symbol: str, arguments: Sequence[str], result: str) -> Any:
    """Numba's type of a function with a C interface that is called by its symbol."""
    return types.ExternalFunction(symbol, signature_of(arguments, result))


def inline(function: Callable[..., Any]) -> Any:
    """A function whose code becomes part of what calls it."""
    return njit(**_OPTIONS)(function)


@global_compiler_lock
def library_of(
    function: Callable[..., Any], symbol: str, arguments: Sequence[str], result: str
) -> Any:
    """Numba's library of a function, compiled and loaded, in which `symbol` is its C interface."""
    signature = signature_of(arguments, result)
    compiler = _Compiler(function, cpu_target, dict(_OPTIONS), {}, PlainCompiler)
    compiled = compiler.compile(signature.args, signature.return_type)
    library = compiled.library
    library.enable_object_caching()
    _wrap(compiled, symbol)
    library.finalize()
    return library


def object_of(
    function: Callable[..., Any], symbol: str, arguments: Sequence[str], result: str
) -> tuple[MachineCode, int]:
    """Compile a function: its object file, and the address at which Numba has loaded it."""
    library = library_of(function, symbol, arguments, result)
    needs = sorted(
        f.name
        for f in library._final_module.functions
        if f.is_declaration and not f.name.startswith("llvm.")
    )
    code = MachineCode(
        function.__name__, symbol, tuple(arguments), result, tuple(needs),
        library._get_compiled_object(),
    )  # fmt: skip
    return code, int(library.get_pointer_to_function(symbol))


def _wrap(compiled: Any, symbol: str) -> None:
    """Add a function with C's calling convention to the library of a compiled function."""
    context, described = compiled.target_context, compiled.fndesc
    module = context.create_module("c_interface")
    kind = context.call_conv.get_function_type(described.restype, described.argtypes)
    callee = ir.Function(module, kind, described.llvm_func_name)
    arguments = [context.get_value_type(t) for t in described.argtypes]
    returned = context.get_value_type(described.restype)
    nothing = described.restype == types.void
    outside = ir.FunctionType(ir.VoidType() if nothing else returned, arguments)
    function = ir.Function(module, outside, symbol)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _, out = context.call_conv.call_function(
        builder, callee, described.restype, described.argtypes, function.args, attrs=("noinline",)
    )
    if nothing:
        builder.ret_void()
    else:
        builder.ret(out)
    compiled.library.add_ir_module(module)


def _type(name: str) -> Any:
    return types.CPointer(_SCALARS[name[:-1]]) if name.endswith("*") else _SCALARS[name]
