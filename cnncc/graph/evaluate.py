"""Evaluates expressions while a network is built. What is here needs no graph: literals, names,
arithmetic, comparison, logic and the lazy `if`. What a call means, and what an operator between
tensors means, is left to the one who uses it: the elaborator adds layers to the graph, the checker
of `expect` looks up counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import assert_never

from cnncc.errors import Span, did_you_mean
from cnncc.graph.arithmetic import Impossible, apply, negative
from cnncc.graph.faults import Faults
from cnncc.graph.layer import Size, Word
from cnncc.graph.values import POISON, Value, is_poisoned, kind, show
from cnncc.syntax import tree as t
from cnncc.tensor import Extent, Poly


class Evaluator:
    """Evaluates expressions in a scope. `words` are the names that stand for themselves."""

    def __init__(self, faults: Faults, scope: Mapping[str, Value], words: Collection[str]) -> None:
        self.faults = faults
        self.scope = scope
        self.words = words

    # --- what users of this class define ---

    def call(self, call: t.Call, piped: tuple[Value, Span] | None, as_word: bool) -> Value:
        """The value of a call; `piped` is what an arrow leads into it, and where that stands.

        `as_word`: a call that means nothing here may stand for itself, as in `pad = replicate(1)`.
        """
        raise NotImplementedError

    def between_tensors(self, e: t.Binary | t.Unary, operands: tuple[Value, ...]) -> Value:
        """The value of an operator of which at least one operand is a tensor."""
        raise NotImplementedError

    def is_tensor(self, value: Value) -> bool:
        """Whether operators between such values are for `between_tensors`."""
        raise NotImplementedError

    def declare_symbol(self, name: str, extent: Extent) -> None:
        """Let a name stand for an extent that only the data will tell."""
        raise NotImplementedError

    # --- expressions ---

    def value(self, e: t.Expr, as_word: bool = False) -> Value:
        """The value of an expression; POISON after a mistake, which is then reported.

        `as_word`: any name that is no variable stands for itself (the argument it is for decides
        whether it makes sense). Otherwise only the known `words` do.
        """
        self.faults.enter(e.span)
        result = self._value(e, as_word)
        self.faults.leave()
        return result

    def _value(self, e: t.Expr, as_word: bool) -> Value:
        match e:
            case t.Int() | t.Float() | t.Bool():
                return e.value
            case t.Size():
                return Size(e.extents)
            case t.Name():
                return self._name(e, as_word)
            case t.Tuple():
                elements = tuple(self.value(element, as_word) for element in e.elements)
                self.faults.spend(elements, e.span)
                return elements
            case t.List():
                elements = tuple(self.value(element, as_word) for element in e.elements)
                self.faults.spend(elements, e.span)
                return list(elements)
            case t.Call():
                return self.call(e, None, as_word)
            case t.Pipeline():
                return self._pipeline(e)
            case t.Unary():
                return self._unary(e)
            case t.Binary():
                return self._binary(e)
            case t.If():
                return self._if(e, as_word)
        assert_never(e)

    def _name(self, e: t.Name, as_word: bool) -> Value:
        if e.name in self.scope:
            return self.scope[e.name]
        if as_word or e.name in self.words:
            return Word(e.name)
        return self.unknown_name(e.name, e.span)

    def unknown_name(self, name: str, span: Span) -> Value:
        """Report a name that means nothing."""
        close = did_you_mean(name, [*self.scope, *self.words])
        return self.faults.error(
            "E0301",
            f"nothing is named `{name}` here",
            span,
            label="unknown name",
            helps=[f"did you mean `{other}`?" for other in close],
        )

    def _pipeline(self, e: t.Pipeline) -> Value:
        value, span = self.value(e.head), e.head.span
        for stage in e.stages:
            self.faults.enter(stage.span)
            value = self.call(stage, (value, span), False)
            self.faults.leave()
            span = span.to(stage.span)
        return value

    def _unary(self, e: t.Unary) -> Value:
        operand = self.value(e.operand)
        if is_poisoned(operand):
            return POISON
        if e.operator == "not":
            truth = self._truth(operand, e.operand.span, "`not` takes")
            return POISON if truth is None else not truth
        if self.is_tensor(operand):
            return self.between_tensors(e, (operand,))
        try:
            return negative(operand)
        except Impossible as fault:
            return self._impossible(fault, e.span)

    def _binary(self, e: t.Binary) -> Value:
        if e.operator in ("and", "or"):
            return self._logic(e)
        left, right = self.value(e.left), self.value(e.right)
        if is_poisoned(left) or is_poisoned(right):
            return POISON
        if self.is_tensor(left) or self.is_tensor(right):
            return self.between_tensors(e, (left, right))
        try:
            return apply(e.operator, left, right)
        except Impossible as fault:
            return self._impossible(fault, e.span)

    def _impossible(self, fault: Impossible, span: Span) -> Value:
        return self.faults.error(
            fault.code, fault.message, span, helps=(fault.fix,) if fault.fix else ()
        )

    def _logic(self, e: t.Binary) -> Value:
        left = self._truth(self.value(e.left), e.left.span, f"`{e.operator}` takes")
        if left is None or left == (e.operator == "or"):
            return POISON if left is None else left
        right = self._truth(self.value(e.right), e.right.span, f"`{e.operator}` takes")
        return POISON if right is None else right

    def _if(self, e: t.If, as_word: bool) -> Value:
        condition = self._truth(self.value(e.condition), e.condition.span, "`if` takes")
        if condition is None:
            return POISON
        return self.value(e.then if condition else e.otherwise, as_word)

    def _truth(self, value: Value, span: Span, who: str) -> bool | None:
        """The truth value, or None after reporting that it is none."""
        if isinstance(value, bool):
            return value
        if not is_poisoned(value):
            self.faults.error(
                "E0308", f"{who} a condition, but this is {show(value)}, {kind(value)}", span
            )
        return None

    def integer(self, e: t.Expr, what: str) -> int | None:
        """A whole number, or None after reporting what the expression is instead."""
        value = self.value(e)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not is_poisoned(value):
            self.faults.error(
                "E0308", f"{what} is a whole number, but this is {show(value)}", e.span
            )
        return None

    def extent(self, e: t.Expr, what: str) -> Extent | None:
        """A whole number or an extent that is not known yet, or None after a report."""
        value = self.value(e)
        if isinstance(value, Poly):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not is_poisoned(value):
            self.faults.error(
                "E0308", f"{what} is a whole number, but this is {show(value)}", e.span
            )
        return None
