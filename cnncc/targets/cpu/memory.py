"""How much memory a network needs, computed without compiling or allocating anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnncc.passes.fuse import Fused
from cnncc.passes.plan import plan
from cnncc.targets.cpu.declare import Tensor, declare, with_prepared
from cnncc.targets.cpu.layout import Placement, place
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Need:
    """Bytes of a run: the arena with everything that is computed, and what lasts between runs
    (parameters, the optimizer's state, constants, values prepared from parameters).
    """

    activations: int
    parameters: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.activations + self.parameters


def needed(
    fused: Fused,
    *,
    phases: Mapping[str, int] | None = None,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    lanes: int | None = None,
) -> Need:
    """What the program of a fused graph plans to hold, to the byte, on this machine or one with
    vectors of `lanes` float32.

    `phases` is given for a training graph; `symbols` for inputs with symbolic extents.
    """
    lanes = lanes or vector_lanes()
    declared = declare(fused, lanes=lanes, phases=with_prepared(fused.graph, phases or {}))
    places = placements(declared.tensors, batch, symbols or {}, lanes)
    lives = declared.lives([kernel.tensors for _, kernel in declared.kernels])
    arena = plan(lives, {name: places[name].bytes for name in lives})
    return Need(arena.size, sum(lasting(declared.tensors, places).values()))


def placements(
    tensors: Mapping[str, Tensor], batch: int, symbols: Mapping[str, int], lanes: int
) -> dict[str, Placement]:
    """Where the elements of every tensor lie in its memory, for a batch and extents."""
    values = {**symbols, "*": batch}
    types = {n: t.type.concrete(values) for n, t in tensors.items()}
    found = {n: _placement(t, types[n], batch, lanes) for n, t in tensors.items()}
    for name, t in tensors.items():
        if t.slice_of:
            whole = found[t.slice_of]
            found[name] = whole.channels(types[name], found[name].dims, t.first_channel)
    return found


def lasting(tensors: Mapping[str, Tensor], places: Mapping[str, Placement]) -> dict[str, int]:
    """Bytes of the tensors that outlive a run, by the name of the memory that they share."""
    kept = ((n, t) for n, t in tensors.items() if t.space in ("store", "constant"))
    return {t.alias or n: places[n].bytes for n, t in kept}


def _placement(t: Tensor, type: TensorType, batch: int, lanes: int) -> Placement:
    if t.space == "outside":
        dims = type.dims(batch)
        strides = tuple(int(np.prod(dims[a + 1 :], dtype=object)) for a in range(len(dims)))
        elements = int(np.prod(dims, dtype=object))
        return Placement(type, dims, strides, t.innermost or 0, 0, 0, 1, elements)
    halo = t.border.halo if t.border else ()
    return place(type, batch, t.innermost or 0, halo, lanes, t.panels)
