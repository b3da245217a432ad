"""Small nests of the kinds that operators write, and the running of nests on data."""

import numpy as np

from cnncc.loops.affine import extent_of
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.interp import interpret
from cnncc.loops.ir import (
    Assign,
    Guard,
    Let,
    Lit,
    Nest,
    Ref,
    Size,
    Value,
    Var,
    all_of,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.tensor import DType, TensorType, evaluate

N, M, C, P, Q, U, V, K = (Var(v) for v in ("in_", "io", "ic", "ip", "iq", "ki", "kj", "ik"))

Array = np.ndarray


def maps(c: int, h: int, w: int, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, (c, h, w))


def pointwise(fn: str, c: int, h: int, w: int, names: str = "n c h w") -> Nest:
    """y = fn(x), or y = max(x, 0) for relu, or fma(x, a, b) per channel for affine."""
    n = NestBuilder()
    x = n.input("x", maps(c, h, w), names)
    channel = names.split()[1]
    at = (N, C, P, Q)
    value: Value
    match fn:
        case "relu":
            value = prim("max", x[at], 0.0)
        case "affine":
            a = n.input("a", TensorType(DType.F32, (c,), batched=False), channel)
            b = n.input("b", TensorType(DType.F32, (c,), batched=False), channel)
            value = prim("fma", x[at], a[C], b[C])
        case "square":
            value = prim("mul", x[at], x[at])
        case _:
            value = prim(fn, x[at])
    y = n.output("y", maps(c, h, w), names)
    loops = [(v.name, Size(s)) for v, s in zip(at, names.split(), strict=True)]
    return n.nest(parallel(loops, y.store(at, value)))


def conv(
    c: int, o: int, h: int, w: int, k: int, *, pad: int = 0, stride: int = 1, groups: int = 1
) -> Nest:
    """Correlation with k x k taps; grouped convolutions run over (group, channel of the group)."""
    n = NestBuilder()
    x = n.input("x", maps(c, h, w), "n c h w")
    f = n.input("w", TensorType(DType.F32, (o, c // groups, k, k), batched=False), "o cg kh kw")
    out = [(e + 2 * pad - k) // stride + 1 for e in (h, w)]
    y = n.output("y", maps(o, *out), "n o p q")
    place = (P * stride + U - pad, Q * stride + V - pad)
    channel = M if groups == 1 else Var("ig") * n.size("og", o // groups) + K
    read = (N, C if groups == 1 else Var("ig") * Size("cg") + C, *place)
    tap = x.padded(read, 0.0) if pad else x[read]
    taps = serial(
        [("ic", Size("cg")), ("ki", Size("kh")), ("kj", Size("kw"))],
        Assign("acc", prim("fma", tap, f[channel, C, U, V], Ref("acc"))),
    )
    work = (Let("acc", Lit(0.0)), taps, y.store((N, channel, P, Q), Ref("acc")))
    channels = [("io", Size("o"))] if groups == 1 else [("ig", groups), ("ik", Size("og"))]
    space = [("ip", Size("p")), ("iq", Size("q"))]
    return n.nest(parallel([("in_", Size("n")), *channels, *space], *work))


def max_pool(c: int, h: int, w: int, *, size: int = 2, stride: int = 2, pad: int = 0) -> Nest:
    """Max pool whose padding never wins."""
    n = NestBuilder()
    x = n.input("x", maps(c, h, w), "n c h w")
    y = n.output("y", maps(c, *((e + 2 * pad - size) // stride + 1 for e in (h, w))), "n c p q")
    at = (N, C, P * stride + U - pad, Q * stride + V - pad)
    tap = x.padded(at, -np.inf) if pad else x[at]
    return n.nest(
        parallel(
            [("in_", Size("n")), ("ic", Size("c")), ("ip", Size("p")), ("iq", Size("q"))],
            Let("best", Lit(-np.inf)),
            serial([("ki", size), ("kj", size)], Assign("best", prim("max", tap, Ref("best")))),
            y.store((N, C, P, Q), Ref("best")),
        )
    )


def guarded_average(c: int, h: int, w: int) -> Nest:
    """3 x 3 average with padding 1 that skips taps outside by a Guard instead of a constant."""
    n = NestBuilder()
    x = n.input("x", maps(c, h, w), "n c h w")
    y = n.output("y", maps(c, h, w), "n c h w")
    row, column = P + U - 1, Q + V - 1
    inside = all_of(
        compare("<=", 0, row), compare("<", row, Size("h")),
        compare("<=", 0, column), compare("<", column, Size("w")),
    )  # fmt: skip
    return n.nest(
        parallel(
            [("in_", Size("n")), ("ic", Size("c")), ("ip", Size("h")), ("iq", Size("w"))],
            Let("sum", Lit(0.0)),
            serial(
                [("ki", 3), ("kj", 3)],
                Guard(inside, (Assign("sum", prim("add", Ref("sum"), x[N, C, row, column])),)),
            ),
            y.store((N, C, P, Q), prim("div", Ref("sum"), 9.0)),
        )
    )


def sizes_of(nest: Nest, batch: int) -> dict[str, int]:
    return {name: evaluate(e, {"*": batch}) for name, e in nest.sizes.items()}


def shapes_of(nest: Nest, batch: int) -> dict[str, tuple[int, ...]]:
    sizes = sizes_of(nest, batch)
    shapes = {}
    for b in nest.buffers:
        extents = [extent_of(e, sizes) for e in b.extents]
        assert all(isinstance(e, int) for e in extents)
        shapes[b.name] = tuple(e for e in extents if isinstance(e, int))
    return shapes


def run(
    nest: Nest, batch: int, dtype: type[np.floating] = np.float32, **inputs: Array
) -> dict[str, Array]:
    """The outputs of a nest, which start as NaN."""
    arrays = dict(inputs)
    for b in nest.buffers:
        if b.role == "out":
            arrays[b.name] = np.full(shapes_of(nest, batch)[b.name], np.nan, dtype)
    interpret(nest, arrays, sizes_of(nest, batch), dtype, check=True)
    return {b.name: arrays[b.name] for b in nest.buffers if b.role == "out"}


def random_inputs(nest: Nest, batch: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = shapes_of(nest, batch)
    return {
        b.name: rng.standard_normal(shapes[b.name]).astype(np.float32)
        for b in nest.buffers
        if b.role == "in"
    }
