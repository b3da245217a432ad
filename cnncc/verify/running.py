"""Running a fused graph on either target with given arrays, and comparing what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from cnncc.ops.base import Array
from cnncc.passes.fuse import Fused
from cnncc.targets.ahead import compile_ahead
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.declare import with_prepared
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.program import program_texts
from cnncc.targets.cpu.store import Store
from cnncc.targets.interp.program import run_interp
from cnncc.targets.runtime import Runtime
from cnncc.tensor import DType, TensorType
from cnncc.verify.certificate import Check, Outcome

Arrays = Mapping[str, Array]


class Target:
    """A fused graph that can be run any number of times, compiled or (`machine` off)
    interpreted. It is compiled when it first runs, or with others by `compile_together`.
    """

    def __init__(
        self,
        fused: Fused,
        batch: int,
        *,
        machine: bool,
        dtype: DType = DType.F32,
        phases: Mapping[str, int] | None = None,
        guard: str = "",
        threads: int | None = None,
    ) -> None:
        self.fused, self.batch, self.machine, self.dtype = fused, batch, machine, dtype
        self.phases, self.guard, self.threads = phases, guard, threads
        self.kind = np.float32 if dtype is DType.F32 else np.float64

    @cached_property
    def runtime(self) -> Runtime:
        return Runtime(self.fused, store=Store(), phases=self.phases, dtype=self.dtype,
                       guard=self.guard, threads=self.threads)  # fmt: skip

    @cached_property
    def texts(self) -> tuple[list[str], list[str]]:
        """The kernel of each call, and the entries, as they are emitted."""
        return emitted(self.fused, self.phases, self.guard, self.dtype)

    def run(self, given: Arrays) -> dict[str, Array]:
        """Outputs by node name, and the new values of what the graph updates.

        `given`: inputs and parameters by node name.
        """
        graph = self.fused.graph
        if not self.machine:
            found = run_interp(self.fused, given, self.batch, self.kind)
            wanted = {n for _, n in graph.outputs} | {n for _, n in graph.updates}
            return {name: found[name] for name in wanted}
        store = self.runtime.store
        for node in graph.of("parameter"):
            store.write(node.name, given[node.name])
        inputs = {n.name: np.ascontiguousarray(given[n.name]) for n in graph.of("input")}
        with np.errstate(all="ignore"):
            public = self.runtime.run(inputs)
        results = {name: public[p] for p, name in graph.outputs}
        return results | {new: store.read(old) for old, new in graph.updates}


def emitted(
    fused: Fused, phases: Mapping[str, int] | None, guard: str = "", dtype: DType = DType.F32
) -> tuple[list[str], list[str]]:
    """The text of the kernel of each call on this machine, and those of the entries."""
    machine = detect()
    return program_texts(
        fused, dtype=dtype, guard=guard, phases=with_prepared(fused.graph, phases or {}),
        lanes=machine.lanes_f32 if dtype is DType.F32 else machine.lanes_f64,
    )  # fmt: skip


def compile_together(targets: Sequence[Target]) -> None:
    """Compile what several targets need, on all cores."""
    texts = [t.texts for t in targets if t.machine]
    kernels = [text for own, _ in texts for text in own]
    compile_ahead(kernels, [text for _, own in texts for text in own])


def interpreted(fused: Fused, given: Arrays, batch: int, kind: type = np.float32) -> Arrays:
    """Every tensor of a run by the definition."""
    with np.errstate(all="ignore"):
        return run_interp(fused, given, batch, kind)


def drawn(
    t: TensorType, batch: int, rng: np.random.Generator, *, whole: bool, positive: bool = False
) -> Array:
    """Floats of a type: normally distributed, or whole numbers from -4 to 4; above 0 if asked."""
    dims = t.dims(batch)
    if whole:
        found = rng.integers(1 if positive else -4, 5, dims).astype(np.float64)
    else:
        found = rng.standard_normal(dims)
        found = np.abs(found) + 0.5 if positive else found
    # float64 data are rounded to float32 too: both widths then start from the same numbers
    return found.astype(np.float32).astype(NUMPY[t.dtype])


def same_bits(name: str, a: Arrays, b: Arrays, tensors: Iterable[str]) -> Check:
    """Whether tensors are equal bit for bit; any NaN equals any other."""
    compared = 0
    for tensor in tensors:
        x, y = np.asarray(a[tensor]), np.asarray(b[tensor])
        if x.shape != y.shape or x.dtype != y.dtype:
            note = f"{tensor}: {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}"
            return Check(name, "differs", compared, note)
        compared += x.size
        wrong = _bits(x) != _bits(y)
        if x.dtype.kind == "f":
            wrong &= ~(np.isnan(x) & np.isnan(y))
        if wrong.any():
            return Check(name, "differs", compared, _where(tensor, x, y, wrong))
    return Check(name, "equal", compared)


def _bits(x: Array) -> Array:
    x = np.ascontiguousarray(x)
    return x.view(f"u{x.dtype.itemsize}") if x.dtype.kind == "f" else x


def _where(tensor: str, x: Array, y: Array, wrong: Array) -> str:
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{tensor}{list(at)}: {x[at]} and {y[at]}, {int(wrong.sum())} of {x.size} differ"


def same_numbers(name: str, a: Array, b: Array, what: str) -> Check:
    """Whether two arrays hold the same numbers, of whatever dtype."""
    if a.shape != b.shape:
        return Check(name, "differs", 0, f"{what}: {list(a.shape)} and {list(b.shape)}")
    wrong = (a != b) & ~((a != a) & (b != b))
    if np.any(wrong):
        return Check(name, "differs", int(a.size), _where(what, a, b, wrong))
    return Check(name, "equal", int(a.size))


def close(name: str, a: Array, b: Array, what: str, bound: float) -> Check:
    """Whether the relative L2 error of `a` against `b` (absolute where `b` is 0) is small."""
    if a.shape != b.shape:
        return Check(name, "differs", 0, f"{what}: {list(a.shape)} and {list(b.shape)}")
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return Check(name, "differs", int(a.size), f"{what}: NaN or infinity on one side only")
    x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
    error = float(np.linalg.norm(x - y)) / (float(np.linalg.norm(y)) or 1.0)
    outcome: Outcome = "close" if error <= bound else "differs"
    return Check(name, outcome, int(finite.sum()), f"{what}: relative error {error:.1e}")


def dyadic(*arrays: Array) -> bool:
    """Whether float32 sums of these numbers are exact: few binary digits, all below 2^20."""
    return all(
        bool(np.all(np.isfinite(a)) and np.all(np.abs(a) < 2.0**20)
             and np.all(a * 16 == np.rint(a * 16)))
        for a in arrays
    )  # fmt: skip
