"""The kernel of a convolutional layer: what the arguments `share`, `connect`, `kind` and `weights`
make of the numbers that the layer stores.

The operators compute with a kernel [outputs, inputs / groups, entries...], see sharing.py. Where
the stored numbers are not these entries one by one, an `arrange` makes the kernel from them. What
is stored, per connection of an output to an input:

    share = full         its taps, as in every other library
    share = tiled(t)     the t kernels of each axis side by side: entry (o % t) * k + tap
    share = none         one kernel per output position in the same way, without the taps that lie
                         in the zeros around the input: along each axis position by position
    share = symmetric    the taps from the centre outwards: s + 1 of 2 s + 1
    kind = convolution   the same taps, which the layer reads from the end
    connect = table(T)   the connections one after the other: by output, then by input

With `constraint = density` the kernel is the density of all that, see density.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import Init, LayerBuilder, Size, Transposed, Weights, Word
from cnncc.graph.sources import Constant
from cnncc.ops.arrange import Arrange
from cnncc.ops.connect import Connections, Rows, connections
from cnncc.ops.conv import Conv, ConvDx
from cnncc.ops.density import density
from cnncc.ops.sharing import Tiles, mosaic, taps
from cnncc.ops.spatial import axis_word
from cnncc.tensor import DType, Extent, TensorType
from cnncc.window import Axis, Window

Kind = Literal["correlation", "convolution"]
Constraint = Literal["none", "density"]
FULL, ALL = Word("full"), Word("all")


@dataclass(frozen=True)
class Kernel:
    """A kernel in the graph, and the attributes with which the operators read it."""

    node: Node
    groups: int
    tiles: Tiles


@dataclass(frozen=True)
class Form:
    """The arguments that say what a kernel is made of."""

    share: Word
    connect: Word
    kind: Kind
    constraint: Constraint
    weights: Weights | Init | Transposed | None
    init: Init
    frozen: bool


def kernel(
    b: LayerBuilder,
    form: Form,
    window: Window,
    *,
    channels: tuple[Extent, Extent],
    positions: Sequence[Extent],
    inputs: Sequence[Extent],
    adjoint: bool = False,
) -> Kernel:
    """The kernel of a conv from channels[1] to channels[0] whose window slides over extents
    `inputs` and stands at `positions`. A transposed conv, the adjoint, gives those of its conv.

    Raises ShapeError: E0204 and E0219 as `connections` does, E0206 for weights per position of a
    symbolic extent, E0218 for a form that cannot be; ArgumentError E0304 for a word that says
    nothing.
    """
    outs, ins = channels
    found = connections(b, form.connect, ins, outs, adjoint=adjoint)
    sharing = _sharing(b, form.share, window, positions)
    tables = tuple(
        _table(axis, sharing, a, form.kind, n)
        for a, (axis, n) in enumerate(zip(window, inputs, strict=True))
    )
    stored = tuple(
        extent if table is None else max(table) + 1
        for extent, table in zip(mosaic(window, sharing.tiles), tables, strict=True)
    )
    lead = (outs, ins // found.groups) if found.rows is None else (_pairs(found.rows),)
    shared = form.weights if isinstance(form.weights, Weights) else None
    init = _literal(form, (*lead, *stored), len(window))
    if found.rows is not None or stored != tuple(axis.size for axis in window):
        init = replace(init, fans=_fans(found, window, ins, outs))
    w = b.parameter("weight", (*lead, *stored), init, shared=shared, frozen=form.frozen)
    if found.rows is not None or any(table is not None for table in tables):
        w = _arranged(b, w, found.rows, tables, sharing, window, ins)
    if form.constraint == "density":
        if sharing.tiles:
            raise ShapeError(
                "E0218",
                "a kernel that is a density is shared by all outputs",
                arithmetic=[f"share: {form.share}"],
                fixes=["share = full", "share = symmetric"],
                argument="constraint",
            )
        w = density(b, w)
    return Kernel(w, found.groups, sharing.tiles)


# --- sharing over positions -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Sharing:
    """`alone`: axes along which every position has its own kernel, as the text asks for."""

    tiles: Tiles
    alone: tuple[bool, ...]
    symmetric: bool = False
    mean: bool = False


def _sharing(b: LayerBuilder, share: Word, window: Window, positions: Sequence[Extent]) -> _Sharing:
    rank = len(window)
    shared = _Sharing((), (False,) * rank)
    match share:
        case Word("full", (), ()):
            return shared
        case Word("symmetric", (), ()) | Word("symmetric", (Word("mean", (), ()),), ()):
            for a, axis in enumerate(window):
                if axis.size % 2 == 0:
                    raise ShapeError(
                        "E0218",
                        f"a symmetric kernel has an odd number of taps, but {axis.size} along the "
                        f"{axis_word(rank, a)}",
                        fixes=[f"a size of {axis.size - 1} or {axis.size + 1}"],
                        argument="share",
                    )
            return replace(shared, symmetric=True, mean=bool(share.args))
        case Word("none", (), ()):
            known = tuple(_fixed(n, rank, a) for a, n in enumerate(positions))
            return _Sharing(known if max(known) > 1 else (), (True,) * rank)
        case Word("tiled", (value,), ()) if (wanted := _periods(value, rank)) is not None:
            pairs = list(zip(wanted, positions, strict=True))
            tiles = tuple(min(t, n) if isinstance(n, int) else t for t, n in pairs)
            alone = tuple(t > 1 and isinstance(n, int) and n <= t for t, n in pairs)
            return _Sharing(tiles if max(tiles) > 1 else (), alone)
    b.error(
        "E0304",
        "`share` must be full, none, tiled(t) with a period for all axes or one per axis, "
        f"symmetric or symmetric(mean), but got {share}",
        argument="share",
        fixes=["share = tiled(2)", "share = none"],
    )


def _periods(value: Any, rank: int) -> tuple[int, ...] | None:
    given = value.taps if isinstance(value, Size) else value
    given = given if isinstance(given, tuple) else (given,)
    whole = all(isinstance(t, int) and not isinstance(t, bool) and t >= 1 for t in given)
    if not whole or len(given) not in (1, rank):
        return None
    return given * rank if len(given) == 1 else given


def _fixed(n: Extent, rank: int, a: int) -> int:
    if isinstance(n, int):
        return n
    raise ShapeError(
        "E0206",
        f"with `share = none` every position has weights of its own, but the {axis_word(rank, a)} "
        f"of the output is {n}",
        fixes=["give the input fixed extents", "share = tiled(2)"],
        argument="share",
    )


# --- entries along an axis ------------------------------------------------------------------------


def _table(axis: Axis, sharing: _Sharing, a: int, kind: Kind, n: Extent) -> tuple[int, ...] | None:
    """The stored number behind each entry of the kernel along axis a, -1 for none; None where they
    are the entries themselves.
    """
    if sharing.symmetric:
        table = [abs(tap - axis.size // 2) for tap in range(axis.size)]
        return tuple(table) if axis.size > 1 else None
    period = sharing.tiles[a] if sharing.tiles else 1
    live = [True] * (period * axis.size)
    if sharing.alone[a] and isinstance(n, int):
        live = [0 <= axis.input(p, tap) < n for p in range(period) for tap in range(axis.size)]
    if all(live) and (kind == "correlation" or axis.size == 1):
        return None
    table, stored = [-1] * len(live), 0
    order = range(axis.size) if kind == "correlation" else range(axis.size - 1, -1, -1)
    for p in range(period):
        for tap in order:
            if live[p * axis.size + tap]:
                table[p * axis.size + tap] = stored
                stored += 1
    if not stored:
        raise ShapeError(
            "E0218",
            "no tap of the local layer ever sees the input, only zeros around it",
            arithmetic=[f"pad: ({axis.lo}, {axis.hi})", f"taps: {axis.size}", f"extent: {n}"],
            argument="pad",
        )
    return tuple(table)


# --- the stored numbers ---------------------------------------------------------------------------


def _pairs(rows: Rows) -> int:
    return sum(map(len, rows))


def _fans(found: Connections, window: Window, ins: Extent, outs: Extent) -> tuple[float, float]:
    """Fan-in and fan-out of one kernel, on the average over a table's rows."""
    assert isinstance(ins, int)
    assert isinstance(outs, int)
    links = ins * outs / found.groups if found.rows is None else _pairs(found.rows)
    return links / outs * taps(window), links / ins * taps(window)


