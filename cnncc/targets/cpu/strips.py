"""Kernels strip by strip: some rows of the samples go through several kernels before the next rows
do.

A kernel whose windows have one row, as those of a 1x1 convolution, needs of what the kernel before
it has written only the rows that it is about to write itself. Where nobody else reads that tensor,
it never exists as a whole: the rows of a strip stay in the second-level cache of the core that
computes them, and are neither written to the cache that all cores share nor read from there. While
a later kernel computes, its tiles fetch what the first one reads for the next strip; alone it would
wait for all of that. But every core reads all parameters, and where they do not stay in its cache,
reads them for every strip.

A strip is a chunk of the rows of all samples, as a kernel alone cuts them too, so each kernel does
for a strip what it does for such a chunk, with other run-time integers. Bits do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from cnncc.loops.affine import extent_of, linear
from cnncc.loops.ir import (
    AsFloat,
    Choose,
    Div,
    Fetch,
    For,
    Guard,
    Least,
    Load,
    Mod,
    Nest,
    Store,
    Var,
)
from cnncc.loops.split import split_phases
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import condition_indices, indices, statements, subindices, values
from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.bands import TOGETHER
from cnncc.targets.cpu.layout import Placement, place
from cnncc.targets.cpu.machine import cores, own_cache
from cnncc.targets.cpu.schedule import Schedule, choose, near_weights, registers
from cnncc.targets.cpu.tasks import lot_of, rows_per_task
from cnncc.tensor import DType, TensorType, evaluate

SAMPLE, ROW = Var("i_n"), Var("i_s0")
AXES = 4  # samples, channels, rows, positions
ROWS = (SAMPLE.name, ROW.name)  # of the kernels that can run strip by strip
ROOM = 0.625  # of the second-level cache, for the rows of a strip and the parameters
EVEN = 1.1  # what the busiest core may have, of an equal part


@dataclass(frozen=True)
class Strips:
    """How the rows of a call are cut: all but the last strip have `size` of them, and a lot is the
    strips that follow each other in one piece of memory.
    """

    rows: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.rows // self.size)

    @property
    def lots(self) -> int:
        return min(cores(), self.count)

    def lot(self, strip: int) -> int:
        """The lot of a strip."""
        return lot_of(strip, self.count, self.lots)

    @property
    def busiest(self) -> int:
        """Rows of the core that has the most."""
        ends = [
            min(self.count * lot // self.lots * self.size, self.rows)
            for lot in range(self.lots + 1)
        ]
        return max(b - a for a, b in pairwise(ends))


@dataclass(frozen=True)
class Strip:
    """What decides how rows are cut: the rows of a sample, and how many a strip has at most."""

    height: int
    most: int

    def strips(self, batch: int) -> Strips:
        """Strips of so many samples, as large as the cache allows and shared evenly."""
        rows = batch * self.height
        return Strips(rows, rows_per_task(rows, 1, min(self.most, rows), cores()))

    def place(self, t: TensorType, batch: int, lanes: int) -> Placement:
        """The memory of a tensor between the kernels: a strip for each lot."""
        cut = self.strips(batch)
        channels, _, *others = t.shape
        strip = t.with_shape((channels, cut.size, *others))
        return place(strip, cut.lots, 1, (), lanes, panels=False)


def height_of(kernel: Kernel, innermost: Mapping[str, int], lanes: int) -> int:
    """The rows of a sample that a kernel writes, where its chunks are rows of all samples; 0 where
    they are not, or it may have no form in lanes.
    """
    nest = kernel.nest
    dtype = DType.F64 if nest.buffers[-1].dtype is DType.F64 else DType.F32
    held, near = registers(lanes, dtype), near_weights(lanes, dtype)
    if lanes == 1 or len(nest.body) > 1:
        return 0
    s = choose(nest, innermost, lanes, held=held, near=near)
    stores = [s for s in statements(nest.body) if isinstance(s, Store)]
    if not goes_by_rows(s) or _uneven(nest, s.vector):
        return 0
    height = extent_of(parallel_loops(nest)[0][ROW.name], nest.sizes)
    own = all(
        len(s.index) == AXES
        and (s.index[0], s.index[2]) == (SAMPLE, ROW)
        and extent_of(nest.buffer(s.buffer).extents[2], nest.sizes) == height
        for s in stores
    )
    return height if own and isinstance(height, int) else 0


def _uneven(nest: Nest, lane: str) -> bool:
    """Whether a nest may have no form in lanes, as what differs between them is not evenly spaced,
    or is to be split by the phases of a loop first.
    """
    split = split_phases(nest, keep={lane})
    if split.limits or parallel_loops(split.nest)[0].keys() != parallel_loops(nest)[0].keys():
        return True
    along = Var(lane)
    conditions = [v.condition for v in values(nest.body) if isinstance(v, Choose)]
    conditions += [s.condition for s in statements(nest.body) if isinstance(s, Guard)]
    straight = [i for c in conditions for i in condition_indices(c)]
    straight += [v.index for v in values(nest.body) if isinstance(v, AsFloat)]
    padded = [v for v in values(nest.body) if isinstance(v, Load) and v.outside is not None]
    straight += [i for v in padded for i in v.index if i != along]  # some lanes lie outside
    stores = [s for s in statements(nest.body) if isinstance(s, Store)]
    return (
        any(isinstance(i, Fetch) for i in indices(nest.body))
        or any(
            along in subindices(i)
            for i in indices(nest.body)
            if isinstance(i, (Div, Mod, Least)) or i in straight
        )
        or not all(any(along in subindices(i) for i in s.index) for s in stores)
    )


def goes_by_rows(s: Schedule) -> bool:
    """Whether the chunks of a kernel's work are rows of all samples, with all blocks of lanes."""
    return s.rows == ROWS and s.blocked and s.lanes > 1


