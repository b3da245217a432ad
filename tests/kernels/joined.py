"""Many small cases of operators as one graph, so that one program compiles, binds and runs them
all.

Every case becomes a node `y<i>` with inputs of its own: Input nodes where the operand has a batch
axis, Parameter nodes where it has none. Both targets run the graph, and every result has the case's
number in its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.layer import Init
from cnncc.graph.sources import Input, Parameter
from cnncc.ops.base import Array, Op
from cnncc.passes.fuse import fuse
from cnncc.passes.retype import retyped
from cnncc.targets.cpu.store import Store
from cnncc.targets.interp.runtime import DictStore, InterpRuntime
from cnncc.targets.runtime import Runtime
from cnncc.tensor import DType, TensorType

Case = tuple[Op, tuple[TensorType, ...]]


def source(b: Builder, t: TensorType, name: str) -> Node:
    """An Input for a type with a batch axis, a Parameter for one without."""
    return b.add(Input(t) if t.batched else Parameter(t, Init("zeros")), name=name)


def operand(case: int, position: int) -> str:
    return f"x{case}_{position}"


def joined(cases: Sequence[Case], dtype: DType = DType.F32) -> Graph:
    """One graph with output `y<i>` for the case number i; operand j of it is `x<i>_<j>`."""
    b = Builder("joined")
    outputs = []
    for i, (op, types) in enumerate(cases):
        operands = [source(b, t, operand(i, j)) for j, t in enumerate(types)]
        outputs.append((f"y{i}", b.add(op, *operands, name=f"y{i}")))
    return retyped(b.graph(outputs), dtype)


def joined_arrays(data: Sequence[Sequence[Array]]) -> dict[str, Array]:
    """The operands of all cases by node name."""
    return {operand(i, j): a for i, row in enumerate(data) for j, a in enumerate(row)}


@dataclass(frozen=True)
class Twice:
    """One graph on both targets."""

    graph: Graph
    cpu: Runtime
    interp: InterpRuntime

    def run(self, arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The outputs on the CPU and by the interpreter. `arrays`: by node name; parameters may be
        left out.
        """
        return self.on_cpu(arrays), self.by_interpreter(arrays)

    def on_cpu(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        _write(self.cpu.store, self.graph, arrays)
        return self.cpu.run(_inputs(self.graph, arrays))

    def by_interpreter(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        _write(self.interp.store, self.graph, arrays)
        with np.errstate(all="ignore"):
            return self.interp.run(_inputs(self.graph, arrays))


def both_targets(
    graph: Graph,
    *,
    dtype: DType = DType.F32,
    lanes: int | None = None,
    threads: int = 1,
    fused: bool = True,
    phases: Mapping[str, int] | None = None,
    apart: Sequence[frozenset[str]] = (),
) -> Twice:
    kernels = fuse(graph, enabled=fused, apart=apart, phases=dict(phases or {}))
    cpu = Runtime(kernels, store=Store(), phases=phases, dtype=dtype, lanes=lanes, threads=threads)
    alone = fuse(graph, enabled=False, phases=dict(phases or {}))
    return Twice(graph, cpu, InterpRuntime(alone, store=DictStore(), phases=phases, dtype=dtype))


def _write(store: Store | DictStore, graph: Graph, arrays: Mapping[str, Array]) -> None:
    for node in graph.of("parameter"):
        if node.name in arrays:
            store.write(node.name, arrays[node.name])


def _inputs(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {n.name: np.ascontiguousarray(arrays[n.name]) for n in graph.of("input")}
