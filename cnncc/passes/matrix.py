"""A linear layer as the matrix that it is: every layer that is linear in its input equals a matrix
A, with A @ x + layer(0) = layer(x) on flattened tensors. For a convolution A is a (block) Toeplitz
matrix with its few weights repeated along the diagonals and zeros elsewhere.

A is found by the operators' own definitions, their oracles: column j is what they make of the j-th
unit vector. Which stored weight an entry shows is found by giving the weights the values i, i^2 and
i^3 for i = 1, 2, ...: an entry that shows coefficient * weight i then reads a, b and c with b / a =
i, and b^2 = a * c tells it from one that sums several weights (equality in Cauchy's inequality,
for coefficients of one sign; a last application to other values checks every entry).

Definition: Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 9.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import CompilerBug, Diagnostic, SpecError
from cnncc.graph.ir import Graph, Node
from cnncc.ops.base import Array, Op
from cnncc.passes.linear import Floats, LinearLayer, Stored, elements
from cnncc.tensor import TensorType

MOST_TERMS = 1 << 28
"""Entries times weights, where entries that sum several weights must be taken apart."""

WORK = 1 << 22
"""Numbers that an oracle handles at a time; so many columns are made together."""

CONSTANT = -1
"""The weight of an entry that is a number and shows no weight."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class LayerMatrix:
    """The matrix of a layer: entry (row, column) is the sum of coefficient * weight over its terms.

    rows, columns, weights [terms] int64, coefficients [terms] float64; a weight of CONSTANT stands
    for 1. Rows number the results, columns the inputs, both in row-major order, channels first.
    """

    layer: str
    inputs: TensorType
    results: TensorType
    stored: Stored
    rows: Integers
    columns: Integers
    weights: Integers
    coefficients: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Results and inputs."""
        return elements(self.results), elements(self.inputs)

    @property
    def nonzeros(self) -> int:
        """Entries that show a weight or a number."""
        return len(np.unique(self.rows * self.shape[1] + self.columns))

    def values(self, parameters: Mapping[str, Array]) -> Floats:
        """Each term for given parameters, [terms]."""
        own = [np.asarray(parameters[n], np.float64).reshape(-1) for n in self.stored.names]
        flat = np.concatenate([*own, np.ones(1)])  # CONSTANT, -1, reads the 1 behind them
        return np.asarray(self.coefficients * flat[self.weights])

    def dense(self, parameters: Mapping[str, Array]) -> Floats:
        """The matrix for given parameters, [results, inputs]."""
        full = np.zeros(self.shape)
        np.add.at(full, (self.rows, self.columns), self.values(parameters))
        return full


def layer_matrix(graph: Graph, layer: str) -> LayerMatrix:
    """The matrix of the layer with this name.

    Raises SpecError: E0810 for a name of no layer, E0811 for a layer that is no linear map of one
    tensor with known extents, E0812 for a matrix beyond the limits.
    """
    found = LinearLayer.of(graph, layer)
    rows, columns, weights, coefficients = zip(*_Terms(found).parts(), strict=True)
    return LayerMatrix(
        layer,
        found.source.type,
        found.nodes[-1].type,
        found.stored,
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(weights),
        np.concatenate(coefficients),
    )


@dataclass(frozen=True)
class _Terms:
    """Takes the matrix of a layer apart into terms."""

    map: LinearLayer

    def parts(self) -> Iterator[tuple[Integers, Integers, Integers, Floats]]:
        """Terms of a few columns at a time: rows, columns, weights, coefficients."""
        inputs, results = elements(self.map.source.type), elements(self.map.nodes[-1].type)
        rng = np.random.default_rng(0)
        check = rng.integers(-8, 9, self.map.stored.size).astype(np.float64)
        wide = max(_work(self.map.graph, n) for n in self.map.nodes)
        step = max(1, min(inputs, WORK // max(wide, 1)))
        for first in range(0, inputs, step):
            last = min(first + step, inputs)
            terms = self._single(first, last)
            if terms is None:
                terms = self._several(first, last)
            rows, columns, weights, coefficients = terms
            flat = np.append(check, 1.0)
            full = np.zeros((results, last - first))
            np.add.at(full, (rows, columns), coefficients * flat[weights])
            if not np.allclose(full, self.map.columns(first, last, check), rtol=1e-9, atol=1e-9):
                raise CompilerBug(
                    "matrix", self.map.nodes[-1].name, "A @ x equals the layer's result"
                )
            yield rows, columns + first, weights, coefficients

    def _single(self, first: int, last: int) -> tuple[Integers, Integers, Integers, Floats] | None:
        """Terms where every entry shows one weight or a number; None where some sums several."""
        number = np.arange(1.0, self.map.stored.size + 1)
        fixed = self.map.columns(first, last, np.zeros(self.map.stored.size))
        if not self.map.stored.size:
            rows, columns = np.nonzero(fixed)
            return rows, columns, np.full(len(rows), CONSTANT), fixed[rows, columns]
        a, b, c = (self.map.columns(first, last, number**k) - fixed for k in (1, 2, 3))
        shows = (a != 0) | (b != 0) | (c != 0)
        if np.any(shows & (fixed != 0)) or np.any(shows & (a == 0)):
            return None
        rows, columns = np.nonzero(shows)
        a, b, c = (found[rows, columns] for found in (a, b, c))
        weights = np.rint(b / a)
        if not (np.allclose(b / a, weights, atol=1e-6) and np.allclose(b * b, a * c, rtol=1e-9)):
            return None
        constant_rows, constant_columns = np.nonzero(fixed)
        return (
            np.concatenate([rows, constant_rows]),
            np.concatenate([columns, constant_columns]),
            np.concatenate([weights.astype(np.int64) - 1, np.full(len(constant_rows), CONSTANT)]),
            np.concatenate([a / weights, fixed[constant_rows, constant_columns]]),
        )

    def _several(self, first: int, last: int) -> tuple[Integers, Integers, Integers, Floats]:
        """Terms of any entries, one weight at a time."""
        layer = self.map.nodes[-1].origin.layer
        terms = self.map.stored.size * (last - first) * elements(self.map.nodes[-1].type)
        if terms > MOST_TERMS:
            raise SpecError(
                Diagnostic(
                    "E0812",
                    f"entries of the matrix of `{layer}` sum several weights, and it is too large "
                    f"to take them apart ({terms:_} products)",
                    self.map.nodes[-1].origin.span,
                    helps=("compile the net with smaller extents or fewer channels",),
                )
            )
        size = self.map.stored.size
        fixed = self.map.columns(first, last, np.zeros(size))
        found = [_nonzero(fixed, CONSTANT)]
        for weight in range(size):
            part = self.map.columns(first, last, np.eye(1, size, weight)[0]) - fixed
            found.append(_nonzero(part, weight))
        rows, columns, weights, values = zip(*found, strict=True)
        return (
            np.concatenate(rows),
            np.concatenate(columns),
            np.concatenate(weights),
            np.concatenate(values),
        )


def _nonzero(part: Floats, weight: int) -> tuple[Integers, Integers, Integers, Floats]:
    """The entries of a part of the matrix that are not 0, as terms of one weight."""
    rows, columns = np.nonzero(part)
    return rows, columns, np.full(len(rows), weight), part[rows, columns]


def _work(graph: Graph, node: Node) -> int:
    assert isinstance(node.op, Op)
    cost = node.op.cost(graph.types(node), node.type)
    return max(int(e) for e in (cost.macs, node.type.elements) if isinstance(e, int))
