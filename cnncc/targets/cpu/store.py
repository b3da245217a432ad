"""The memory of parameters: one aligned block each, in the layout that kernels read, shared by all
programs of a model.

A tensor may be given as a function that makes it. It is called when the tensor is needed, and what
it returns is kept in the layout of the kernels alone; initial values that a file of weights
replaces are never drawn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.arena import PAGE, aligned_bytes
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.locks import Lock

WORTH_A_THREAD = 4 << 20  # bytes: filling less takes as long as starting a thread or two


@dataclass(frozen=True)
class Later:
    """A tensor of `nbytes` bytes that is made when it is needed."""

    nbytes: int
    make: Callable[[], Array]


class Store:
    """Parameters and what is prepared from them, by name."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[Placement, Array]] = {}
        self._waiting: dict[str, Array | Later] = {}  # without a layout
        self._unfilled: dict[str, Array | Later] = {}  # values of blocks that do not hold them yet
        self._bare: set[str] = set()  # blocks without values of which no page exists yet
        self._lock = Lock()
        self.version = 0  # counts changes, so that prepared values know when they are stale
        self.growth = 0  # counts changes of `bytes`

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
        """The block of a tensor, made on first use; `fill` writes what waited for it, else it is
        zero.
        """
        with self._lock:
            if name in self._blocks:
                known, flat = self._blocks[name]
                if known != placement:
                    raise ValueError(f"{name} is laid out in two ways")
                return flat
            flat = aligned_bytes(max(placement.bytes, 64)).view(NUMPY[placement.type.dtype])
            self._blocks[name] = placement, flat
            self.growth += 1
            if name in self._waiting:
                self._unfilled[name] = self._waiting.pop(name)
            else:
                self._bare.add(name)
            return flat

    def fill(self, threads: int = 1) -> None:
        """Write the values of all blocks that still miss them, by at most so many threads. Blocks
        for what is prepared by a single one get their pages: the system takes as long to make them
        as preparing takes.
        """
        if not self._unfilled and not self._bare:
            return  # a test without the lock: every run asks
        with self._lock:
            size = {name: self._blocks[name][0].bytes for name in (*self._unfilled, *self._bare)}
            names = sorted(size, key=size.__getitem__)
            _share(names, self._fill_one, min(threads, 1 + sum(size.values()) // WORTH_A_THREAD))
            self._unfilled.clear()
            self._bare.clear()

    def _fill_one(self, name: str) -> None:
        placement, flat = self._blocks[name]
        if name in self._bare:
            flat[:: PAGE // flat.itemsize] = 0
        else:
            placement.pack(_made(self._unfilled[name]), flat)

    def write(self, name: str, array: Array) -> None:
        """Set a tensor from its logical array; before the tensor has a layout the array waits."""
        with self._lock:
            if name in self._blocks:
                placement, flat = self._blocks[name]
                placement.pack(array, flat)
                self._unfilled.pop(name, None)
                self._bare.discard(name)
            else:
                self._waiting[name] = np.array(array)
                self.growth += 1
            self.version += 1

    def write_later(self, name: str, nbytes: int, make: Callable[[], Array]) -> None:
        """Set a tensor to the logical array of `nbytes` bytes that `make` returns; it may be called
        at any time, by any thread, more than once.
        """
        with self._lock:
            if name in self._blocks:
                self._unfilled[name] = Later(nbytes, make)
                self._bare.discard(name)
            else:
                self._waiting[name] = Later(nbytes, make)
            self.growth += 1  # who runs without asking what is missing has to ask
            self.version += 1

    def read(self, name: str) -> Array:
        """A tensor's logical array, a copy. Raises KeyError for a tensor that was never written."""
        with self._lock:
            if name in self._waiting:
                self._waiting[name] = _made(self._waiting[name])  # not to be made twice
                return _made(self._waiting[name]).copy()
            if name in self._unfilled:
                self._fill_one(name)
                del self._unfilled[name]
            placement, flat = self._blocks[name]
            return placement.unpack(flat)

    def names(self) -> list[str]:
        return [*self._blocks, *self._waiting]


def _made(value: Array | Later) -> Array:
    return value.make() if isinstance(value, Later) else value


def _share(names: list[str], work: Callable[[str], None], threads: int) -> None:
    """Do the work for every name, the last ones first, by so many threads, this one among them.
    Raises what one of them raised.
    """
    raised: list[BaseException] = []

    def take() -> None:
        while names and not raised:
            try:
                name = names.pop()
            except IndexError:
                return  # another thread has taken the last one
            try:
                work(name)
            except BaseException as error:  # KeyboardInterrupt too: the caller raises it
                raised.append(error)

    others = [threading.Thread(target=take, name="cnncc-fill") for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    take()
    for thread in others:
        thread.join()
    if raised:
        raise raised[0]
