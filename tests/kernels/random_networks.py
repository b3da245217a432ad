"""Random small networks as text in the language, rich in what fusion decides about: values that are
used twice, diamonds, residuals, concats of what is read elsewhere too, pools behind everything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from cnncc.compiler import front
from cnncc.graph.ir import TypedGraph
from tests.networks.values import Array, inputs, parameters

CHANNELS = (4, 16, 18)  # less than a vector, a vector, and one with a rest
EXTENT = 8


class Text:
    """A network that grows layer by layer; `shapes` holds (channels, extent) of every tensor."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.shapes = {"image": (4, EXTENT)}
        self.lines: list[str] = []
        self.read: set[str] = set()

    def add(self, expression: str, channels: int, extent: int, *read: str) -> None:
        name = f"t{len(self.lines)}"
        self.lines.append(f"  {name} = {expression}")
        self.shapes[name] = (channels, extent)
        self.read.update(read)

    def grow(self) -> None:
        """One more layer, on a recent tensor or on an early one."""
        names = list(self.shapes)
        x = self.rng.choice(names[-3:] if self.rng.random() < 0.8 else names)
        c, n = self.shapes[x]
        alike = [t for t in names if self.shapes[t] == (c, n)]
        matching = [t for t in names if self.shapes[t][1] == n and t != x]
        y, out = self.rng.choice(alike), self.rng.choice(CHANNELS)
        unary = self.rng.choice(["relu", "sigmoid", "elu", "leaky_relu"])
        choices = [
            lambda: self.add(f"{x} -> conv({out}, 3x3, pad = same)", out, n, x),
            lambda: self.add(f"{x} -> conv({out}, 1x1, bias = none)", out, n, x),
            lambda: self.add(f"{x} -> {unary}", c, n, x),
            lambda: self.add(f"{x} -> batchnorm", c, n, x),
            lambda: self.add(f"{x} + {y}", c, n, x, y),
            lambda: self.add(f"{x} * {unary}({x})", c, n, x),
            lambda: self.add(f"relu({x} + {y}) * {y}", c, n, x, y),
        ]
        if n % 2 == 0:
            pool = self.rng.choice(["maxpool(2x2)", "avgpool(2x2)"])
            choices.append(lambda: self.add(f"{x} -> {pool}", c, n // 2, x))
        else:
            choices.append(lambda: self.add(f"{x} -> maxpool(3x3, stride = 1, pad = 1)", c, n, x))
        if matching and c + self.shapes[matching[-1]][0] <= 40:
            z = matching[-1]
            choices.append(lambda: self.add(f"concat({x}, {z})", c + self.shapes[z][0], n, x, z))
        self.rng.choice(choices)()

    def text(self) -> str:
        results = [t for t in self.shapes if t not in self.read and t != "image"]
        results += [t for t in self.read if t != "image" and self.rng.random() < 0.1]
        outputs = [f"  output o{i} = {t}" for i, t in enumerate(dict.fromkeys(results))]
        head = ["net random {", f"  input image: f32[4, {EXTENT}, {EXTENT}]"]
        return "\n".join([*head, *self.lines, *outputs, "}", ""])


def random_text(seed: int, layers: int = 9) -> str:
    net = Text(seed)
    for _ in range(layers):
        net.grow()
    return net.text()


def random_graph(seed: int, layers: int = 9) -> TypedGraph:
    return front(random_text(seed, layers)).graph


def random_data(graph: TypedGraph, seed: int, batch: int = 2) -> dict[str, Array]:
    """Values for every parameter and input."""
    return parameters(graph, seed) | inputs(graph, batch, seed + 1)


def random_edges(graph: TypedGraph, seed: int, share: float = 0.3) -> Iterator[frozenset[str]]:
    """Some of the pairs (producer, consumer) between operators."""
    rng = random.Random(seed)
    for node in graph.nodes:
        for name in sorted(set(node.inputs)):
            if graph[name].inputs and rng.random() < share:
                yield frozenset((name, node.name))
