"""Where the time of inference goes: every kernel with its layers, its rates of operations and of
bytes, and how near it is to what the machine can do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from cnncc.errors import printable
from cnncc.graph.ir import Graph
from cnncc.targets.cpu.peaks import Bound, Peaks, measure_peaks
from cnncc.targets.cpu.portions import at_a_time
from cnncc.targets.cpu.profile import StepTime
from cnncc.targets.cpu.profile import profile as profile_steps
from cnncc.targets.runtime import Runtime, Shape, shape_of

if TYPE_CHECKING:
    from cnncc.model.programs import Programs

WIDTH = 120
SECONDS = 0.5
"""How long kernels are measured where nobody says how often."""

FEWEST, MOST = 9, 200
"""Repeats where nobody says how often."""

BAR = 20
"""Characters of the longest bar in a terminal."""


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a profile.

    layers: the layers of the text that it computes, none for a border and a change of layout.
    operation: the operators, joined by +, or what else it does. seconds: the median of its time for
    the samples that run at a time. macs: multiply-accumulates that it carries out for them.
    traffic_bytes: of the tensors that it reads and writes, each once. parameter_bytes: those of
    them that do not depend on the input. bound: the least time that the roofline allows, and what
    it is spent on. tiles: the register tiles of its parts, `positions x vectors x lanes`.
    """

    layers: tuple[str, ...]
    operation: str
    seconds: float
    macs: int
    traffic_bytes: int
    parameter_bytes: int
    bound: Bound
    tiles: tuple[str, ...]

    @property
    def title(self) -> str:
        """Layers with what is common to their names in front, and the operation."""
        return f"{grouped(self.layers)}: {self.operation}" if self.layers else self.operation

    @property
    def flops_per_second(self) -> float:
        """Operations per second; a multiply-accumulate counts as two."""
        return _rate(2.0 * self.macs, self.seconds)

    @property
    def bytes_per_second(self) -> float:
        """Bytes of the tensors read and written, per second."""
        return _rate(self.traffic_bytes, self.seconds)

    @property
    def roofline_share(self) -> float:
        """The least time by the time taken: 1 is as fast as the machine."""
        return _rate(self.bound.seconds, self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """The fields and rates, ready for JSON."""
        return {
            "layers": list(self.layers),
            "operation": self.operation,
            "seconds": self.seconds,
            "macs": self.macs,
            "traffic_bytes": self.traffic_bytes,
            "parameter_bytes": self.parameter_bytes,
            "flops_per_second": self.flops_per_second,
            "bytes_per_second": self.bytes_per_second,
            "roofline_seconds": self.bound.seconds,
            "roofline_share": self.roofline_share,
            "bound_by": self.bound.by,
            "tiles": list(self.tiles),
        }


@dataclass(frozen=True)
class Profile:
    """The kernels of one call of inference, in the order in which they run.

    portion: how many samples of the batch run at a time; the kernels and their sums speak of so
    many. call_seconds: the median time of whole calls, of the batch. peaks: what the machine can
    do, measured in the same process. `print(profile)` shows the table, the slowest kernels first.
    """

    name: str
    batch: int
    portion: int
    extents: Mapping[str, int]
    precision: str
    call_seconds: float
    peaks: Peaks
    kernels: tuple[KernelTime, ...]

    @property
    def seconds(self) -> float:
        """The sum over all kernels."""
        return sum(k.seconds for k in self.kernels)

    @property
    def portion_seconds(self) -> float:
        """The part of a call's time that `portion` samples take: what `seconds` is part of."""
        return self.call_seconds * self.portion / self.batch

    @property
    def macs(self) -> int:
        """Multiply-accumulates that the kernels carry out."""
        return sum(k.macs for k in self.kernels)

    @property
    def roofline_share(self) -> float:
        """The least time of all kernels by the time that they take."""
        return _rate(sum(k.bound.seconds for k in self.kernels), self.seconds)

    def slowest(self) -> list[KernelTime]:
        """The kernels, those that take longest first."""
        return sorted(self.kernels, key=lambda k: -k.seconds)

    def table(self, most: int | None = None) -> str:
        """The kernels as plain text, the slowest first, at most `most` of them."""
        console = Console(width=WIDTH, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self.rich_table(most), markup=False, highlight=False)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join([*lines, self.totals()]) + "\n"

    def rich_table(self, most: int | None = None) -> Table:
        """The same for a terminal. A bar is as long as the time, its full part as the roofline."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
        for column in ("ms", "share", "GFLOP/s", "GB/s", "roofline", "bound by"):
            table.add_column(column, justify="left" if column == "bound by" else "right")
        table.add_column("", no_wrap=True)
        table.add_column("layers: operation", overflow="fold", ratio=1)
        shown = self.slowest()[:most]
        longest = shown[0].seconds if shown else 1.0
        for k in shown:
            table.add_row(
                f"{1e3 * k.seconds:.4f}",
                f"{_rate(k.seconds, self.seconds):.1%}",
                f"{k.flops_per_second / 1e9:.1f}" if k.macs else "",
                f"{k.bytes_per_second / 1e9:.1f}",
                f"{k.roofline_share:.0%}",
                k.bound.by,
                _bar(k, longest),
                printable(k.title),
            )
        rest = self.slowest()[len(shown) :]
        if rest:
            seconds = sum(k.seconds for k in rest)
            share = _rate(seconds, self.seconds)
            note = f"{len(rest)} more kernels"
            table.add_row(f"{1e3 * seconds:.4f}", f"{share:.1%}", "", "", "", "", "", note)
        return table

    def totals(self) -> str:
        """The whole in two lines."""
        extents = "".join(f", {name} = {n}" for name, n in self.extents.items())
        caches = "".join(f", {c.name} {c.bandwidth / 1e9:.0f} GB/s" for c in self.peaks.caches)
        samples = "sample" if self.portion == 1 else f"{self.portion} samples"
        part = f" per {samples}" if self.portion < self.batch else ""
        whole = f", {1e3 * self.portion_seconds:.3f} ms{part}" if part else ""
        portion = at_a_time(self.portion, self.batch)
        return (
            f"{printable(self.name)}, batch {self.batch}{portion}{extents}, "
            f"{self.peaks.threads} threads, precision {self.precision}: "
            f"{len(self.kernels)} kernels take {1e3 * self.seconds:.3f} ms{part}, "
            f"{_rate(2e-9 * self.macs, self.seconds):.1f} GFLOP/s, "
            f"{self.roofline_share:.0%} of the roofline; a call takes "
            f"{1e3 * self.call_seconds:.3f} ms{whole}\n"
            f"peaks: {self.peaks.flops / 1e9:.0f} GFLOP/s{caches}, "
            f"memory {self.peaks.bandwidth / 1e9:.0f} GB/s"
        )

    def __str__(self) -> str:
        return self.table()

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; kernels in the order in which they run."""
        return {
            "name": self.name,
            "batch": self.batch,
            "portion": self.portion,
            "extents": dict(self.extents),
            "threads": self.peaks.threads,
            "precision": self.precision,
            "call_seconds": self.call_seconds,
            "portion_seconds": self.portion_seconds,
            "seconds": self.seconds,
            "macs": self.macs,
            "roofline_share": self.roofline_share,
            "peak_flops_per_second": self.peaks.flops,
            "bandwidth_bytes_per_second": self.peaks.bandwidth,
            "caches": [
                {"name": c.name, "bytes": c.size, "bytes_per_second": c.bandwidth}
                for c in self.peaks.caches
            ],
            "kernels": [k.as_dict() for k in self.kernels],
        }

    def chart(self, path: str | Path, most: int = 25) -> None:
        """Draw the slowest `most` kernels as bars into an .svg, .png or .pdf file.

        Needs matplotlib (`pip install 'cnncc[plot]'`); raises DataError (E0709) without it and
        E0710 when the file cannot be written.
        """
        from cnncc.model.profile_chart import draw

        draw(self, Path(path), most)


def profile_inference(
    programs: Programs, inputs: Mapping[str, NDArray[Any]], repeats: int | None
) -> Profile:
    """Time the kernels of inference on these inputs. Raises ValueError for the interpreter."""
    runtime = programs.inference
    if not isinstance(runtime, Runtime):
        raise ValueError("a profile is of machine code, so target must be cpu, not interp")
    runtime.run(inputs)
    shape = shape_of(runtime.graph, inputs)
    calls = _call_times(runtime, inputs, repeats)
    call = sorted(calls)[len(calls) // 2]
    binding = runtime.planned(shape)
    steps = profile_steps(
        binding,
        first_samples(inputs, shape, binding.batch),
        threads=runtime.threads,
        repeats=len(calls),
        phases=[0],
        symbols=dict(shape.symbols),
    )
    peaks = measure_peaks(runtime.threads)
    held = binding.plan.size + runtime.store.bytes
    cold = peaks.overflows(held)
    return Profile(
        programs.network.inference.module.name,
        shape.batch,
        binding.batch,
        dict(shape.symbols),
        programs.options.precision,
        call,
        peaks,
        tuple(_kernel_time(runtime.graph, s, peaks, cold) for s in steps),
    )


def first_samples(
    inputs: Mapping[str, NDArray[Any]], shape: Shape, count: int
) -> Mapping[str, NDArray[Any]]:
    """The inputs of the first portion of a call."""
    whole = count == shape.batch  # inputs without a batch axis are only in calls that are not cut
    return inputs if whole else {name: array[:count] for name, array in inputs.items()}


def _call_times(
    runtime: Runtime, inputs: Mapping[str, NDArray[Any]], repeats: int | None
) -> list[float]:
    """Seconds of whole calls: `repeats` of them, or for as long as kernels are to be measured."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < (repeats or MOST):
        start = time.perf_counter()
        runtime.run(inputs)
        times.append(time.perf_counter() - start)
        if repeats is None and len(times) >= FEWEST and time.perf_counter() > end:
            break
    return times


def _kernel_time(graph: Graph, step: StepTime, peaks: Peaks, cold: bool) -> KernelTime:
    """cold: parameters come from memory, as the network does not fit the last cache."""
    nodes = [graph[name] for name in step.layers]
    return KernelTime(
        tuple(dict.fromkeys(n.origin.layer or n.name for n in nodes)),
        " + ".join(n.op.name for n in nodes) or step.comment[0],
        1e-3 * step.milliseconds,
        step.macs,
        step.traffic,
        step.parameters,
        peaks.bound(2.0 * step.macs, step.traffic, step.parameters if cold else 0),
        step.tiles,
    )


def grouped(names: tuple[str, ...]) -> str:
    """`unit.{conv, norm}` for `unit.conv` and `unit.norm`."""
    if len(names) < 2:
        return "".join(names)
    split = [name.split(".") for name in names]
    common = 0
    while all(len(s) > common + 1 and s[common] == split[0][common] for s in split):
        common += 1
    if not common:
        return ", ".join(names)
    rest = ", ".join(".".join(s[common:]) for s in split)
    return ".".join(split[0][:common]) + f".{{{rest}}}"


def _bar(kernel: KernelTime, longest: float) -> str:
    """A bar as long as the time, its first part as long as the roofline allows."""
    length = round(BAR * _rate(kernel.seconds, longest))
    full = min(round(length * kernel.roofline_share), length)
    return "█" * full + "░" * (length - full)


def _rate(amount: float, of: float) -> float:
    return amount / of if of > 0 else 0.0
