"""Single layers with numbers of their own, for what is asked of one layer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import cnncc
from cnncc.graph.ir import Graph
from cnncc.ops.conv import Conv

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layer:
    """A convolution of `inputs` channels of size x size, or with size 0 a dense layer, no bias."""

    inputs: int
    outputs: int
    size: int = 0
    window: int = 1
    stride: int = 1
    pad: int = 0
    groups: int = 1

    @property
    def name(self) -> str:
        channels = f"{self.inputs} to {self.outputs}"
        if not self.size:
            return f"dense {channels}"
        stride = f"/{self.stride}" if self.stride > 1 else ""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{self.window}x{self.window}{stride} {channels} at {self.size}{groups}"

    @property
    def text(self) -> str:
        """The layer as a network."""
        extents = f", {self.size}, {self.size}" if self.size else ""
        arguments = f"stride = {self.stride}, pad = {self.pad}, bias = none"
        if self.groups > 1:
            arguments += f", connect = groups({self.groups})"
        window = f"{self.window}x{self.window}"
        layer = f"conv({self.outputs}, {window}, {arguments})" if self.size else (
            f"dense({self.outputs}, bias = none)"
        )  # fmt: skip
        return (
            "net layer {\n  default fit = floor\n"
            f"  input x: f32[{self.inputs}{extents}]\n  output y = x -> {layer}\n}}\n"
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the definition for one sample."""
        out = (self.size + 2 * self.pad - self.window) // self.stride + 1 if self.size else 1
        return self.outputs * (self.inputs // self.groups) * self.window**2 * out**2

    def numbers(self, batch: int) -> tuple[Array, Array]:
        """Standard normal inputs, and weights of variance 1 / fan-in."""
        rng = np.random.default_rng(0)
        extents = (self.size, self.size) if self.size else ()
        taps = (self.window, self.window) if self.size else ()
        x = rng.standard_normal((batch, self.inputs, *extents))
        w = rng.standard_normal((self.outputs, self.inputs // self.groups, *taps))
        w /= np.sqrt(np.prod(w.shape[1:]))
        return x.astype(np.float32), w.astype(np.float32)

    def compiled(self, weight: Array, precision: str, batch: int, threads: int) -> cnncc.Model:
        model = cnncc.compile(self.text, batch=batch, precision=precision, num_threads=threads)
        model.load_state_dict({"y.weight": weight})
        return model

    def torch(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """PyTorch's own, in the type of its arguments."""
        if not self.size:
            return F.linear(x, w)
        return F.conv2d(x, w, None, self.stride, self.pad, 1, self.groups)

    def exactly(self, x: Array, w: Array) -> Array:
        """In float64."""
        with torch.inference_mode():
            y = self.torch(torch.from_numpy(x).double(), torch.from_numpy(w).double())
        return y.numpy()  # type: ignore[no-any-return]


def convolutions(graph: Graph) -> dict[str, Layer]:
    """The convolutions of a network with square images, by the names of their nodes."""
    found = {}
    for node in graph.of("conv"):
        op, x = node.op, graph[node.inputs[0]].type
        assert isinstance(op, Conv)
        axis, size = op.window[0], x.spatial[0]
        if any(a != axis for a in op.window) or axis.lo != axis.hi or axis.dilation > 1:
            raise NotImplementedError(f"{node.name}: {op.window} is more than a Layer can say")
        assert isinstance(size, int)
        found[node.name] = Layer(
            x.channels, node.type.channels, size, axis.size, axis.stride, axis.lo, op.groups
        )
    return found
