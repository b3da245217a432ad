"""The steps of a page, computed with NumPy from the page's own text: what the scripts must compute,
written a second time and in float64.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def contents(page: str) -> tuple[dict[str, Any], list[Array]]:
    """The facts of a page and its arrays, flat."""
    facts = json.loads(re.findall(r'<script id="facts"[^>]*>(.*?)</script>', page, re.DOTALL)[0])
    text = re.findall(r'<script id="arrays"[^>]*>(.*?)</script>', page, re.DOTALL)[0]
    flat = np.frombuffer(base64.b64decode(text), "<f4")
    ends = np.cumsum(facts["sizes"])
    assert ends[-1] == len(flat)
    return facts, np.split(flat, ends[:-1])


def compute(facts: dict[str, Any], arrays: list[Array], x: Array) -> dict[str, Array]:
    """The result of every step for one sample [C, H, W], by name."""
    results: list[Array] = [np.asarray(x, np.float64)]
    for step in facts["steps"][1:]:
        inputs = [results[n] for n in step["inputs"]]
        y = OPERATORS[step["op"]](step, arrays, *inputs)
        results.append(np.asarray(y, np.float64).reshape(step["shape"]))
    return {s["name"]: r for s, r in zip(facts["steps"], results, strict=True)}


def _seen(axis: dict[str, int], o: int, extent: int) -> list[tuple[int, int]]:
    """(tap, position) pairs of an output inside the input."""
    at = ((k, o * axis["stride"] + k * axis["dilation"] - axis["lo"]) for k in range(axis["size"]))
    return [(k, i) for k, i in at if 0 <= i < extent]


def _conv(step: dict[str, Any], arrays: list[Array], x: Array) -> Array:
    weight = arrays[step["weight"]].reshape(step["weight_shape"]).astype(np.float64)
    y = np.zeros(step["shape"])
    if step["bias"] is not None:
        y += arrays[step["bias"]].reshape(step["shape"])
    inner, per_group = weight.shape[1], len(weight) // step["groups"]
    vertical, horizontal = step["window"]
    for k, o, p in np.ndindex(*step["shape"]):
        own = x[k // per_group * inner :][:inner]
        taps = itertools.product(
            _seen(vertical, o, x.shape[1]), _seen(horizontal, p, x.shape[2])
        )  # fmt: skip
        for (a, i), (b, j) in taps:
            row = o % step["tiles"][0] * vertical["size"] + a
            column = p % step["tiles"][1] * horizontal["size"] + b
            y[k, o, p] += own[:, i, j] @ weight[k, :, row, column]
    return y


def _pool(step: dict[str, Any], x: Array, reduce: Any) -> Array:
    y = np.zeros(step["shape"])
    vertical, horizontal = step["window"]
    for k, o, p in np.ndindex(*step["shape"]):
        rows = [i for _, i in _seen(vertical, o, x.shape[1])]
        columns = [j for _, j in _seen(horizontal, p, x.shape[2])]
        maps = x[k * step["across"] : (k + 1) * step["across"]]
        y[k, o, p] = reduce(maps[:, rows][:, :, columns], o, p)
    return y


def _avgpool(step: dict[str, Any], arrays: list[Array], x: Array) -> Array:
    counts = arrays[step["counts"]].reshape(step["shape"][1:])
    return _pool(step, x, lambda seen, o, p: seen.sum() / counts[o, p])


def _dense(step: dict[str, Any], arrays: list[Array], x: Array) -> Array:
    y = arrays[step["weight"]].reshape(-1, len(x)).astype(np.float64) @ x
    return y if step["bias"] is None else y + arrays[step["bias"]]


def _affine(step: dict[str, Any], arrays: list[Array], x: Array) -> Array:
    slope, offset = arrays[step["fold"]].reshape(2, -1, *[1] * (x.ndim - 1))
    return x * slope + offset


def _softmax(_: Any, __: Any, x: Array) -> Array:
    e = np.exp(x - x.max(axis=0))
    return np.asarray(e / e.sum(axis=0))


def _between(apply: Any) -> Any:
    def run(step: dict[str, Any], arrays: list[Array], *inputs: Array) -> Array:
        tensors = iter(inputs)
        a, b = (
            next(tensors) if n is None else arrays[n].reshape(step["shape"]) for n in step["arrays"]
        )
        return np.asarray(apply(a, b))

    return run


def _of(function: Any) -> Any:
    return lambda _, __, x: np.vectorize(function, otypes=[np.float64])(x)


OPERATORS: dict[str, Any] = {
    "conv": _conv,
    "dense": _dense,
    "affine": _affine,
    "maxpool": lambda step, _, x: _pool(step, x, lambda seen, o, p: seen.max()),
    "avgpool": _avgpool,
    "globalavgpool": lambda _, __, x: x.mean(axis=(1, 2)),
    "globalmaxpool": lambda _, __, x: x.max(axis=(1, 2)),
    "softmax": _softmax,
    "log_softmax": lambda *given: np.log(_softmax(*given)),
    "concat": lambda _, __, *inputs: np.concatenate(inputs),
    "reshape": lambda _, __, x: x,
    "relu": _of(lambda v: max(v, 0.0)),
    "leaky_relu": lambda step, _, x: np.where(x > 0, x, step["slope"] * x),
    "elu": lambda step, _, x: np.where(x > 0, x, step["alpha"] * np.expm1(np.minimum(x, 0))),
    "sigmoid": _of(lambda v: 1 / (1 + math.exp(-v))),
    "tanh": _of(math.tanh),
    "stanh": _of(lambda v: 1.7159 * math.tanh(2 * v / 3)),
    "softplus": _of(lambda v: math.log1p(math.exp(v))),
    "add": _between(np.add),
    "sub": _between(np.subtract),
    "mul": _between(np.multiply),
}
