"""Matches the arguments of a call to what its layer or block takes. Every complaint points at the
very argument; all complaints about one call are made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin

from cnncc.errors import Span, did_you_mean
from cnncc.graph.convert import convert, describe
from cnncc.graph.faults import Faults
from cnncc.graph.ir import Node
from cnncc.graph.layer import (
    Argument,
    ArgumentError,
    Init,
    Layer,
    Pad,
    Size,
    Weights,
    Word,
)
from cnncc.graph.limits import EXTENT
from cnncc.graph.values import Value, contains_tensor, is_poisoned, kind, show
from cnncc.syntax import tree as t

Given: TypeAlias = tuple[Value, Span]


@dataclass(frozen=True)
class Bound:
    """The operands and arguments of a layer, converted, and where each argument stands."""

    tensors: tuple[Node, ...]
    arguments: Mapping[str, Any]
    spans: Mapping[str, Span]


@dataclass
class Binder:
    """Matches one call; `unknown_word` reports a meaningless name where a tensor is needed."""

    faults: Faults
    call: t.Call
    unknown_word: Callable[[Word, Span], Value]

    @property
    def head(self) -> Span:
        span = self.call.name_span
        return span if span.known else self.call.span

    def layer(
        self,
        layer: Layer,
        positional: Sequence[Given],
        named: Sequence[tuple[t.Argument, Value]],
        defaults: Mapping[str, Given],
    ) -> Bound | None:
        """Operands and arguments of a layer; None after a report."""
        takes = len(positional) if layer.tensors is None else layer.tensors
        if takes and not any(_may_be_tensor(value) for value, _ in positional):
            self._no_tensor(layer)
            return None
        tensors = [self._tensor(layer, value, span) for value, span in positional[:takes]]
        fine = self._enough_tensors(layer, len(tensors)) and None not in tensors
        by_position = [a for a in layer.arguments if a.positional]
        given: dict[str, Given] = {}
        for argument, value in zip(by_position, positional[takes:], strict=False):
            given[argument.name] = value
        extra = positional[takes + len(by_position) :]
        if extra:
            self._too_many(layer, extra[0], takes + len(by_position))
            fine = False
        names = [a.name for a in layer.arguments]
        for argument_, value_ in named:
            assert argument_.name is not None
            fine &= self._name(argument_, value_, names, given)
        arguments: dict[str, Any] = {}
        spans = {name: span for name, (_, span) in given.items()}
        for argument in layer.arguments:
            if argument.name in given:
                fine &= self._convert(layer, argument, given[argument.name], arguments)
            elif argument.name in defaults:
                spans[argument.name] = defaults[argument.name][1]
                fine &= self._convert(layer, argument, defaults[argument.name], arguments)
            elif argument.required:
                self._missing(argument.name, describe(argument.annotation))
                fine = False
        nodes = tuple(n for n in tensors if n is not None)
        return Bound(nodes, arguments, spans) if fine else None

    def block(
        self,
        parameters: Sequence[t.Parameter],
        positional: Sequence[Given],
        named: Sequence[tuple[t.Argument, Value]],
    ) -> dict[str, Value] | None:
        """The values that are given for a block's parameters; None after a report."""
        given: dict[str, Given] = {}
        for parameter, value in zip(parameters, positional, strict=False):
            given[parameter.name] = value
        fine = True
        if len(positional) > len(parameters):
            count = f"{len(parameters)} argument{'s' * (len(parameters) != 1)}"
            self.faults.error(
                "E0306",
                f"`{self.call.name}` takes {count}, but got {len(positional)}",
                positional[len(parameters)][1],
            )
            fine = False
        names = [p.name for p in parameters]
        for argument, value_ in named:
            fine &= self._name(argument, value_, names, given)
        for parameter in parameters:
            if parameter.name not in given and parameter.default is None:
                self._missing(parameter.name, "")
                fine = False
        values = {name: value for name, (value, _) in given.items()}
        return values if fine and not any(map(is_poisoned, values.values())) else None

    # --- the complaints ---

    def _name(
        self, argument: t.Argument, value: Value, names: list[str], given: dict[str, Given]
    ) -> bool:
        assert argument.name is not None
        span = argument.name_span if argument.name_span.known else argument.span
        if argument.name not in names:
            close = did_you_mean(argument.name, names)
            takes = f"it takes {', '.join(f'`{n}`' for n in names)}" if names else "it takes none"
            self.faults.error(
                "E0302",
                f"`{self.call.name}` has no argument `{argument.name}`",
                span,
                label="unknown argument",
                helps=_familiar(argument.name, names)
                or [f"did you mean `{n}`?" for n in close]
                or [takes],
            )
            return False
        if argument.name in given:
            self.faults.error(
                "E0307",
                f"`{argument.name}` of `{self.call.name}` is given twice, by position and by name",
                span,
            )
            return False
        given[argument.name] = (value, argument.value.span)
        return True

    def _missing(self, name: str, wants: str) -> None:
        self.faults.error(
            "E0303",
            f"`{self.call.name}` needs the argument `{name}`" + (f": {wants}" if wants else ""),
            self.head,
            label=f"`{name}` is missing",
        )

    def _too_many(self, layer: Layer, extra: Given, most: int) -> None:
        if isinstance(extra[0], Node):
            message = f"`{layer.name}` takes {_tensors(layer.tensors)}, but got more"
        else:
            arguments = most - (layer.tensors or 0)
            count = (
                f"at most {arguments} argument{'s' * (arguments != 1)}"
                if arguments
                else "no arguments"
            )
            message = f"`{layer.name}` takes {count} by position, but got more"
        keywords = [a.name for a in layer.arguments if not a.positional]
        helps = [f"give it by name: {', '.join(f'`{n} = `' for n in keywords)}"]
        self.faults.error("E0306", message, extra[1], helps=helps if keywords else ())

    def _no_tensor(self, layer: Layer) -> None:
        self.faults.error(
            "E0306",
            f"`{layer.name}` takes {_tensors(layer.tensors)}, but got none",
            self.head,
            helps=(f"lead one in with an arrow: `x -> {layer.name}(...)`",),
        )

    def _enough_tensors(self, layer: Layer, count: int) -> bool:
        if layer.tensors is None or count >= layer.tensors:
            return True
        self.faults.error(
            "E0306", f"`{layer.name}` takes {_tensors(layer.tensors)}, but got {count}", self.head
        )
        return False

    def _tensor(self, layer: Layer, value: Value, span: Span) -> Node | None:
        if isinstance(value, Node):
            return value
        if isinstance(value, Word):
            self.unknown_word(value, span)
        elif not is_poisoned(value):
            self.faults.error(
                "E0308",
                f"`{layer.name}` takes {_tensors(layer.tensors)}, but this is "
                f"{show(value)}, {kind(value)}",
                span,
            )
        return None

    def _convert(
        self, layer: Layer, argument: Argument, given: Given, arguments: dict[str, Any]
    ) -> bool:
        value, span = given
        if is_poisoned(value):
            return False
        if isinstance(value, Word) and contains_tensor(value):
            self.unknown_word(value, span)
            return False
        large = _too_large(value)
        if large is not None:
            self.faults.error(
                "E0126",
                f"`{argument.name}` of `{layer.name}` takes whole numbers up to {EXTENT:_}, "
                f"but got {large:_}",
                span,
            )
            return False
        try:
            arguments[argument.name] = convert(value, argument.annotation, argument.name)
        except ArgumentError as refused:
            if isinstance(value, Word) and not _takes_words(argument.annotation):
                self.unknown_word(value, span)
                return False
            wanted = describe(argument.annotation)
            close = did_you_mean(value.name, _words(wanted)) if isinstance(value, Word) else []
            self.faults.error(
                refused.code,
                f"`{argument.name}` of `{layer.name}` must be {wanted}, but got {show(value)}",
                span,
                helps=[f"did you mean `{w}`?" for w in close] or refused.fixes,
            )
            return False
        return True


