"""The passes of Numba that emitted text needs.

Numba's own pipeline has as many again for what is not there: closures, context managers,
exceptions, calls to inline, branches on constants, arrays. Each of them walks the whole function:
a tenth of the time to compile a kernel. The code that comes out is the same.
"""

from __future__ import annotations

from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    TranslateByteCode,
)

_PASSES = (
    (TranslateByteCode, "bytecode to Numba's statements"),
    (FixupArgs, "arguments"),
    (IRProcessing, "control flow and lifetimes"),
    (ReconstructSSA, "a name for every assignment"),
    (NopythonTypeInference, "types"),
    (PreLowerStripPhis, "phi nodes to assignments"),
    (IRLegalization, "explicit ends of lifetimes"),
    (AnnotateTypes, "types beside the source"),
    (NativeLowering, "to LLVM"),
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
