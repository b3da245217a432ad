"""What each primitive means, in NumPy: the un-jitted form of every kernel, with the same bits.

A vector is an array of its lanes, a pointer an array of what it points to.  Unlike machine code
these check that every access lies inside its array, so running a kernel with NUMBA_DISABLE_JIT=1
finds a wrong index.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from cnncc.loops import numerics
from cnncc.targets.cpu.tile_shape import Shape

Array = np.ndarray[Any, Any]

fma, rint, relu = numerics.fma, numerics.rint, numerics.relu
maximum, minimum = numerics.maximum, numerics.minimum
scale2, power2 = numerics.scale2, numerics.power2
exponent, mantissa = numerics.exponent, numerics.mantissa
to_bf16, from_bf16 = numerics.to_bf16, numerics.from_bf16


def _inside(a: Array, lowest: int, highest: int) -> None:
    if lowest < 0 or highest >= len(a):
        raise IndexError(f"elements {lowest} to {highest} of an array of {len(a)}")


def _places(a: Array, i: int, stride: int, count: int) -> Array:
    places = i + stride * np.arange(count)
    if count:
        _inside(a, int(places.min()), int(places.max()))
    return places


def load1(a: Array, i: int) -> Any:
    _inside(a, i, i)
    return a[i]


def _lanes_read(lanes: int) -> tuple[Callable[..., Any], ...]:
    """The loads, splat and count of one width."""

    def load_strided_tail(a: Array, i: int, stride: int, count: int) -> Array:
        value = np.zeros(lanes, a.dtype)
        count = max(0, min(count, lanes))
        value[:count] = a[_places(a, i, stride, count)]
        return value

    def load(a: Array, i: int) -> Array:
        return load_strided_tail(a, i, 1, lanes)

    def load_tail(a: Array, i: int, count: int) -> Array:
        return load_strided_tail(a, i, 1, count)

    def load_strided(a: Array, i: int, stride: int) -> Array:
        return load_strided_tail(a, i, stride, lanes)

    def load_second(a: Array, i: int) -> Array:
        return load_strided_tail(a, i, 2, lanes)

    def load_second_tail(a: Array, i: int, count: int) -> Array:
        return load_strided_tail(a, i, 2, count)

    def splat(scalar: Any) -> Array:
        return np.full(lanes, scalar)

    def count(start: Any) -> Array:
        return start + np.arange(lanes, dtype=np.asarray(start).dtype)

    strided = load_strided, load_strided_tail, load_second, load_second_tail
    return load, load_tail, *strided, splat, count


(
    load2, load_tail2, load_strided2, load_strided_tail2, load_second2, load_second_tail2,
    splat2, count2,
) = _lanes_read(2)  # fmt: skip
(
    load4, load_tail4, load_strided4, load_strided_tail4, load_second4, load_second_tail4,
    splat4, count4,
) = _lanes_read(4)  # fmt: skip
(
    load8, load_tail8, load_strided8, load_strided_tail8, load_second8, load_second_tail8,
    splat8, count8,
) = _lanes_read(8)  # fmt: skip
(
    load16, load_tail16, load_strided16, load_strided_tail16, load_second16, load_second_tail16,
    splat16, count16,
) = _lanes_read(16)  # fmt: skip


def _storable(a: Array, v: Any) -> None:
    if np.asarray(v).dtype != a.dtype:
        raise TypeError(f"{np.asarray(v).dtype} cannot be stored where {a.dtype} is kept")


def store(a: Array, i: int, v: Any) -> None:
    _storable(a, v)
    if np.ndim(v):
        store_strided_tail(a, i, 1, v, len(v))
    else:
        _inside(a, i, i)
        a[i] = v


def store_tail(a: Array, i: int, v: Array, count: int) -> None:
    store_strided_tail(a, i, 1, v, count)


def store_strided(a: Array, i: int, stride: int, v: Array) -> None:
    store_strided_tail(a, i, stride, v, len(v))


def store_strided_tail(a: Array, i: int, stride: int, v: Array, count: int) -> None:
    _storable(a, v)
    count = max(0, min(count, len(v)))
    for lane, at in enumerate(_places(a, i, stride, count)):  # in lane order when stride is 0
        a[at] = v[lane]


def _tile_places(
    a: Array, i: int, steps: tuple[int, int, int], shape: tuple[int, int, int]
) -> Array:
    """The places of a tile's elements: [positions, vectors, lanes]."""
    grids = np.ogrid[tuple(slice(n) for n in shape)]
    places = np.asarray(i + sum(s * grid for s, grid in zip(steps, grids, strict=True)))
    if places.size:
        _inside(a, int(places.min()), int(places.max()))
    return np.broadcast_to(places, shape)


