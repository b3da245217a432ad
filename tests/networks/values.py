"""Random but sane values for a network: parameters, running statistics, data and targets.

Weights have the variance that keeps activations of the size of their inputs (He et al. 2015),
scales and variances are around 1, so that neither float32 nor the comparison with it degenerates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Input

Array = np.ndarray[Any, np.dtype[Any]]


def parameters(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """A value for every parameter, float32, by name."""
    rng = np.random.default_rng(seed)
    return {n.name: _parameter(n, rng) for n in graph.of("parameter")}


def _parameter(node: Node, rng: np.random.Generator) -> Array:
    shape = node.type.dims(0)
    if len(shape) > 1:
        spread = (2 / int(np.prod(shape[1:]))) ** 0.5
        weights: Array = spread * rng.standard_normal(shape)
        return weights.astype(np.float32)
    if node.name.endswith((".weight", ".running_var")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def inputs(graph: Graph, batch: int, seed: int = 1) -> dict[str, Array]:
    """A value for every input of a graph elaborated for inference or for training."""
    rng = np.random.default_rng(seed)
    return {n.name: _input(graph, n, batch, rng) for n in graph.of("input")}


def _input(graph: Graph, node: Node, batch: int, rng: np.random.Generator) -> Array:
    assert isinstance(node.op, Input)
    shape = node.type.dims(batch)
    if node.type.dtype.is_float:
        return rng.standard_normal(shape).astype(np.float32)
    if node.op.role == "random":
        return np.array([7, 3], np.int64)  # seed and step
    return rng.integers(0, _classes(graph, node), shape)


def _classes(graph: Graph, node: Node) -> int:
    """How many class or token numbers the readers of an integer input know."""
    for reader in graph.consumers()[node.name]:
        if reader.op.name == "embed":
            return graph[reader.inputs[1]].type.dims(0)[0]
        if reader.op.name == "cross_entropy":
            return graph[reader.inputs[0]].type.dims(1)[1]
    raise NotImplementedError(f"{node.name}: integers that nobody explains")
