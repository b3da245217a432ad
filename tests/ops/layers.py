"""Networks of one layer, for the tests of what the names of the language mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnncc.graph.ir import Builder, Graph, Node, Origin
from cnncc.graph.layer import Init, LayerBuilder
from cnncc.graph.sources import Input, Parameter
from cnncc.ops import LAYERS
from cnncc.ops.base import Array
from cnncc.ops.dropout import RNG
from cnncc.passes.differentiate import gradients
from cnncc.tensor import DType, TensorType
from tests.ops.evaluate import evaluate


@dataclass
class Network:
    """One layer on inputs x0, x1, ... and its parameters, in the order in which it made them."""

    graph: Graph
    output: Node
    inputs: list[Node]
    parameters: list[Node]
    conditions: list[object]
    updates: list[tuple[Node, Node]] = field(default_factory=list)

    def arrays(self, batch: int = 2, *, classes: int = 0, seed: int = 0) -> dict[str, Array]:
        """Random float64 data for inputs and parameters; class numbers for integer inputs."""
        rng = np.random.default_rng(seed)
        arrays: dict[str, Array] = {"rng": np.array([3, 5])}
        for node in [*self.inputs, *self.parameters]:
            shape = node.type.dims(batch)
            if node.type.dtype.is_float:
                arrays[node.name] = rng.standard_normal(shape)
            else:
                arrays[node.name] = rng.integers(0, classes, shape)
            if node.name.endswith("running_var"):
                arrays[node.name] = np.abs(arrays[node.name]) + 0.5
        return arrays

    def value(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return evaluate(self.graph, arrays)

    def gradients(self, arrays: dict[str, Array], dy: Array) -> dict[str, Array]:
        """The gradients for all inputs and parameters that have one."""
        wanted = [n.name for n in [*self.inputs, *self.parameters] if n.type.dtype.is_float]
        wanted = [n for n in wanted if not n.rsplit(".", 1)[-1].startswith("running_")]
        b = Builder.of(self.graph)
        seed = b.add(Input(self.output.type), name="dy")
        found = gradients(b, {self.output.name: seed}, wanted)
        values = evaluate(b.graph([]), {**arrays, "dy": dy})
        return {name: values[node.name] for name, node in found.items()}


def network(
    layer: str, *inputs: TensorType | tuple[Any, ...], train: bool = False, **arguments: Any
) -> Network:
    """The layer on inputs of these types (a shape is one of f32), with Python values for its
    arguments.
    """
    b = Builder(layer)
    rng = b.add(Input(RNG), name="rng")
    types = [t if isinstance(t, TensorType) else TensorType(DType.F32, t) for t in inputs]
    nodes = [b.add(Input(t), name=f"x{i}") for i, t in enumerate(types)]
    parameters: list[Node] = []
    updates: list[tuple[Node, Node]] = []

    def parameter(
        name: str, t: TensorType, init: Init, shared: bool, kind: Any, origin: Origin
    ) -> Node:
        parameters.append(b.add(Parameter(t, init, kind), name=name, origin=origin))
        return parameters[-1]

    options = {"train": train, "rng": rng, "state_updates": updates}
    builder = LayerBuilder(b, "layer", Origin(), parameter, options=options)
    function: Callable[..., Node] = LAYERS[layer].function
    output = function(builder, *nodes, **arguments)
    graph = b.graph([("y", output), *((f"u{i}", new) for i, (_, new) in enumerate(updates))])
    return Network(graph, output, nodes, parameters, list(builder.conditions), updates)