def reads_own_rows(kernel: Kernel, tensor: str) -> bool:
    """Whether a kernel reads of a tensor only the rows that it is about to write."""
    buffers = {
        b.name for b, t in zip(kernel.nest.buffers, kernel.tensors, strict=True) if t == tensor
    }
    sizes = kernel.nest.sizes
    loads = [v for v in values(kernel.nest.body) if isinstance(v, Load) and v.buffer in buffers]
    return bool(loads) and all(
        v.outside is None
        and len(v.index) == AXES
        and v.index[0] == SAMPLE
        and linear(v.index[2], sizes) == linear(ROW, sizes)
        for v in loads
    )


@dataclass(frozen=True)
class Flow:
    """What kernels that follow each other take and give, in bytes: of a sample in all tensors that
    they touch, of a sample in those that exist between them alone, and in their parameters.
    """

    samples: int
    within: int
    parameters: int


def strip_of(height: int, flow: Flow, batch: int) -> Strip | None:
    """How to cut the rows of kernels that write so many of a sample, None where they are to run
    apart. `batch`: samples of a call.
    """
    room = int(ROOM * own_cache()) - flow.parameters
    strip = Strip(height, max(1, room * height // flow.samples))
    together = min(batch, TOGETHER)
    cut = strip.strips(together)
    if cut.lots < cores() or cut.busiest * cores() > EVEN * cut.rows:
        return None
    stay = flow.parameters <= own_cache() // 2
    more = ((cores() if stay else cut.count) - 1) * flow.parameters  # than is read once
    spared = 2 * flow.within * together  # to the last cache, and from there
    return strip if more < spared else None


def flow_of(
    kernels: Sequence[Kernel], within: Sequence[str], type_of: Callable[[str], TensorType]
) -> Flow | None:
    """What kernels take and give, some of it `within`; None where that depends on more than the
    batch.
    """
    sizes: dict[str, int] = {}
    for name in dict.fromkeys(t for k in kernels for t in k.tensors):
        t = type_of(name)
        extents = [e for e in t.shape if isinstance(e, int)]
        if len(extents) < len(t.shape):
            return None
        sizes[name] = prod(extents) * t.dtype.bytes
    samples = sum(b for n, b in sizes.items() if type_of(n).batched)
    return Flow(samples, sum(sizes[n] for n in within), sum(sizes.values()) - samples)


def summed_input(kernel: Kernel) -> str:
    """The activation that the sums of a kernel read, "" where there is none."""
    names = dict(zip((b.name for b in kernel.nest.buffers), kernel.tensors, strict=True))
    return next((names[v.buffer] for v in _summed(kernel)), "")


def rows_read(kernel: Kernel) -> tuple[int, int]:
    """How the window of a kernel goes over the rows of its summed input: (rows from the window of
    one row to that of the next, the row behind the window of row 0).
    """
    sizes = kernel.nest.sizes
    sums = {s.var: s.extent for s in statements(kernel.nest.body) if isinstance(s, For)}
    step = behind = 0
    for v in _summed(kernel):
        row = linear(v.index[2], sizes)
        last = evaluate(row.constant, {})
        for atom, coefficient in row.terms.items():
            times = evaluate(coefficient, {})
            if atom == ROW:
                step = times
            elif isinstance(atom, Var):
                last += max(times * (evaluate(extent_of(sums[atom.name], sizes) or 1, {}) - 1), 0)
        behind = max(behind, last + 1)
    return step, behind


def _summed(kernel: Kernel) -> list[Load]:
    """What the sums of a kernel read of activations with rows."""
    _, body = parallel_loops(kernel.nest)
    sums = tuple(s for s in body if isinstance(s, For))
    loads = [v for v in values(sums) if isinstance(v, Load)]
    return [v for v in loads if len(v.index) == AXES and v.index[0] == SAMPLE]
