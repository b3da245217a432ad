"""Rules of mistakes.py about words: a keyword that is misspelled or comes from another language, a
reserved word that is used as a name, a value that is given no name."""

from __future__ import annotations

from cnncc.errors import Diagnostic, Span, did_you_mean
from cnncc.syntax.grammar import grammar
from cnncc.syntax.scan import CLOSING
from cnncc.syntax.stuck import ITEMS, STATEMENTS, Repair, Stuck
from cnncc.syntax.wording import quote

_FOREIGN_ITEMS = {
    "model": "net",
    "network": "net",
    "module": "block",
    "layer": "block",
    "def": "block",
    "fn": "block",
    "func": "block",
    "function": "block",
    "macro": "block",
    "include": "import",
    "use": "import",
    "fit": "train",
}
_FOREIGN_STATEMENTS = {
    "for": "repeat",
    "loop": "repeat",
    "while": "repeat",
    "assert": "expect",
    "yield": "return",
}
_NEEDLESS = frozenset({"let", "var", "const", "val", "layer", "set"})


def misspelled_item(stuck: Stuck) -> Repair | None:
    """`nett lenet { ... }`"""
    if stuck.kind != "NAME" or "NET" not in stuck.expected:
        return None
    word = stuck.word_at(0)
    meant = _meant(word, ITEMS, _FOREIGN_ITEMS)
    if meant is None:
        return None
    return Repair(
        Diagnostic(
            "E0118",
            f"unknown word {quote(word)} at the top of a file",
            stuck.span_at(0),
            helps=(f"did you mean `{grammar().fixed[meant]}`?",),
        ),
        (stuck.make(meant),),
        stuck.index + 1,
    )


def misspelled_statement(stuck: Stuck) -> Repair | None:
    """`imput image: f32[1, 8, 8]`: the word was read as the name of an assignment."""
    if stuck.expected != {"EQUAL"} or stuck.kind_at(-1) != "NAME":
        return None
    if not stuck.begins_statement(-1):
        return None
    word = stuck.word_at(-1)
    if word in _NEEDLESS and stuck.kind == "NAME":
        diagnostic = Diagnostic(
            "E0104",
            f"a value gets its name without {quote(word)}",
            stuck.span_at(-1),
            helps=(f"write `{stuck.word_at(0)} = ...`",),
        )
        return Repair(diagnostic, (stuck.token,), stuck.index + 1, undo=1)
    meant = _meant(word, STATEMENTS, _FOREIGN_STATEMENTS)
    if meant is None or stuck.kind in ("EQEQ", "COLON", "COMMA"):
        return None
    diagnostic = Diagnostic(
        "E0118",
        f"unknown statement {quote(word)}",
        stuck.span_at(-1),
        helps=(f"did you mean `{grammar().fixed[meant]}`?",),
    )
    return Repair(diagnostic, (stuck.make(meant),), stuck.index, undo=1)


def _meant(word: str, kinds: frozenset[str], foreign: dict[str, str]) -> str | None:
    fixed = grammar().fixed
    spellings = {fixed[kind]: kind for kind in kinds}
    close = [foreign[word.lower()]] if word.lower() in foreign else did_you_mean(word, spellings)
    return spellings.get(close[0]) if close else None


def reserved_word(stuck: Stuck) -> Repair | None:
    """A keyword where a name belongs: `output = relu(x)`, `x -> input`."""
    reserved = grammar().keywords
    if stuck.kind == "EQUAL" and stuck.word_at(-1) in reserved and stuck.begins_statement(-1):
        word = stuck.word_at(-1)
        advice = {
            "output": "to name an output, write `output name = ...`",
            "input": "an input has a type: `input name: f32[3, 224, 224]`",
        }
        diagnostic = Diagnostic(
            "E0111",
            f"{quote(word)} is a reserved word and cannot name a value",
            stuck.span_at(-1),
            helps=(advice.get(word, "choose another name"),),
        )
        return Repair(diagnostic, (stuck.make("NAME"),), stuck.index, undo=1)
    if stuck.word_at(0) not in reserved or "NAME" not in stuck.expected:
        return None
    begins_something = stuck.kind in STATEMENTS | ITEMS and stuck.starts_line()
    if begins_something or "INPUT" in stuck.expected:
        return None
    if stuck.kind in ("THEN", "ELSE", "AND", "OR", "IN"):
        return None
    diagnostic = Diagnostic(
        "E0111",
        f"{quote(stuck.word_at(0))} is a reserved word and cannot be used as a name",
        stuck.span_at(0),
        helps=("choose another name",),
    )
    return Repair(diagnostic, (stuck.make("NAME"),), stuck.index + 1)


def statement_without_name(stuck: Stuck) -> Repair | None:
    """`relu(x)`, `if a then b else c` or `x -> relu` where a statement belongs."""
    first = stuck.word_at(-1) if stuck.expected == {"EQUAL"} else stuck.word_at(0)
    if stuck.expected == {"EQUAL"} and stuck.begins_statement(-1):
        if stuck.kind in ("LPAR", "ARROW"):
            shown = f"{first}(...)" if stuck.kind == "LPAR" else f"{first} -> ..."
            return Repair(_nameless(stuck.span_at(-1), shown))
        if stuck.kind == "COMMA":
            diagnostic = Diagnostic(
                "E0104",
                "a statement gives one name to one value",
                stuck.span_at(0),
                helps=("write one statement for each name",),
            )
            return Repair(diagnostic)
    if stuck.kind == "IF" and "INPUT" in stuck.expected:
        diagnostic = Diagnostic(
            "E0104",
            "`if` chooses between two values; it is not a statement",
            stuck.span_at(0),
            helps=("write `name = if condition then a else b`",),
        )
        return Repair(diagnostic)
    return None


def _nameless(span: Span, shown: str) -> Diagnostic:
    return Diagnostic(
        "E0104",
        "a value without a name does nothing",
        span,
        helps=(f"give it a name: `y = {shown}`", "or make it an output: `output ...`"),
    )


def if_without_else(stuck: Stuck) -> Repair | None:
    """`y = if a then b`"""
    if "ELSE" not in stuck.expected or not (stuck.starts_line() or stuck.kind in CLOSING):
        return None
    end = int(stuck.tokens[stuck.index - 1].end_pos or 0)
    diagnostic = Diagnostic(
        "E0104",
        "an `if` needs an `else`: it is a value either way",
        Span(stuck.source, end, end),
        "expected `else`",
        helps=("write `if condition then a else b`",),
    )
    return Repair(diagnostic)
