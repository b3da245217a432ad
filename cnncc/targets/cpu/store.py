"""The memory of parameters: one aligned block each, in the layout that kernels read, shared by all programs of a model."""

from __future__ import annotations

import numpy as np

from cnncc.targets.cpu.arena import aligned_bytes
from cnncc.targets.cpu.layout import Placement

Array = np.ndarray  # type: ignore[type-arg]


class Store:
    """Parameters and what is prepared from them, by name."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[Placement, Array]] = {}
        self.version = 0  # counts changes, so that prepared values know when they are stale

    @property
    def bytes(self) -> int:
        return sum(p.bytes for p, _ in self._blocks.values())

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def allocate(self, name: str, placement: Placement) -> Array:
        """The block of a tensor, made on first use (zeroed)."""
        if name in self._blocks:
            known, flat = self._blocks[name]
            if known != placement:
                raise ValueError(f"{name} is laid out in two ways")
            return flat
        from cnncc.targets.cpu.binding import NUMPY

        flat = aligned_bytes(max(placement.bytes, 64)).view(NUMPY[placement.type.dtype])
        self._blocks[name] = placement, flat
        return flat

    def write(self, name: str, array: Array) -> None:
        """Set a tensor from its logical array."""
        placement, flat = self._blocks[name]
        placement.pack(array, flat)
        self.version += 1

    def read(self, name: str) -> Array:
        """A tensor's logical array, a copy."""
        placement, flat = self._blocks[name]
        return placement.unpack(flat)

    def names(self) -> list[str]:
        return list(self._blocks)
