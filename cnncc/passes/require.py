"""`require fused(a, b, c)`: the compile fails when the named layers are not one kernel, and says
which edge is to blame.
"""

from __future__ import annotations

from collections.abc import Iterator

from cnncc.errors import Diagnostic, Note, SpecError
from cnncc.graph.module import Module, Requirement
from cnncc.passes.fuse import Fused, Verdict
from cnncc.passes.plan import prepared


def check_requirements(fused: Fused, module: Module) -> None:
    """Requires: a fused graph of the module's net. Raises SpecError (E0503) with every requirement
    that is not met. What is computed from parameters alone needs no place in the kernel.
    """
    found = [d for r in module.requirements for d in _broken(fused, r)]
    if found:
        raise SpecError(found)


def _broken(fused: Fused, requirement: Requirement) -> Iterator[Diagnostic]:
    once = prepared(fused.graph)  # such as the scale and shift of a normalisation
    layers = {name: tuple(n for n in nodes if n not in once) for name, nodes in requirement.layers}
    kernel_of = {n.name: {i} for i, k in enumerate(fused.kernels) for n in k.nodes}
    for (
        part,
        place,
    ) in fused.slices.items():  # a concat in place is made by the kernels of its parts
        kernel_of.setdefault(place.whole, set()).update(kernel_of[part])
    used = [
        set[int]().union(*(kernel_of.get(n, set()) for n in nodes)) for nodes in layers.values()
    ]
    joined = [v for v in fused.ledger if v.fused and v.rule == "concat in place"]
    named = {n for members in layers.values() for n in members}
    wholes = {v.consumer for v in joined if v.consumer in named}
    in_place = wholes and all(
        set(nodes) & (wholes | {v.producer for v in joined if v.consumer in wholes})
        for nodes in layers.values()
    )
    if in_place or len(set().union(*used)) <= 1:
        return
    nodes = {n for members in layers.values() for n in members}
    apart = [v for v in fused.ledger if not v.fused and {v.producer, v.consumer} <= nodes]
    names = ", ".join(f"`{n}`" for n in layers)
    yield Diagnostic(
        "E0503",
        f"{names} {'is' if len(layers) == 1 else 'are'} not one kernel",
        requirement.span,
        "required here",
        notes=tuple(Note(_because(v)) for v in apart[:3])
        or (Note("no edge leads from one to the other"),),
        helps=("drop the requirement, or name only layers that one anchor can carry",),
    )


def _because(v: Verdict) -> str:
    return f"{v.producer} -> {v.consumer} is not fused ({v.rule}): {v.reason}"
