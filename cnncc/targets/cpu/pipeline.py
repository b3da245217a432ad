"""The passes of Numba that emitted text needs.

Numba's own pipeline has as many again for what is not there: closures, context managers,
exceptions, calls to inline, branches on constants, arrays. Each of them walks the whole function:
a tenth of the time to compile a kernel. And it asks for the type of each operation anew, trying one
rule after the other, those for arrays and strings among them: a quarter of that time. Here equal
operations are asked for once. The code that comes out is the same.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import types
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import (
    AnnotateTypes,
    BaseNativeLowering,
    BaseTypeInference,
    IRLegalization,
    NoPythonBackend,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    TranslateByteCode,
)

_OPERATORS = frozenset(f for f in vars(operator).values() if callable(f))
_signatures: dict[tuple[Any, tuple[Any, ...]], Any] = {}  # by what is called, and its operands


class _Remembering:
    """Numba's typing context, with a memory for the signatures of calls."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, func: Any, args: tuple[Any, ...], kws: Any) -> Any:
        if kws:
            return self._context.resolve_function_type(func, args, kws)
        if func in _OPERATORS:  # whose types do not depend on values, but may get new rules
            func = self._context.resolve_value_type(func)
            args = tuple(map(types.unliteral, args))
        found = _signatures.get((func, args))
        if found is None:
            found = self._context.resolve_function_type(func, args, kws)
            _signatures[func, args] = found
        return found


@register_pass(mutates_CFG=True, analysis_only=False)
class _Types(BaseTypeInference):
    _name = "types_of_words"

    def run_pass(self, state: Any) -> bool:
        context = state.typingctx
        state.typingctx = _Remembering(context)
        try:
            return bool(super().run_pass(state))
        finally:
            state.typingctx = context


class _Lower(Lower):
    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        """As Numba's, without asking for the signature once more, and without what it does for
        constant operands such as the 2 of `x ** 2`, which emitted text does not have.
        """
        if expr.op != "binop":  # `a += b` has been typed as such, and becomes `a = a + b` here
            return super().lower_binop(resty, expr, op)
        signature = self.fndesc.calltypes[expr]
        operands = [
            self.context.cast(self.builder, self.loadvar(v.name), self.typeof(v.name), t)
            for v, t in zip((expr.lhs, expr.rhs), signature.args, strict=True)
        ]
        function = self.context.typing_context.resolve_value_type(op)
        found = self.context.get_function(function, signature)(self.builder, operands)
        return self.context.cast(self.builder, found, signature.return_type, resty)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(BaseNativeLowering):
    _name = "lowering_of_words"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower


_PASSES = (
    (TranslateByteCode, "bytecode to Numba's statements"),
    (FixupArgs, "arguments"),
    (IRProcessing, "control flow and lifetimes"),
    (ReconstructSSA, "a name for every assignment"),
    (_Types, "types"),
    (PreLowerStripPhis, "phi nodes to assignments"),
    (IRLegalization, "explicit ends of lifetimes"),
    (AnnotateTypes, "types beside the source"),
    (_Lowering, "to LLVM"),
    (NoPythonBackend, "to machine code"),
)


class PlainCompiler(CompilerBase):
    """For functions of numbers, pointers and our own words, with loops and branches."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("plain")
        for run, what in _PASSES:
            passes.add_pass(run, what)
        passes.finalize()
        return [passes]
