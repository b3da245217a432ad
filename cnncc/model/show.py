"""What a model shows of itself: its texts, a table of its layers, one line for a prompt."""

from __future__ import annotations

import html as markup
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cnncc.errors import printable
from cnncc.loops.text import print_nest
from cnncc.passes.check import number
from cnncc.passes.count import Counts, count
from cnncc.passes.report import WIDTH
from cnncc.passes.report import summary as totals
from cnncc.targets.cpu.declare import PREPARE
from cnncc.targets.load import module_name
from cnncc.targets.runtime import Runtime
from cnncc.tensor import TensorType

if TYPE_CHECKING:
    from cnncc.model.programs import AnyRuntime, Programs

_PHASES = {
    "seeded": {0: "forward", 1: "backward", 2: "input_gradients"},
}


def emitted(programs: Mapping[str, AnyRuntime]) -> dict[str, str]:
    """Entries by program and phase, and kernels by module name; loop nests for the interpreter."""
    texts: dict[str, str] = {}
    kernels: dict[str, str] = {}
    for program, runtime in programs.items():
        if not isinstance(runtime, Runtime):
            for kernel in runtime.fused.kernels:
                kernels[f"{program}.{kernel.sink.name}"] = print_nest(kernel.nest)
            continue
        for phase, text in runtime.entry_texts.items():
            texts[_entry_name(program, phase)] = text
        for text in runtime.kernel_texts:
            kernels[module_name(text, kind="kernel")] = text
    return texts | kernels


def _entry_name(program: str, phase: int) -> str:
    if phase == PREPARE:
        return f"{program}.prepare"
    names = _PHASES.get(program)
    return program if names is None else f"{program}.{names[phase]}"


def short(programs: Programs) -> str:
    """`Model(lenet: image f32[*, 1, 28, 28] -> scores f32[*, 10]; 61,706 parameters; cpu)`."""
    counts = count(programs.network.inference.graph)
    inputs = ", ".join(f"{name} {type}" for name, type in counts.inputs)
    outputs = ", ".join(f"{name} {type}" for name, type in counts.outputs)
    mode = f"{programs.options.target}, for training" if programs.train else programs.options.target
    return printable(
        f"Model({counts.name}: {inputs} -> {outputs}; {counts.params:,} parameters; {mode})"
    )


def summary(programs: Programs) -> str:
    """The table of `rows` as plain text, and the totals."""
    counts = count(programs.network.inference.graph)
    table = Table(title=printable(short(programs)), title_justify="left")
    for column in COLUMNS:
        right = column in ("params", "macs")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows(programs, counts):
        table.add_row(*map(printable, row))
    console = Console(width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table, totals(counts), sep="\n", markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def html(programs: Programs) -> str:
    """The same table for a notebook. Every text of the network is escaped."""
    counts = count(programs.network.inference.graph)

    def line(cells: tuple[str, ...], tag: str) -> str:
        inside = "".join(f"<{tag}>{markup.escape(printable(c))}</{tag}>" for c in cells)
        return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows(programs, counts))
    return (
        f"<p><code>{markup.escape(short(programs))}</code></p>"
        f"<table><thead>{line(COLUMNS, 'th')}</thead><tbody>{body}</tbody></table>"
    )


COLUMNS = ("layer", "operator", "input", "output", "params", "macs", "kernel")


def rows(programs: Programs, counts: Counts) -> list[tuple[str, ...]]:
    """One row per layer: shapes, counts, and the layer whose kernel it is part of."""
    kernel_of = _kernels(programs)
    return [
        (
            x.name,
            x.operator,
            ", ".join(_shape(t) for t in x.input_types),
            _shape(x.type),
            number(x.params) if x.params != 0 else "",
            number(x.macs) if x.macs != 0 else "",
            ", ".join(dict.fromkeys(kernel_of[n] for n in x.nodes if n in kernel_of)),
        )
        for x in counts.layers
    ]


def _kernels(programs: Programs) -> dict[str, str]:
    """Node -> `kernel 3`, numbered in the order in which they run."""
    variant = programs.network.inference
    fused = programs.fused(variant.graph, variant.module, programs.options.fuse, None)
    return {n.name: str(i) for i, k in enumerate(fused.kernels, 1) for n in k.nodes}


def _shape(type: TensorType) -> str:
    return "x".join(map(str, type.shape))
