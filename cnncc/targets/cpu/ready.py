"""A call of the same kind as the last one, with nothing left to find out.

A small network runs in less time than Python takes to look up what depends on shapes alone. So a
runtime remembers, for arrays of one kind, where their addresses go and what runs; all that is
checked of an array is checked again, and what is not as before takes the long way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnncc.targets.arrays import Array
from cnncc.targets.cpu.arena import address_of
from cnncc.targets.cpu.binding import Binding
from cnncc.targets.cpu.store import Store
from cnncc.targets.cpu.team import Team


class Ready:
    """One phase of a binding, for the inputs `names` in this order.

    `version`: that of the parameters which everything prepared from them belongs to, None where
    nothing is prepared. Raises KeyError when the phase does not read one of the inputs.
    """

    __slots__ = (
        "_binding",
        "_entry",
        "_growth",
        "_inputs",
        "_pool",
        "_results",
        "_store",
        "_team",
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
        self._inputs = tuple((w, f.dims, f.dtype) for w, f in (given[name] for name in names))
        self._results = tuple((o, w, f.dims, f.dtype) for o, w, f in exchange.outputs)
        self._team, self._store, self._version = team, store, version
        self._growth = store.growth  # decides, with the memory limit, how many samples run at once

    def run(self, arrays: Sequence[Any]) -> dict[str, Array] | None:
        """New results by public name; None, and nothing has run, unless the arrays are
        C-contiguous, writeable NumPy arrays of the known shapes and types, and the parameters and
        the memory that the store takes as they were.
        """
        inputs = self._inputs
        if len(arrays) != len(inputs):
            return None
        store = self._store
        if store.growth != self._growth:
            return None
        if self._version is not None and store.version != self._version:
            return None
        for array, (_, shape, dtype) in zip(arrays, inputs, strict=True):
            same = type(array) is np.ndarray and array.shape == shape and array.dtype is dtype
            if not same or not array.flags.carray:
                return None
        pool = self._pool
        arena = pool.take()
        try:
            job, place = self._binding.placed_job(arena)
            for array, (word, _, _) in zip(arrays, inputs, strict=True):
                job[word] = address_of(array)
            results = {}
            for public, word, shape, dtype in self._results:
                results[public] = result = np.empty(shape, dtype)
                job[word] = address_of(result)
            self._team.run(self._entry, job, place)
        finally:
            pool.release(arena)
        return results
