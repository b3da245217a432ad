"""The words of an emitted CPU kernel: vectors and the primitives on them, in Numba or, un-jitted,
in NumPy.

An emitted kernel is plain Python text in these names; `load16(x, i)` gives a vector of 16 lanes of
x's element type, which `+ - * /`, comparisons, `fma`, `select` and the others accept, and
`store(y, i, v)` puts it back.  Every function takes scalars as well (`load1` loads one), so the
same text with another width is a kernel for another processor or the scalar form of the same
kernel.  Operands of one operation must agree in element type; constants are written `f32(0.5)`.
With NUMBA_DISABLE_JIT=1 the names mean their NumPy twins, which give the same bits.

    load1/2/4/8/16(a, i)                     a[i], a[i + 1], ...
    load_tailN(a, i, count)                  the first `count` lanes (cut to 0..N), the others 0
    load_stridedN(a, i, stride)              a[i], a[i + stride], ...
    load_strided_tailN(a, i, stride, count)
    load_secondN(a, i)                       a[i], a[i + 2], ...; by two loads
    load_second_tailN(a, i, count)
    store(a, i, v)   store_tail(a, i, v, count)
    store_strided(a, i, stride, v)   store_strided_tail(a, i, stride, v, count)
    splatN(s)  countN(s)                     s in every lane; s, s + 1, ...
    fma sqrt floor rint absolute copysign    correctly rounded, once
    maximum minimum relu                     NaN as in PyTorch (numerics.py)
    scale2 power2 exponent mantissa          powers of two by bits (numerics.py)
    select(condition, x, y)                  a mask chooses, or a float by not being zero
    flag(mask, like)                         1.0 or 0.0 of like's type
    hsum hmax                                over lanes: halves are combined until one is left
    to_f32 to_f64 to_u8 to_u16 to_u32 to_u64 to_i32 to_i64
                                             floats are truncated and saturate, NaN gives 0
    to_bf16 from_bf16                        the bits of the nearest bf16, and their value in f32
    wrap_add wrap_mul bit_xor shift_left shift_right
                                             integers modulo their width
    f32_at(address, length)                  memory at an address: a pointer, un-jitted an array;
                                             also f64_at u8_at u16_at i32_at i64_at bf16_at
    shape(positions, vectors, lanes)         the shape of a register tile, a constant of the module
    load_tile(S, a, i, down, along)          the part for position p and vector v is loaded at
                                             i + p * down + v * along; with one lane: a number per
                                             position, read when it is used
    load_tile_tail(S, a, i, down, along, count)
    load_tile_strided(S, a, i, down, along, stride)
    load_tile_strided_tail(S, a, i, down, along, stride, count)
    anchor(S, a, i, down)                    where load_near finds the numbers at i + p * down
    load_near(c, k)                          those k elements further on, a number in the text
    load_tile_second(S, a, i, down, along)   load_tile_second_tail(S, a, i, down, along, count)
    store_tile(a, i, down, along, v)   store_tile_tail(a, i, down, along, v, count)
    store_tile_strided(a, i, down, along, stride, v)
    store_tile_strided_tail(a, i, down, along, stride, v, count)
    splat_tile(S, v)                         v in every part
    pick(S, v, first, step)                  those positions of a tile, numbers in the text
    in_memory(v)   from_memory(m)            a tile goes to memory, and comes back
    blank(S, like)                           memory for a tile of the element type of `like`
    take(S, m, p)   put(m, p, v)             the positions of S from p on; one vector is no tile
    prefetch(a, i)   prefetch_nearby(a, i)   prefetch_tile(S, a, i, down, along)
                                             a hint to the processor: this will be loaded soon
    touch(a, i)                              a load whose value goes nowhere: its line is in cache
    rolled(n)                                n, which LLVM does not know: it cannot unroll a loop
    keep_rolled()                            in a loop's body: LLVM must not unroll the loop

Partial loads and stores touch no memory beyond their count, which in a tile goes on from one vector
to the next.
"""

from __future__ import annotations

import numpy as np

from cnncc.targets.cpu.compiled import JIT
from cnncc.targets.cpu.tile_shape import shape

__all__ = [
    "absolute",
    "anchor",
    "bf16_at",
    "bit_xor",
    "blank",
    "copysign",
    "count2",
    "count4",
    "count8",
    "count16",
    "exponent",
    "f32",
    "f32_at",
    "f64",
    "f64_at",
    "flag",
    "floor",
    "fma",
    "from_bf16",
    "from_memory",
    "hmax",
    "hsum",
    "i32",
    "i32_at",
    "i64",
    "i64_at",
    "in_memory",
    "keep_rolled",
    "load1",
    "load2",
    "load4",
    "load8",
    "load16",
    "load_near",
    "load_second2",
    "load_second4",
    "load_second8",
    "load_second16",
    "load_second_tail2",
    "load_second_tail4",
    "load_second_tail8",
    "load_second_tail16",
    "load_strided2",
    "load_strided4",
    "load_strided8",
    "load_strided16",
    "load_strided_tail2",
    "load_strided_tail4",
    "load_strided_tail8",
    "load_strided_tail16",
    "load_tail2",
    "load_tail4",
    "load_tail8",
    "load_tail16",
    "load_tile",
    "load_tile_second",
    "load_tile_second_tail",
    "load_tile_strided",
    "load_tile_strided_tail",
    "load_tile_tail",
    "mantissa",
    "maximum",
    "minimum",
    "pick",
    "power2",
    "prefetch",
    "prefetch_nearby",
    "prefetch_tile",
    "put",
    "relu",
    "rint",
    "rolled",
    "scale2",
    "select",
    "shape",
    "shift_left",
    "shift_right",
    "splat2",
    "splat4",
    "splat8",
    "splat16",
    "splat_tile",
    "sqrt",
    "store",
    "store_strided",
    "store_strided_tail",
    "store_tail",
    "store_tile",
    "store_tile_strided",
    "store_tile_strided_tail",
    "store_tile_tail",
    "take",
    "to_bf16",
    "to_f32",
    "to_f64",
    "to_i32",
    "to_i64",
    "to_u8",
    "to_u16",
    "to_u32",
    "to_u64",
    "touch",
    "u8",
    "u8_at",
    "u16",
    "u16_at",
    "u32",
    "u64",
    "wrap_add",
    "wrap_mul",
]

