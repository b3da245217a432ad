"""Initial values of parameters. Every parameter draws from a stream of its own, made from the seed
and the parameter's name, so its values depend neither on the order of layers nor on what else a
network contains: two networks with a layer `c1` of one shape start with the same `c1`.

    he          normal, std = sqrt(2 / fan_in)                   He et al. (2015), for relu
    lecun       normal, std = sqrt(1 / fan_in)                   LeCun, Bottou, Orr, Müller (1998)
    glorot      uniform, bound = sqrt(6 / (fan_in + fan_out))    Glorot and Bengio (2010)
    normal(s)   normal, mean 0, std s
    uniform(b)  uniform in [-b, b)
    constant(v), zeros, ones, and a literal, whose numbers are taken as they stand
    gabor(...)  the same Gabor function in every input channel of an output, see `_gabor`

Fans are counted as PyTorch does. A kernel [O, I, taps...] has fan_in = I * taps and fan_out =
O * taps, where I is the number of channels of one group; a dense weight [O, I] has no taps, and in
a vector each element is a fan of 1. The kernel of a transposed convolution is [I, O, taps...], so
the same rule gives the fans of the convolution whose adjoint it is. Weights of another shape (tiled
and local layers, tables) bring their fans along.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cnncc.graph.ir import Node
from cnncc.graph.layer import Init
from cnncc.graph.sources import Parameter
from cnncc.targets.cpu.arena import aligned_f32
from cnncc.train.data.order import random_bits

Values = NDArray[np.float32]
Drawn = tuple[NDArray[np.float64], ...]
"""What each random number is made into: an array for each value that comes of it."""

PART = 1 << 20
"""Elements that share a stream of random numbers."""

BLOCK = 1 << 15
"""Random numbers that are worked on at a time, so that what comes between them and the elements
stays in the cache: the time is half of that for whole parts.
"""


def initial(node: Node, seed: int) -> Values:
    """The initial value of a parameter node: float32, in the parameter's logical shape.

    Raises TypeError for a node that is no parameter, ValueError for an unknown initialiser.
    """
    if not isinstance(node.op, Parameter):
        raise TypeError(f"{node.name} is no parameter, but {node.op.name}")
    return drawn(node.op.init, node.type.dims(0), seed, node.name)


def drawn(init: Init, shape: tuple[int, ...], seed: int, name: str) -> Values:
    """Values of `shape` by an initialiser, for a seed (any whole number) and a parameter's name."""
    fan_in, fan_out = init.fans or fans(shape)
    match init.kind:
        case "he":
            return _normal(shape, math.sqrt(2 / fan_in), seed, name)
        case "lecun":
            return _normal(shape, math.sqrt(1 / fan_in), seed, name)
        case "glorot":
            return _uniform(shape, math.sqrt(6 / (fan_in + fan_out)), seed, name)
        case "normal":
            return _normal(shape, init.args[0], seed, name)
        case "uniform":
            return _uniform(shape, init.args[0], seed, name)
        case "constant":
            return np.full(shape, init.args[0], np.float32)
        case "zeros":
            return np.zeros(shape, np.float32)
        case "ones":
            return np.ones(shape, np.float32)
        case "gabor":
            return _gabor(shape, *init.args)
        case "literal":
            return np.array(init.literal, np.float32).reshape(shape)
    raise ValueError(f"there is no initialiser {init.kind!r}")


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [O, I, taps...]; (1, 1) for a vector."""
    if len(shape) < 2:
        return 1, 1
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _gabor(
    shape: tuple[int, ...],
    alpha: float,
    beta_x: float,
    beta_y: float,
    f: float,
    phi: float,
    x0: float,
    y0: float,
    tau: float | None = None,
) -> Values:
    """alpha exp(-beta_x x'^2 - beta_y y'^2) cos(f x' + phi) over the last two axes, where (x', y')
    is the distance from (x0, y0) turned by tau; (0, 0) is the centre of the kernel and x runs to
    the right. Without a direction tau output k of K has tau = pi k / K.

    Source: Goodfellow, Bengio, Courville, Deep Learning (2016), equations 9.16 to 9.18.
    """
    outputs = shape[0]
    spread = np.pi * np.arange(outputs) / outputs
    angles = (spread if tau is None else np.full(outputs, tau))[:, None, None]
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape[-2:])
    right, down = x[None, None, :] - x0, y[None, :, None] - y0
    along = right * np.cos(angles) + down * np.sin(angles)
    across = -right * np.sin(angles) + down * np.cos(angles)
    envelope = np.exp(-beta_x * along**2 - beta_y * across**2)
    values = alpha * envelope * np.cos(f * along + phi)
    between = values.reshape(outputs, *[1] * (len(shape) - 3), *shape[-2:])
    return np.broadcast_to(between, shape).astype(np.float32)


def _normal(shape: tuple[int, ...], std: float, seed: int, name: str) -> Values:
    """By Box and Muller (1958): two uniform numbers make two normal ones."""

    def values(bits: NDArray[np.uint64]) -> Drawn:
        u, v = _fractions(bits >> np.uint64(32)), _fractions(bits & np.uint64(0xFFFFFFFF))
        radius = std * np.sqrt(-2 * np.log(1 - u))  # 1 - u is never 0
        angle = 2 * np.pi * v
        return radius * np.cos(angle), radius * np.sin(angle)

    return _filled(shape, 2, values, seed, name)


def _uniform(shape: tuple[int, ...], bound: float, seed: int, name: str) -> Values:
    def values(bits: NDArray[np.uint64]) -> Drawn:
        return (bound * (2 * _fractions(bits >> np.uint64(32)) - 1),)

    return _filled(shape, 1, values, seed, name)


def _filled(
    shape: tuple[int, ...],
    per_draw: int,
    values: Callable[[NDArray[np.uint64]], Drawn],
    seed: int,
    name: str,
) -> Values:
    """An array filled part by part. A part consists of the first values of all draws, then of the
    second ones, as far as it needs them.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    result = aligned_f32(math.prod(shape))  # goes back to the system when it has been packed
    for number, start in enumerate(range(0, len(result), PART)):
        part = result[start : start + PART]
        draws = -(-len(part) // per_draw)
        for first in range(0, draws, BLOCK):
            count = min(BLOCK, draws - first)
            bits = random_bits(count, seed, key, number, first=first)
            for which, drawn in enumerate(values(bits)):
                into = part[which * draws + first :][:count]
                into[:] = drawn[: len(into)]
    return result.reshape(shape)


def _fractions(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """32 random bits each as numbers in [0, 1), uniform on the multiples of 2^-32."""
    return bits.astype(np.float64) * 2.0**-32
