"""The tree of a `.cnn` file, as written: names are not resolved, blocks are not expanded, and
nothing is evaluated. Nodes are frozen dataclasses. Every node has a span that comparison ignores,
so two trees are equal when they say the same thing in whatever layout; `body_span` goes from the
opening to the closing curly bracket.

    file      = import* (net | block | train | table)*
    net       = "net" name params body            block = "block" name params body
    table     = "table" name expr*
    train     = "train" name body                 params = (name ["=" expr])*
    statement = default | input | assign | output | weights | repeat | expect | require | nofuse
              | target | return
    expr      = int | float | bool | size | name | tuple | list | call | pipeline
              | unary | binary | if

Meaning that is already fixed here: `a -> f(1) -> g` is `Pipeline(a, (f(1), g))` and means
`g(f(a, 1))`; an operator without arguments in a pipeline is a call without arguments; `+` between
tensors is the same `Binary` as `+` between numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from cnncc.errors import NOWHERE, Span

UnaryOperator: TypeAlias = Literal["-", "not"]
BinaryOperator: TypeAlias = Literal[
    "+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or"
]


@dataclass(frozen=True)
class Node:
    """Anything with a place in the text."""

    span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


# --- expressions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Int(Node):
    """`60_850`. `spelling` keeps the user's underscores for the formatter."""

    value: int
    spelling: str = field(default="", kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Float(Node):
    """`0.05` or `1e-3`: always finite."""

    value: float
    spelling: str = field(default="", kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Bool(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True)
class Size(Node):
    """`3x3` or `5x5x5`: two or three positive extents written as one word."""

    extents: tuple[int, ...]


@dataclass(frozen=True)
class Name(Node):
    """A reference to a layer, parameter, symbolic extent, or a word such as `same` or `floor`."""

    name: str


@dataclass(frozen=True)
class Tuple(Node):
    """`(a, b)`; `(a,)` has one element; there is no empty tuple."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True)
class List(Node):
    """`[64, 56, 56]`, possibly empty."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True)
class Argument(Node):
    """One argument of a call: `name` is None where it is given by position."""

    name: str | None
    value: Expr
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Call(Node):
    """`conv(x, 16, 3x3, pad = same)`, an operator, block, query or argument value such as
    `tiled(2)`. As a stage of a pipeline the piped value is not among the arguments."""

    name: str
    arguments: tuple[Argument, ...] = ()
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Pipeline(Node):
    """`head -> stage -> stage`: at least one stage; `head` is never itself a Pipeline."""

    head: Expr
    stages: tuple[Call, ...]


@dataclass(frozen=True)
class Unary(Node):
    """`-x` or `not x`."""

    operator: UnaryOperator
    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """`left operator right`: arithmetic, comparison or logic, on numbers or (for some) tensors."""

    operator: BinaryOperator
    left: Expr
    right: Expr
    operator_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class If(Node):
    """`if condition then a else b`, chosen while the network is built."""

    condition: Expr
    then: Expr
    otherwise: Expr


Expr: TypeAlias = (
    Int | Float | Bool | Size | Name | Tuple | List | Call | Pipeline | Unary | Binary | If
)

# --- statements ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TypeExpr(Node):
    """`f32[1, H, W]` or `class[classes]`: an element type and the extents in the brackets."""

    element: str
    extents: tuple[Expr, ...]
    element_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Default(Node):
    """`default fit = floor`: an argument value for every operator of the net that has it."""

    name: str
    value: Expr
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Input(Node):
    """`input image: u8[3, H, W] (scale = 255)`; `arguments` are those in the parentheses."""

    name: str
    type: TypeExpr
    arguments: tuple[Argument, ...] = ()
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Assign(Node):
    """`name = expr`: in a net or block a layer or a compile-time value, in `train` a setting."""

    name: str
    value: Expr
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Output(Node):
    """`output name = expr`, or `output expr` with name None (the expression may be a Name)."""

    name: str | None
    value: Expr
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Weights(Node):
    """`weights U, V`: names that several operators may share their kernel under."""

    names: tuple[Name, ...]


@dataclass(frozen=True)
class Repeat(Node):
    """`repeat 3 { ... }` or `repeat i in 3 { ... }` (i counts 0, 1, 2)."""

    index: str | None
    count: Expr
    body: tuple[Statement, ...]
    index_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)
    body_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Expect(Node):
    """`expect params == 60_850, receptive_field(s4) == 16`."""

    conditions: tuple[Expr, ...]


@dataclass(frozen=True)
class Require(Node):
    """`require fused(a, b, c)`."""

    facts: tuple[Call, ...]


@dataclass(frozen=True)
class NoFuse(Node):
    """`nofuse(a, b)`: these layers get kernels of their own."""

    names: tuple[Name, ...]


@dataclass(frozen=True)
class Target(Node):
    """`target label: class[classes]`, in `train`."""

    name: str
    type: TypeExpr
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Return(Node):
    """`return expr`, the last statement of a block."""

    value: Expr


Statement: TypeAlias = (
    Default
    | Input
    | Assign
    | Output
    | Weights
    | Repeat
    | Expect
    | Require
    | NoFuse
    | Target
    | Return
)

# --- the file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import(Node):
    """`import "file.cnn"`; `path` is the text between the quotes, not yet checked."""

    path: str
    path_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Parameter(Node):
    """`classes = 10` or `width`: without a default the caller must give it."""

    name: str
    default: Expr | None = None
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Net(Node):
    """`net name(params) { ... }`."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)
    body_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Block(Node):
    """`block name(params) { ... return expr }`; the first parameter takes the piped value."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)
    body_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Train(Node):
    """`train net { ... }`: how the net called `net` is trained."""

    net: str
    body: tuple[Statement, ...]
    net_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)
    body_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Table(Node):
    """`table name { [0, 1], [1, 2] }`: for each output of a layer the inputs that it reads."""

    name: str
    rows: tuple[Expr, ...]
    name_span: Span = field(default=NOWHERE, kw_only=True, compare=False, repr=False)


Item: TypeAlias = Import | Net | Block | Train | Table


@dataclass(frozen=True)
class Comment(Node):
    """`# text` as written, from the sign to the end of the line without trailing blanks."""

    text: str


@dataclass(frozen=True)
class File(Node):
    """A whole file, its items in order. Comments are kept for the formatter only."""

    items: tuple[Item, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)

    @property
    def imports(self) -> tuple[Import, ...]:
        return tuple(item for item in self.items if isinstance(item, Import))

    @property
    def nets(self) -> tuple[Net, ...]:
        return tuple(item for item in self.items if isinstance(item, Net))

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(item for item in self.items if isinstance(item, Block))

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(item for item in self.items if isinstance(item, Table))

    @property
    def trains(self) -> tuple[Train, ...]:
        return tuple(item for item in self.items if isinstance(item, Train))


# --- reading a tree ------------------------------------------------------------------------------


def children(node: Node) -> Iterator[Node]:
    """The nodes directly under a node, in the order of its fields (comments excluded)."""
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple) and f.name != "comments":
            yield from (v for v in value if isinstance(v, Node))


def walk(node: Node) -> Iterator[Node]:
    """The node and everything under it, parents first, in the order of the text."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(children(top))))
