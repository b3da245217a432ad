"""Where a tensor's elements lie in memory.

Activations are channels-last with a border (halo) wide enough for the windows that read them;
channels are never padded. Those of a few channels may have the columns of their rows innermost
instead (`orientation.py`).
Parameters and what has their shape run along the output channels, in panels of one block of lanes,
so that a kernel reads a panel from its beginning to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cnncc.errors import CompilerBug
from cnncc.targets.arrays import Array
from cnncc.targets.cpu.schedule import block_lanes
from cnncc.tensor import TensorType

ALIGN = 64  # bytes; arena offsets are multiples of it
ALIASING = 2048  # bytes: lines so far apart share two sets of the cache, with stride 2 one
WAYS = 8  # lines that a set holds
APART = (3, 5)  # lines beyond a multiple of WAYS from plane to plane: odd, and not side by side


@dataclass(frozen=True)
class Placement:
    """Element (i0, i1, ...) lies at start + sum(i_a * strides_a), in elements.

    The innermost axis, when in panels, is counted as block start * block_stride + the rest.
    """

    type: TensorType
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    innermost: int
    start: int
    block: int  # lanes per panel, 0 for none
    block_stride: int
    elements: int
    halo: tuple[tuple[int, int], ...] = ()  # per spatial axis
    gap: int = 0  # elements of others behind each sample but the last

    @property
    def bytes(self) -> int:
        """Of its own elements, in whole lines."""
        others = self.gap * (self.dims[0] - 1) if self.gap else 0
        return self._lines(self.elements - others)

    @property
    def sample_bytes(self) -> int:
        """Of one sample of an activation, in whole lines."""
        return self._lines(self.strides[0] - self.gap)

    def _lines(self, elements: int) -> int:
        return -(-elements * self.type.dtype.bytes // ALIGN) * ALIGN

    def in_pieces(self, size: int) -> Placement:
        """The same activation where so many bytes lie from each sample to the next."""
        assert self.innermost != 0, "samples do not run fastest"
        step, own = size // self.type.dtype.bytes, self.strides[0]
        elements = step * (self.dims[0] - 1) + own
        return replace(self, strides=(step, *self.strides[1:]), elements=elements, gap=step - own)

    def argument(self, name: str, buffer: str) -> int:
        """The value of a kernel's run-time argument `<buffer>_at`, `<buffer>_panel` or
        `<buffer>_step<axis>`.
        """
        what = name[len(buffer) + 1 :]
        if what == "at":
            return self.start
        return (
            self.block_stride if what == "panel" else self.strides[int(what.removeprefix("step"))]
        )

    def view(self, flat: Array) -> Array:
        """The tensor in logical axes as a view of its memory (not for panels)."""
        item = flat.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[self.start :], self.dims, tuple(s * item for s in self.strides)
        )

    def with_planes(self) -> Placement:
        """The same tensor for kernels that touch one position in each of many planes, along the
        first axis of space, at a time: planes begin in as many sets of the cache. Channels run
        fastest.
        """
        assert self.strides[1] == 1, "channels lie inside a plane"
        line = ALIGN // self.type.dtype.bytes
        lines = -(-self.strides[2] // line)
        plane = (lines + min((rest - lines) % WAYS for rest in APART)) * line
        strides = (self.dims[2] * plane, self.strides[1], plane, *self.strides[3:])
        return replace(self, strides=strides, elements=strides[0] * self.dims[0])

    def channels(self, t: TensorType, dims: tuple[int, ...], first: int) -> Placement:
        """The placement of some channels of this activation, as a tensor in the same memory."""
        return replace(self, type=t, dims=dims, start=self.start + first)

    def pack(self, array: Array, flat: Array) -> None:
        """Write a logical array; padding lanes become zero."""
        if not self.block:
            self.view(flat)[...] = array
            return
        rows = np.moveaxis(array, self.innermost, -1)
        whole = rows.shape[-1] // self.block
        panels, edge = self._panels(flat), whole * self.block
        panels[..., :whole, :] = rows[..., :edge].reshape(*rows.shape[:-1], whole, self.block)
        if edge < rows.shape[-1]:
            panels[..., whole, :] = 0
            panels[..., whole, : rows.shape[-1] - edge] = rows[..., edge:]

    def unpack(self, flat: Array) -> Array:
        """The logical array, a copy."""
        if not self.block:
            return self.view(flat).copy()
        panels = self._panels(flat)
        rows = panels.reshape(*panels.shape[:-2], -1)[..., : self.dims[self.innermost]]
        return np.ascontiguousarray(np.moveaxis(rows, -1, self.innermost))

    def _panels(self, flat: Array) -> Array:
        """A view of the memory: the other axes, panels, lanes."""
        item = flat.itemsize
        others = [a for a in range(len(self.dims)) if a != self.innermost]
        count = -(-self.dims[self.innermost] // self.block)
        shape = (*(self.dims[a] for a in others), count, self.block)
        strides = (*(self.strides[a] for a in others), self.block_stride * self.block, 1)
        return np.lib.stride_tricks.as_strided(
            flat[self.start :], shape, tuple(s * item for s in strides)
        )


def innermost_axis(t: TensorType) -> int:
    """The axis that usually runs fastest: channels of an activation, output channels of a
    parameter.
    """
    return 1 if t.batched and t.shape else 0


def activation(
    t: TensorType, dims: tuple[int, ...], innermost: int, halo: tuple[tuple[int, int], ...]
) -> Placement:
    """Channels-last: [n, s..., c], the border in memory around each sample. With another axis
    innermost, such as the columns: [n, c, s...].

    Statistics, [n, 2, c], have their channels in another place: `innermost` tells where.
    """
    if len(dims) == 1:
        return Placement(t, dims, (1,), 0, 0, 0, 1, dims[0])
    halo = halo or ((0, 0),) * (len(dims) - 2)
    strides = [0] * len(dims)
    strides[innermost] = 1
    around = dict(enumerate(halo, 2))  # by axis
    lo, hi = around.get(innermost, (0, 0))
    row = dims[-1] + sum(halo[-1]) if halo else 1
    start, step = lo, _pitch(dims, innermost, t.dtype.bytes, row) + lo + hi
    for axis in (a for a in range(len(dims) - 1, 0, -1) if a != innermost):
        lo, hi = around.get(axis, (0, 0))
        strides[axis] = step
        start += lo * step
        step *= dims[axis] + lo + hi
    strides[0] = step
    if dims[1] == 1:  # any will do; then a loop over channels runs on in that over columns
        strides[1] = 1
    return Placement(t, dims, tuple(strides), innermost, start, 0, 1, step * dims[0], halo)


def _pitch(dims: tuple[int, ...], innermost: int, item: int, row: int) -> int:
    """Elements from one position to the next: the channels, and a line more where the positions
    under a register tile, at most a `row` with its border, would fall into one set of the cache and
    drive each other out.
    """
    channels = dims[innermost]
    aliasing = channels * item % ALIASING == 0 and row > WAYS
    return channels + ALIGN // item if aliasing and innermost == 1 and len(dims) > 2 else channels


def parameter(
    t: TensorType, dims: tuple[int, ...], innermost: int, lanes: int, panels: bool
) -> Placement:
    """Panels of the innermost axis (else one panel); inside, the taps, then the other channels,
    then the lanes.
    """
    extent = dims[innermost]
    block = block_lanes(extent, lanes)
    if not panels:
        block *= -(-extent // block)
    strides = [0] * len(dims)
    strides[innermost] = 1
    step = block
    # input channels run faster than taps: the order in which a convolution adds its products
    others = [a for a in range(len(dims)) if a != innermost]
    for axis in (*others[:1], *reversed(others[1:])):
        strides[axis] = step
        step *= dims[axis]
    count = -(-extent // block)
    return Placement(
        t, dims, tuple(strides), innermost, 0, block, step // block if panels else 1, step * count
    )


def place(
    t: TensorType,
    batch: int,
    innermost: int,
    halo: tuple[tuple[int, int], ...],
    lanes: int,
    panels: bool,
) -> Placement:
    """The placement of a concrete tensor. A border goes with the channels or the last axis
    innermost.
    """
    dims = t.dims(batch)
    if innermost not in (1, len(dims) - 1) and any(map(any, halo)):
        raise CompilerBug("place", str(t), "a border is around rows of channels or of columns")
    if t.batched:
        return activation(t, dims, innermost, halo)
    if dims:
        return parameter(t, dims, innermost, lanes, panels)
    return Placement(t, (), (), 0, 0, 0, 1, 1)
