"""The certificate of a network: its kernels, its operators with their derivatives, and its programs
as a whole, in inference and in a training step.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from cnncc import __version__, compiler
from cnncc.errors import Diagnostic, SpecError, did_you_mean
from cnncc.graph.ir import Graph, Node
from cnncc.graph.module import Module
from cnncc.graph.sources import Input, Parameter, Source
from cnncc.ops.base import Array
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel
from cnncc.passes.training import seeded_graph, training_graph
from cnncc.passes.winograd import choices, with_winograd
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.machine import detect
from cnncc.train.init import initial
from cnncc.train.optim import Optimizer
from cnncc.verify.certificate import Certificate, Verdict
from cnncc.verify.isolate import Piece, label, pieces
from cnncc.verify.kernels import bounds_check, kernel_verdicts
from cnncc.verify.operators import operator_verdicts
from cnncc.verify.reduce import WIDE, reduced
from cnncc.verify.running import Target, drawn, interpreted, same_bits


@dataclass(frozen=True)
class Settings:
    """How to verify. `full`: nothing is made smaller; `layers`: only kernels and operators of
    these; `machine`: kernels are compiled, else interpreted.
    """

    full: bool = False
    layers: tuple[str, ...] = ()
    extents: Mapping[str, int] = field(default_factory=dict)
    batch: int = 2
    seed: int = 0
    machine: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class _Program:
    """A graph that runs: inference, or a step of training."""

    name: str
    graph: Graph
    module: Module
    phases: Mapping[str, int] | None
    guard: str
    forward: tuple[Node, ...]

    def fused(self, *, fuse: bool) -> Fused:
        # which algorithms run was decided on the network as it is, not on the smaller one
        return compiler.kernels(self.graph, self.module, fuse=fuse, phases=self.phases, exact=True)


def verify_network(
    source: str | os.PathLike[str],
    *,
    arguments: dict[str, bool | int | float] | None = None,
    settings: Settings = Settings(),
) -> Certificate:
    """Run everything that a certificate says. Raises SpecError for a text with mistakes and (E0810)
    for a layer that the network does not have.
    """
    start = time.perf_counter()
    checked = compiler.front(source, arguments=arguments)
    _require_layers(checked.graph, settings.layers)
    inference = reduced(checked.graph, settings.extents, full=settings.full)
    run = with_winograd(inference.graph, choices(checked.graph))
    programs = [_Program("inference", run, checked.module, None, "", inference.graph.nodes)]
    programs.append(_training(source, arguments, checked, inference.graph, settings))
    broken = [v for p in programs for v in _out_of_bounds(p, settings)]
    if broken:  # such a kernel could write anywhere: nothing is run
        return Certificate(
            checked.graph.name, tuple(broken), inference.text, settings.batch, settings.seed,
            time.perf_counter() - start, _versions(), _machine(settings),
            ("everything but bounds: a kernel that may leave its buffers is not run",),
        )  # fmt: skip
    verdicts: list[Verdict] = []
    found: list[Piece] = []
    actual: dict[str, Array] = {}
    tensors = []
    for number, program in enumerate(programs):
        verdict, kernels, arrays = _whole(program, settings)
        tensors.append(arrays)
        if not settings.layers:
            verdicts.append(verdict)
        wanted = [k for k in kernels if _of_layers(k.nodes, settings.layers)]
        new = pieces(program.graph, wanted, f"p{number}_")
        found += [
            Piece(p.graph, p.kernel, {s: f"{number}:{t}" for s, t in p.sources.items()}, p.places)
            for p in new
        ]
        actual |= {f"{number}:{n}": a for n, a in arrays.items()}
    how: dict[str, Any] = {
        "batch": settings.batch,
        "seed": settings.seed,
        "threads": settings.threads,
    }
    verdicts += kernel_verdicts(_distinct(found), actual, machine=settings.machine, **how)
    forward = [
        (p.graph, [n for n in p.forward if _of_layers([n], settings.layers)]) for p in programs
    ]
    verdicts += [
        v for v in operator_verdicts(forward, tensors, machine=settings.machine, **how) if v.checks
    ]
    return Certificate(
        checked.graph.name, tuple(verdicts), inference.text, settings.batch, settings.seed,
        time.perf_counter() - start, _versions(), _machine(settings),
    )  # fmt: skip


def _out_of_bounds(program: _Program, settings: Settings) -> list[Verdict]:
    """The kernels, fused or not, of which some access is not proved to be inside its buffer."""
    found = []
    for fused in (program.fused(fuse=True), program.fused(fuse=False)):
        for kernel in fused.kernels:
            check = bounds_check(kernel, settings.batch)
            if check.failed and _of_layers(kernel.nodes, settings.layers):
                found.append(Verdict("kernel", label(kernel), (check,), (label(kernel),)))
    return found


def _distinct(found: list[Piece]) -> list[Piece]:
    """Kernels that training shares with inference once."""
    seen: dict[object, Piece] = {}
    for piece in found:
        types = tuple(n.type for n in piece.graph.nodes)
        key = (piece.kernel.nest, types, tuple(n.op for n in piece.kernel.nodes))
        seen.setdefault(key, piece)
    return list(seen.values())


def _training(
    source: str | os.PathLike[str],
    arguments: dict[str, bool | int | float] | None,
    checked: compiler.Checked,
    inference: Graph,
    settings: Settings,
) -> _Program:
    """A step of the net's `train` block; without one, gradients of the outputs' inner products with
    given tensors.
    """
    if checked.module.training is None and not _has_training(checked):
        step = seeded_graph(inference, checked.module)
        return _Program("gradients", step.graph, checked.module, step.phases, "", ())
    trained = compiler.front(source, train=True, arguments=arguments)
    training = trained.module.training
    assert training is not None, "a net without a train block is refused by elaboration"
    smaller = reduced(trained.graph, settings.extents, full=settings.full).graph
    step = training_graph(smaller, trained.module, training.optimizer)
    return _Program("training step", step.graph, trained.module, step.phases, "loss",
                    smaller.nodes)  # fmt: skip


def _has_training(checked: compiler.Checked) -> bool:
    name = checked.graph.name
    return any(train.net == name for train in checked.program.top.tree.trains)


def _whole(
    program: _Program, settings: Settings
) -> tuple[Verdict, tuple[Kernel, ...], dict[str, Array]]:
    """The program fused and unfused against the definition, with its memory plan, its borders and
    its threads; its kernels; and every tensor of the run.
    """
    fused, alone = program.fused(fuse=True), program.fused(fuse=False)
    given = _given(program, settings)
    arrays = dict(interpreted(alone, given, settings.batch))
    wanted = [n for _, n in (*program.graph.outputs, *program.graph.updates)]
    wanted = [n for n in dict.fromkeys(wanted) if not isinstance(program.graph[n].op, Source)]
    checks = []
    for name, kernels in (("fused", fused), ("unfused", alone)):
        target = Target(
            kernels, settings.batch, machine=settings.machine, phases=program.phases,
            guard=program.guard, threads=settings.threads,
        )  # fmt: skip
        for again in ("", ", again"):  # what a first run leaves in memory must not matter
            checks.append(same_bits(f"{name} = interp{again}", target.run(given), arrays, wanted))
    places = tuple(label(k) for k in fused.kernels)
    return Verdict("program", program.name, tuple(checks), places), fused.kernels, arrays


def _given(program: _Program, settings: Settings) -> dict[str, Array]:
    """Random inputs, and parameters as they are before training but for zeros, which would hide
    what they multiply.
    """
    rng = np.random.default_rng(settings.seed)
    training = program.module.training
    classes = {t.name: t.classes for t in training.targets} if training else {}
    found: dict[str, Array] = {}
    for node in program.graph.nodes:
        if isinstance(node.op, Parameter):
            start = initial(node, settings.seed)
            if node.op.kind != "state" and not start.any() and node.op.init.literal is None:
                start = np.asarray(drawn(node.type, 0, rng, whole=False) / 4)
            found[node.name] = np.asarray(start, NUMPY[node.type.dtype])
        elif isinstance(node.op, Input):
            if node.type.dtype.is_float:
                found[node.name] = drawn(node.type, settings.batch, rng, whole=False)
                continue
            kind = np.dtype(NUMPY[node.type.dtype])
            most = 256 if kind == np.uint8 else min(classes.get(node.name) or 2, WIDE)
            dims = node.type.dims(settings.batch)
            found[node.name] = rng.integers(0, most, dims).astype(kind)
    if program.guard and training is not None:
        optimizer = Optimizer.of(training)
        found |= dict(optimizer.numbers(0, optimizer.rate(0)))
    return found


def _of_layers(nodes: Collection[Node], layers: Collection[str]) -> bool:
    return not layers or any((n.origin.layer or n.name) in layers for n in nodes)


def _require_layers(graph: Graph, layers: Collection[str]) -> None:
    known = list(dict.fromkeys(n.origin.layer or n.name for n in graph.nodes if n.inputs))
    for layer in layers:
        if layer in known:
            continue
        near = tuple(f"did you mean `{n}`?" for n in did_you_mean(layer, known))
        listed = f"its layers are {', '.join(known[:12])}" + ", ..." * (len(known) > 12)
        raise SpecError(
            Diagnostic("E0810", f"`{graph.name}` has no layer `{layer}`", helps=near or (listed,))
        )


def _versions() -> dict[str, str]:
    packages = ("numpy", "numba", "llvmlite")
    own = {"cnncc": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def _machine(settings: Settings) -> dict[str, Any]:
    machine = detect()
    return {
        "processor": platform.machine(),
        "system": platform.system(),
        "lanes_f32": machine.lanes_f32,
        "threads": settings.threads or machine.cores,
        "target": "cpu" if settings.machine else "interp",
    }
