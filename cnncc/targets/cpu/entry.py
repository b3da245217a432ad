"""The entry of a network: one function that every thread of the team runs, calling one kernel per
phase of work, and beside it those that fill borders of what it writes.

This is the page to read to see what a compiled network does: every step carries its layers, their
place in the spec, and shapes. Tensors are numbered, because no name of a spec ever becomes an
identifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnncc.errors import CompilerBug, printable
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Call:
    """One step: the kernel's module and the numbers of its tensors; `first` is where the table says
    into how many pieces a thread's share is cut, and the kernel's integers come next. `with_next`:
    whether the next call need not wait for it; they are one phase, in pieces as the last's.
    """

    module: str
    tensors: tuple[int, ...]
    first: int
    comment: tuple[str, ...]
    with_next: bool = False


@dataclass(frozen=True)
class Slot:
    """One tensor of the job table."""

    name: str
    type: TensorType
    note: str = ""


PART = 64  # phases per function: the time to compile one grows faster than its length


@dataclass(frozen=True)
class Guarded:
    """Calls at the end of an entry that run only when a number is finite: the first element of a
    tensor, which all calls before have left as it is to be read.
    """

    tensor: int
    calls: Sequence[Call]


def entry_text(
    title: str,
    slots: Sequence[Slot],
    calls: Sequence[Call],
    guarded: Guarded | None = None,
    *,
    alone: bool = False,
) -> str:
    """The module text of an entry. The job table is: (address, length) of the integers, then of
    every tensor.

    Every thread reads the guard's number after all earlier calls are done, and so decides alike.
    `alone`: for teams of one thread, which does every kernel's work as a whole; such a text takes
    half of the time to compile.
    """
    later = guarded.calls if guarded else ()
    every = [*calls, *later]
    modules = {m: f"kernel_{i}" for i, m in enumerate(dict.fromkeys(c.module for c in every))}
    read = {t for c in every for t in c.tensors} | ({guarded.tensor} if guarded else set())
    makers = sorted({f"{slots[t].type.dtype.value}_at" for t in read} | {"i64_at"})
    lines = [
        f'"""{_safe(title)}"""',
        "",
        *(["from math import isfinite", ""] if guarded else []),
        *(["from cnncc.targets.cpu.step import step"] if every and not alone else []),
        "from cnncc.targets.cpu.team import entry",
        f"from cnncc.targets.cpu.vector import {', '.join(makers)}",
        "",
        *(f"from {module} import kernel as {name}" for module, name in modules.items()),
    ]
    own, last = _phases(calls), _phases(later)
    if len(own) <= PART and guarded is None:
        return "\n".join([*lines, *_function("run", slots, own, modules, 1, alone), ""])
    run = ["", "", "@entry", "def run(job, control, tid, size):"]
    parts = 0
    for section, done, margin in ((own, 0, "    "), (last, len(own), "        ")):
        if section is last and guarded is not None:
            number = guarded.tensor
            run += [
                f"    guard = {_view(slots, number)}",
                "    if isfinite(guard[0]):",
            ]
        for first in range(0, len(section), PART):
            name, some = f"part_{parts}", section[first : first + PART]
            lines += _function(name, slots, some, modules, done + first + 1, alone)
            run.append(f"{margin}{name}(job, control, tid, size)")
            parts += 1
    return "\n".join([*lines, *run, ""])


def _view(slots: Sequence[Slot], t: int) -> str:
    """The tensor's memory, and its name and type in a comment."""
    slot = slots[t]
    note = f"  # {_safe(slot.name)}: {slot.type}{', ' + slot.note if slot.note else ''}"
    return f"{slot.type.dtype.value}_at(job[{2 * t + 2}], job[{2 * t + 3}]){note}"


def _phases(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls, together those that do not wait for each other."""
    phases: list[list[Call]] = []
    joins = False
    for call in calls:
        if joins:
            phases[-1].append(call)
        else:
            phases.append([call])
        joins = call.with_next
    if joins:
        raise CompilerBug("entry", calls[-1].module, "a call that runs with the next is the last")
    return phases


def _function(
    name: str,
    slots: Sequence[Slot],
    phases: Sequence[Sequence[Call]],
    modules: Mapping[str, str],
    number: int,
    alone: bool,
) -> list[str]:
    """A function that runs some phases, the first of them as the team's `number`."""
    lines = ["", "", "@entry", f"def {name}(job, control, tid, size):"]
    lines += ["    table = i64_at(job[0], job[1])"]
    for t in sorted({t for calls in phases for c in calls for t in c.tensors}):
        lines += [f"    t{t} = {_view(slots, t)}"]
    for phase, calls in enumerate(phases, number):
        lines += ["", *(f"    # {_safe(line)}" for c in calls for line in c.comment)]
        work = [
            (modules[c.module], ", ".join([*(f"t{t}" for t in c.tensors), f"table, {c.first + 1}"]))
            for c in calls
        ]
        if alone:
            lines += [f"    {kernel}({arguments}, 0, 1)" for kernel, arguments in work]
        else:
            of = ", ".join(f"{kernel}, {arguments}" for kernel, arguments in work)
            pieces = f"table[{calls[-1].first}]"
            lines += [f"    step(control, tid, size, {phase}, {pieces}, {of})"]
    return lines


def _safe(text: str) -> str:
    """A comment or docstring that cannot end early."""
    return printable(text).replace("\\", "/").replace('"', "'").replace("\n", " ")
