"""The memory that a network will need, planned without compiling it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnncc import compiler
from cnncc.cli.output import amount
from cnncc.cli.stages import Request

Memory = Mapping[str, Mapping[str, int]]


def planned_memory(
    net: str, arguments: Mapping[str, bool | int | float], precision: str = "default"
) -> dict[str, Any]:
    """Bytes planned for `inference` of one sample, in that precision, and, with a `train` block,
    for `training` at its batch: `batch`, `activations` (the arena), `parameters` (all that outlives
    a run) and their sum, `peak`. Empty when they depend on symbolic extents.

    Raises SpecError (E0501, E0503) when the net claims otherwise, and what `compiler.front` raises.
    """
    requests = {"inference": Request(net, arguments, precision=precision)}
    training = requests["inference"].checked.module.training
    if training is not None:
        requests["training"] = Request(net, arguments, train=True, batch=training.batch)
    found = {}
    for name, request in requests.items():
        fused = request.fused()
        if request.symbols:
            return {}
        phases = request.step.phases if request.step else None
        need = compiler.planned(fused, phases=phases, batch=request.batch)
        found[name] = {
            "batch": request.batch,
            "activations": need.activations,
            "parameters": need.parameters,
            "peak": need.peak,
        }
    return found


def memory_lines(memory: Memory) -> list[str]:
    """The plans as lines of a report; none when nothing is known."""
    return [
        f"{'memory' if number == 0 else '':12} {amount(plan['activations'])} of activations, "
        f"{amount(plan['parameters'])} of parameters: {run} at batch {plan['batch']}"
        for number, (run, plan) in enumerate(memory.items())
    ]