def _literal(form: Form, shape: tuple[Extent, ...], rank: int) -> Init:
    """The initial values: a literal of the taps' shape alone stands for every connection.

    Raises ShapeError E0318 where it has neither that shape nor the weight's.
    """
    init = form.weights if isinstance(form.weights, Init) else form.init
    if init.kind == "gabor" and rank != 2:
        raise ShapeError(
            "E0318",
            f"`init = gabor` is a function of two coordinates, but the kernel has {rank}",
            argument="init",
        )
    literal = init.literal
    if literal is None or _shape(literal) == shape:
        return init  # a literal that is not regular is refused with the parameter
    if _shape(literal) != shape[-rank:]:
        raise ShapeError(
            "E0318",
            f"the literal must have the shape of the taps {list(shape[-rank:])} or of the weight "
            f"{list(shape)}, but it has {list(_shape(literal))}",
            argument="weights" if isinstance(form.weights, Init) else "init",
        )
    for extent in reversed(shape[:-rank]):
        assert isinstance(extent, int)
        literal = (literal,) * extent
    return replace(init, literal=literal)


def _shape(literal: Any) -> tuple[int, ...]:
    """The extents of nested tuples, by their first elements."""
    if not isinstance(literal, tuple):
        return ()
    return (len(literal), *(_shape(literal[0]) if literal else ()))