def load_tile_strided_tail(
    shape: Shape, a: Array, i: int, down: int, along: int, stride: int, count: int
) -> Array:
    value = np.zeros((shape.positions, shape.vectors, shape.lanes), a.dtype)
    for v in range(shape.vectors):
        n = max(0, min(count - v * shape.lanes, shape.lanes))
        places = _tile_places(a, i + v * along, (down, 0, stride), (shape.positions, 1, n))
        value[:, v : v + 1, :n] = a[places]
    return value


def load_tile_strided(shape: Shape, a: Array, i: int, down: int, along: int, stride: int) -> Array:
    whole = shape.vectors * shape.lanes
    return load_tile_strided_tail(shape, a, i, down, along, stride, whole)


def load_tile_second(shape: Shape, a: Array, i: int, down: int, along: int) -> Array:
    return load_tile_strided(shape, a, i, down, along, 2)


def load_tile_second_tail(
    shape: Shape, a: Array, i: int, down: int, along: int, count: int
) -> Array:
    return load_tile_strided_tail(shape, a, i, down, along, 2, count)


def load_tile_tail(shape: Shape, a: Array, i: int, down: int, along: int, count: int) -> Array:
    return load_tile_strided_tail(shape, a, i, down, along, 1, count)


def load_tile(shape: Shape, a: Array, i: int, down: int, along: int) -> Array:
    return load_tile_strided(shape, a, i, down, along, 1)


def anchor(shape: Shape, a: Array, i: int, down: int) -> tuple[Shape, Array, int, int]:
    """Where numbers of the positions lie."""
    return shape, a, i, down


def load_near(anchor: tuple[Shape, Array, int, int], offset: int) -> Array:
    """The numbers so many elements further on."""
    shape, a, i, down = anchor
    return load_tile(shape, a, i + offset, down, 0)


def store_tile_strided_tail(
    a: Array, i: int, down: int, along: int, stride: int, v: Array, count: int
) -> None:
    _storable(a, v)
    positions, vectors, lanes = v.shape
    for k in range(vectors):
        n = max(0, min(count - k * lanes, lanes))
        places = _tile_places(a, i + k * along, (down, 0, stride), (positions, 1, n))
        a[places] = v[:, k : k + 1, :n]


def store_tile_strided(a: Array, i: int, down: int, along: int, stride: int, v: Array) -> None:
    store_tile_strided_tail(a, i, down, along, stride, v, v.shape[1] * v.shape[2])


def store_tile_tail(a: Array, i: int, down: int, along: int, v: Array, count: int) -> None:
    store_tile_strided_tail(a, i, down, along, 1, v, count)


def store_tile(a: Array, i: int, down: int, along: int, v: Array) -> None:
    store_tile_strided(a, i, down, along, 1, v)


def splat_tile(shape: Shape, v: Any) -> Array:
    return np.array(np.broadcast_to(v, (shape.positions, shape.vectors, shape.lanes)))


def pick(shape: Shape, v: Array, first: int, step: int) -> Array:
    return v[first::step][: shape.positions]


def in_memory(v: Array) -> Array:
    return v.copy()


def from_memory(m: Array) -> Array:
    return m.copy()


def blank(shape: Shape, like: Any) -> Array:
    return np.zeros((shape.positions, shape.vectors, shape.lanes), np.asarray(like).dtype)


def put(m: Array, p: int, v: Array) -> None:
    m[p : p + (v.shape[0] if v.ndim == 3 else 1)] = v


