"""Where every tensor of a program lies: its elements in its memory, and its memory in the arena.

Samples that have nothing to do with each other have a piece of the arena each. Otherwise what a
core writes of its samples lies, layer by layer, where another core has read or written before, and
a line of memory that another core has takes several times as long to be read, and to be written, as
one of the core's own caches. With a piece for each sample a line is of one sample, and so mostly of
one core, whatever lies there in turn. Tensors without positions have no part in it: their layers
take many samples together and are cut by their outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnncc.passes.plan import Life, Plan, plan
from cnncc.targets.cpu.layout import ALIGN, Placement, place
from cnncc.targets.cpu.tensors import Tensor
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Arrangement:
    """The arena, and the placement of every tensor. `piece`: bytes from the piece of a sample to
    the next, 0 where there are none; `inside`: the tensors that lie in pieces, whose offsets are
    those of the first sample.
    """

    plan: Plan
    places: dict[str, Placement]
    piece: int = 0
    inside: frozenset[str] = frozenset()


def one_after_another(lives: Mapping[str, Life], places: Mapping[str, Placement]) -> Arrangement:
    """The arrangement in which the samples of a tensor follow each other."""
    return Arrangement(plan(lives, {n: places[n].bytes for n in lives}), dict(places))


def by_samples(
    tensors: Mapping[str, Tensor],
    lives: Mapping[str, Life],
    places: Mapping[str, Placement],
    batch: int,
) -> Arrangement:
    """The arrangement in which every sample has a piece of the arena. Behind all of them lies what
    is not of one sample, such as what bands hand on, of which every thread has its own.
    """
    own = {n: life for n, life in lives.items() if _has_positions(tensors[n], places[n])}
    if not own:
        return one_after_another(lives, places)
    others = {n: life for n, life in lives.items() if n not in own}
    first = plan(own, {n: places[n].sample_bytes for n in own})
    shared = plan(others, {n: places[n].bytes for n in others})
    # an odd number of lines: the same places of all samples lie in different sets of a cache
    piece = (first.size // ALIGN | 1) * ALIGN
    found = _with_channels(tensors, {**places, **{n: places[n].in_pieces(piece) for n in own}})
    behind = (batch - 1) * piece + first.size
    offsets = {**first.offsets, **{n: behind + at for n, at in shared.offsets.items()}}
    size = behind + shared.size
    return Arrangement(Plan(offsets, size, lives), found, piece, frozenset(own))


def _has_positions(t: Tensor, p: Placement) -> bool:
    return t.type.batched and len(p.dims) > 2 and p.innermost != 0 and not t.cut


def placements(
    tensors: Mapping[str, Tensor], batch: int, symbols: Mapping[str, int], lanes: int
) -> dict[str, Placement]:
    """Where the elements of every tensor lie in its memory, for a batch and extents."""
    values = {**symbols, "*": batch}
    types = {n: t.type.concrete(values) for n, t in tensors.items()}
    found = {n: _placement(t, types[n], batch, lanes) for n, t in tensors.items()}
    return _with_channels(tensors, found)


def _with_channels(
    tensors: Mapping[str, Tensor], places: Mapping[str, Placement]
) -> dict[str, Placement]:
    """The placements, those of channels of another tensor where that one lies."""
    found = dict(places)
    for name, t in tensors.items():
        if t.slice_of:
            own = places[name]
            found[name] = found[t.slice_of].channels(own.type, own.dims, t.first_channel)
    return found


def _placement(t: Tensor, type: TensorType, batch: int, lanes: int) -> Placement:
    if t.space == "outside":
        dims = type.dims(batch)
        strides = tuple(int(np.prod(dims[a + 1 :], dtype=object)) for a in range(len(dims)))
        elements = int(np.prod(dims, dtype=object))
        return Placement(type, dims, strides, t.innermost or 0, 0, 0, 1, elements)
    if t.cut:  # a piece of memory for each lot of bands or strips
        return t.cut.place(type, batch, lanes)
    halo = t.border.halo if t.border else ()
    found = place(type, batch, t.innermost or 0, halo, lanes, t.panels)
    return found.with_planes() if t.planes else found
