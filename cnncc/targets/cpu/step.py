"""`step`: one kernel of a network, run by all threads of the team, as one line of an entry.

    step(control, tid, size, phase, kernel, t0, t1, table, first)

means

    share = claim(control, size, phase, tid)
    while share >= 0:
        kernel(t0, t1, table, first, share, size)
        share = claim_next(control, size, phase, tid)
    join(control, size, phase)

The loop is made here, in LLVM's terms, because Numba takes seconds to analyse a function with a
hundred loops; a network's entry is then straight-line code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from cnncc.targets.cpu.compiled import JIT
from cnncc.targets.cpu.team import claim, claim_next, join

__all__ = ["step"]

_I64 = ir.IntType(64)


def step(control: Any, tid: int, size: int, phase: int, kernel: Any, *arguments: Any) -> None:
    """Take part in a phase: run the kernel's shares that this thread claims, then wait for the
    others'.
    """
    share = claim(control, size, phase, tid)
    while share >= 0:
        kernel(*arguments, share, size)
        share = claim_next(control, size, phase, tid)
    join(control, size, phase)


def _declared(context: Any, builder: Any, function: Any) -> Any:
    """A compiled function's declaration in the module that is being built."""
    arguments = [context.get_value_type(t) for t in function.sig.args]
    returned = function.sig.return_type
    result = ir.VoidType() if returned == types.void else context.get_value_type(returned)
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, function.symbol)


if JIT:

    @infer_global(step)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) < 5 or not isinstance(args[4], types.ExternalFunction):
                return None
            kernel = args[4]
            given = [*args[:4], *args[5:], types.int64, types.int64]
            wanted = [claim._numba_type_.sig.args[0], *[types.int64] * 3, *kernel.sig.args]
            if len(given) != len(wanted):
                raise errors.TypingError(f"{kernel.symbol} takes {len(kernel.sig.args)} arguments")
            return signature(types.none, *wanted[:4], kernel, *wanted[4:-2])

    @lower_builtin(step, types.VarArg(types.Any))
    def _lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        control, tid, size, phase, _, *arguments = values
        claimed, again, joined = (
            _declared(context, builder, f._numba_type_) for f in (claim, claim_next, join)
        )
        kernel = _declared(context, builder, sig.args[4])
        before = builder.block
        test, work, after = (
            builder.append_basic_block(f"step.{n}") for n in ("test", "work", "after")
        )
        first = builder.call(claimed, [control, size, phase, tid])
        builder.branch(test)
        builder.position_at_end(test)
        share = builder.phi(_I64)
        share.add_incoming(first, before)
        builder.cbranch(builder.icmp_signed(">=", share, _I64(0)), work, after)
        builder.position_at_end(work)
        builder.call(kernel, [*arguments, share, size])
        share.add_incoming(builder.call(again, [control, size, phase, tid]), work)
        builder.branch(test)
        builder.position_at_end(after)
        builder.call(joined, [control, size, phase])
        return context.get_dummy_value()