f32, f64 = np.float32, np.float64
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64
i32, i64 = np.int32, np.int64

# Which meaning the names have is decided once, when the process starts.
if JIT:
    from cnncc.targets.cpu.vector.arithmetic import (
        absolute,
        copysign,
        flag,
        floor,
        fma,
        hmax,
        hsum,
        maximum,
        minimum,
        relu,
        rint,
        select,
        splat2,
        splat4,
        splat8,
        splat16,
        sqrt,
    )
    from cnncc.targets.cpu.vector.bits import exponent, mantissa, power2, scale2
    from cnncc.targets.cpu.vector.hints import (
        keep_rolled,
        prefetch,
        prefetch_nearby,
        prefetch_tile,
        rolled,
        touch,
    )
    from cnncc.targets.cpu.vector.integers import (
        bit_xor,
        count2,
        count4,
        count8,
        count16,
        from_bf16,
        shift_left,
        shift_right,
        to_bf16,
        to_f32,
        to_f64,
        to_i32,
        to_i64,
        to_u8,
        to_u16,
        to_u32,
        to_u64,
        wrap_add,
        wrap_mul,
    )
    from cnncc.targets.cpu.vector.memory import (
        bf16_at,
        f32_at,
        f64_at,
        i32_at,
        i64_at,
        load1,
        load2,
        load4,
        load8,
        load16,
        load_second2,
        load_second4,
        load_second8,
        load_second16,
        load_second_tail2,
        load_second_tail4,
        load_second_tail8,
        load_second_tail16,
        load_strided2,
        load_strided4,
        load_strided8,
        load_strided16,
        load_strided_tail2,
        load_strided_tail4,
        load_strided_tail8,
        load_strided_tail16,
        load_tail2,
        load_tail4,
        load_tail8,
        load_tail16,
        load_tile,
        load_tile_second,
        load_tile_second_tail,
        load_tile_strided,
        load_tile_strided_tail,
        load_tile_tail,
        store,
        store_strided,
        store_strided_tail,
        store_tail,
        store_tile,
        store_tile_strided,
        store_tile_strided_tail,
        store_tile_tail,
        u8_at,
        u16_at,
    )
    from cnncc.targets.cpu.vector.near import anchor, load_near
    from cnncc.targets.cpu.vector.rows import blank, from_memory, in_memory, put, take
    from cnncc.targets.cpu.vector.tile import pick, splat_tile
else:
    from cnncc.targets.cpu.vector.twins import (
        absolute,
        anchor,
        bf16_at,
        bit_xor,
        blank,
        copysign,
        count2,
        count4,
        count8,
        count16,
        exponent,
        f32_at,
        f64_at,
        flag,
        floor,
        fma,
        from_bf16,
        from_memory,
        hmax,
        hsum,
        i32_at,
        i64_at,
        in_memory,
        keep_rolled,
        load1,
        load2,
        load4,
        load8,
        load16,
        load_near,
        load_second2,
        load_second4,
        load_second8,
        load_second16,
        load_second_tail2,
        load_second_tail4,
        load_second_tail8,
        load_second_tail16,
        load_strided2,
        load_strided4,
        load_strided8,
        load_strided16,
        load_strided_tail2,
        load_strided_tail4,
        load_strided_tail8,
        load_strided_tail16,
        load_tail2,
        load_tail4,
        load_tail8,
        load_tail16,
        load_tile,
        load_tile_second,
        load_tile_second_tail,
        load_tile_strided,
        load_tile_strided_tail,
        load_tile_tail,
        mantissa,
        maximum,
        minimum,
        pick,
        power2,
        prefetch,
        prefetch_nearby,
        prefetch_tile,
        put,
        relu,
        rint,
        rolled,
        scale2,
        select,
        shift_left,
        shift_right,
        splat2,
        splat4,
        splat8,
        splat16,
        splat_tile,
        sqrt,
        store,
        store_strided,
        store_strided_tail,
        store_tail,
        store_tile,
        store_tile_strided,
        store_tile_strided_tail,
        store_tile_tail,
        take,
        to_bf16,
        to_f32,
        to_f64,
        to_i32,
        to_i64,
        to_u8,
        to_u16,
        to_u32,
        to_u64,
        touch,
        u8_at,
        u16_at,
        wrap_add,
        wrap_mul,
    )
