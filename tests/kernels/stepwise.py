"""Kernels of a graph called one by one, without an entry: it runs once, and compiling a page that
calls thousands of kernels takes longer than compiling them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from cnncc.graph.ir import Graph
from cnncc.passes.fuse import fuse
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.arena import aligned_bytes
from cnncc.targets.cpu.binding import Binding, bind
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.program import compile_program
from cnncc.targets.cpu.store import Store
from cnncc.targets.load import load_module
from cnncc.targets.runtime import shape_of, with_prepared
from cnncc.tensor import DType
from tests.kernels.joined import Array

SHARES = 3


def on_kernels(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by public name, every node by a kernel of its own, in SHARES shares one after
    the other. `arrays`: inputs and parameters by node name.
    """
    machine = detect()
    fused = fuse(graph, enabled=False)
    program = compile_program(
        fused, dtype=DType.F32, lanes=machine.lanes_f32, phases=with_prepared(graph, {})
    )
    store = Store()
    shape = shape_of(graph, {n.name: arrays[n.name] for n in graph.of("input")})
    binding = bind(
        program, shape.batch, dict(shape.symbols), store, limit=machine.memory_limit // 2,
        threads=SHARES,
    )  # fmt: skip
    for node in graph.of("parameter"):
        store.write(node.name, arrays[node.name])
    given = {f"in:{n.name}": np.ascontiguousarray(arrays[n.name]) for n in graph.of("input")}
    results = {}
    for public, _ in graph.outputs:
        place = binding.placements[f"out:{public}"]
        results[public] = given[f"out:{public}"] = np.empty(place.dims, NUMPY[place.type.dtype])
    _run(binding, given)
    return results


def _run(binding: Binding, outside: Mapping[str, Array]) -> None:
    program = binding.program
    arena = aligned_bytes(max(binding.plan.size, 64))
    arena[:] = 0xFF  # no kernel may count on memory that nothing has written: this is NaN
    job = binding.job_in(arena)
    for name, array in outside.items():
        if name in program.slots:
            job[2 * program.slots[name] + 2] = array.ctypes.data
    firsts = accumulate((s.places for s in program.steps), initial=0)
    for step, first in sorted(zip(program.steps, firsts, strict=False), key=lambda s: s[0].phase):
        kernel = load_module(step.text, kind="kernel").kernel
        places = [int(job[2 * program.slots[name] + 2]) for name in step.tensors]
        words = [ctypes.c_void_p] * (len(places) + 1) + [ctypes.c_int64] * 3
        call = ctypes.CFUNCTYPE(None, *words)(kernel.address)
        for share in range(SHARES):
            call(*places, int(job[0]), first + 1, share, SHARES)
