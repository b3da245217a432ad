"""The network as it is beside the smaller one that runs: the bounds of its kernels, and how many of
them are to the letter kernels that ran.

The code of a kernel depends on how many registers a tile takes along the last axis, so a smaller
network runs some others. Where those of the network as it is are missing, a second network runs
that keeps the last axis and has fewer positions along the others only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnncc.graph.sources import Source
from cnncc.verify.certificate import Check, Verdict
from cnncc.verify.isolate import label
from cnncc.verify.kernels import bounds_check
from cnncc.verify.programs import Network, Program, Settings, given
from cnncc.verify.running import Target, emitted, interpreted, same_bits

BATCH = 1  # rows, not samples, are what a kernel repeats


class Original:
    """The programs that a user runs. `ran`: texts of kernels that run anyway."""

    def __init__(self, network: Network, settings: Settings, ran: Iterable[str]) -> None:
        self.settings, self.ran = settings, set(ran)
        self.programs = network.as_it_is()
        self.texts = [self._kernels(p) for p in self.programs]
        self.wide: list[tuple[Program, Target]] = []
        missing = {t for own in self.texts for t in own} - self.ran
        if not missing:
            return
        for program in network.smaller(settings, columns=True)[0]:
            target = program.target(program.fused, BATCH, settings)
            if missing & set(target.texts[0]):
                self.wide.append((program, target))
                missing -= set(target.texts[0])

    def _kernels(self, program: Program) -> list[str]:
        if not self.settings.machine:
            return []
        return emitted(program.fused, program.phases, program.guard)[0]

    @property
    def targets(self) -> list[Target]:
        return [target for _, target in self.wide]

    def verdicts(self) -> list[Verdict]:
        """One per program that runs here, and one per program of the network as it is."""
        found = []
        for program, target in self.wide:
            checks = tuple(_run(program, target, self.settings))
            places = tuple(label(k) for k in program.fused.kernels)
            found.append(Verdict("program", f"{program.name}, columns as they are", checks, places))
            if all(c.outcome == "equal" for c in checks):
                self.ran.update(target.texts[0])
        for program, texts in zip(self.programs, self.texts, strict=True):
            checks = (*_bounds(program, self.settings), *self._same(texts))
            places = tuple(label(k) for k in program.fused.kernels)
            found.append(Verdict("program", f"{program.name}, as it is", checks, places))
        return [v for v in found if v.checks]

    def _same(self, texts: Sequence[str]) -> list[Check]:
        """How many calls run code that ran here."""
        found = []
        same = sum(t in self.ran for t in texts)
        if same:
            note = f"{same} of {len(texts)} calls run the machine code that was compared"
            found.append(Check("same code", "equal", same, note))
        if same < len(texts):
            titles = dict.fromkeys(t.splitlines()[0].strip('"') for t in texts if t not in self.ran)
            found.append(Check("other code", "skipped", 0, "not compared: " + " ".join(titles)))
        return found


def _run(program: Program, target: Target, settings: Settings) -> list[Check]:
    outside = [c for k in program.fused.kernels if (c := bounds_check(k, BATCH)).failed]
    if outside:  # such a kernel could write anywhere
        return outside
    data = given(program, BATCH, settings.seed)
    wanted = [n for n in program.results if not isinstance(program.graph[n].op, Source)]
    defined = interpreted(program.unfused, data, BATCH)
    return [same_bits("fused = interp", target.run(data), defined, wanted)]


def _bounds(program: Program, settings: Settings) -> list[Check]:
    """All accesses of a program, one check."""
    if any(n.type.symbols for n in program.graph.nodes):
        return [Check("bounds", "skipped", 0, "extents are known with the data")]
    proofs = [bounds_check(k, settings.batch) for k in program.fused.kernels]
    failing = [c for c in proofs if c.failed]
    return failing[:1] or [Check("bounds", "equal", sum(c.elements for c in proofs))]
