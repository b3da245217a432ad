"""Weights carried between networks that differ in their priors only: which outputs share a kernel.

A convolution is a tiled layer of period 1, that a local layer whose kernels agree, and that a dense
layer with zeros; a symmetric kernel is one whose taps agree in pairs. So weights go up this lattice
with the same results, and down by the least change of the layer's matrix: every stored number
becomes the average over the entries that it stands for, which undoes a way up exactly.

Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 9.4 (convolution as an
infinitely strong prior over a dense layer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, SpecError
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.ops.arrange import Arrange, ArrangeDw
from cnncc.ops.base import Array, Op
from cnncc.ops.conv import Conv, ConvDx
from cnncc.ops.dense import Dense
from cnncc.ops.sharing import kernels_at, kernels_from
from cnncc.passes.linear import LinearLayer, constant_array
from cnncc.passes.matrix import LayerMatrix, layer_matrix
from cnncc.tensor import Extent, evaluate
from cnncc.window import Window

MOST_ENTRIES = 1 << 26
"""Kernel entries of all positions of a layer that are compared at a time."""

Floats = NDArray[np.float64]
State = Mapping[str, Array]


@dataclass(frozen=True)
class Carried:
    """The new weights, and for each layer that differs how far its matrix is from the old one:
    the Frobenius norm of the difference, and that of the old matrix.
    """

    state: dict[str, Array]
    distances: dict[str, tuple[float, float]]


def carry(source: Graph, target: Graph, state: State) -> Carried:
    """The weights `state` of the network `source` for `target`, layer by layer in order.

    Raises SpecError: E0813 for networks whose layers differ in more than sharing, E0812 for layers
    beyond the limits.
    """
    mine, theirs = _weighted(source), _weighted(target)
    if len(mine) != len(theirs):
        raise _cannot(
            f"`{source.name}` has {len(mine)} layers with parameters and `{target.name}` has "
            f"{len(theirs)}"
        )
    carried, distances = dict[str, Array](), dict[str, tuple[float, float]]()
    for x, y in zip(mine, theirs, strict=True):
        found, distance = _Pair(source, target, x, y).carried(state)
        carried.update(found)
        if distance is not None:
            distances[y] = distance
    return Carried({n: carried[n] for n in (p.name for p in target.of("parameter"))}, distances)


def _weighted(graph: Graph) -> list[str]:
    """The layers that have parameters, in order."""
    return list(dict.fromkeys(_layer(n) for n in graph.of("parameter")))


def _layer(node: Node) -> str:
    return node.origin.layer or node.name


def _cannot(message: str, *helps: str) -> SpecError:
    return SpecError(Diagnostic("E0813", message, helps=helps))


@dataclass(frozen=True)
class _Pair:
    """A layer of the first network, and the one of the second that takes its place."""

    source: Graph
    target: Graph
    x: str
    y: str

    def carried(self, state: State) -> tuple[dict[str, Array], tuple[float, float] | None]:
        """The parameters of the second layer, and the distance of the matrices."""
        a, b = self._heavy(self.source, self.x), self._heavy(self.target, self.y)
        if a is None or b is None or self._same(a, b):
            return self._copied(state), None
        convs = Conv | ConvDx
        if isinstance(a.op, convs) and isinstance(b.op, Dense):
            return self._to_dense(b, state)
        if isinstance(a.op, Dense) and isinstance(b.op, convs):
            return self._from_dense(a, b, state)
        if isinstance(a.op, convs) and type(a.op) is type(b.op):
            return self._between(a, b, state)
        raise _cannot(f"`{self.x}` is a {a.op.name}, but `{self.y}` a {b.op.name}")

    def _heavy(self, graph: Graph, layer: str) -> Node | None:
        """The convolution or dense operator of a layer, None where there is none."""
        found = [
            n for n in graph.nodes if _layer(n) == layer and isinstance(n.op, Conv | ConvDx | Dense)
        ]
        return found[-1] if found else None

    def _same(self, a: Node, b: Node) -> bool:
        return a.op == b.op and self._kernel(self.source, a) == self._kernel(self.target, b)

    def _kernel(self, graph: Graph, node: Node) -> tuple[object, ...]:
        """What makes the kernel of a layer, by operators and types."""
        w = graph[node.inputs[1]]
        made = (w, *(graph[i] for i in w.inputs))
        return tuple((n.op, n.type) if not isinstance(n.op, Parameter) else n.type for n in made)

    def _copied(self, state: State) -> dict[str, Array]:
        mine, theirs = (
            [n for n in graph.of("parameter") if _layer(n) == layer]
            for graph, layer in ((self.source, self.x), (self.target, self.y))
        )
        if [n.type for n in mine] != [n.type for n in theirs]:
            raise _cannot(f"the parameters of `{self.x}` do not have the shapes of `{self.y}`'s")
        return {n.name: state[o.name] for o, n in zip(mine, theirs, strict=True)}

    # --- convolutions ---

    def _between(
        self, a: Node, b: Node, state: State
    ) -> tuple[dict[str, Array], tuple[float, float]]:
        """From a convolutional layer to one that shares its kernels in another way."""
        old, new = a.op, b.op
        assert isinstance(old, Conv | ConvDx)
        assert isinstance(new, Conv | ConvDx)
        if (old.window, old.groups, a.type) != (new.window, new.groups, b.type):
            raise _cannot(
                f"`{self.x}` and `{self.y}` differ in more than in what they share",
                "change `share` and `bias` only",
            )
        self._require_plain(self.source, a)
        self._require_plain(self.target, b)
        positions, extents = self._places(self.source, a)
        weight = self._effective(self.source, a, state)
        _check_size(self.x, math.prod((*weight.shape[:2], *positions)) * _taps(old.window))
        every = kernels_at(weight, old.window, old.tiles, positions)
        live = _live(old.window, positions, extents)
        stored = self._fitted(b, every, live)
        kernel = self._effective(self.target, b, stored)
        change = kernels_at(kernel, new.window, new.tiles, positions) - every
        distance = float(np.sqrt((change**2 * live).sum()))
        size = float(np.sqrt((every**2 * live).sum()))
        return {**stored, **self._bias(b, state)}, (distance, size)

    def _require_plain(self, graph: Graph, node: Node) -> None:
        """The kernel is the stored numbers, or an arrangement of them."""
        w = graph[node.inputs[1]]
        first = w if isinstance(w.op, Parameter) or not w.inputs else graph[w.inputs[0]]
        if not isinstance(first.op, Parameter) or not isinstance(w.op, Parameter | Arrange):
            raise _cannot(
                f"the kernel of `{_layer(node)}` is computed by `{w.op.name}`",
                "carry it before its weights are constrained or tied",
            )

    def _places(self, graph: Graph, node: Node) -> tuple[list[int], list[int]]:
        """Where the window stands, and the extents that it slides over."""
        operand = graph[node.inputs[0]].type.spatial
        over: tuple[Extent, ...] = getattr(node.op, "extents", operand)
        stands = operand if isinstance(node.op, ConvDx) else node.type.spatial
        try:
            return [evaluate(n, {}) for n in stands], [evaluate(n, {}) for n in over]
        except KeyError:
            raise _cannot(
                f"`{_layer(node)}` has symbolic extents", "give the input fixed extents"
            ) from None

    def _effective(self, graph: Graph, node: Node, state: State) -> Floats:
        """The kernel that a layer computes with, float64."""
        w = graph[node.inputs[1]]
        if isinstance(w.op, Parameter):
            return np.asarray(state[w.name], np.float64)
        assert isinstance(w.op, Op)
        return np.asarray(w.op.oracle(graph.types(w), self._operands(graph, w, state)))

    def _operands(self, graph: Graph, w: Node, state: State) -> list[Array]:
        """The stored numbers of a kernel, float64, and its tables."""
        found = []
        for name in w.inputs:
            node = graph[name]
            constant = isinstance(node.op, Constant)
            found.append(
                constant_array(node, 0) if constant else np.asarray(state[name], np.float64)
            )
        return found

    def _fitted(self, b: Node, every: Floats, live: Floats) -> dict[str, Array]:
        """The stored numbers whose kernels are closest to the kernels of all positions.

        Entries count as often as they meet the input; one that never does takes the plain average.
        """
        op = b.op
        assert isinstance(op, Conv | ConvDx)
        w = self.target[b.inputs[1]]

        def sums(counted: Floats) -> tuple[Floats, Floats]:
            parts = (every * counted, np.broadcast_to(counted, every.shape))
            total, uses = (kernels_from(g, op.window, op.tiles) for g in parts)
            return self._stored(w, total, uses)

        seen, uses = sums(live)
        plain, all_uses = sums(np.ones_like(live))
        average = plain / np.where(all_uses == 0, 1.0, all_uses)
        stored = np.where(uses > 0, seen / np.where(uses > 0, uses, 1.0), average)
        name = w.name if isinstance(w.op, Parameter) else w.inputs[0]
        return {name: stored.astype(np.float32)}

    def _stored(self, w: Node, total: Floats, uses: Floats) -> tuple[Floats, Floats]:
        """Sums over a kernel's entries as sums over the stored numbers behind them."""
        if isinstance(w.op, Parameter):
            return total, uses
        op, types = w.op, self.target.types(w)
        assert isinstance(op, Arrange)
        tables = [constant_array(self.target[i], 0) for i in w.inputs[1:]]
        back = ArrangeDw(op.pairs, op.axes, op.centre, types[0].shape)
        # an entry shows c * s: the best s is the sum of c * entry over that of c^2, and the adjoint
        # multiplies by c once
        factor = op.oracle(types, [np.ones(types[0].dims(0)), *tables])
        given = (w.type, *types[1:])
        summed, counted = (
            np.asarray(back.oracle(given, [g, *tables])) for g in (total, uses * factor)
        )
        return summed, counted

    def _bias(self, b: Node, state: State) -> dict[str, Array]:
        """The bias, per channel or per position as the second layer has it."""
        mine, theirs = self._bias_of(self.source, self.x), self._bias_of(self.target, self.y)
        if theirs is None:
            if mine is not None and np.any(state[mine.name]):
                raise _cannot(f"`{self.x}` has a bias, but `{self.y}` has none")
            return {}
        if mine is None:
            return {theirs.name: np.zeros(theirs.type.dims(0), np.float32)}
        value = np.asarray(state[mine.name], np.float64)
        if mine.type.shape != theirs.type.shape:
            space = tuple(range(1, value.ndim))
            column = value.reshape(len(value), *[1] * b.type.rank)
            value = value.mean(axis=space) if space else column
        return {theirs.name: np.broadcast_to(value, theirs.type.dims(0)).astype(np.float32)}

    def _bias_of(self, graph: Graph, layer: str) -> Node | None:
        """The parameter that a layer adds, None where it adds none."""
        own = [n for n in graph.of("parameter") if _layer(n) == layer and n.name.endswith(".bias")]
        return own[0] if own else None

    # --- dense layers ---

    def _to_dense(self, b: Node, state: State) -> tuple[dict[str, Array], tuple[float, float]]:
        found = layer_matrix(self.source, self.x)
        matrix = found.dense(state)
        layer = LinearLayer.of(self.source, self.x)
        own = {n: np.asarray(state[n], np.float64) for n in layer.stored.names}
        offset = layer.apply(np.zeros(layer.source.type.dims(1)), own).reshape(-1)
        weight = self.target[b.inputs[1]]
        if weight.type.dims(0) != matrix.shape:
            raise _cannot(
                f"the matrix of `{self.x}` is {matrix.shape}, but `{self.y}` has "
                f"{weight.type.dims(0)}"
            )
        carried: dict[str, Array] = {weight.name: matrix.astype(np.float32)}
        if len(b.inputs) > 2:
            carried[b.inputs[2]] = offset.astype(np.float32)
        elif np.any(offset):
            raise _cannot(f"`{self.x}` of zeros is not zero, but `{self.y}` has no bias")
        return carried, (0.0, float(np.linalg.norm(matrix)))

    def _from_dense(
        self, a: Node, b: Node, state: State
    ) -> tuple[dict[str, Array], tuple[float, float]]:
        found = layer_matrix(self.target, self.y)
        matrix = np.asarray(state[a.inputs[1]], np.float64)
        if matrix.shape != found.shape:
            raise _cannot(
                f"`{self.x}` has weights {matrix.shape}, but the matrix of `{self.y}` is "
                f"{found.shape}"
            )
        fitted = found.stored.split(_least_squares(found, matrix))
        carried: dict[str, Array] = {n: v.astype(np.float32) for n, v in fitted.items()}
        bias = self._bias_of(self.target, self.y)
        if bias is not None:
            old = state[a.inputs[2]] if len(a.inputs) > 2 else np.zeros(len(matrix))
            # what the border adds to a result is none of the bias's affair
            layer = LinearLayer.of(self.target, self.y)
            known = {**fitted, bias.name: np.zeros(bias.type.dims(0))}
            border = layer.apply(np.zeros(layer.source.type.dims(1)), known)[0]
            value = np.asarray(old, np.float64).reshape(border.shape) - border
            tied = len(bias.type.shape) == 1
            mean = value.mean(axis=tuple(range(1, value.ndim))) if tied else value
            carried[bias.name] = mean.astype(np.float32)
        change = found.dense(carried) - matrix
        return carried, (float(np.linalg.norm(change)), float(np.linalg.norm(matrix)))


