"""The last stage of the front end: `check` verifies the graph and holds it against what the net
expects of itself. After it, whatever fails is a fault of the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnncc.errors import Note, Span, did_you_mean
from cnncc.graph.calls import Given, evaluated
from cnncc.graph.evaluate import Evaluator
from cnncc.graph.faults import Faults
from cnncc.graph.ir import Graph, Node, TypedGraph
from cnncc.graph.module import Expectation, Module
from cnncc.graph.queries import QUERIES
from cnncc.graph.values import POISON, Value, is_poisoned, kind, show
from cnncc.graph.verify import verify
from cnncc.passes.count import Counts, LayerCount, count
from cnncc.passes.countable import FIELDS, OF_LAYERS, TOTALS, number_of, selection
from cnncc.syntax import tree as t
from cnncc.tensor import Extent

PLANNED = "memory"
"""What only a memory plan knows; conditions on it are left to the planner."""

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
MOST_ROWS = 24


def check(graph: Graph, module: Module) -> TypedGraph:
    """The graph, verified, after all that the net expects has been found true.

    Conditions on `memory` are left to `check_memory`. Raises SpecError: E0501 for an expectation
    that does not hold, E0502 and E03xx for one that makes no sense; and CompilerBug.
    """
    typed = verify(graph)
    faults = Faults()
    counts: Counts | None = None
    for expectation in module.expectations:
        if is_planned(expectation):
            continue
        counts = counts or count(typed)
        _Expect(faults, typed, counts, expectation).check()
    faults.found.raise_if_any()
    return typed


def is_planned(expectation: Expectation) -> bool:
    """Whether a condition speaks of memory, which is known when the memory is planned."""
    names = (n.name for n in t.walk(expectation.condition) if isinstance(n, t.Name))
    return PLANNED in names and PLANNED not in expectation.scope


def check_memory(module: Module, peak: int, parts: str = "") -> None:
    """Check the conditions on `memory`; `peak` is the planned peak in bytes, and `parts` says what
    it consists of. Raises SpecError (E0501).
    """
    faults = Faults()
    for expectation in module.expectations:
        if is_planned(expectation):
            _Memory(faults, expectation, peak, parts).check()
    faults.found.raise_if_any()


class _Condition(Evaluator):
    """One condition of an `expect`."""

    def __init__(
        self, faults: Faults, expectation: Expectation, scope: Mapping[str, Value]
    ) -> None:
        super().__init__(faults, scope, ())
        self.expectation = expectation

    def check(self) -> None:
        """Report the condition unless it holds."""
        e = self.expectation.condition
        if isinstance(e, t.Binary) and e.operator in COMPARISONS:
            left, right = self.value(e.left), self.value(e.right)
            if is_poisoned(left) or is_poisoned(right):
                return
            holds = self.value(e)
            if holds is False:
                self._fails(e, left, right)
            return
        value = self.value(e)
        if value is False:
            self.faults.error("E0501", "this expectation does not hold", e.span)
        elif value is not True and not is_poisoned(value):
            self.faults.error(
                "E0502",
                f"an `expect` is a condition, but this is {show(value)}, {kind(value)}",
                e.span,
                helps=(f"write what it should be: `{e.span.text} == ...`",),
            )

    def _fails(self, e: t.Binary, left: Value, right: Value) -> None:
        what = e.left.span.text if e.left.span.known else "the left side"
        label = f"{what} is {number(left)}"
        message = f"expected {what} {e.operator} {number(right)}, but it is {number(left)}"
        self.faults.error("E0501", message, e.span, label=label, notes=self.breakdown(e, left))

    def breakdown(self, e: t.Binary, actual: Value) -> Sequence[Note]:
        """Notes that show where a number comes from."""
        return ()

    def call(self, call: t.Call, piped: Given | None, as_word: bool) -> Value:
        raise NotImplementedError

    def is_tensor(self, value: Value) -> bool:
        return isinstance(value, Node)

    def between_tensors(self, e: t.Binary | t.Unary, operands: tuple[Value, ...]) -> Value:
        return self.faults.error("E0502", "an `expect` speaks of numbers, not of tensors", e.span)


class _Memory(_Condition):
    """A condition on the planned memory."""

    def __init__(self, faults: Faults, expectation: Expectation, peak: int, parts: str) -> None:
        super().__init__(faults, expectation, {**expectation.scope, PLANNED: peak})
        self.parts = parts

    def breakdown(self, e: t.Binary, actual: Value) -> Sequence[Note]:
        return (Note(self.parts),) if self.parts else ()

    def call(self, call: t.Call, piped: Given | None, as_word: bool) -> Value:
        return self.faults.error("E0502", f"`{call.name}` cannot stand beside `memory`", call.span)


class _Expect(_Condition):
    """A condition on counts, shapes and receptive fields."""

    def __init__(
        self, faults: Faults, graph: TypedGraph, counts: Counts, expectation: Expectation
    ) -> None:
        totals: dict[str, Value] = {name: getattr(counts, name) for name in TOTALS}
        super().__init__(faults, expectation, {**totals, **expectation.scope})
        self.graph = graph
        self.counts = counts

    def call(self, call: t.Call, piped: Given | None, as_word: bool) -> Value:
        if call.name in OF_LAYERS and any(a.name is not None for a in call.arguments):
            return self._selected(call, piped)
        before = [piped] if piped is not None else []
        positional, named = evaluated(call.arguments, self.value)
        given = [*before, *positional]
        if named or any(is_poisoned(value) for value, _ in given):
            for argument, _ in named:
                self.faults.error(
                    "E0302", f"`{call.name}` takes its arguments by position", argument.span
                )
            return POISON
        if call.name in QUERIES and call.name != "zeros":
            result = QUERIES[call.name](self.faults, call, given)
            assert not hasattr(result, "dtype")
            return result
        if call.name in FIELDS:
            return self._field(call, given)
        if call.name in OF_LAYERS:
            layers = self._layers(call, given)
            return POISON if layers is None else self._sum(call, layers)
        if call.name in TOTALS:
            return self.faults.error(
                "E0502", f"`{call.name}` is a number of the whole net, not of a layer", call.span
            )
        known = [*FIELDS, "shape", "channels", "extent", *OF_LAYERS]
        return self.faults.error(
            "E0301",
            f"an `expect` knows no `{call.name}`",
            call.name_span if call.name_span.known else call.span,
            label="unknown name",
            helps=[f"did you mean `{n}`?" for n in did_you_mean(call.name, known)]
            or [f"it knows {', '.join(known)}"],
        )

    def _one_tensor(self, call: t.Call, given: Sequence[Given]) -> Node | None:
        if len(given) == 1 and isinstance(given[0][0], Node):
            return given[0][0]
        span: Span = given[0][1] if given else call.span
        self.faults.error("E0502", f"`{call.name}` takes the name of one layer", span)
        return None

    def _layers(self, call: t.Call, given: Sequence[Given]) -> tuple[LayerCount, ...] | None:
        """The layers that a name in the parentheses stands for; None after a report."""
        node = self._one_tensor(call, given)
        if node is None:
            return None
        e = call.arguments[0].value if call.arguments else None
        nodes = self.expectation.layers.get(e.name) if isinstance(e, t.Name) else None
        return self.counts.of(nodes or (node.name,))

    def _selected(self, call: t.Call, piped: Given | None) -> Value:
        """`connections(layers = conv, bias = no)`."""
        if piped is not None or any(a.name is None for a in call.arguments):
            return self.faults.error(
                "E0302", f"`{call.name}` takes a layer or a selection, not both", call.span
            )
        chosen = selection(self.faults, self.counts, call)
        return POISON if chosen is None else chosen.total(self.counts, call.name)

    def _sum(self, call: t.Call, layers: Sequence[LayerCount]) -> Value:
        result: Extent = 0
        for layer in layers:
            number = number_of(layer, call.name)
            if number is None:
                return self.faults.error(
                    "E0502",
                    f"`{call.name}` of `{layer.name}` depends on symbolic extents",
                    call.span,
                    helps=("give the input fixed extents",),
                )
            result = result + number
        return result

    def _field(self, call: t.Call, given: Sequence[Given]) -> Value:
        node = self._one_tensor(call, given)
        if node is None:
            return POISON
        field = next((x.field for x in self.counts.layers if node.name in x.nodes), None)
        if not field:
            return self.faults.error(
                "E0502",
                f"`{node.name}` has no receptive field of a fixed size",
                given[0][1],
                helps=("give the input fixed extents, or ask about an earlier layer",),
            )
        values = [FIELDS[call.name](span) for span in field]
        return values[0] if len(set(values)) == 1 else list(values)

    def breakdown(self, e: t.Binary, actual: Value) -> Sequence[Note]:
        what, rows = self._parts(e.left)
        rows = [(name, value) for name, value in rows if value != 0]
        shown = rows if len(rows) <= MOST_ROWS else rows[: MOST_ROWS - 1]
        lines = [f"{name}: {number(value)}" for name, value in shown]
        if len(shown) < len(rows):
            lines.append(f"and {len(rows) - len(shown)} more layers")
        return [Note(f"{what} by layer:\n" + "\n".join(lines))] if lines else ()

    def _parts(self, e: t.Expr) -> tuple[str, list[tuple[str, Extent]]]:
        """The count that an expression names, and every layer with what it adds to it."""
        layers: Sequence[LayerCount] = ()
        if isinstance(e, t.Name) and e.name in OF_LAYERS:
            layers = self.counts.layers
        elif isinstance(e, t.Call) and e.name in OF_LAYERS and e.arguments:
            if e.arguments[0].name is not None:
                chosen = selection(Faults(), self.counts, e)
                return (e.name, chosen.rows(self.counts, e.name)) if chosen else ("", [])
            inner = e.arguments[0].value
            name = inner.name if isinstance(inner, t.Name) else ""
            layers = self.counts.of(self.expectation.layers.get(name, ()))
        else:
            return "", []
        return e.name, [(x.name, number_of(x, e.name) or 0) for x in layers]


def number(value: Value) -> str:
    """A value as a diagnostic shows it; long numbers with underscores, as in the language."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    return show(value)
