"""Reads a `train` block: targets, the loss, and settings. The loss is an expression over the net's
names; it goes into the graph only when the graph is to be trained, but is always read, so that its
mistakes show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnncc.errors import Span, did_you_mean
from cnncc.graph.body import Body
from cnncc.graph.ir import Node, Origin, ShapeError
from cnncc.graph.layer import Word
from cnncc.graph.module import Choice, Setting, Target, Training
from cnncc.graph.session import origins
from cnncc.graph.sources import Input
from cnncc.graph.types import bracketed_type, declared_type
from cnncc.graph.values import POISON, Value, is_poisoned, kind, show
from cnncc.syntax import tree as t
from cnncc.tensor import DType, TensorType


@dataclass(frozen=True)
class _Field:
    """An argument of an optimizer or schedule: what it must be; its default, None if required."""

    wants: str
    default: Setting | None = None


_POSITIVE = "a number above 0"
_FRACTION = "a number from 0 to below 1"
_WEIGHT = "a number of at least 0"
_COUNT = "a positive whole number"
_FLAG = "true or false"
_SCHEDULE = "a schedule"

OPTIMIZERS: dict[str, dict[str, _Field]] = {
    "sgd": {
        "lr": _Field(_POSITIVE),
        "momentum": _Field(_FRACTION, 0.0),
        "nesterov": _Field(_FLAG, False),
        "weight_decay": _Field(_WEIGHT, 0.0),
    },
    "adam": {
        "lr": _Field(_POSITIVE, 0.001),
        "beta1": _Field(_FRACTION, 0.9),
        "beta2": _Field(_FRACTION, 0.999),
        "eps": _Field(_POSITIVE, 1e-8),
        "weight_decay": _Field(_WEIGHT, 0.0),
    },
    "adamw": {
        "lr": _Field(_POSITIVE, 0.001),
        "beta1": _Field(_FRACTION, 0.9),
        "beta2": _Field(_FRACTION, 0.999),
        "eps": _Field(_POSITIVE, 1e-8),
        "weight_decay": _Field(_WEIGHT, 0.01),
    },
}
"""Robbins and Monro 1951 with momentum as in PyTorch; Kingma and Ba 2015; Loshchilov and Hutter
2019.
"""

SCHEDULES: dict[str, dict[str, _Field]] = {
    "constant": {},
    "step": {"every": _Field(_COUNT), "gamma": _Field(_POSITIVE, 0.1)},
    "cosine": {"epochs": _Field(_COUNT), "min": _Field(_WEIGHT, 0.0)},
    "warm_up": {"steps": _Field(_COUNT), "then": _Field(_SCHEDULE, Choice("constant"))},
}

SETTINGS = ("loss", "optimizer", "schedule", "batch", "epochs")
DEFAULT_BATCH = 32
DEFAULT_EPOCHS = 10


class TrainBody(Body):
    """A `train` block being read, with the names of its net."""

    def __init__(self, net: Body) -> None:
        super().__init__(net.session, net.unit, dict(net.names), "", net.defaults)
        self.targets: list[Target] = []
        self.settings: dict[str, t.Assign] = {}

    def read(self, block: t.Train, with_loss: bool) -> tuple[Training | None, Node | None]:
        """The record of the block and the node of the loss; None for what has mistakes.

        Without `with_loss` the graph is left as it was.
        """
        session = self.session
        first, first_condition = len(session.builder.nodes), len(session.conditions)
        for statement in block.body:
            self.statement(statement)
        loss = self._loss(block)
        optimizer = self._optimizer(block)
        schedule = self._choice("schedule", SCHEDULES, Choice("constant"))
        batch = self._count("batch", DEFAULT_BATCH)
        epochs = self._count("epochs", DEFAULT_EPOCHS)
        if not with_loss:
            session.builder.replace_from(first, ())
            del session.conditions[first_condition:]
            loss = None
        if optimizer is None or schedule is None or batch is None or epochs is None:
            return None, loss
        training = Training(tuple(self.targets), optimizer, schedule, batch, epochs, block.span)
        return training, loss

    def statement(self, s: t.Statement) -> None:
        match s:
            case t.Target():
                self.names[s.name] = self._target(s)
            case t.Assign():
                self._setting(s)
            case _:
                super().statement(s)

    def _setting(self, s: t.Assign) -> None:
        if s.name in SETTINGS:
            self.settings[s.name] = s
            return
        close = did_you_mean(s.name, SETTINGS)
        self.faults.error(
            "E0602",
            f"`train` has no setting `{s.name}`",
            s.name_span if s.name_span.known else s.span,
            label="unknown setting",
            helps=[f"did you mean `{n}`?" for n in close] or [f"it has {', '.join(SETTINGS)}"],
        )

    def _target(self, s: t.Target) -> Value:
        span = s.name_span if s.name_span.known else s.span
        if s.name in self.names:
            return self.faults.error("E0305", f"the net has a name `{s.name}` already", span)
        classes: int | None = None
        if s.type.element == "class":
            if len(s.type.extents) != 1:
                return self.faults.error(
                    "E0603",
                    "a class target has the number of classes in its brackets: `class[10]`",
                    s.type.span,
                    helps=("one class per position is `i64[H, W]`",),
                )
            classes = self.integer(s.type.extents[0], "the number of classes")
            if classes is None:
                return POISON
            if classes < 1:
                return self.faults.error(
                    "E0603", f"there is at least 1 class, but got {classes}", s.type.span
                )
            type: TensorType | None = TensorType(DType.I64, (1,))
        elif s.type.element in ("i64", "i32"):
            type = bracketed_type(self, s.type, DType(s.type.element), f"the target `{s.name}`")
        else:
            type = declared_type(self, s.type, f"the target `{s.name}`")
        if type is None:
            return POISON
        name = self.session.naming.take(s.name)
        try:
            node = self.session.builder.add(
                Input(type, role="target"), name=name, origin=Origin(s.span, name)
            )
        except ShapeError as broken:
            return self.faults.error(broken.code, broken.rule, s.type.span)
        self.targets.append(Target(name, type, classes))
        return node

    def _loss(self, block: t.Train) -> Node | None:
        setting = self.settings.get("loss")
        if setting is None:
            self._missing("loss", "loss = cross_entropy(scores, label)", block)
            return None
        span = setting.value.span
        value = self.named("loss", setting.value)
        if is_poisoned(value):
            return None
        if not isinstance(value, Node):
            self.faults.error(
                "E0604", f"the loss is a tensor, but this is {show(value)}, {kind(value)}", span
            )
            return None
        if value.type.elements != 1 or not value.type.dtype.is_float:
            self.faults.error(
                "E0604",
                f"the loss is one number, but this is {value.type}",
                span,
                helps=("use a loss such as `cross_entropy(scores, label)` or `mse(y, target)`",),
            )
            return None
        return value if self._classes_agree(span) else None

    def _classes_agree(self, span: Span) -> bool:
        """Report a loss that compares a target of k classes with another number of scores."""
        classes = {x.name: x.classes for x in self.targets if x.classes is not None}
        for node in self.session.builder.nodes:
            for name in node.inputs[1:]:
                scores = self.session.builder[node.inputs[0]]
                if name in classes and scores.type.channels != classes[name]:
                    self.faults.error(
                        "E0603",
                        f"`{name}` has {classes[name]} classes, but there are "
                        f"{scores.type.channels} scores to choose from",
                        node.origin.span or span,
                        notes=origins([scores]),
                        helps=(f"declare the target as class[{scores.type.channels}]",),
                    )
                    return False
        return True

    def _optimizer(self, block: t.Train) -> Choice | None:
        if "optimizer" not in self.settings:
            self._missing("optimizer", "optimizer = sgd(lr = 0.05, momentum = 0.9)", block)
            return None
        return self._choice("optimizer", OPTIMIZERS, Choice(""))

    def _missing(self, name: str, example: str, block: t.Train) -> None:
        self.faults.error(
            "E0601",
            f"this `train` block has no {name}",
            block.net_span if block.net_span.known else block.span,
            helps=(f"add `{example}`",),
        )

    def _count(self, name: str, default: int) -> int | None:
        if name not in self.settings:
            return default
        e = self.settings[name].value
        count = self.integer(e, f"`{name}`")
        if count is not None and not 1 <= count < 1 << 31:
            self.faults.error("E0605", f"`{name}` is at least 1, but got {count}", e.span)
            return None
        return count

    def _choice(
        self, name: str, table: dict[str, dict[str, _Field]], default: Choice
    ) -> Choice | None:
        if name not in self.settings:
            return default
        e = self.settings[name].value
        value = self.value(e, as_word=True)
        return self._made(name, table, value, e)

    def _made(
        self, what: str, table: dict[str, dict[str, _Field]], value: Value, e: t.Expr
    ) -> Choice | None:
        """An optimizer or schedule from the word that the text has for it; None after a report."""
        if is_poisoned(value):
            return None
        if not isinstance(value, Word) or value.name not in table:
            word = value.name if isinstance(value, Word) else ""
            close = did_you_mean(word, table)
            got = f"`{word}`" if word else show(value)
            self.faults.error(
                "E0602",
                f"{what} is one of {', '.join(table)}, but got {got}",
                e.name_span if isinstance(e, t.Call) and e.name_span.known else e.span,
                helps=[f"did you mean `{n}`?" for n in close],
            )
            return None
        wanted = table[value.name]
        places = {a.name: a.value for a in e.arguments} if isinstance(e, t.Call) else {}
        if value.args:
            self.faults.error(
                "E0602",
                f"`{value.name}` takes its arguments by name: {', '.join(wanted) or 'none'}",
                e.span,
            )
            return None
        given = dict(value.named)
        values: list[tuple[str, Setting]] = []
        fine = True
        for name in given:
            if name not in wanted:
                close = did_you_mean(name, wanted)
                self.faults.error(
                    "E0302",
                    f"`{value.name}` has no argument `{name}`",
                    _argument_span(e, name),
                    label="unknown argument",
                    helps=[f"did you mean `{n}`?" for n in close]
                    or [f"it takes {', '.join(wanted) or 'none'}"],
                )
                fine = False
        for name, field in wanted.items():
            if name not in given and field.default is None:
                self.faults.error(
                    "E0303", f"`{value.name}` needs the argument `{name}`: {field.wants}", e.span
                )
                fine = False
                continue
            place = places.get(name, e)
            setting = (
                self._field(f"`{name}` of `{value.name}`", field, given[name], place)
                if name in given
                else field.default
            )
            if setting is None:
                fine = False
            else:
                values.append((name, setting))
        return Choice(value.name, tuple(values)) if fine else None

    def _field(self, what: str, field: _Field, value: Value, e: t.Expr) -> Setting | None:
        """An argument's value; None after a report."""
        if field.wants is _SCHEDULE:
            return self._made(what, SCHEDULES, value, e)
        if _satisfies(value, field.wants):
            assert isinstance(value, bool | int | float)
            return value if field.wants in (_FLAG, _COUNT) else float(value)
        self.faults.error("E0605", f"{what} is {field.wants}, but got {show(value)}", e.span)
        return None


def _satisfies(value: Value, wants: str) -> bool:
    if wants is _FLAG:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    match wants:
        case "a number above 0":
            return value > 0
        case "a number from 0 to below 1":
            return 0 <= value < 1
        case "a number of at least 0":
            return value >= 0
    return isinstance(value, int) and 1 <= value < 1 << 31


def _argument_span(e: t.Expr, name: str) -> Span:
    for argument in e.arguments if isinstance(e, t.Call) else ():
        if argument.name == name and argument.name_span.known:
            return argument.name_span
    return e.span
