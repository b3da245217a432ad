"""Two kernels strip by strip: some rows of the first, then what the second makes of them.

A kernel with few weights, such as a convolution of each channel alone, computes little for every
number that it reads and writes, and the 1x1 convolution behind it reads all of that again. Some
rows of a sample stay in the second-level cache of the core that computes them, and while one core
waits for memory another multiplies.

A strip is a range of rows, so it is the same kernels with other run-time integers: how many
samples and rows there are, and where each tensor begins. Bits do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import For, Guard, Index, Int, Load, Nest, Size, Var
from cnncc.loops.transform import accesses, parallel_loops
from cnncc.loops.walk import (
    condition_indices,
    indices,
    statements,
    subindices,
    value_indices,
    values,
)
from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.bands import BAND_INTEGERS, Callee
from cnncc.targets.cpu.lane import NotInTile, spaced
from cnncc.targets.cpu.machine import cores, last_cache, own_cache
from cnncc.targets.cpu.schedule import choose, registers
from cnncc.tensor import TensorType

FEWEST = 4  # rows per core and sample: with fewer, cores wait for each other
ROOM = 0.25  # of the second-level cache: the input and the weights of the second take the rest
LIGHT = 1 / 16  # of that cache: weights that every strip may read again
EVEN = 1.02  # what the core with the most rows may have, of an equal part

SAMPLE, ROW = "i_n", "i_s0"


@dataclass(frozen=True)
class Strips:
    """How the rows of a call are cut: every sample alike, and a lot is the strips that follow each
    other in one piece of memory.
    """

    samples: int
    rows: int
    each: int
    lots: int

    @property
    def bands(self) -> int:
        """Strips of all samples."""
        return self.samples * self.each

    def place(self, strip: int) -> tuple[int, int, int]:
        """The sample of a strip, its first row, and how many there are."""
        sample, nth = divmod(strip, self.each)
        first = self._first(nth)
        return sample, first, self._first(nth + 1) - first

    def lot(self, strip: int) -> int:
        """The lot of a strip."""
        return (self.lots * (strip + 1) - 1) // self.bands

    @property
    def most(self) -> int:
        """Rows of the largest strip."""
        return max(self.place(strip)[2] for strip in range(self.each))

    @property
    def fullest(self) -> int:
        """Rows of the lot that has the most."""
        ends = (self.bands * lot // self.lots for lot in range(self.lots + 1))
        rows = [end // self.each * self.rows + self._first(end % self.each) for end in ends]
        return max(b - a for a, b in pairwise(rows))

    def _first(self, nth: int) -> int:
        return self.rows * nth // self.each


@dataclass(frozen=True)
class RowCut:
    """What decides how rows are cut: how many a sample has, and the bytes of one in the tensor
    between the kernels.
    """

    rows: int
    bytes: int

    def strips(self, samples: int) -> Strips:
        """As few as the cache allows and as the cores can share evenly."""
        fewest = -(-self.rows * self.bytes // int(ROOM * own_cache()))
        best: Strips | None = None
        for each in range(min(fewest, self.rows), min(self.rows, fewest + 4 * cores()) + 1):
            strips = Strips(samples, self.rows, each, min(cores(), samples * each))
            if best is None or strips.fullest < best.fullest:
                best = strips
            if strips.fullest * cores() <= EVEN * samples * self.rows:
                return strips
        assert best is not None
        return best

    def piece(self, type: TensorType, samples: int) -> tuple[TensorType, int]:
        """What there is of the tensor: the type of a piece, and how many."""
        strips = self.strips(samples)
        return type.with_shape((type.shape[0], strips.most, *type.shape[2:])), strips.lots


def pair_of(
    last: Kernel, writers: Mapping[str, Kernel], readers: Mapping[str, int]
) -> Iterable[tuple[Kernel, Kernel]]:
    """The kernels whose only result nobody but this one reads, each with it. `readers`: how many
    kernels read a tensor.
    """
    for name in dict.fromkeys(last.reads):
        first = writers.get(name)
        if first is None or not (first.nodes and last.nodes):
            continue
        if readers[name] == 1 and first.writes == (name,) == (first.sink.name,):
            yield first, last


def row_cut_of(
    pair: tuple[Kernel, Kernel],
    nests: tuple[Nest, Nest],
    innermost: Callable[[Kernel], Mapping[str, int]],
    lanes: int,
) -> RowCut | None:
    """How to cut the rows, None where the kernels are to run apart. `nests`: of the kernels, with
    tests where a load may lie outside and no border holds it; `innermost`: of a kernel, the axis of
    every buffer that runs fastest.
    """
    first, last = pair
    between = first.sink.type
    if len(between.shape) < 3 or not all(isinstance(e, int) for e in between.shape):
        return None
    if any(moves_of(nest) is None for nest in nests):
        return None
    if not all(_row_by_row(k, n, first.sink.name) for k, n in zip(pair, nests, strict=True)):
        return None
    for kernel in pair:
        s = choose(kernel.nest, innermost(kernel), lanes, held=registers(lanes, between.dtype))
        if s.lanes == 1 or not s.blocked or not s.tile or not {SAMPLE, ROW} <= {*s.rows}:
            return None
    rows = between.shape[1]
    assert isinstance(rows, int)
    numbers = prod(e for e in between.shape if isinstance(e, int)) // rows
    cut = RowCut(rows, numbers * between.dtype.bytes)
    light = _weights(first) <= LIGHT * own_cache() and _weights(last) <= last_cache() // 2
    fits = cut.bytes <= ROOM * own_cache() and rows >= FEWEST * cores()
    return cut if light and fits else None


def _row_by_row(kernel: Kernel, nest: Nest, tensor: str) -> bool:
    """Whether every row of the output touches the same row of a tensor, and no other."""
    pairs = zip(kernel.nest.buffers, kernel.tensors, strict=True)
    names = {b.name for b, t in pairs if t == tensor}
    rows = {index[2] for buffer, index in accesses(nest.body) if buffer in names}
    return all(_step(i, nest) == 1 and _beside(i) == Int(0) for i in rows)


def _weights(kernel: Kernel) -> float:
    """Bytes of what every strip reads again."""
    total = 0.0
    for b in kernel.nest.buffers:
        extents = [extent_of(e, kernel.nest.sizes) for e in b.extents]
        if Size("n") not in b.extents:
            numbers = prod(e for e in extents if isinstance(e, int))
            known = all(isinstance(e, int) for e in extents)
            total += numbers * b.dtype.bytes if known else float("inf")
    return total


def moves_of(nest: Nest) -> dict[str, int] | None:
    """How many rows every buffer moves with a row of the output, where a range of rows of a sample
    is the same nest with fewer samples and rows; None where it is not.
    """
    if len(nest.body) != 1:
        return None
    loops, body = parallel_loops(nest)
    counts = [loops.get(v) for v in (SAMPLE, ROW)]
    if not all(isinstance(c, Size) for c in counts) or counts[0] == counts[1]:
        return None
    sample, row = Var(SAMPLE), Var(ROW)
    fixed = {sample, row, *counts}
    beside = [i for v in values(body) if not isinstance(v, Load) for i in value_indices(v)]
    for s in statements(body):
        match s:
            case Guard(condition, _):
                beside += condition_indices(condition)
            case For(_, extent, _, _):
                beside.append(extent)
    if any(fixed & set(subindices(i)) for i in beside):
        return None
    if any(set(counts) & set(subindices(i)) for i in indices(body)):
        return None
    found: dict[str, int] = {}
    for buffer, index in accesses(body):
        moved = _moved(index, nest)
        if moved is None or found.setdefault(buffer, moved) != moved:
            return None
    return found


def _moved(index: tuple[Index, ...], nest: Nest) -> int | None:
    """How many rows an access moves with a row, None where that is not the same for all rows."""
    samples, rows = (
        [a for a, i in enumerate(index) if Var(v) in set(subindices(i))] for v in (SAMPLE, ROW)
    )
    if not samples:
        return None if rows else 0
    if samples != [0] or index[0] != Var(SAMPLE) or rows not in ([], [2]):
        return None
    return _step(index[2], nest) if rows else 0


def _step(i: Index, nest: Nest) -> int | None:
    """How far an index moves with a row."""
    try:
        step, _ = spaced(i, Var(ROW))
    except NotInTile:
        return None
    moved = extent_of(step or Int(0), nest.sizes)
    return moved if isinstance(moved, int) else None


def _beside(i: Index) -> Index:
    """What an index is in the first row."""
    return spaced(i, Var(ROW))[1]


# --- the kernel that calls them ------------------------------------------------------------------


def strip_text(kernels: Sequence[Callee], dtypes: Mapping[str, str]) -> str:
    """The module text of the kernel that runs two kernels strip by strip. `dtypes`: the element
    type of each of its tensors, in the order of its arguments.
    """
    names = {tensor: f"t{number}" for number, tensor in enumerate(dtypes)}
    modules = {m: f"kernel_{i}" for i, m in enumerate(dict.fromkeys(k.module for k in kernels))}
    types = ", ".join(f"{t}*" for t in dtypes.values())
    calls, start = [], 0
    for k in kernels:
        given = ", ".join(names[t] for t in k.tensors)
        at = f"own + {start}" if start else "own"
        calls.append(f"            {modules[k.module]}({given}, table, {at}, 0, 1)")
        start += k.integers
    lines = [
        f'"""{", ".join(names.values())}: kernels, strip by strip."""',
        "",
        "from cnncc.targets.cpu.compiled import compiled",
        "",
        *(f"from {module} import kernel as {name}" for module, name in modules.items()),
        "",
        "",
        f'@compiled("void({types}, i64*, i64, i64, i64)")',
        f"def kernel({', '.join(names.values())}, table, first, share, shares):",
        "    strips = table[first + 1]",
        "    lots = table[first + 2]  # pieces of memory: a lot of strips follow each other in one",
        f"    begin = first + table[first + {BAND_INTEGERS - 1}]",
        "    for lot in range(lots * share // shares, lots * (share + 1) // shares):",
        "        for strip in range(strips * lot // lots, strips * (lot + 1) // lots):",
        f"            own = begin + strip * {start}",
        *calls,
        "",
    ]
    return "\n".join(lines)
