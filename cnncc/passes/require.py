"""`require fused(a, b, c)`: the compile fails when the named layers are not one kernel, and says
which edge is to blame.
"""

from __future__ import annotations

from collections.abc import Iterator

from cnncc.errors import Diagnostic, Note, SpecError
from cnncc.graph.module import Module, Requirement
from cnncc.passes.fuse import Fused, Verdict


def check_requirements(fused: Fused, module: Module) -> None:
    """Requires: a fused graph of the module's net. Raises SpecError (E0503) with every requirement
    that is not met.
    """
    found = [d for r in module.requirements for d in _broken(fused, r)]
    if found:
        raise SpecError(found)


def _broken(fused: Fused, requirement: Requirement) -> Iterator[Diagnostic]:
    layers = dict(requirement.layers)
    kernel_of = {n.name: i for i, k in enumerate(fused.kernels) for n in k.nodes}
    used = {name: {kernel_of[n] for n in nodes if n in kernel_of} for name, nodes in layers.items()}
    if len(set().union(*used.values())) <= 1:
        return
    nodes = {n for members in layers.values() for n in members}
    apart = [v for v in fused.ledger if not v.fused and {v.producer, v.consumer} <= nodes]
    names = ", ".join(f"`{n}`" for n in layers)
    yield Diagnostic(
        "E0503",
        f"{names} are not one kernel",
        requirement.span,
        "required here",
        notes=tuple(Note(_because(v)) for v in apart[:3])
        or (Note("no edge leads from one to the other"),),
        helps=("drop the requirement, or name only layers that one anchor can carry",),
    )


def _because(v: Verdict) -> str:
    return f"{v.producer} -> {v.consumer} is not fused ({v.rule}): {v.reason}"
