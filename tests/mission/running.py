"""Running small texts in the tests of the lecture table: a network of one input and one output,
with given parameters, through the interpreter (which defines the bits) or the CPU kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import cnncc
from cnncc.compiler import front
from cnncc.graph.ir import Builder, TypedGraph
from cnncc.graph.sources import Input, Parameter
from cnncc.ops.base import Array
from cnncc.passes.differentiate import gradients
from cnncc.passes.fuse import Fused, fuse
from cnncc.targets.interp.program import run_interp


def net(shape: Sequence[int], body: str, before: str = "") -> str:
    """The text of a network on one input `x`, whose output `y` is the pipeline `body`."""
    return f"{before}\nnet small {{\n  input x: f32{list(shape)}\n  output y = x -> {body}\n}}\n"


def integers(shape: Sequence[int], seed: int = 0) -> Array:
    """Whole numbers from -4 to 4, whose sums of products float32 holds exactly."""
    return np.random.default_rng(seed).integers(-4, 5, tuple(shape)).astype(np.float32)


class Run:
    """One network: its value and its gradients, fused or not, in float32 or float64."""

    def __init__(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        fused: bool = True,
        dtype: type[np.float32] | type[np.float64] = np.float32,
        seed: int = 0,
    ) -> None:
        self.text, self.fused, self.dtype = text, fused, dtype
        self.graph: TypedGraph = front(text).graph
        self.parameters = {
            n.name: integers(n.type.dims(1), seed + i)
            for i, n in enumerate(n for n in self.graph.nodes if isinstance(n.op, Parameter))
        }
        self.parameters |= {k: np.asarray(v, np.float32) for k, v in (parameters or {}).items()}
        self.input = next(n.name for n in self.graph.nodes if isinstance(n.op, Input))
        self.output = self.graph.outputs[0][1]

    @property
    def shape(self) -> tuple[Any, ...]:
        """The output's shape, without the batch."""
        return self.graph[self.output].type.shape

    def _given(self, x: Array) -> dict[str, Array]:
        arrays = {**self.parameters, self.input: x}
        return {k: np.asarray(v).astype(self.dtype) for k, v in arrays.items()}

    def kernels(self) -> Fused:
        return fuse(self.graph, enabled=self.fused)

    def __call__(self, x: Any) -> Array:
        """The value on a batch."""
        x = np.asarray(x)
        return run_interp(self.kernels(), self._given(x), len(x), self.dtype)[self.output]

    def one(self, x: Any) -> Array:
        """The value on one sample."""
        return self(np.asarray(x)[None])[0]

    def backward(self, x: Any, dy: Any) -> dict[str, Array]:
        """The gradients for the input and all parameters that have one."""
        x = np.asarray(x)
        b = Builder.of(self.graph)
        seed = b.add(Input(self.graph[self.output].type), name="dy")
        found = gradients(b, {self.output: seed}, [self.input, *self.parameters])
        results = [*self.graph.outputs, *((f"d.{k}", n) for k, n in found.items())]
        graph = b.graph([(k, b[n] if isinstance(n, str) else n) for k, n in results])
        given = {**self._given(x), "dy": np.asarray(dy).astype(self.dtype)}
        values = run_interp(fuse(graph, enabled=self.fused), given, len(x), self.dtype)
        return {name: values[node.name] for name, node in found.items()}

    def on_cpu(self, x: Any, *, train: bool = False) -> cnncc.Model:
        """The compiled network with the same parameters."""
        model = cnncc.compile(self.text, batch=len(np.asarray(x)), train=train)
        model.load_state_dict(self.parameters)
        return model


def slope(run: Run, x: Array, dy: Array, *, step: float = 1e-6) -> Array:
    """The gradient of <y, dy> for x by central differences; `run` is in float64."""
    result = np.zeros(x.shape)
    for at in np.ndindex(*x.shape):
        low, high = x.copy(), x.copy()
        low[at] -= step
        high[at] += step
        result[at] = float(np.sum((run(high) - run(low)) * dy)) / (2 * step)
    return result
