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


PART = 64  # steps per function: the time to compile one grows faster than its length


def entry_text(title: str, slots: Sequence[Slot], calls: Sequence[Call]) -> str:
    """The module text of an entry. The job table is: (address, length) of the integers, then of
    every tensor.
    """
    modules = {m: f"kernel_{i}" for i, m in enumerate(dict.fromkeys(c.module for c in calls))}
    makers = sorted(
        {f"{slots[t].type.dtype.value}_at" for c in calls for t in c.tensors} | {"i64_at"}
    )
    lines = [
        f'"""{_safe(title)}"""',
        "",
        *(["from cnncc.targets.cpu.step import step"] if calls else []),
        "from cnncc.targets.cpu.team import entry",
        f"from cnncc.targets.cpu.vector import {', '.join(makers)}",
        "",
        *(f"from {module} import kernel as {name}" for module, name in modules.items()),
    ]
    if len(calls) <= PART:
        return "\n".join([*lines, *_function("run", slots, calls, modules, 1), ""])
    firsts = range(0, len(calls), PART)
    for number, first in enumerate(firsts):
        lines += _function(f"part_{number}", slots, calls[first : first + PART], modules, first + 1)
    lines += ["", "", "@entry", "def run(job, control, tid, size):"]
    lines += [f"    part_{number}(job, control, tid, size)" for number in range(len(firsts))]
    return "\n".join([*lines, ""])


def _function(
    name: str, slots: Sequence[Slot], calls: Sequence[Call], modules: Mapping[str, str], phase: int
) -> list[str]:
    """A function that runs some calls, the first of them as the team's phase number `phase`."""
    lines = ["", "", "@entry", f"def {name}(job, control, tid, size):"]
    lines += ["    table = i64_at(job[0], job[1])"]
    for t in sorted({t for c in calls for t in c.tensors}):
        slot = slots[t]
        note = f"  # {_safe(slot.name)}: {slot.type}{', ' + slot.note if slot.note else ''}"
        lines += [
            f"    t{t} = {slot.type.dtype.value}_at(job[{2 * t + 2}], job[{2 * t + 3}]){note}"
        ]
    for number, call in enumerate(calls, phase):
        tensors = ", ".join(f"t{t}" for t in call.tensors)
        kernel = modules[call.module]
        lines += [
            "",
            *(f"    # {_safe(c)}" for c in call.comment),
            f"    step(control, tid, size, {number}, {kernel}, {tensors}, table, {call.first})",
        ]
    return lines


def _safe(text: str) -> str:
    """A comment or docstring that cannot end early."""
    return printable(text).replace("\\", "/").replace('"', "'").replace("\n", " ")