def _arranged(
    b: LayerBuilder,
    w: Node,
    rows: Rows | None,
    tables: tuple[tuple[int, ...] | None, ...],
    sharing: _Sharing,
    window: Window,
    ins: Extent,
) -> Node:
    operands = []
    if rows is not None:
        assert isinstance(ins, int)
        numbers = iter(range(_pairs(rows)))
        value = tuple(tuple(next(numbers) if c in row else -1 for c in range(ins)) for row in rows)
        operands.append(_constant(b, value, (len(rows), ins), ".pairs"))
    for a, table in enumerate(tables):
        if table is not None:
            operands.append(_constant(b, table, (len(table),), f".taps{a}"))
    centre = tuple(axis.size // 2 for axis in window) if sharing.mean else ()
    arrange = Arrange(rows is not None, tuple(t is not None for t in tables), centre)
    return b.add(arrange, w, *operands, suffix=".kernel")


def _constant(b: LayerBuilder, value: tuple[Any, ...], shape: tuple[int, ...], suffix: str) -> Node:
    return b.add(Constant(TensorType(DType.I32, shape, batched=False), value), suffix=suffix)


# --- the kernel of another layer ------------------------------------------------------------------


def transposed(
    b: LayerBuilder,
    form: Form,
    of: type[Conv] | type[ConvDx],
    window: Window,
    channels: tuple[Extent, Extent],
) -> Kernel:
    """The kernel of the layer that `weights = transpose(layer)` names, for its adjoint: `of` is
    the operator of that layer, channels[1] to channels[0] what its kernel must lead to and from.

    Raises ShapeError E0217 where there is no such layer, or its kernel has another shape.
    """
    assert isinstance(form.weights, Transposed)
    named = [b.graph[n] for n in form.weights.nodes]
    found = [node for node in named if isinstance(node.op, of)]
    name = form.weights.name
    own, other = ("conv_transpose", "conv") if of is Conv else ("conv", "conv_transpose")
    if len(found) != 1:
        fix = f"name the {other} alone: `{name} = x -> {other}(...)`"
        if any(isinstance(node.op, Conv | ConvDx) for node in named) and not found:
            fix = f"the kernel of a {own} is for a {other}"
        raise ShapeError(
            "E0217",
            f"`transpose({name})` needs one {other} in `{name}`, but there are {len(found)}",
            fixes=[fix],
            argument="weights",
        )
    plain = (FULL, ALL, "correlation", "none")
    if (form.share, form.connect, form.kind, form.constraint) != plain:
        raise ShapeError(
            "E0217",
            f"`transpose({name})` brings its connections along",
            fixes=["leave out `share`, `connect`, `kind` and `constraint`"],
            argument="weights",
        )
    if form.init != Init("he") or form.frozen:
        raise ShapeError(
            "E0217",
            f"`transpose({name})` brings its values along",
            fixes=[f"give `init` and `frozen` to `{name}`"],
            argument="init" if form.init != Init("he") else "frozen",
        )
    op = found[0].op
    assert isinstance(op, Conv | ConvDx)
    node = b.graph[found[0].inputs[1]]
    outs, ins = node.type.shape[0], node.type.shape[1] * op.groups
    sizes, wanted = ("x".join(str(axis.size) for axis in w) for w in (op.window, window))
    leads, wants = ((outs, ins), channels) if of is Conv else ((ins, outs), channels[::-1])
    if (sizes, leads) != (wanted, wants):
        raise ShapeError(
            "E0217",
            f"`transpose({name})` leads from {leads[0]} to {leads[1]} channels by {sizes} taps, "
            f"but this layer from {wants[0]} to {wants[1]} by {wanted}",
            arithmetic=[f"the kernel of `{name}` is {node.type}"],
            argument="weights",
        )
    return Kernel(node, op.groups, op.tiles)