def take(shape: Shape, m: Array, p: int) -> Array:
    """[positions, vectors, lanes], or [lanes] where there is one vector."""
    single = shape.positions * m.shape[1] == 1
    return m[p, 0] if single else m[p : p + shape.positions]


def prefetch(a: Array, i: int) -> None:
    """A hint; any address is allowed and nothing happens."""


def prefetch_nearby(a: Array, i: int) -> None:
    """A hint, as `prefetch`, for the second level of caches."""


def prefetch_tile(shape: Shape, a: Array, i: int, down: int, along: int) -> None:
    """A hint, as `prefetch`."""


def touch(a: Array, i: int) -> None:
    """Reads an element, which goes nowhere."""
    _inside(a, i, i)


def keep_rolled() -> None:
    """A hint to LLVM; nothing happens."""


def rolled(count: int) -> int:
    """The count; LLVM must not know it."""
    return count


def sqrt(x: Any) -> Any:
    return np.sqrt(x)


def floor(x: Any) -> Any:
    return np.floor(x)


def absolute(x: Any) -> Any:
    return np.abs(x)


def copysign(x: Any, sign: Any) -> Any:
    return np.copysign(x, sign)


def select(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition if np.asarray(condition).dtype == bool else condition != 0, x, y)[()]


def flag(condition: Any, like: Any) -> Any:
    return np.asarray(condition).astype(np.asarray(like).dtype)[()]


def _fold(combine: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def fold(x: Any) -> Any:
        while np.ndim(x):
            if len(x) == 1:
                return x[0]
            x = combine(x[: len(x) // 2], x[len(x) // 2 :])
        return x

    return fold


hsum = _fold(lambda a, b: a + b)
hmax = _fold(maximum)


def _conversion(dtype: Any) -> Callable[[Any], Any]:
    def convert(x: Any) -> Any:
        x = np.asarray(x)
        if np.issubdtype(x.dtype, np.floating) and np.issubdtype(dtype, np.integer):
            return _saturated(x, np.dtype(dtype))
        return x.astype(dtype)[()]

    return convert


def _saturated(x: Array, dtype: np.dtype[Any]) -> Any:
    """Towards zero, the nearest representable integer, and 0 for NaN."""
    limits = np.iinfo(dtype)
    # Converting a number out of range is undefined in C, so those are put aside before.
    above, below = x >= float(limits.max), x <= float(limits.min)
    safe = np.where(np.isnan(x) | above | below, x.dtype.type(0), x)
    result = np.trunc(safe).astype(dtype)
    result = np.where(below, dtype.type(limits.min), result)
    return np.where(above, dtype.type(limits.max), result)[()]


to_f32, to_f64 = _conversion(np.float32), _conversion(np.float64)
to_u8, to_u16 = _conversion(np.uint8), _conversion(np.uint16)
to_u32, to_u64 = _conversion(np.uint32), _conversion(np.uint64)
to_i32, to_i64 = _conversion(np.int32), _conversion(np.int64)


def _wrapping(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def wrapped(x: Any, y: Any) -> Any:
        left, right = np.asarray(x), np.asarray(y)
        if left.ndim < right.ndim:
            left = left.astype(right.dtype)
        elif right.ndim < left.ndim:
            right = right.astype(left.dtype)
        with np.errstate(over="ignore"):
            return operation(left, right)[()]

    return wrapped


wrap_add = _wrapping(lambda a, b: a + b)
wrap_mul = _wrapping(lambda a, b: a * b)
bit_xor = _wrapping(lambda a, b: a ^ b)
shift_left = _wrapping(lambda a, b: a << b)
shift_right = _wrapping(lambda a, b: a >> b)


def _at(c_type: Any) -> Callable[[int, int], Array]:
    def at(address: int, length: int) -> Array:
        return np.ctypeslib.as_array((c_type * int(length)).from_address(int(address)))

    return at


f32_at, f64_at = _at(ctypes.c_float), _at(ctypes.c_double)
u8_at, u16_at = _at(ctypes.c_uint8), _at(ctypes.c_uint16)
bf16_at = u16_at
i32_at, i64_at = _at(ctypes.c_int32), _at(ctypes.c_int64)
