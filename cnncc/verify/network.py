"""The certificate of a network: its kernels, its operators with their derivatives, and its programs
as a whole, in inference and in a training step.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from cnncc import __version__
from cnncc.errors import Diagnostic, SpecError, did_you_mean
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Source
from cnncc.loops.key import nest_key
from cnncc.ops.base import Array
from cnncc.targets.cpu.machine import detect
from cnncc.verify.certificate import Certificate, Verdict
from cnncc.verify.isolate import Piece, label, pieces
from cnncc.verify.kernels import Kernels, bounds_check
from cnncc.verify.operators import Operators
from cnncc.verify.original import Original
from cnncc.verify.programs import Network, Program, Settings, given
from cnncc.verify.running import Target, compile_together, interpreted, same_bits


def verify_network(
    source: str | os.PathLike[str],
    *,
    arguments: dict[str, bool | int | float] | None = None,
    settings: Settings | None = None,
) -> Certificate:
    """Run everything that a certificate says. Raises SpecError for a text with mistakes and (E0810)
    for a layer that the network does not have.
    """
    start, settings = time.perf_counter(), settings or Settings()
    network = Network.read(source, arguments)
    _require_layers(network.checked.graph, settings.layers)
    programs, smaller = network.smaller(settings)
    verdicts = [v for p in programs for v in _out_of_bounds(p, settings)]
    skipped: tuple[str, ...] = ()
    if verdicts:  # such a kernel could write anywhere
        skipped = ("everything but bounds: a kernel that may leave its buffers is not run",)
    else:
        verdicts = _Runs(network, programs, settings, reduced=bool(smaller)).verdicts()
    return Certificate(
        network.checked.graph.name, tuple(verdicts), smaller, settings.batch, settings.seed,
        time.perf_counter() - start, _versions(), _machine(settings), skipped,
    )  # fmt: skip


def _out_of_bounds(program: Program, settings: Settings) -> list[Verdict]:
    """The kernels, fused or not, of which some access is not proved to be inside its buffer."""
    found = []
    for fused in (program.fused, program.unfused):
        for kernel in fused.kernels:
            check = bounds_check(kernel, settings.batch)
            if check.failed and _of_layers(kernel.nodes, settings.layers):
                found.append(Verdict("kernel", label(kernel), (check,), (label(kernel),)))
    return found


class _Runs:
    """Everything that is compiled, at once, and then run."""

    def __init__(
        self, network: Network, programs: Sequence[Program], settings: Settings, *, reduced: bool
    ) -> None:
        self.programs, self.settings = programs, settings
        batch, machine, threads = settings.batch, settings.machine, settings.threads
        self.whole = [
            (p.target(p.fused, batch, settings), p.target(p.unfused, batch, settings))
            for p in programs
        ]
        found = _distinct([_numbered(k, p) for k, p in enumerate(programs)], settings.layers)
        self.kernels = Kernels(found, batch, machine=machine, threads=threads) if found else None
        forward = [
            (p.graph, [n for n in p.forward if _of_layers([n], settings.layers)]) for p in programs
        ]
        self.operators = Operators(forward, batch, machine=machine, threads=threads)
        targets = [t for pair in self.whole for t in pair]
        targets += self.kernels.targets if self.kernels else ()
        targets += [self.operators.exact] if self.operators.exact else []
        self.original: Original | None = None
        if reduced and not settings.layers:
            ran = (text for t in targets if machine for text in t.texts[0])
            self.original = Original(network, settings, ran)
            targets += self.original.targets
        compile_together(targets)

    def verdicts(self) -> list[Verdict]:
        """Programs, kernels, operators, and what is said of the network as it is."""
        tensors, found = [], []
        for program, targets in zip(self.programs, self.whole, strict=True):
            verdict, arrays = _whole(program, targets, self.settings)
            tensors.append(arrays)
            found += [] if self.settings.layers else [verdict]
        if self.kernels:
            actual = {f"{k}:{n}": a for k, arrays in enumerate(tensors) for n, a in arrays.items()}
            found += self.kernels.verdicts(actual, self.settings.seed)
        found += self.operators.verdicts(tensors, self.settings.seed)
        return found + (self.original.verdicts() if self.original else [])


def _numbered(number: int, program: Program) -> list[Piece]:
    """The kernels of a program; its tensors have its number in front."""
    found = pieces(program.graph, program.fused.kernels, f"p{number}_")
    return [
        replace(
            p,
            sources={s: f"{number}:{t}" for s, t in p.sources.items()},
            results={s: f"{number}:{t}" for s, t in p.results.items()},
        )
        for p in found
    ]


def _distinct(found: Sequence[Sequence[Piece]], layers: Collection[str]) -> list[Piece]:
    """Kernels of some layers; those that training shares with inference once."""
    seen: dict[object, Piece] = {}
    for piece in (p for own in found for p in own):
        if not _of_layers(piece.kernel.nodes, layers):
            continue
        types = tuple(n.type for n in piece.graph.nodes)
        key = (nest_key(piece.kernel.nest), types, tuple(n.op for n in piece.kernel.nodes))
        seen.setdefault(key, piece)
    return list(seen.values())


def _whole(
    program: Program, targets: Sequence[Target], settings: Settings
) -> tuple[Verdict, dict[str, Array]]:
    """The program fused and unfused against the definition, with its memory plan, its borders and
    its threads; and every tensor of the run.
    """
    data = given(program, settings.batch, settings.seed)
    arrays = dict(interpreted(program.unfused, data, settings.batch))
    wanted = [n for n in program.results if not isinstance(program.graph[n].op, Source)]
    checks = []
    for name, target in zip(("fused", "unfused"), targets, strict=True):
        for again in ("", ", again"):  # what a first run leaves in memory must not matter
            checks.append(same_bits(f"{name} = interp{again}", target.run(data), arrays, wanted))
    places = tuple(label(k) for k in program.fused.kernels)
    return Verdict("program", program.name, tuple(checks), places), arrays


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
