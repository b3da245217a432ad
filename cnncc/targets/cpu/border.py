"""The kernel that fills the border of a tensor with what lies outside it.

It runs beside the kernel that writes the tensor, in the same phase, whenever the arena may have
used the memory for something else. The text is one for all ranks: missing spatial axes have extent
1 and no border.
"""

from __future__ import annotations

from cnncc.targets.cpu.layout import Placement

BORDER_INTEGERS = 12

_TEXT = '''"""Fills the border of a tensor: whole rows outside, else both ends of a row."""

from cnncc.targets.cpu.compiled import compiled, inlined
{words}

@inlined
def fill(y, start, stop):
{fill}

@compiled("void({t}*, i64*, i64, i64, i64)")
def kernel(y, table, first, share, shares):
    samples = table[first + 0]
    e0 = table[first + 1]
    e1 = table[first + 2]
    lo0 = table[first + 3]
    lo1 = table[first + 4]
    hi0 = table[first + 5]
    hi1 = table[first + 6]
    left = table[first + 7]  # elements in front of a row, behind it, and in it
    right = table[first + 8]
    inside = table[first + 9]
    maps = table[first + 10]  # of a sample
    step = table[first + 11]  # from sample to sample
    pitch = left + inside + right
    rows0 = lo0 + e0 + hi0
    rows1 = lo1 + e1 + hi1
    each = maps * rows0 * rows1
    rows = samples * each
    begin = rows * share // shares
    r1 = begin % rows1
    r0 = begin // rows1 % rows0
    for row in range(begin, rows * (share + 1) // shares):
        start = row // each * step + row % each * pitch
        if lo0 <= r0 < lo0 + e0 and lo1 <= r1 < lo1 + e1:
            fill(y, start, start + left)
            fill(y, start + left + inside, start + pitch)
        else:
            fill(y, start, start + pitch)
        r1 += 1
        if r1 == rows1:
            r1 = 0
            r0 += 1
            if r0 == rows0:
                r0 = 0
'''

_VECTORS = """    value = splat{lanes}({t}({value}))
    while start + {lanes} <= stop:
        store(y, start, value)
        start += {lanes}
    store_tail(y, start, value, stop - start)
"""

_NUMBERS = """    for i in range(start, stop):
        y[i] = {value}
"""

_LANES = {"f32": 16, "f64": 8}  # a border is often shorter, and then one store


def border_text(dtype: str, fill: float) -> str:
    """The module text for an element type and a constant."""
    value = {"inf": "inf", "-inf": "-inf"}.get(repr(fill), repr(fill))
    lanes = _LANES.get(dtype)
    words = f"from cnncc.targets.cpu.vector import {dtype}, splat{lanes}, store, store_tail\n"
    text = _TEXT.replace("{words}", words if lanes else "").replace(
        "{fill}", _VECTORS.replace("{lanes}", str(lanes)) if lanes else _NUMBERS
    )
    text = text.replace("{t}", dtype).replace("{value}", value)
    return (
        text.replace("\n\nfrom cnncc", "\n\nfrom math import inf\n\nfrom cnncc", 1)
        if "inf" in value
        else text
    )


def border_arguments(p: Placement) -> list[int]:
    """The kernel's integers for a bound tensor. Where channels are not innermost, each is a map of
    its own.
    """
    maps = 1 if p.innermost == 1 else p.dims[1]
    spatial = list(zip(p.dims[2:], p.halo, strict=True))
    spatial = [(1, (0, 0))] * (3 - len(spatial)) + spatial
    (e0, (lo0, hi0)), (e1, (lo1, hi1)), (e2, (lo2, hi2)) = spatial
    pitch = p.strides[-1]  # from one position to the next
    return [
        p.dims[0], e0, e1, lo0, lo1, hi0, hi1, lo2 * pitch, hi2 * pitch, e2 * pitch, maps,
        p.strides[0],
    ]  # fmt: skip
