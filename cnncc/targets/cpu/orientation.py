"""Activations whose columns run fastest in memory, because they have few channels.

The lanes of a kernel go along what runs fastest in its output. Six channels fill six of the eight
lanes of half a register; the 14 columns of the same output fill 14 of 16, and its channels become
the register tile, all of which read the same vectors of columns. So what a kernel computes of few
channels lies row by row, [n, c, s..., columns], and so do the activations that its kernel reads
along the lanes, such as an image of one channel. Nobody else may suffer: where a kernel would have
to gather what it reads or writes of such a tensor from other places than neighbouring ones, the
tensor stays channels-last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Accumulate, Index, Store, Var
from cnncc.loops.transform import accesses
from cnncc.loops.walk import statements, subindices
from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.lane import NotInTile, spaced
from cnncc.targets.cpu.schedule import choose, narrowed, near_weights
from cnncc.targets.cpu.tensors import Tensor
from cnncc.tensor import DType

APART = (1, 2)  # elements from lane to lane that are loaded as vectors
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
        touching = [
            _Touching.of(k, tensors, found, lanes) for k in kernels if found.intersection(k.tensors)
        ]
        kept = found.difference(*(t.refused() for t in touching))
        if kept == found:
            kept = _needed(touching, kept)
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


def _needed(touching: Sequence[_Touching], found: frozenset[str]) -> frozenset[str]:
    """Those that are computed, and what the kernels that compute them read along the lanes: an
    image that is merely brought in lies as the others want it.
    """
    needed = {t for k in touching if k.kernel.nodes for t in k.kernel.writes if t in found}
    while True:
        more = {
            t
            for k in touching
            if needed.intersection(k.kernel.writes)
            for t in k.along()
            if t in found and t not in needed
        }
        if not more:
            return frozenset(needed)
        needed |= more


@dataclass(frozen=True)
class _Touching:
    """A kernel that touches some of the tensors, if these have their columns fastest."""

    kernel: Kernel
    innermost: Mapping[str, int]  # by buffer
    batched: frozenset[str]  # the buffers that hold activations
    turned: frozenset[str]  # those that hold these
    lane: Var
    before: Var  # in the lanes if all are channels-last

    @staticmethod
    def of(
        kernel: Kernel, tensors: Mapping[str, Tensor], found: frozenset[str], lanes: int
    ) -> _Touching:
        pairs = list(zip(kernel.nest.buffers, kernel.tensors, strict=True))
        batched = frozenset(b.name for b, t in pairs if tensors[t].type.batched)
        turned = frozenset(b.name for b, t in pairs if t in found)
        usual = {b.name: tensors[t].innermost or 0 for b, t in pairs}
        innermost = {b.name: len(b.extents) - 1 if t in found else usual[b.name] for b, t in pairs}
        lane, before = (Var(choose(kernel.nest, i, lanes).vector) for i in (innermost, usual))
        return _Touching(kernel, innermost, batched, turned, lane, before)

    def refused(self) -> set[str]:
        """The tensors that this kernel wants channels-last: all, where its lanes would gather what
        it reads or writes of one of them, or of another activation than before.
        """
        written = {
            s.buffer for s in statements(self.kernel.nest.body) if isinstance(s, Store | Accumulate)
        }
        for buffer, axis, step in self._steps():
            if buffer not in self.turned and self.lane == self.before:
                continue
            most = APART[:1] if buffer in written else APART
            if axis != self.innermost[buffer] or step not in most:
                return set(self.kernel.tensors)
        return set()

    def along(self) -> set[str]:
        """The tensors that it touches along the lanes."""
        names = {
            b.name: t for b, t in zip(self.kernel.nest.buffers, self.kernel.tensors, strict=True)
        }
        return {names[buffer] for buffer, _, _ in self._steps()}

    def _steps(self) -> Iterator[tuple[str, int, int | None]]:
        """Every axis along which the lanes touch an activation, and how far they are apart there;
        None where that is not known.
        """
        nest = self.kernel.nest
        for buffer, index in dict.fromkeys(accesses(nest.body)):
            for axis, i in enumerate(index if buffer in self.batched else ()):
                if self.lane in set(subindices(i)):
                    yield buffer, axis, self._apart(i)

    def _apart(self, i: Index) -> int | None:
        try:
            step, _ = spaced(i, self.lane)
        except NotInTile:
            return None
        value = None if step is None else extent_of(step, self.kernel.nest.sizes)
        return value if isinstance(value, int) else None
