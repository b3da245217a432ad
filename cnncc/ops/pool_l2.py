"""L2 pooling: the norm of what each window sees, per channel: sqrt(sum x^2), without a divisor.

The gradient x * dy / y is taken as 0 where y is 0, the middle of the subgradients there. It is not
linear in x and y, so it has no gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, PerAxis, Size
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Assign, Let, Lit, Nest, Ref, prim
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.pool_average import taps_count
from cnncc.ops.pool_window import PoolNest, is_disjoint, pool_cases, pool_out, pool_window
from cnncc.ops.relation import fold, unfold
from cnncc.tensor import TensorType
from cnncc.window import Window


@operator("l2pool")
@dataclass(frozen=True)
class L2Pool(Op):
    """[*, C, i...] -> [*, C, o...]."""

    window: Window

    @property
    def reads_once(self) -> bool:
        return is_disjoint(self.window)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        return pool_out("l2pool", self.window, types[0])

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        squares = unfold(x, self.window, 0.0) ** 2
        return np.asarray(np.sqrt(squares.sum(axis=tuple(range(-len(self.window), 0)))))

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        x = b[node.inputs[0]]
        op = L2PoolDx(self.window)
        return (b.add(op, x, node, dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, types[0], out)
        x, y = p.at_input("x", types[0]), p.output("y", out)
        return n.nest(
            parallel(
                p.over_output,
                Let("acc", Lit(0.0)),
                *p.over_taps(
                    Let("seen", p.load(x, 0.0)),
                    Assign("acc", prim("fma", Ref("seen"), Ref("seen"), Ref("acc"))),
                ),
                y.store(p.output_index, prim("sqrt", Ref("acc"))),
            )
        )

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=out.elements * (2 * taps_count(self.window) + 1))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            yield Sample(cls(window), (x,))


@operator("l2pool_dx")
@dataclass(frozen=True)
class L2PoolDx(Op):
    """x [*, C, i...], y, dy [*, C, o...] -> x * the sum of dy / y over the windows that see it."""

    window: Window

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        x, y, dy = types
        if not (pool_out("l2pool_dx", self.window, x) == y == dy):
            raise ShapeError("E0201", f"l2pool_dx: {y} and {dy} are not of a pool of {x}")
        return x

    def reference(self, *arrays: Array) -> Array:
        x, y, dy = arrays
        rank = len(self.window)
        ratio = np.divide(dy, y, out=np.zeros_like(dy), where=y != 0)
        sizes = [axis.size for axis in self.window]
        parts = np.broadcast_to(ratio.reshape(*dy.shape, *[1] * rank), (*dy.shape, *sizes))
        return x * fold(parts, self.window, x.shape[-rank:])

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        p = PoolNest(n, self.window, out, types[1])
        x, y = p.at_input("x", types[0]), p.at_output("y", types[1])
        dy, dx = p.at_output("dy", types[2]), p.input_result("dx", out)
        norm = y[p.target_index]
        ratio = prim("select", prim("eq", norm, 0.0), 0.0, prim("div", dy[p.target_index], norm))
        step = Assign("acc", prim("add", Ref("acc"), ratio))
        return n.nest(p.gather(step, dx, prim("mul", x[p.input_index], Ref("acc"))))

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[1].elements * (2 * taps_count(self.window)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in pool_cases():
            y = L2Pool(window).infer((x,))
            yield Sample(cls(window), (x, y, y), exact=False)  # sums of rounded quotients


VALID = Pad("valid")


@layer("l2pool", "pooling")
def l2pool(
    b: LayerBuilder,
    x: Node,
    size: Size,
    *,
    stride: PerAxis | None = None,
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    fit: Literal["exact", "floor", "partial"] | None = None,
) -> Node:
    """The norm of what each window sees, per channel: sqrt(sum x^2).

    The stride is the size unless given.     `pad`, `dilation` and `fit` are as in maxpool; zero
    padding adds nothing to the norm. The gradient at 0 is 0.

    Example: `x -> l2pool(2x2)`
    """
    x, window = pool_window(
        b, x, "l2pool", size, stride=stride, pad=pad, dilation=dilation, fit=fit
    )
    return b.add(L2Pool(window), x)