def _least_squares(found: LayerMatrix, matrix: Floats) -> Floats:
    """The stored numbers whose matrix is closest to the given one; 0 for those it does not show."""
    shown = found.weights >= 0
    places = found.rows[shown] * found.shape[1] + found.columns[shown]
    weights, factors = found.weights[shown], found.coefficients[shown]
    entries, number = np.unique(places, return_inverse=True)
    wanted = matrix.reshape(-1)[entries]
    if len(entries) == len(places):  # every entry shows one weight: a mean for each of them
        total, uses = np.zeros(found.stored.size), np.zeros(found.stored.size)
        np.add.at(total, weights, factors * wanted[number])
        np.add.at(uses, weights, factors**2)
        return total / np.where(uses > 0, uses, 1.0)
    _check_size(found.layer, len(entries) * found.stored.size)
    design = np.zeros((len(entries), found.stored.size))
    np.add.at(design, (number, weights), factors)
    return np.asarray(np.linalg.lstsq(design, wanted, rcond=None)[0])


def _live(window: Window, positions: list[int], extents: list[int]) -> Floats:
    """[positions..., taps...]: 1 where the tap meets the input, 0 where it lies in the padding."""
    rank = len(window)
    found = np.ones((*positions, *(axis.size for axis in window)))
    for a, (axis, outs, n) in enumerate(zip(window, positions, extents, strict=True)):
        i = axis.input(np.arange(outs)[:, None], np.arange(axis.size)[None, :])
        shape = [1] * (2 * rank)
        shape[a], shape[rank + a] = outs, axis.size
        found = found * ((i >= 0) & (i < n)).reshape(shape)
    return found


def _taps(window: Window) -> int:
    return math.prod(axis.size for axis in window)


def _check_size(layer: str, entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise SpecError(
            Diagnostic(
                "E0812",
                f"the kernels of `{layer}` have {entries:_} entries over all positions, and the "
                f"limit is {MOST_ENTRIES:_}",
                helps=("give the net smaller extents",),
            )
        )
