"""The entry of a network: one function that every thread of the team runs, calling one kernel per
phase of work.

This is the page to read to see what a compiled network does: every step carries its layers, their
place in the spec, and shapes. Tensors are numbered, because no name of a spec ever becomes an
identifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnncc.errors import printable
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Call:
    """One step: the kernel's module and the numbers of its tensors; `first` is where its integers
    begin.
    """

    module: str
    tensors: tuple[int, ...]
    first: int
    comment: tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """One tensor of the job table."""

    name: str
    type: TensorType
    note: str = ""


def entry_text(title: str, slots: Sequence[Slot], calls: Sequence[Call]) -> str:
    """The module text of an entry. The job table is: (address, length) of the integers, then of
    every tensor.
    """
    modules = {m: f"kernel_{i}" for i, m in enumerate(dict.fromkeys(c.module for c in calls))}
    used = sorted({t for c in calls for t in c.tensors})
    makers = sorted({f"{slots[t].type.dtype.value}_at" for t in used} | {"i64_at"})
    lines = [
        f'"""{_safe(title)}"""',
        "",
        "from cnncc.targets.cpu.team import claim, claim_next, entry, join",
        f"from cnncc.targets.cpu.vector import {', '.join(makers)}",
        "",
        *(f"from {module} import kernel as {name}" for module, name in modules.items()),
        "",
        "",
        "@entry",
        "def run(job, control, tid, size):",
        "    table = i64_at(job[0], job[1])",
    ]
    for t in used:
        slot = slots[t]
        note = f"  # {_safe(slot.name)}: {slot.type}{', ' + slot.note if slot.note else ''}"
        lines += [
            f"    t{t} = {slot.type.dtype.value}_at(job[{2 * t + 2}], job[{2 * t + 3}]){note}"
        ]
    for phase, call in enumerate(calls, 1):
        tensors = ", ".join(f"t{t}" for t in call.tensors)
        lines += [
            "",
            *(f"    # {_safe(c)}" for c in call.comment),
            f"    share = claim(control, size, {phase}, tid)",
            "    while share >= 0:",
            f"        {modules[call.module]}({tensors}, table, {call.first}, share, size)",
            f"        share = claim_next(control, size, {phase}, tid)",
            f"    join(control, size, {phase})",
        ]
    return "\n".join([*lines, ""])


def _safe(text: str) -> str:
    """A comment or docstring that cannot end early."""
    return printable(text).replace("\\", "/").replace('"', "'").replace("\n", " ")


def describe(names: Mapping[str, str]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in names.items())