ELSEWHERE = {
    "padding": "pad",
    "strides": "stride",
    "dilations": "dilation",
    "dilation_rate": "dilation",
    "kernel_size": "size",
    "kernel": "size",
    "pool_size": "size",
    "out_channels": "out",
    "out_features": "out",
    "filters": "out",
    "units": "out",
    "use_bias": "bias = tied | none",
    "groups": "connect = groups(n)",
    "group": "connect = groups(n)",
    "ceil_mode": "fit = partial",
    "negative_slope": "slope",
    "num_groups": "groups",
    "padding_mode": "pad = replicate(n), reflect(n) or circular(n)",
    "num_embeddings": "vocabulary",
    "embedding_dim": "width",
    "scale_factor": "factor",
    "norm_type": "p",
    "output_size": "out",
}
"""What PyTorch, Keras and ONNX call an argument, and what it is here."""


def _familiar(name: str, names: Iterable[str]) -> list[str]:
    here = ELSEWHERE.get(name, "")
    return [f"here it is `{here}`"] if here.partition(" ")[0] in set(names) else []


def _too_large(value: Value) -> int | None:
    """A whole number in a value that no argument takes: layers count and search with them."""
    match value:
        case bool():
            return None
        case int():
            return value if abs(value) > EXTENT else None
        case Size():
            return _too_large(value.taps)
        case tuple() | list():
            return next((n for v in value if (n := _too_large(v)) is not None), None)
        case Word():
            return _too_large((*value.args, *(v for _, v in value.named)))
    return None


def _may_be_tensor(value: Value) -> bool:
    return isinstance(value, Node | Word) or is_poisoned(value)


def evaluated(
    arguments: Iterable[t.Argument], value: Callable[[t.Expr], Value]
) -> tuple[list[Given], list[tuple[t.Argument, Value]]]:
    """The values of a call's arguments: by position with their spans, and by name."""
    positional: list[Given] = []
    named: list[tuple[t.Argument, Value]] = []
    for argument in arguments:
        if argument.name is None:
            positional.append((value(argument.value), argument.value.span))
        else:
            named.append((argument, value(argument.value)))
    return positional, named


def _takes_words(annotation: Any) -> bool:
    if annotation in (Pad, Init, Word, Weights) or get_origin(annotation) is Literal:
        return True
    return any(_takes_words(part) for part in get_args(annotation))


def _tensors(count: int | None) -> str:
    if count is None:
        return "tensors"
    return "1 tensor" if count == 1 else f"{count} tensors"


def _words(description: str) -> list[str]:
    letters = "".join(c if c.isalnum() or c == "_" else " " for c in description)
    return [w for w in letters.split() if w not in ("a", "an", "or", "at", "of", "one", "per")]
