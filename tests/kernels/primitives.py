"""A kernel that uses every primitive at one element type and width, as the emitter would print it,
and its inputs."""

from __future__ import annotations

import numpy as np

FLOATS = {"f32": np.float32, "f64": np.float64}

# Every operation that gives a value of the kernel's float type, on vectors (or scalars) x, y, z
# and whole numbers n.
FLOAT_RESULTS = (
    "x + y",
    "x - y",
    "x * y",
    "x / y",
    "-x",
    "x * half",
    "half - x",
    "fma(x, y, z)",
    "fma(half, y, z)",
    "sqrt(x)",
    "floor(x)",
    "rint(x)",
    "absolute(x)",
    "copysign(x, y)",
    "maximum(x, y)",
    "minimum(x, half)",
    "relu(x)",
    "scale2(x, n)",
    "scale2(x, y)",
    "power2(x)",
    "power2(n)",
    "exponent(x)",
    "mantissa(x)",
    "select(x < y, x, y)",
    "select(x <= y, z, half)",
    "select(z, x, y)",
    "flag(x > y, x)",
    "flag(x >= half, x)",
    "flag(x == y, x)",
    "flag(x != y, x)",
)
TO_SCALAR = ("hsum(x)", "hmax(y)")


def float_kernel(element: str, lanes: int) -> str:
    """out[lanes * k ...] = operation k, then the folds over lanes, then the first `count` lanes
    and strided loads."""
    tail = 0 if lanes == 1 else 5
    lines = [
        "from cnncc.targets.cpu.compiled import compiled",
        "from cnncc.targets.cpu.vector import *",
        "",
        "",
        f'@compiled("void({", ".join([f"{element}*"] * 5)}, i64)")',
        "def every(a, b, c, d, out, count):",
        f"    half = {element}(0.5)",
        *(
            f"    {name} = load{lanes}({array}, 0)"
            for name, array in zip("xyzn", "abcd", strict=True)
        ),
    ]
    results = list(FLOAT_RESULTS)
    if lanes > 1:
        results += [
            f"load_tail{lanes}(a, 1, count)",
            f"load_strided{lanes}(a, 1, 3)",
            f"load_strided_tail{lanes}(a, 48, -3, count)",
            f"load_second{lanes}(a, 1)",
            f"load_second_tail{lanes}(a, 64 - 2 * max(0, min(count, {lanes})), count)",
            f"splat{lanes}(load1(a, 3))",
        ]
    lines += [f"    store(out, {lanes * k}, {text})" for k, text in enumerate(results)]
    place = lanes * len(results)
    lines += [f"    store(out, {place + k}, {text})" for k, text in enumerate(TO_SCALAR)]
    place += len(TO_SCALAR)
    if tail:
        lines += [
            f"    store_tail(out, {place}, x, count)",
            f"    store_strided(out, {place + lanes}, 2, y)",
            f"    store_strided_tail(out, {place + 3 * lanes}, 3, z, count)",
        ]
    lines += ["    prefetch(a, 4)", "    touch(a, 4)", "    keep_rolled()"]
    return "\n".join(lines) + "\n"


def out_size(lanes: int) -> int:
    return (len(FLOAT_RESULTS) + 6) * lanes + len(TO_SCALAR) + 6 * lanes


def inputs(element: str, seed: int) -> list[np.ndarray]:
    """Four arrays of 64: random bits, special values and plain numbers mixed; the last holds whole
    numbers."""
    dtype = FLOATS[element]
    bits = {"f32": np.uint32, "f64": np.uint64}[element]
    rng = np.random.default_rng(seed)
    special = [0, -0.0, 1, -1, 0.5, 2.5, np.inf, -np.inf, np.nan, 1e-42, -3e-310, 3e38, 1e308]
    arrays = []
    for _ in range(3):
        wild = rng.integers(0, np.iinfo(bits).max, 64, dtype=bits).view(dtype)
        with np.errstate(over="ignore"):
            chosen = rng.choice(np.array(special).astype(dtype), 64)
        tame = rng.standard_normal(64).astype(dtype)
        arrays.append(np.choose(rng.integers(0, 3, 64), [wild, chosen, tame]).astype(dtype))
    return [*arrays, rng.integers(-300, 300, 64).astype(dtype)]


INTEGER_RESULTS = {
    "u8": ("to_u8(x)", "load16(d, 3)"),
    "u16": ("to_u16(x)", "to_u16(load16(d, 3))", "to_bf16(x)", "to_bf16(to_f64(x))"),
    "i32": ("to_i32(x)", "to_i32(load16(d, 0))", "count16(i32(7))", "shift_right(i, i32(5))",
            "select(i > j, i, j)", "i + j", "i - j", "i * j", "wrap_mul(i, j)", "i & j", "i ^ 3"),
    "f32": ("to_f32(load16(d, 0))", "to_f32(i)", "to_f32(to_u32(i))",
            "to_f32(to_f64(x) * to_f64(x))",
            "to_f32(shift_right(wrap_mul(bit_xor(to_u32(i), to_u32(j)), u32(2654435769)), u32(8)))",
            "to_f32(shift_left(wrap_add(to_u32(i), u32(4000000000)), u32(3)))",
            "from_bf16(to_bf16(x))", "from_bf16(to_u16(load16(d, 3)))", "to_f32(to_i64(x))",
            "to_f32(wrap_mul(to_u64(i), to_u64(j)))"),
}  # fmt: skip


def integer_kernel() -> str:
    """Conversions and integer operations on 16 lanes, results stored in a buffer per element
    type."""
    lines = [
        "from cnncc.targets.cpu.compiled import compiled",
        "from cnncc.targets.cpu.vector import *",
        "",
        "",
        '@compiled("void(f32*, u8*, i32*, u8*, u16*, i32*, f32*)")',
        "def every(a, d, e, out_u8, out_u16, out_i32, out_f32):",
        "    x = load16(a, 0)",
        "    i, j = load16(e, 0), load16(e, 16)",
    ]
    for element, results in INTEGER_RESULTS.items():
        lines += [f"    store(out_{element}, {16 * k}, {text})" for k, text in enumerate(results)]
    return "\n".join(lines) + "\n"


def scalar_integer_kernel() -> str:
    """The integer words on scalars: 32 bits stay 32 bits."""
    return "\n".join(
        [
            "from cnncc.targets.cpu.compiled import compiled",
            "from cnncc.targets.cpu.vector import *",
            "",
            "",
            '@compiled("void(i32*, i32*)")',
            "def every(e, out):",
            "    h = wrap_mul(to_u32(load1(e, 0)), u32(2654435769))",
            "    h = bit_xor(h, shift_right(h, u32(15)))",
            "    h = wrap_add(h, u32(4000000000))",
            "    store(out, 0, to_i32(h))",
            "    store(out, 1, wrap_mul(load1(e, 1), load1(e, 2)))",
            "",
        ]
    )


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit, except that one NaN is as good as another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        both = np.isnan(a) & np.isnan(b)
        a, b = np.where(both, 0, a).astype(a.dtype), np.where(both, 0, b).astype(b.dtype)
    return a.tobytes() == b.tobytes()
