"""Layers: what a name in the language means in graph terms.

A layer is a Python function `f(b, x, ..., *, argument=default, ...) -> Node` that adds operators
and parameters to the graph.
Its annotations say what the language accepts for each argument; elaboration converts and checks,
the language reference prints them. Operators live in `ops`; this module knows only how an argument
may look.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from cnncc.graph.ir import Builder, Condition, Node, Operator, Origin, ShapeError
from cnncc.tensor import DType, Extent, TensorType
from cnncc.window import Fit


@dataclass(frozen=True)
class Word:
    """A name that is no variable, with its arguments: `same`, `const(0.5)`, `groups(2)`, `he`."""

    name: str
    args: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        inside = [str(a) for a in self.args] + [f"{k} = {v}" for k, v in self.named]
        return f"{self.name}({', '.join(inside)})" if inside else self.name


@dataclass(frozen=True)
class Size:
    """Taps per spatial axis, written 3x3 or (k, k)."""

    taps: tuple[int, ...]

    def __str__(self) -> str:
        return "x".join(map(str, self.taps))


PadMode = Literal["zero", "const", "replicate", "reflect", "circular"]


@dataclass(frozen=True)
class Pad:
    """How a window meets the border.

    amount: `valid` | `same` | `same_lower` | `full` | one (lo, hi) pair per axis | an `int` for
    all | `solve` with the wanted extents in `out`. mode: what the border holds; for const `value`,
    or a pair of values: in front, behind.
    """

    amount: (
        Literal["valid", "same", "same_lower", "full", "solve"] | tuple[tuple[int, int], ...] | int
    )
    mode: PadMode = "zero"
    value: float | tuple[float, float] = 0.0
    out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Init:
    """An initialiser: he, glorot, lecun (fan-in normal, as published), normal, uniform, constant,
    or a literal.
    """

    kind: str
    args: tuple[float, ...] = ()
    literal: tuple[Any, ...] | None = None  # nested tuples of the weight's shape
    fans: tuple[float, float] | None = None  # fan-in and fan-out, where the shape does not tell


@dataclass(frozen=True)
class Weights:
    """A name declared by `weights U`: the layers that use it share one kernel."""

    name: str


@dataclass(frozen=True)
class Transposed:
    """`transpose(c1)`: the kernel of a layer, read from its outputs to its inputs. `nodes` are
    those of the statement that named it.
    """

    name: str
    nodes: tuple[str, ...]


class ArgumentError(Exception):
    """A language argument that cannot be what its layer asks for; elaboration adds the span."""

    def __init__(
        self, message: str, *, argument: str = "", code: str = "E0304", fixes: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message, self.argument, self.code, self.fixes = message, argument, code, tuple(fixes)


# --- annotations of layer functions ---

Count = typing.Annotated[int, "a positive integer"]
Natural = typing.Annotated[int, "an integer of at least 0"]
Number = typing.Annotated[float, "a number"]
Flag = typing.Annotated[bool, "true or false"]
PerAxis = typing.Annotated[
    tuple[int, ...], "a positive integer, or one per axis"
]  # length 1 means all axes
Phases = typing.Annotated[tuple[int, ...], "an integer of at least 0, or one per axis"]
Extents = typing.Annotated[tuple[int, ...], "positive integers, one per axis"]
Share = typing.Annotated[Word, "full, none, tiled(t), symmetric or symmetric(mean)"]
Region = typing.Annotated[
    Word | tuple[Any, ...], "rows(from, to), columns(from, to) or a (from, to) pair per axis"
]
Connect = typing.Annotated[Word, "all, groups(g), depthwise or table(T)"]
Kernel = typing.Annotated[
    Weights | Init | Transposed,
    "a kernel declared by `weights`, numbers in nested lists, or transpose(layer)",
]
Numbers = typing.Annotated[tuple[float, ...], "a number, or one per channel"]


@dataclass(frozen=True)
class Argument:
    """One argument of a layer, as the language reference shows it."""

    name: str
    annotation: Any
    default: Any
    required: bool
    positional: bool


@dataclass(frozen=True)
class Layer:
    """A name of the language: its function, how many tensors it takes (None: any number), and its
    arguments.
    """

    name: str
    function: Callable[..., Node]
    tensors: int | None
    arguments: tuple[Argument, ...]
    doc: str
    category: str


def layer_of(function: Callable[..., Node], name: str, category: str) -> Layer:
    """Read a layer function's signature."""
    hints = typing.get_type_hints(function, include_extras=True)
    tensors: int | None = 0
    arguments = []
    for p in list(inspect.signature(function).parameters.values())[1:]:
        if hints[p.name] is Node:
            tensors = None if p.kind is p.VAR_POSITIONAL else (tensors or 0) + 1
            continue
        required = p.default is p.empty
        arguments.append(
            Argument(
                p.name,
                hints[p.name],
                None if required else p.default,
                required,
                p.kind is p.POSITIONAL_OR_KEYWORD,
            )
        )
    return Layer(
        name, function, tensors, tuple(arguments), inspect.getdoc(function) or "", category
    )


# --- what a layer function is given ---


@dataclass
class LayerBuilder:
    """Adds one layer to the graph: its operators, its parameters, its conditions.

    `layer` is the layer's name (`c1`); operators are named after it, parameters `c1.weight`,
    `c1.bias`, ...
    """

    graph: Builder
    layer: str
    origin: Origin
    make_parameter: Callable[[str, TensorType, Init, bool, str, Origin], Node]
    fit: Fit = "exact"  # the net's default
    conditions: list[Condition] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)  # further net defaults

    def add(self, op: Operator, *inputs: Node, suffix: str = "") -> Node:
        return self.graph.add(op, *inputs, name=self.layer + suffix, origin=self.origin)

    def parameter(
        self,
        name: str,
        shape: Sequence[Extent],
        init: Init,
        *,
        shared: Weights | None = None,
        frozen: bool = False,
        state: bool = False,
    ) -> Node:
        """An unbatched f32 tensor, trainable unless `frozen`; `state` marks running statistics.

        Shared ones are created once, under the name that `weights` declared.
        """
        for extent in shape:
            if not isinstance(extent, int):
                raise ShapeError(
                    "E0206",
                    f"the parameter `{self.layer}.{name}` would depend on the symbolic extent "
                    f"{extent}",
                    fixes=[
                        "pool to a fixed size first: globalavgpool or adaptiveavgpool",
                        "give the input fixed extents",
                    ],
                )
        kind = "state" if state else "frozen" if frozen else "trained"
        full = shared.name if shared else f"{self.layer}.{name}"
        return self.make_parameter(
            full,
            TensorType(DType.F32, tuple(shape), batched=False),
            init,
            shared is not None,
            kind,
            self.origin,
        )

    def require_divisible(self, extent: Extent, divisor: int, text: str) -> None:
        """Record a condition on symbolic extents that is checked when data arrives."""
        self.conditions.append(Condition(extent, divisor, text, self.origin))

    def error(
        self, code: str, message: str, *, argument: str = "", fixes: Sequence[str] = ()
    ) -> NoReturn:
        raise ArgumentError(message, argument=argument, code=code, fixes=fixes)
