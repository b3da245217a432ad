"""The pipeline, one page, top to bottom. Each step's comment is its type signature."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnncc.errors import Diagnostic, Diagnostics, SpecError
from cnncc.graph.declarations import check_declarations
from cnncc.graph.elaborate import elaborate
from cnncc.graph.faults import Faults
from cnncc.graph.imports import Program, read_program
from cnncc.graph.ir import Graph, TypedGraph
from cnncc.graph.locate import Located, locate
from cnncc.graph.module import Module
from cnncc.graph.text import print_graph
from cnncc.ops import LAYERS
from cnncc.passes.bf16 import with_bf16
from cnncc.passes.check import check, check_memory, is_planned, number
from cnncc.passes.choices import NONE, Choices
from cnncc.passes.fuse import Fused
from cnncc.passes.fuse import fuse as fuse_graph
from cnncc.passes.require import check_requirements
from cnncc.passes.winograd import algorithms, with_winograd
from cnncc.syntax.dump import dump

if TYPE_CHECKING:
    from cnncc.targets.cpu.memory import Need

Edges = frozenset[frozenset[str]]
"""Edges of a graph, each the names of its two nodes."""

FRONT_STAGES = ("tree", "graph", "typed")
"""Stages that `front_text` prints."""


@dataclass(frozen=True)
class Checked:
    """The verified graph, what the net says beside it, and the program both come from."""

    graph: TypedGraph
    module: Module
    program: Program


def front(
    source: str | os.PathLike[str],
    *,
    train: bool = False,
    arguments: dict[str, bool | int | float] | None = None,
) -> Checked:
    """Read, elaborate and check a network.

    `source` is a path (`net.cnn`, or `net.cnn:name` for one of several nets), the name of a
    built-in network, or a text of more than one line. With `train` the graph computes the loss too.
    Raises SpecError with every mistake that was found, TypeError for a source or argument of
    another kind.
    """
    found = locate(source)  # source -> text
    program = read_program(found.text, found.file, found.path)  # text -> trees
    graph, module = elaborate(  # tree -> Graph, Module
        program, LAYERS, net=found.net, arguments=arguments, train=train
    )
    return Checked(check(graph, module), module, program)  # Graph -> TypedGraph


def kernels(
    graph: Graph,
    module: Module,
    *,
    fuse: bool = True,
    phases: Mapping[str, int] | None = None,
    exact: bool = False,
    bf16: bool = False,
    choices: Choices = NONE,
    apart: Edges = frozenset(),
) -> Fused:
    """The kernels of a graph of the module's net, and the ledger: one reason per edge.

    `phases` is given for a training graph. With `exact` every sum has the order of its definition;
    without, convolutions of inference may be computed in fewer multiplications. With `bf16` layers
    of inference that use each weight once read their weights rounded to bf16. `choices` decide as
    far as they are `allowed`. Raises SpecError (E0503) when the spec requires a fusion that cannot
    be had. `require fused` speaks of inference: the kernels of training also write what backward
    reads, and its batch statistics need a whole convolution first, so of a training graph nothing
    is required; nor with `fuse` off, where every node is a kernel.
    """
    if phases is None and bf16:
        graph = with_bf16(graph)
    choices = allowed(choices, module)
    if phases is None and not exact:
        graph = with_winograd(graph, algorithms(graph, choices))
    alone = set(module.nofuse)
    edges = ((i, n.name) for n in graph.nodes for i in n.inputs)
    forbidden = frozenset(frozenset(edge) for edge in edges if alone.intersection(edge))
    found = fuse_graph(graph, enabled=fuse, apart=forbidden | apart, phases=dict(phases or {}))
    found = replace(found, batch=choices.batch)
    if fuse and phases is None and not apart:
        check_requirements(found, module)
    return found


def allowed(choices: Choices, module: Module) -> Choices:
    """What may choose algorithms: only the model for one sample where the net requires a fusion,
    which may hang on the algorithm of a layer in front of those that it names, or expects something
    of its memory. Tiles may be chosen by measuring everywhere.
    """
    if module.requirements or any(is_planned(e) for e in module.expectations):
        return Choices(widths=choices.widths)
    return choices


def planned(
    fused: Fused,
    *,
    phases: Mapping[str, int] | None = None,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    limit: int | None = None,
) -> Need:
    """The memory that the CPU target plans for a fused graph; nothing is compiled or allocated.

    `phases` is given for a training graph, `symbols` for inputs with symbolic extents. `limit`:
    bytes that may be held (by default half of the machine's), which a batch in portions heeds.
    """
    from cnncc.targets.cpu.memory import needed  # it asks the machine, which texts do without

    return needed(fused, phases=phases, batch=batch, symbols=symbols, limit=limit)


def check_claims(
    graph: TypedGraph,
    module: Module,
    *,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    exact: bool = False,
    bf16: bool = False,
    limit: int | None = None,
) -> None:
    """Check what the net claims of its compiled form: `require fused`, and conditions on `memory`.

    Both speak of fused inference, with `limit` as for `planned`. Conditions on memory wait until
    all symbolic extents are known. Raises SpecError (E0501, E0503).
    """
    claims = any(is_planned(e) for e in module.expectations)
    if not claims and not module.requirements:
        return
    fused = kernels(graph, module, exact=exact, bf16=bf16)
    open_extents = {s for n in graph.of("input") for s in n.type.symbols} - set(symbols or {})
    if claims and not open_extents:
        from cnncc.targets.cpu.portions import at_a_time

        need = planned(fused, batch=batch, symbols=symbols, limit=limit)
        parts = (
            f"at batch {batch}{at_a_time(need.portion, batch)}: "
            f"{number(need.activations)} bytes of activations, "
            f"{number(need.parameters)} of parameters"
        )
        check_memory(module, need.peak, parts)


def front_text(
    source: str | os.PathLike[str],
    stage: str,
    *,
    train: bool = False,
    arguments: dict[str, bool | int | float] | None = None,
) -> str:
    """The text of a stage of the front end: `tree`, `graph` (before the check), or `typed`.

    Raises ValueError for another stage, and what `front` raises.
    """
    if stage not in FRONT_STAGES:
        raise ValueError(f"a stage is one of {', '.join(FRONT_STAGES)}, but got {stage!r}")
    found = locate(source)
    program = read_program(found.text, found.file, found.path)
    if stage == "tree":
        return dump(program.top.tree)
    graph, module = elaborate(program, LAYERS, net=found.net, arguments=arguments, train=train)
    return print_graph(graph if stage == "graph" else check(graph, module), places=True)


def check_file(source: str | os.PathLike[str]) -> tuple[Diagnostic, ...]:
    """Every mistake of a source, () when it is clean.

    All nets of the file are checked, each as it is and with the loss of its `train` block; a net
    with a parameter that has no default is checked when it is compiled with a value for it.
    """
    found = Diagnostics()
    try:
        located = locate(source)
        program = read_program(located.text, located.file, located.path)
    except SpecError as error:
        return error.diagnostics
    faults = Faults()
    check_declarations(program, faults)
    found.extend(faults.found)
    for name in _checkable_nets(located, program):
        try:
            _check_net(program, name)
        except SpecError as error:
            found.extend(error.diagnostics)
    return found.sorted()


def _checkable_nets(located: Located, program: Program) -> list[str | None]:
    if located.net is not None:
        return [located.net]
    return [n.name for n in program.nets if all(p.default is not None for p in n.parameters)]


def _check_net(program: Program, name: str | None) -> None:
    chosen = next((net.name for net in program.nets if net.name == name), None)
    trained = any(train.net == chosen for train in program.top.tree.trains)
    graph, module = elaborate(program, LAYERS, net=name)
    check_claims(check(graph, module), module)
    if trained:
        elaborate(program, LAYERS, net=name, train=True)
