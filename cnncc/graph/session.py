"""What all parts of one network under construction share: the graph, the names, the shared kernels,
the conditions on extents, and the mistakes. It runs layers: everything that adds to the graph goes
through `Session.run`, which gives the layer its name and turns a broken rule into a diagnostic.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from cnncc.errors import Note, Span
from cnncc.graph import limits
from cnncc.graph.convert import INITS
from cnncc.graph.faults import Faults
from cnncc.graph.ir import Condition, Node, Origin, ShapeError
from cnncc.graph.layer import ArgumentError, Init, Layer, LayerBuilder
from cnncc.graph.limits import BoundedBuilder
from cnncc.graph.naming import Group, Member, Naming
from cnncc.graph.sources import RANDOM_KEY, Kind, Parameter
from cnncc.graph.values import Value
from cnncc.tensor import TensorType
from cnncc.window import Fit

PAD_WORDS = frozenset(
    {"valid", "same", "same_lower", "full", "solve", "const", "replicate", "reflect", "circular"}
)
KERNEL_WORDS = frozenset({"gauss", "binomial"})
DROPOUT_WORDS = frozenset({"mean", "mc"})
CONNECTIVITY_WORDS = frozenset(
    {"full", "tiled", "symmetric", "all", "groups", "depthwise", "table"}
)
"""Words that arguments take which are not listed in an annotation."""


@dataclass
class Session:
    """One network under construction, for training with `train`.

    `state_updates` are pairs (state, its value after a training step), from norms.
    """

    builder: BoundedBuilder
    layers: Mapping[str, Layer]
    faults: Faults
    conditions: list[Condition] = field(default_factory=list)
    shared: dict[str, Node] = field(default_factory=dict)
    open_members: list[Member] = field(default_factory=list)
    state_updates: list[tuple[Node, Node]] = field(default_factory=list)
    tables: dict[int, Value] = field(default_factory=dict)  # by the identity of the tree node
    train: bool = False
    layer_count: int = 0

    def __post_init__(self) -> None:
        self.naming = Naming(self.builder, self.conditions)
        self.words = known_words(self.layers)
        # What a layer may ask `b.options` for besides the net's defaults.
        self.options: dict[str, Any] = {"train": self.train, "state_updates": self.state_updates}
        if self.train:
            self.options["rng"] = self.builder.add(RANDOM_KEY, name="random.key")

    def run(
        self,
        layer: Layer,
        tensors: Sequence[Node],
        arguments: Mapping[str, Any],
        group: Group,
        call: Span,
        *,
        spans: Mapping[str, Span],
        options: Mapping[str, Any],
        head: Span,
    ) -> Value:
        """Add a layer to the graph; its result, or POISON after a report.

        `call` is the whole call in the text, `head` its name, `spans` where its arguments stand.
        """
        self.count_layer(head)
        member = self.naming.member(group, layer.name, passing=layer.category == "regularisation")
        self.open_members.append(member)
        fit: Fit = options.get("fit", "exact")
        builder = LayerBuilder(
            self.builder,
            member.name,
            Origin(call, member.name),
            self.make_parameter,
            fit,
            self.conditions,
            {**options, **self.options},
        )
        try:
            return layer.function(builder, *tensors, **arguments)
        except ShapeError as broken:
            return self.faults.error(
                broken.code,
                broken.rule,
                spans.get(broken.argument, head),
                notes=[*(Note(text) for text in broken.arithmetic), *origins(tensors)],
                helps=broken.fixes,
            )
        except ArgumentError as refused:
            return self.faults.error(
                refused.code,
                f"{layer.name}: {refused.message}",
                spans.get(refused.argument, head),
                helps=refused.fixes,
            )
        finally:
            self.open_members.pop()

    def drop_unused_key(self) -> None:
        """Take the key of random numbers out again when no layer draws any."""
        first, *rest = self.builder.nodes
        if first.op is RANDOM_KEY and not any(first.name in node.inputs for node in rest):
            self.builder.replace_from(0, rest)

    def count_layer(self, span: Span) -> None:
        """Count a layer. Raises SpecError when there are too many."""
        self.layer_count += 1
        if self.layer_count > limits.LAYERS:
            self.faults.stop(
                "E0120",
                f"a network has at most {limits.LAYERS} layers, all uses of blocks counted",
                span,
            )

    def make_parameter(
        self, name: str, type: TensorType, init: Init, shared: bool, kind: str, origin: Origin
    ) -> Node:
        """A new parameter, or the one that was made first under a shared name.

        Raises ShapeError (E0317, E0318).
        """
        for member in self.open_members:
            member.parametrised = True
        if init.literal is not None:
            _check_literal(init, type)
        if init.kind == "gabor" and len(type.shape) not in (3, 4):
            raise ShapeError(
                "E0318",
                "`init = gabor` is for the kernels of convolutions over images",
                arithmetic=[f"the parameter is {type}"],
                argument="init",
            )
        if shared and name in self.shared:
            first = self.shared[name]
            if first.type != type:
                raise ShapeError(
                    "E0317",
                    f"layers that share the kernel `{name}` need it in the same shape",
                    arithmetic=[
                        f"`{first.origin.layer}` made it {first.type}",
                        f"this layer needs it {type}",
                    ],
                    argument="weights",
                )
            return first
        assert kind in get_args(Kind), kind
        node = self.builder.add(
            Parameter(type, init, typing.cast(Kind, kind)), name=name, origin=origin
        )
        if shared:
            self.shared[name] = node
        return node


def origins(tensors: Sequence[Node]) -> list[Note]:
    """Where the operands of a layer come from, with their types."""
    notes = []
    for number, node in enumerate(tensors[:4], 1):
        which = "the input" if len(tensors) == 1 else f"input {number}"
        by = f", from `{node.origin.layer}`" if node.origin.layer else ""
        notes.append(Note(f"{which} is {node.type}{by}", node.origin.span))
    return notes


def known_words(layers: Mapping[str, Layer]) -> frozenset[str]:
    """Every word that some argument of some layer understands."""
    words = set(PAD_WORDS | KERNEL_WORDS | DROPOUT_WORDS | CONNECTIVITY_WORDS | INITS.keys())
    for layer in layers.values():
        for argument in layer.arguments:
            words.update(_words_of(argument.annotation))
    return frozenset(words)


def _words_of(annotation: Any) -> set[str]:
    if get_origin(annotation) is Literal:
        return {a for a in get_args(annotation) if isinstance(a, str)}
    return {word for part in get_args(annotation) for word in _words_of(part)}


def _check_literal(init: Init, type: TensorType) -> None:
    shape: list[int] = []
    level: Any = init.literal
    while isinstance(level, tuple):
        shape.append(len(level))
        level = level[0] if level else None
    regular = _is_regular(init.literal, tuple(shape))
    if not regular or tuple(shape) != type.shape:
        got = "x".join(map(str, shape)) if regular else "lists of different lengths"
        raise ShapeError(
            "E0318",
            f"the literal must have the parameter's shape {list(type.shape)}, but it has {got}",
            argument="init",
        )


def _is_regular(level: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return not isinstance(level, tuple)
    if not isinstance(level, tuple) or len(level) != shape[0]:
        return False
    return all(_is_regular(part, shape[1:]) for part in level)
