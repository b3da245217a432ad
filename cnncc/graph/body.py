"""Reads a body: the statements of a net or of one use of a block. Names get values, layers go into
the graph. A body sees its own names and the blocks that its file defines or imports; a block sees
nothing of the net that uses it but its parameters and the net's defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from cnncc.errors import Span, did_you_mean
from cnncc.graph import limits
from cnncc.graph.calls import Binder, Given, evaluated
from cnncc.graph.convert import convert, describe
from cnncc.graph.imports import Unit
from cnncc.graph.ir import Node
from cnncc.graph.layer import ArgumentError, Transposed, Weights, Word
from cnncc.graph.module import Expectation, Requirement
from cnncc.graph.queries import QUERIES, Query
from cnncc.graph.session import Session
from cnncc.graph.tensor_arithmetic import TensorArithmetic
from cnncc.graph.values import POISON, Value, contains_tensor, is_poisoned, kind, show
from cnncc.syntax import tree as t
from cnncc.tensor import Extent, TensorType


class Body(TensorArithmetic):
    """One body being read."""

    def __init__(
        self,
        session: Session,
        unit: Unit,
        scope: dict[str, Value],
        prefix: str = "",
        defaults: dict[str, Given] | None = None,
    ) -> None:
        super().__init__(session, scope, prefix)
        self.unit = unit
        self.names = scope  # the same dictionary, which statements add to
        self.defaults = dict(defaults or {})
        self.layers: dict[str, tuple[str, ...]] = {}
        self.expectations: list[Expectation] = []
        self.requirements: list[Requirement] = []
        self.nofuse: list[str] = []
        for table in unit.tables.values():
            scope.setdefault(table.name, self._table(table))

    def _table(self, table: t.Table) -> Value:
        """The rows of a table, which are the same wherever they are used."""
        known = self.session.tables
        if id(table) not in known:
            known[id(table)] = [self.value(row) for row in table.rows]
        return known[id(table)]

    # --- statements ---

    def run(self, statements: Sequence[t.Statement]) -> Value:
        """Read statements in order; the value of `return`, POISON where there is none."""
        for statement in statements:
            if isinstance(statement, t.Return):
                return self.unnamed(statement.value)
            self.faults.enter(statement.span)
            self.statement(statement)
            self.faults.leave()
        return POISON

    def statement(self, s: t.Statement) -> None:
        """Read one statement."""
        match s:
            case t.Assign():
                self.names[s.name] = self.named(s.name, s.value)
            case t.Default():
                self._default(s)
            case t.Weights():
                for name in s.names:
                    self.names[name.name] = Weights(self.prefix + name.name)
            case t.Repeat():
                self._repeat(s)
            case t.Expect():
                for condition in s.conditions:
                    self.expectations.append(
                        Expectation(condition, dict(self.names), dict(self.layers))
                    )
            case t.Require():
                for fact in s.facts:
                    self._require(fact)
            case t.NoFuse():
                for name in s.names:
                    self.nofuse.extend(self._nodes(name) or ())
            case t.Input() | t.Output() | t.Target() | t.Return():
                raise AssertionError(f"{type(s).__name__} is not for this body")
            case _:
                assert_never(s)

    def named(self, name: str, e: t.Expr) -> Value:
        """The value of an expression whose main layer is called `name`."""
        with self.group(name) as group:
            value = self.value(e)
            value = self.session.naming.close(group, value)
        made = self.session.builder.nodes[group.first :]
        nodes = tuple(n.name for n in made if n.op.name != "parameter")
        if not nodes and isinstance(value, Node):
            nodes = (value.name,)
        self.layers[name] = nodes
        if isinstance(value, Weights):
            return self.faults.error(
                "E0308", f"`{name}` cannot be another name of a shared kernel", e.span
            )
        return value

    def unnamed(self, e: t.Expr) -> Value:
        """The value of an expression whose layers are numbered."""
        with self.group(None):
            return self.value(e)

    def _default(self, s: t.Default) -> None:
        value = self.value(s.value, as_word=True)
        span = s.name_span if s.name_span.known else s.span
        takers = [a for x in self.session.layers.values() for a in x.arguments if a.name == s.name]
        if not takers:
            known = {a.name for x in self.session.layers.values() for a in x.arguments}
            close = did_you_mean(s.name, known)
            self.faults.error(
                "E0302",
                f"no operator has an argument `{s.name}`",
                span,
                label="unknown argument",
                helps=[f"did you mean `{n}`?" for n in close],
            )
        elif not is_poisoned(value) and not any(_fits(value, a.annotation) for a in takers):
            wanted = max((describe(a.annotation) for a in takers), key=len)
            self.faults.error(
                "E0304", f"`{s.name}` must be {wanted}, but got {show(value)}", s.value.span
            )
        else:
            self.defaults[s.name] = (value, s.value.span)

    def _repeat(self, s: t.Repeat) -> None:
        count = self.integer(s.count, "the count of a repeat")
        if count is None:
            return
        if not 0 <= count <= limits.REPEAT:
            self.faults.error(
                "E0121",
                f"a repeat runs 0 to {limits.REPEAT} times, but this count is {count}",
                s.count.span,
            )
            return
        for turn in range(count):
            if s.index is not None:
                self.names[s.index] = turn
            self.faults.enter(s.count.span)  # a turn counts even when its body is empty
            self.run(s.body)
            self.faults.leave()

    def _require(self, fact: t.Call) -> None:
        if fact.name != "fused":
            self.faults.error(
                "E0301", f"`require` knows `fused(...)`, but not `{fact.name}`", fact.name_span
            )
            return
        layers: list[tuple[str, tuple[str, ...]]] = []
        for argument in fact.arguments:
            if not isinstance(argument.value, t.Name) or argument.name is not None:
                self.faults.error("E0308", "`fused` takes names of layers", argument.span)
                continue
            nodes = self._nodes(argument.value)
            if nodes is not None:
                layers.append((argument.value.name, nodes))
        if not fact.arguments:
            self.faults.error("E0306", "`fused` takes at least one name", fact.span)
        self.requirements.append(Requirement("fused", tuple(layers), fact.span))

    def _nodes(self, name: t.Name) -> tuple[str, ...] | None:
        """The nodes that a name stands for; None after a report."""
        value = self.names.get(name.name)
        if value is None:
            self.unknown_name(name.name, name.span)
            return None
        if isinstance(value, Node):
            return self.layers.get(name.name, (value.name,))
        if not is_poisoned(value):
            self.faults.error("E0308", f"`{name.name}` names {kind(value)} and no layer", name.span)
        return None

    # --- calls ---

    def call(self, call: t.Call, piped: Given | None, as_word: bool) -> Value:
        query, layer = QUERIES.get(call.name), self.session.layers.get(call.name)
        block = self.unit.blocks.get(call.name)
        if query is None and layer is None and block is None:
            return self._other_call(call, piped, as_word)
        before = [piped] if piped is not None else []
        if query is not None:
            positional, named = evaluated(call.arguments, self.value)
            return self._query(query, call, [*before, *positional], named)
        if block is not None:
            positional, named = evaluated(call.arguments, self.value)
            return self._block(*block, call, [*before, *positional], named)
        assert layer is not None
        positional, named = evaluated(call.arguments, lambda e: self.value(e, as_word=True))
        binder = Binder(self.faults, call, self._unknown_word)
        bound = binder.layer(layer, [*before, *positional], named, self.defaults)
        if bound is None:
            return POISON
        return self.session.run(
            layer,
            bound.tensors,
            bound.arguments,
            self._group_of_layer(),
            call.span,
            spans=bound.spans,
            options={name: _plain(value) for name, (value, _) in self.defaults.items()},
            head=binder.head,
        )

    def _other_call(self, call: t.Call, piped: Given | None, as_word: bool) -> Value:
        """A call of something that is no operator: a word with arguments, or a mistake."""
        if call.name == "transpose" and piped is None and as_word:
            return self._transposed(call)
        positional, named = evaluated(call.arguments, lambda e: self.value(e, as_word=True))
        word = Word(
            call.name,
            tuple(value for value, _ in positional),
            tuple((a.name or "", value) for a, value in named),
        )
        self.faults.spend(word, call.span)
        allowed = as_word or call.name in self.words
        if piped is None and allowed and not contains_tensor(word):
            return POISON if is_poisoned(word) else word
        span = call.name_span if call.name_span.known else call.span
        return self._unknown_word(word, span)

    def _transposed(self, call: t.Call) -> Value:
        """`transpose(c1)`: the layers that the name stands for, one of which has the kernel."""
        names = [a.value for a in call.arguments if isinstance(a.value, t.Name) and a.name is None]
        if len(call.arguments) != 1 or len(names) != 1:
            return self.faults.error("E0308", "`transpose` takes the name of a layer", call.span)
        nodes = self._nodes(names[0])
        return POISON if nodes is None else Transposed(names[0].name, nodes)

    def _unknown_word(self, word: Word, span: Span) -> Value:
        """Report a name where a tensor or an operator is needed."""
        operators = [*self.session.layers, *self.unit.blocks, *QUERIES]
        at = Span(span.source, span.start, span.start + len(word.name)) if span.known else span
        if word.name in self.names:
            value = self.names[word.name]
            return self.faults.error(
                "E0308", f"`{word.name}` is {kind(value)} and cannot be called", at
            )
        is_call = bool(word.args or word.named)
        close = did_you_mean(word.name, operators if is_call else [*self.names, *operators])
        return self.faults.error(
            "E0301",
            f"there is no operator or block `{word.name}`"
            if is_call
            else f"nothing is named `{word.name}` here",
            at,
            label="unknown name",
            helps=[f"did you mean `{n}`?" for n in close],
        )

    def _query(
        self,
        query: Query,
        call: t.Call,
        positional: list[Given],
        named: list[tuple[t.Argument, Value]],
    ) -> Value:
        for argument, _ in named:
            self.faults.error(
                "E0302", f"`{call.name}` takes its arguments by position", argument.span
            )
        if named or any(is_poisoned(value) for value, _ in positional):
            return POISON
        result = query(self.faults, call, positional)
        if isinstance(result, TensorType):  # zeros: a tensor that has this type
            return self.constant(0.0, result, call.span, call.name)
        return result

    def _block(
        self,
        block: t.Block,
        home: Unit,
        call: t.Call,
        positional: list[Given],
        named: list[tuple[t.Argument, Value]],
    ) -> Value:
        binder = Binder(self.faults, call, self._unknown_word)
        values = binder.block(block.parameters, positional, named)
        if values is None:
            return POISON
        group = self._group_of_layer()
        member = self.session.naming.member(group, block.name)
        self.session.open_members.append(member)
        try:
            with self.faults.using(block.name, call.span):
                inner = Body(self.session, home, {}, member.name + ".", self.defaults)
                for parameter in block.parameters:
                    if parameter.name in values:
                        inner.names[parameter.name] = values[parameter.name]
                    elif parameter.default is not None:
                        inner.names[parameter.name] = inner.value(parameter.default)
                self.session.naming.reserve(inner.prefix + n for n in assigned(block.body))
                result = inner.run(block.body)
        finally:
            self.session.open_members.pop()
        self.expectations += inner.expectations
        self.requirements += inner.requirements
        self.nofuse += inner.nofuse
        return result

    def declare_symbol(self, name: str, extent: Extent) -> None:
        self.names[name] = extent


def assigned(body: Sequence[t.Statement]) -> Iterator[str]:
    """The names that a body gives to layers."""
    for statement in body:
        match statement:
            case t.Assign() | t.Input() | t.Target():
                yield statement.name
            case t.Output(name=str(name)):
                yield name
            case t.Weights():
                yield from (name.name for name in statement.names)
            case t.Repeat():
                yield from assigned(statement.body)


def _plain(value: Value) -> Any:
    """A word without arguments as plain text, for `LayerBuilder.options`."""
    return value.name if isinstance(value, Word) and not value.args else value


def _fits(value: Value, annotation: object) -> bool:
    try:
        convert(value, annotation, "")
    except ArgumentError:
        return False
    return True
