"""The memory of parameters: one aligned block each, in the layout that kernels read, shared by all
programs of a model.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.arena import aligned_bytes
from cnncc.targets.cpu.layout import Placement


class Store:
    """Parameters and what is prepared from them, by name."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[Placement, Array]] = {}
        self._waiting: dict[str, Array] = {}
        self.version = 0  # counts changes, so that prepared values know when they are stale

    @property
    def bytes(self) -> int:
        return sum(p.bytes for p, _ in self._blocks.values()) + sum(
            a.nbytes for a in self._waiting.values()
        )

    def bytes_besides(self, names: Container[str]) -> int:
        """Bytes of all other tensors: those of a program count as it lays them out, which may take
        more than the arrays that wait for it.
        """
        blocks = sum(p.bytes for name, (p, _) in self._blocks.items() if name not in names)
        return blocks + sum(a.nbytes for name, a in self._waiting.items() if name not in names)

    def __contains__(self, name: str) -> bool:
        return name in self._blocks or name in self._waiting

    def allocate(self, name: str, placement: Placement) -> Array:
        """The block of a tensor, made on first use (zeroed)."""
        if name in self._blocks:
            known, flat = self._blocks[name]
            if known != placement:
                raise ValueError(f"{name} is laid out in two ways")
            return flat
        flat = aligned_bytes(max(placement.bytes, 64)).view(NUMPY[placement.type.dtype])
        self._blocks[name] = placement, flat
        if name in self._waiting:
            placement.pack(self._waiting.pop(name), flat)
        return flat

    def write(self, name: str, array: Array) -> None:
        """Set a tensor from its logical array; before the tensor has a layout the array waits."""
        if name in self._blocks:
            placement, flat = self._blocks[name]
            placement.pack(array, flat)
        else:
            self._waiting[name] = np.array(array)
        self.version += 1

    def read(self, name: str) -> Array:
        """A tensor's logical array, a copy. Raises KeyError for a tensor that was never written."""
        if name in self._waiting:
            return self._waiting[name].copy()
        placement, flat = self._blocks[name]
        return placement.unpack(flat)

    def names(self) -> list[str]:
        return [*self._blocks, *self._waiting]
