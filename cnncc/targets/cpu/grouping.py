"""Which kernels of a program run as one: Winograd's three band by band, and those that hand each
other rows strip by strip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.bands import Cut, chain_of, cut_of
from cnncc.targets.cpu.machine import last_cache_is_far
from cnncc.targets.cpu.strips import (
    Strip,
    flow_of,
    height_of,
    reads_own_rows,
    strip_of,
    summed_input,
)
from cnncc.targets.cpu.tensors import Tensor

Innermost = Callable[[Kernel], Mapping[str, int]]
"""Of a kernel, the axis of every buffer that runs fastest."""


@dataclass(frozen=True)
class Run:
    """Kernels that run as one, with how their work is cut where they are several, and the tensors
    that exist within it alone, a part at a time.
    """

    phase: int
    kernels: tuple[Kernel, ...]
    cut: Cut | Strip | None = None
    within: tuple[str, ...] = ()
    ahead: str = ""  # what the first of them reads: the others fetch it for the next part

    @property
    def writes(self) -> frozenset[str]:
        return frozenset(t for k in self.kernels for t in k.writes)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(t for k in self.kernels for t in k.reads)


def grouped(
    kernels: Sequence[tuple[int, Kernel]],
    tensors: Mapping[str, Tensor],
    innermost: Innermost,
    lanes: int,
    batch: int,
) -> list[Run]:
    """The kernels, with their phases, in the order in which they run: where the last of those stood
    that run as one. `batch`: samples of a call.
    """
    return _Grouping(kernels, tensors, innermost, lanes, batch).runs()


@dataclass
class _Grouping:
    kernels: Sequence[tuple[int, Kernel]]
    tensors: Mapping[str, Tensor]
    innermost: Innermost
    lanes: int
    batch: int
    readers: Counter[str] = field(default_factory=Counter)  # kernels that read a tensor

    def __post_init__(self) -> None:
        self.readers.update(name for _, k in self.kernels for name in set(k.reads))

    def runs(self) -> list[Run]:
        writers = {name: k for _, k in self.kernels for name in k.writes}
        runs: list[Run] = []
        for phase, kernel in self.kernels:
            run = self._bands(phase, kernel, writers)
            for earlier in run.kernels[:-1]:
                runs.remove(Run(phase, (earlier,)))
            if len(run.kernels) == 1 and last_cache_is_far():
                run = self._behind_others(run, kernel, runs)
            runs.append(run)
        return runs

    def _behind_others(self, run: Run, kernel: Kernel, runs: list[Run]) -> Run:
        """The kernel behind those with which it is to run strip by strip, which are taken away
        where they stood. Where the last cache is near, what lies there costs too little for it.
        """
        before = next((r for r in reversed(runs) if r.writes & run.reads), None)
        joined = self._strips(before, run.phase, kernel, runs) if before else None
        if before is None or joined is None:
            return run
        runs.remove(before)
        return joined

    def _bands(self, phase: int, last: Kernel, writers: Mapping[str, Kernel]) -> Run:
        """The kernel, behind those with which it is to run band by band."""
        chain = chain_of(last, writers, self.readers)
        cut = cut_of(chain, self.innermost, self.lanes, self.batch) if chain else None
        if chain is None or cut is None:
            return Run(phase, (last,))
        return Run(phase, chain, cut, tuple(k.sink.name for k in chain[:-1]))

    def _strips(self, before: Run, phase: int, last: Kernel, runs: Sequence[Run]) -> Run | None:
        """The kernel behind those before it, if they are to run strip by strip. They write
        later rows when it has read its own: it may read no more of what they write, and change
        nothing that they touch.
        """
        handed = before.writes & set(last.reads)
        others = set(last.reads) - handed
        if (
            not 0 <= before.phase == phase
            or isinstance(before.cut, Cut)
            or not all(self._alone(t) and reads_own_rows(last, t) for t in handed)
            or self._roots(others) & self._roots(before.writes)
            or self._roots(last.writes) & self._roots({*before.reads, *before.writes})
            or any(self._depends(run, before) for run in runs[runs.index(before) + 1 :])
        ):
            return None
        kernels = (*before.kernels, last)
        height, *heights = {height_of(k, self.innermost(k), self.lanes) for k in kernels}
        if heights or not height:
            return None
        within = (*before.within, *sorted(handed))
        flow = flow_of(kernels, within, lambda t: self.tensors[t].type)
        cut = strip_of(height, flow, self.batch) if flow else None
        if cut is None:
            return None
        return Run(before.phase, kernels, cut, within, summed_input(kernels[0]))

    def _depends(self, later: Run, before: Run) -> bool:
        """Whether a run cannot go in front of one that stands before it."""
        gave = self._roots(before.writes)
        read, written = self._roots(later.reads), self._roots(later.writes)
        return bool(gave & (read | written) or self._roots(before.reads) & written)

    def _roots(self, names: Iterable[str]) -> set[str]:
        """The tensors whose memory it is."""
        known = [self.tensors[name] for name in names]
        return {t.alias or t.slice_of or t.name for t in known}

    def _alone(self, name: str) -> bool:
        """Whether a tensor has but one reader, no border and memory of its own, with channels
        innermost as a strip of it has.
        """
        t = self.tensors[name]
        own = (
            t.innermost == 1
            and t.space == "arena"
            and not (t.slice_of or t.alias or self._whole_of_slices(name))
        )
        return own and self.readers[name] == 1 and not (t.border and any(map(any, t.border.halo)))

    def _whole_of_slices(self, name: str) -> bool:
        return any(t.slice_of == name for t in self.tensors.values())
