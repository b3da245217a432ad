"""Activations whose columns run fastest in memory, because they have few channels.

The lanes of a kernel go along what runs fastest in its output. Six channels fill six of the eight
lanes of half a register; the 14 columns of the same output fill 14 of 16, and its channels become
the register tile, all of which read the same vectors of columns. So what a kernel computes of few
channels lies row by row, [n, c, s..., columns], and so does what it reads, such as an image of one
channel. Nobody else may suffer: a tensor stays channels-last where one of the kernels that touch it
would be written element by element, or gather what it takes together now. The emitter is asked: it
knows which windows need tests at the border, and where positions have weights of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.emit import emit
from cnncc.targets.cpu.emitted import Memory
from cnncc.targets.cpu.halo import borders
from cnncc.targets.cpu.schedule import narrowed, near_weights
from cnncc.targets.cpu.tensors import Tensor
from cnncc.tensor import DType

WIDE = 32  # bytes of a vector for which every processor starts two multiply-adds in a cycle


def by_columns(
    kernels: Sequence[Kernel], tensors: Mapping[str, Tensor], lanes: int
) -> frozenset[str]:
    """The names of these activations. `kernels`: all that touch them."""
    parts = {t.slice_of for t in tensors.values()}
    found = frozenset(
        name for name, t in tensors.items() if name not in parts and _possible(t, lanes)
    )
    while found:
        touching = [k for k in kernels if found.intersection(k.tensors)]
        kept = _needed(touching, found)
        if kept == found:
            suffering = (k.tensors for k in touching if _suffers(k, tensors, kept, lanes))
            kept = kept.difference(*suffering)
        if kept == found:
            break
        found = kept
    return found


def _possible(t: Tensor, lanes: int) -> bool:
    if lanes == 1 or t.space != "arena" or t.slice_of or t.planes or t.innermost != 1:
        return False
    if not t.type.batched or len(t.type.shape) < 2 or t.type.dtype not in (DType.F32, DType.F64):
        return False
    channels, columns = t.type.shape[0], t.type.shape[-1]
    if not isinstance(channels, int) or not isinstance(columns, int) or channels > lanes // 2:
        return False
    hungry = near_weights(lanes, t.type.dtype) > 0
    most = lanes if hungry else WIDE // t.type.dtype.bytes
    return _filled(columns, lanes, most) > _filled(channels, lanes, most)


def _filled(extent: int, lanes: int, most: int) -> float:
    """Of the lanes that an axis takes how many it fills, on average."""
    own = narrowed(extent, lanes)
    return extent / (-(-extent // own) * own) * min(own, most)


def _needed(touching: Sequence[Kernel], found: frozenset[str]) -> frozenset[str]:
    """Those that are computed, and what the kernels that compute them read: an image that is merely
    brought in lies as the others want it.
    """
    needed: set[str] = set()
    more = {t for k in touching if k.nodes for t in k.writes if t in found}
    while not more <= needed:
        needed |= more
        more = {t for k in touching if needed.intersection(k.writes) for t in k.reads if t in found}
    return frozenset(needed)


class _Form(NamedTuple):
    """What of a kernel's text is slow: segments without lanes, and accesses that gather."""

    scalar: int
    strided: int


def _suffers(
    kernel: Kernel, tensors: Mapping[str, Tensor], found: frozenset[str], lanes: int
) -> bool:
    now = _form(kernel, tensors, frozenset(), lanes)
    then = _form(kernel, tensors, found, lanes)
    return then.scalar > now.scalar or then.strided > now.strided


def _form(
    kernel: Kernel, tensors: Mapping[str, Tensor], found: frozenset[str], lanes: int
) -> _Form:
    """The form of a kernel if some tensors have their columns fastest."""
    placed = {b.name: tensors[t] for b, t in zip(kernel.nest.buffers, kernel.tensors, strict=True)}
    axes = {b: t.type.axes - 1 if t.name in found else t.innermost or 0 for b, t in placed.items()}
    haloed = {
        b
        for b, border in borders(kernel.nest).items()
        if (own := placed[b].border) and own.covers(border)
    }
    padded = {b for b, t in placed.items() if not t.type.batched and t.space != "outside"}
    memory = Memory(axes, frozenset(haloed), frozenset(padded))
    wide = any(t.type.dtype is DType.F64 for t in placed.values())
    emitted = emit(kernel.nest, memory, DType.F64 if wide else DType.F32, lanes)
    scalar = sum(s.schedule.lanes == 1 for s in emitted.segments)
    return _Form(scalar, emitted.text.count("_strided"))
