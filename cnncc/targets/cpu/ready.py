"""A call of the same kind as the last one, with nothing left to find out.

A small network runs in less time than Python takes to look up what depends on shapes alone. So a
runtime remembers, for arrays of one kind, where their addresses go and what runs; all that is
checked of an array is checked again, and what is not as before takes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import addressof, c_char, c_int64
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.targets.arrays import Array
from cnncc.targets.cpu.arena import address_of
from cnncc.targets.cpu.binding import Binding
from cnncc.targets.cpu.pace import Pace
from cnncc.targets.cpu.store import Store
from cnncc.targets.cpu.team import Team

COPIED = 4096
"""Bytes of a result up to which a copy takes less time than finding out where a new array lies."""

bytes_of: Any = c_char.from_buffer  # of a writeable array, else as `address_of` in less time


@dataclass(frozen=True, slots=True)
class _Place:
    """A job table of our own for one arena, with its words and address, and the arrays to which the
    kernels write those results that are copied.
    """

    job: Array
    words: Any  # the same memory; writing a word takes less time than through NumPy
    address: int
    copied: tuple[tuple[str, Array], ...]


class Ready:
    """One phase of a binding, for the inputs `names` in this order.

    `version`: that of the parameters which everything prepared from them belongs to, None where
    nothing is prepared. Raises KeyError when the phase does not read one of the inputs.
    """

    __slots__ = (
        "_binding",
        "_by_name",
        "_by_position",
        "_copied",
        "_entry",
        "_growth",
        "_pace",
        "_places",
        "_pool",
        "_results",
        "_store",
        "_version",
    )

    def __init__(
        self,
        binding: Binding,
        phase: int,
        names: Sequence[str],
        team: Team,
        store: Store,
        version: int | None,
    ) -> None:
        exchange = binding.exchange(phase)
        given = {name: (word, form) for name, word, form in exchange.inputs}
        self._binding, self._pool = binding, binding.pool
        self._entry: int = binding.program.entries[phase].address
        inputs = [(w, f.dims, f.dtype) for w, f in (given[name] for name in names)]
        self._by_position = tuple((number, *i) for number, i in enumerate(inputs))
        self._by_name = tuple((name, *i) for name, i in zip(names, inputs, strict=True))
        results = [(o, w, f.dims, f.dtype) for o, w, f in exchange.outputs]
        small = [r for r in results if int(np.prod(r[2])) * r[3].itemsize <= COPIED]
        self._copied = tuple(small)
        self._results = tuple(r for r in results if r not in small)
        self._places: dict[int, _Place] = {}  # by the identity of the arena, which is the pool's
        self._pace = Pace(team)
        self._store, self._version = store, version
        self._growth = store.growth  # decides, with the memory limit, how many samples run at once

    def run(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Array] | None:
        """New results by public name; None, and nothing has run, unless all inputs are given, by
        position or all by name, as C-contiguous, writeable NumPy arrays of the known shapes and
        types, and the parameters and the memory that the store takes are as they were.
        """
        store = self._store
        if store.growth != self._growth:
            return None
        if self._version is not None and store.version != self._version:
            return None
        inputs: Any = self._by_name if named else self._by_position
        if len(arrays) + len(named) != len(inputs):
            return None
        found = []
        for key, word, shape, dtype in inputs:
            array: Any = named.get(key) if named else arrays[key]
            same = type(array) is np.ndarray and array.shape == shape and array.dtype is dtype
            if not same or not array.flags.carray:
                return None
            found.append((word, addressof(bytes_of(array))))
        pool = self._pool
        arena = pool.take()
        try:
            place = self._places.get(id(arena)) or self._placed(arena)
            words = place.words
            for word, address in found:
                words[word] = address
            results = {}
            for public, word, shape, dtype in self._results:
                results[public] = result = np.empty(shape, dtype)
                words[word] = address_of(result)
            self._pace.run(self._entry, place.job, place.address)
            for public, written in place.copied:
                results[public] = written.copy()
        finally:
            pool.release(arena)
        return results

    def _placed(self, arena: Array) -> _Place:
        """The place of an arena, made when it is first met."""
        job = self._binding.job_in(arena).copy()
        copied = []
        for public, word, shape, dtype in self._copied:
            written = np.empty(shape, dtype)
            job[word] = written.ctypes.data
            copied.append((public, written))
        words = (c_int64 * len(job)).from_address(address_of(job))
        place = self._places[id(arena)] = _Place(job, words, address_of(job), tuple(copied))
        return place
