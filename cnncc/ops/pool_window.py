"""What the pools share: their arguments, shape rule, the frame of their nests, sample windows.

A pool may take groups of `across` neighbouring channels together (maxout). Then its window has one
more axis, in front: the channels, in steps of as many as it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import Init, LayerBuilder, Pad, Size
from cnncc.loops.build import Handle, NestBuilder, parallel, serial
from cnncc.loops.ir import For, Index, Let, Lit, Load, Statement, Value, Var
from cnncc.ops.base import Op, axis_names
from cnncc.ops.elementwise import Add, Mul
from cnncc.ops.relation import Relation
from cnncc.ops.spatial import axis_word, require_rank
from cnncc.ops.windows import output_extents, resolve
from cnncc.tensor import DType, Extent, TensorType
from cnncc.window import Axis, Fit, Window


def pool_window(
    b: LayerBuilder,
    x: Node,
    operator: str,
    size: Size,
    *,
    stride: tuple[int, ...] | None,
    pad: Pad,
    dilation: tuple[int, ...],
    fit: Fit | None,
) -> tuple[Node, Window]:
    """`windows.resolve` for pools: the stride defaults to the size, fit to the net's default.

    Raises ShapeError also as `check_pool`.
    """
    strides = size.taps if stride is None else stride
    chosen: Fit = fit or b.fit
    x, window = resolve(
        b, x, operator, size, stride=strides, pad=pad, dilation=dilation, fit=chosen, partial=True
    )
    check_pool(window)
    return x, window


def check_pool(window: Window) -> None:
    """Raises ShapeError E0208 when a window could lie in the padding altogether."""
    for a, axis in enumerate(window):
        if max(axis.lo, axis.hi) >= axis.span:
            raise ShapeError(
                "E0208",
                f"a pool padded by {max(axis.lo, axis.hi)} has windows of {axis.span} "
                "that see nothing but padding",
                arithmetic=[
                    f"{axis_word(len(window), a)}: pad ({axis.lo}, {axis.hi}), window {axis.span}"
                ],
                fixes=[f"pad by at most {axis.span - 1}"],
                argument="pad",
            )


def whole(window: Window, across: int) -> Window:
    """The window over the last axes of an array: with the channels where these are pooled too."""
    return window if across == 1 else (Axis(across, across), *window)


def pool_out(name: str, window: Window, x: TensorType, across: int = 1) -> TensorType:
    """The type of a pool over x. Raises ShapeError (E0204 when `across` does not divide)."""
    if window or across == 1:
        require_rank(name, x, len(window))
    elif not x.dtype.is_float or x.rank:
        raise ShapeError("E0210", f"{name} works on floats", arithmetic=[f"the input is {x}"])
    if across == 1:
        return x.with_shape((x.channels, *output_extents(window, x.spatial, partial=True)))
    if not isinstance(x.channels, int) or x.channels % across:
        raise ShapeError(
            "E0204",
            f"a pool across channels takes {across} of them together, but the input has "
            f"{x.channels}",
            arithmetic=[f"input: {x}", f"{x.channels} / {across} is not a whole number"],
            fixes=[f"channels = {d}" for d in _divisors_near(x.channels, across)],
            argument="channels",
        )
    return x.with_shape((x.channels // across, *output_extents(window, x.spatial, partial=True)))


def _divisors_near(channels: Extent, wanted: int) -> list[int]:
    """At most two divisors above 1 of a number of channels, the closest ones first."""
    if not isinstance(channels, int):
        return []
    found = [d for d in range(2, channels + 1) if channels % d == 0]
    return sorted(found, key=lambda d: abs(d - wanted))[:2]


def is_disjoint(window: Window) -> bool:
    """Whether no element lies in two windows."""
    return all(axis.stride >= axis.span for axis in window)


def taps_count(window: Window) -> int:
    """How many elements a window sees where nothing is cut off."""
    count = 1
    for axis in window:
        count *= axis.size
    return count


Subsampling = Literal["none", "per_map"]
ONES, ZEROS = Init("ones"), Init("zeros")


def subsampled(b: LayerBuilder, op: Op, x: Node, affine: Subsampling) -> Node:
    """The pool; with `affine` per_map each of its channels gets a trainable scale and bias.

    The stride of a subsampling layer is the pool's (LeCun, Bottou, Bengio and Haffner 1998).
    """
    if affine == "none":
        return b.add(op, x)
    y = b.add(op, x, suffix=".pool")
    scale = b.parameter("scale", (y.type.channels,), ONES)
    bias = b.parameter("bias", (y.type.channels,), ZEROS)
    return b.add(Add(), b.add(Mul(), y, scale, suffix=".scaled"), bias)


class PoolNest:
    """The frame of a pool's nest, between [*, C, i...] (`inner`) and [*, C, o...] (`outer`).

    Forward nests run over the outputs with the taps inside; backward nests run over the inputs and
    gather from the outputs whose windows see them.
    """

    def __init__(
        self,
        n: NestBuilder,
        window: Window,
        inner: TensorType,
        outer: TensorType,
        across: int = 1,
    ) -> None:
        self.n = n
        self.window = whole(window, across)
        self.relation = Relation(n, self.window)
        axes = range(len(self.window))
        self.inner = inner.shape[len(inner.shape) - len(axes) :]
        self.outer = outer.shape[len(outer.shape) - len(axes) :]
        names = axis_names(outer)
        self.lead = names[: len(names) - len(axes)]
        self.output_names = (*self.lead, *(f"s{a}" for a in axes))
        self.input_names = (*self.lead, *(f"in{a}" for a in axes))
        self.lead_index = tuple(Var(f"i_{name}") for name in self.lead)
        self.place = tuple(Var(f"i_s{a}") for a in axes)
        self.source_place = tuple(Var(f"i_in{a}") for a in axes)
        self.output_index: tuple[Index, ...] = (*self.lead_index, *self.place)
        self.input_index: tuple[Index, ...] = (*self.lead_index, *self.source_place)

    def at_input(self, name: str, t: TensorType) -> Handle:
        """A buffer that is read at input positions."""
        return self.n.input(name, t, " ".join(self.input_names))

    def at_output(self, name: str, t: TensorType) -> Handle:
        """A buffer that is read at output positions."""
        return self.n.input(name, t, " ".join(self.output_names))

    def output(self, name: str, t: TensorType) -> Handle:
        return self.n.output(name, t, " ".join(self.output_names))

    def input_result(self, name: str, t: TensorType) -> Handle:
        return self.n.output(name, t, " ".join(self.input_names))

    @property
    def over_output(self) -> list[tuple[str, Index | int]]:
        return self._loops(self.output_names)

    def _loops(self, names: Sequence[str]) -> list[tuple[str, Index | int]]:
        return [(f"i_{name}", self.n.size(name, self.n.sizes[name])) for name in names]

    def load(self, x: Handle, outside: float) -> Load:
        """What the current tap sees."""
        return self.relation.load(x, self.lead_index, self.place, outside)

    def over_taps(self, *steps: Statement) -> tuple[Statement, ...]:
        """The steps for every tap in row-major order."""
        return (serial(self.relation.taps, *steps),) if self.relation.taps else steps

    @property
    def target_index(self) -> tuple[Index, ...]:
        """The output whose current tap sees the current input (inside `gather` only)."""
        return (*self.lead_index, *self.relation.target(self.source_place))

    def gather(self, steps: Statement | Sequence[Statement], dx: Handle, value: Value) -> For:
        """Over all inputs: `acc` from 0, `steps` for every output that sees it, `value` stored."""
        body = steps if isinstance(steps, Sequence) else [steps]
        taps = self.relation.gather(self.source_place, self.outer, body)
        return parallel(
            self._loops(self.input_names),
            Let("acc", Lit(0.0)),
            *taps,
            dx.store(self.input_index, value),
        )

    def counted(self, place: Sequence[Index], *, include_pad: bool) -> Index:
        """How many taps of the output at `place` count."""
        extents = [self.n.size(f"in{a}", extent) for a, extent in enumerate(self.inner)]
        return self.relation.counted(place, extents, include_pad=include_pad)


def channel_cases() -> Iterator[tuple[Window, int, TensorType]]:
    """Windows, channels that are pooled together, and input types."""
    still = (Axis(1), Axis(1))
    yield still, 3, TensorType(DType.F32, (6, 3, 4))
    yield (), 2, TensorType(DType.F32, (6,))
    yield (), 4, TensorType(DType.F32, (4,), batched=False)
    yield (Axis(1),), 2, TensorType(DType.F32, (4, 5))
    yield (Axis(2, 2), Axis(3, 1, lo=1)), 2, TensorType(DType.F32, (4, 4, 5))  # and over space


def pool_cases() -> Iterator[tuple[Window, TensorType]]:
    """Windows and input types whose nests differ."""

    def image(*shape: int) -> TensorType:
        return TensorType(DType.F32, shape)

    yield (Axis(2, 2), Axis(2, 2)), image(3, 6, 8)
    yield (Axis(3, 2), Axis(3, 2)), image(2, 7, 8)  # overlapping; a column is dropped
    yield (Axis(3, 2, lo=1, hi=1), Axis(3, 2, lo=1, hi=1)), image(3, 7, 8)
    yield (Axis(3, 2, fit="partial"), Axis(2, 2, fit="partial")), image(2, 6, 7)
    yield (
        (Axis(3, 3, lo=1, hi=2, fit="partial"), Axis(3, 2, 2, lo=2, hi=1, fit="partial")),
        image(2, 8, 9),
    )
    yield (Axis(1, 2), Axis(2, 3)), image(2, 5, 8)  # gaps between windows
    yield (Axis(2, 1, 3, lo=3), Axis(1)), image(2, 5, 4)
    yield (Axis(3, 2, lo=1),), image(2, 9)
    yield (Axis(2, 2), Axis(2, 1), Axis(3, 2, lo=1, hi=1)), image(2, 4, 3, 5)
    yield (Axis(2, 2), Axis(2, 2, lo=1)), TensorType(DType.F32, (2, 6, 5), batched=False)
