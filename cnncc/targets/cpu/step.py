"""`step`: a kernel of a network, run by all threads of the team, as one line of an entry.

    step(control, tid, size, phase, pieces, kernel, t0, t1, table, first)

means

    if pieces == 0 or size == 1:
        if tid == 0:
            kernel(t0, t1, table, first, 0, 1)
        hand_over(control, size, phase, tid)
        return
    done = 0
    piece = claim(control, size, phase, tid, pieces)
    while piece >= 0:
        kernel(t0, t1, table, first, piece, size * pieces)
        done += 1
        piece = claim(control, size, phase, tid, pieces)
    join(control, size, phase, pieces, done)

Kernels that need not wait for each other, each with its arguments behind it, may be several: every
piece is the same part of each.

The loop is made here, in LLVM's terms, because Numba takes seconds to analyse a function with a
hundred loops; a network's entry is then straight-line code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from cnncc.targets.cpu.compiled import JIT
from cnncc.targets.cpu.team import claim, hand_over, join

__all__ = ["step"]

_I64 = ir.IntType(64)
T = TypeVar("T")


def step(control: Any, tid: int, size: int, phase: int, pieces: int, *work: Any) -> None:
    """Take part in a phase: run the pieces that this thread claims, so many of each share, then
    wait for the others'. Where there are none, the caller's thread does what is too little to be
    shared. `work`: each kernel, followed by its arguments.
    """
    calls = _calls(work, callable)
    if pieces == 0 or size == 1:
        if tid == 0:
            for kernel, arguments in calls:
                kernel(*arguments, 0, 1)
        hand_over(control, size, phase, tid)
        return
    done = 0
    piece = claim(control, size, phase, tid, pieces)
    while piece >= 0:
        for kernel, arguments in calls:
            kernel(*arguments, piece, size * pieces)
        done += 1
        piece = claim(control, size, phase, tid, pieces)
    join(control, size, phase, pieces, done)


def _calls(work: Sequence[T], is_kernel: Callable[[T], bool]) -> list[tuple[T, list[T]]]:
    """Each kernel with the arguments behind it."""
    found: list[tuple[T, list[T]]] = []
    for w in work:
        if is_kernel(w):
            found.append((w, []))
        else:
            found[-1][1].append(w)
    return found


def _declared(context: Any, builder: Any, function: Any) -> Any:
    """A compiled function's declaration in the module that is being built."""
    arguments = [context.get_value_type(t) for t in function.sig.args]
    returned = function.sig.return_type
    result = ir.VoidType() if returned == types.void else context.get_value_type(returned)
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, function.symbol)


def _is_kernel(t: Any) -> bool:
    return isinstance(t, types.ExternalFunction)


if JIT:

    @infer_global(step)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) < 6 or not _is_kernel(args[5]):
                return None
            wanted = [claim._numba_type_.sig.args[0], *[types.int64] * 4]
            for kernel, given in _calls(args[5:], _is_kernel):
                own = kernel.sig.args[:-2]
                if len(given) != len(own):
                    raise errors.TypingError(f"{kernel.symbol} takes {len(own)} arguments and two")
                wanted += [kernel, *own]
            return signature(types.none, *wanted)

    @lower_builtin(step, types.VarArg(types.Any))
    def _lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        control, tid, size, phase, pieces, *_ = values
        claimed, joined, handed = (
            _declared(context, builder, f._numba_type_) for f in (claim, join, hand_over)
        )
        work = [
            (_declared(context, builder, kernel[0]), [value for _, value in given])
            for kernel, given in _calls(
                list(zip(sig.args[5:], values[5:], strict=True)), lambda pair: _is_kernel(pair[0])
            )
        ]

        def run(share: Any, shares: Any) -> None:
            for kernel, given in work:
                builder.call(kernel, [*given, share, shares])

        names = ("shared", "test", "piece", "joining", "alone", "mine", "handing", "after")
        shared, test, working, joining, by_one, mine, handing, after = (
            builder.append_basic_block(f"step.{n}") for n in names
        )
        whole = builder.icmp_signed("==", pieces, _I64(0))
        chosen = builder.or_(whole, builder.icmp_signed("==", size, _I64(1)))
        builder.cbranch(chosen, by_one, shared)

        builder.position_at_end(by_one)
        builder.cbranch(builder.icmp_signed("==", tid, _I64(0)), mine, handing)
        builder.position_at_end(mine)
        run(_I64(0), _I64(1))
        builder.branch(handing)
        builder.position_at_end(handing)
        builder.call(handed, [control, size, phase, tid])
        builder.branch(after)

        builder.position_at_end(shared)
        count = builder.mul(size, pieces)
        first = builder.call(claimed, [control, size, phase, tid, pieces])
        builder.branch(test)
        builder.position_at_end(test)
        piece, done = builder.phi(_I64), builder.phi(_I64)
        piece.add_incoming(first, shared)
        done.add_incoming(_I64(0), shared)
        builder.cbranch(builder.icmp_signed(">=", piece, _I64(0)), working, joining)
        builder.position_at_end(working)
        run(piece, count)
        done.add_incoming(builder.add(done, _I64(1)), working)
        piece.add_incoming(builder.call(claimed, [control, size, phase, tid, pieces]), working)
        builder.branch(test)
        builder.position_at_end(joining)
        builder.call(joined, [control, size, phase, pieces, done])
        builder.branch(after)

        builder.position_at_end(after)
        return context.get_dummy_value()
