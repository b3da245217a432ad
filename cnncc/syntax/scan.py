"""Cuts a text into words and checks everything that can be checked without grammar: characters,
numbers, lengths, depth of brackets. The spellings come from the grammar file; what this module adds
is that a wrong character or number becomes a diagnostic and reading goes on behind it, and that no
later stage ever meets a text beyond the limits."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from lark import Token

from cnncc.errors import Diagnostics, Source, Span, SpecError
from cnncc.errors.printable import is_hidden
from cnncc.syntax import limits
from cnncc.syntax.grammar import IGNORED, grammar
from cnncc.syntax.tree import Comment

OPENING = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSING = frozenset(OPENING.values())
ITEM_WORDS = frozenset({"NET", "BLOCK", "TRAIN", "TABLE"})
"""Words that a name follows."""

MISTAKEN = {
    "=>": "->",
    "|>": "->",
    "→": "->",
    "&&": "and",
    "||": "or",
    ":=": "=",
    "===": "==",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "−": "-",
}
"""Spellings from elsewhere, and the word of this language that they stand for."""

_ADVICE = {
    ";": "a statement ends by itself; leave the `;` out",
    "'": "a file to import stands in double quotes, any other word in none",
    "!": "the logical operator is written `not`",
    "&": "the logical operator is written `and`",
    "|": "the logical operator is written `or`",
    "×": "a size is written with the letter x, as in 3x3",
    "@": "matrix products are the operator `dense`",
    ".": "a number has digits before and after its point, as in 0.5",
}


@dataclass(frozen=True)
class Scan:
    """The words of a source, its comments, and the lines on which a word was wrong."""

    tokens: tuple[Token, ...]
    comments: tuple[Comment, ...]
    faulty_lines: frozenset[int]


def scan(source: Source, found: Diagnostics) -> Scan:
    """The words of `source`; mistakes are added to `found`.

    Raises SpecError at once where a limit is exceeded that makes reading on pointless: the size of
    the text, the number of words, the depth of brackets.
    """
    return _Scanner(source, found).run()


def check_size(source: Source) -> None:
    """Raise SpecError for a text beyond the limit on its size."""
    size = len(source.text)
    if size <= limits.TEXT_BYTES:
        size = len(source.text.encode("utf-8", "surrogatepass"))
    if size <= limits.TEXT_BYTES:
        return
    found = Diagnostics()
    found.error(
        "E0106",
        f"a file has at most {limits.TEXT_BYTES} bytes, but this one has more",
        Span(source, 0, 0),
        helps=("split the file and import its parts",),
    )
    found.raise_if_any()


class _Scanner:
    def __init__(self, source: Source, found: Diagnostics) -> None:
        self.source = source
        self.text = source.text
        self.found = found
        self.tokens: list[Token] = []
        self.comments: list[Comment] = []
        self.faulty_lines: set[int] = set()
        self.open: list[int] = []
        """Offsets of the brackets that are open."""

    def run(self) -> Scan:
        check_size(self.source)
        master, kinds = _master()
        text, at, end = self._without_hidden(), 0, len(self.text)
        while at < end:
            match = master.match(text, at)
            if match is None:
                at = self._unexpected(text, at)
                continue
            kind, word = str(match.lastgroup), match.group()
            at = match.end()
            if kind == "COMMENT":
                span = Span(self.source, match.start(), match.end())
                self.comments.append(Comment(self.text[span.start : span.end].rstrip(), span=span))
            elif kind not in IGNORED:
                at = self._word(kinds.get(word, kind), word, match.start())
            if len(self.tokens) + len(self.comments) > limits.WORDS:
                text_of_rule = f"a file has at most {limits.WORDS} words and comments"
                self._stop("E0106", text_of_rule, at - 1, at)
            if len(self.found) >= limits.ERRORS:
                break
        return Scan(tuple(self._with_labels()), tuple(self.comments), frozenset(self.faulty_lines))

    # --- single words ---

    def _word(self, kind: str, word: str, at: int) -> int:
        """Keep one word; the offset where the next begins."""
        if kind in ("INT", "FLOAT", "SIZE"):
            return self._number(kind, word, at)
        if kind == "MISTAKEN":
            return self._mistaken(word, at)
        end = at + len(word)
        if kind == "NAME" or word.isalpha():
            return self._name(kind, word, at, end)
        elif kind in OPENING:
            self.open.append(at)
            if len(self.open) > limits.NESTING:
                self._stop(
                    "E0105",
                    f"brackets are nested at most {limits.NESTING} deep",
                    at,
                    at + 1,
                    "give the inner parts names of their own",
                )
        elif kind in CLOSING and self.open:
            self.open.pop()
        self._keep(kind, word, at, end)
        return end

    def _name(self, kind: str, word: str, at: int, end: int) -> int:
        if not self.text[end : end + 1].isascii():
            run = _FOREIGN_NAME.match(self.text, at)
            if run is not None and run.end() > end:
                return self._foreign_name(at, run.end())
        if len(word) > limits.NAME_CHARACTERS:
            self._fault(
                "E0107",
                f"a name has at most {limits.NAME_CHARACTERS} characters, "
                f"but this one has {len(word)}",
                at,
                end,
            )
            word = word[: limits.NAME_CHARACTERS]
        self._keep(kind, word, at, end)
        return end

    def _foreign_name(self, at: int, end: int) -> int:
        self._fault(
            "E0103",
            "a name has only the letters a to z and A to Z, digits and underscores",
            at,
            end,
            "use ASCII letters; other scripts are welcome in comments",
        )
        self._keep("NAME", "_", at, end)
        return end

    def _number(self, kind: str, word: str, at: int) -> int:
        run = _NUMBER_RUN.match(self.text, at)
        whole = word if run is None or len(run.group()) < len(word) else run.group()
        end = at + len(whole)
        fault = _number_fault(kind, word, whole)
        if fault is not None:
            code, message, help_text = fault
            self._fault(code, message, at, end, help_text)
            kind, word = ("INT", "1") if kind != "SIZE" else ("SIZE", "1x1")
        self._keep(kind, word, at, end)
        return end

    def _mistaken(self, word: str, at: int) -> int:
        end = at + len(word)
        meant = MISTAKEN[word]
        self._fault("E0101", f"`{word}` is not part of the language", at, end, f"write `{meant}`")
        kinds = {spelling: kind for kind, spelling in grammar().fixed.items()}
        self._keep(kinds[meant], meant, at, end)
        return end

    def _keep(self, kind: str, word: str, at: int, end: int) -> None:
        self.tokens.append(Token(kind, word, start_pos=at, end_pos=end))

    def _with_labels(self) -> list[Token]:
        """The words, where a keyword before `=` inside `( )` has become an ordinary name: there it
        is the name of an argument, as in conv(x, 8, weights = U). At the top of a file `table` is a
        keyword."""
        reserved = frozenset(grammar().keywords.values())
        tokens = self.tokens
        depth = curly = 0
        for index, token in enumerate(tokens):
            if token.type == "LPAR":
                depth += 1
            elif token.type in ("RPAR", "LBRACE", "RBRACE"):
                depth = max(0, depth - 1) if token.type == "RPAR" else 0
                curly = max(0, curly + {"LBRACE": 1, "RBRACE": -1}.get(token.type, 0))
            elif token == "table" and token.type == "NAME" and self._begins_table(index, curly):
                tokens[index] = token.update(type="TABLE")
            elif depth and token.type in reserved and index + 1 < len(tokens):
                before, after = tokens[index - 1].type, tokens[index + 1].type
                if after == "EQUAL" and before in ("LPAR", "COMMA"):
                    tokens[index] = token.update(type="NAME")
        return tokens

    def _begins_table(self, index: int, curly: int) -> bool:
        """Whether `table` stands where an item begins, inside no curly bracket; or before `name {`,
        where a bracket was left open before it.
        """
        before = self.tokens[index - 1].type if index else ""
        following = [t.type for t in self.tokens[index + 1 : index + 3]]
        begins = curly == 0 and before in ("", "RBRACE", "STRING")
        return begins or (before not in ITEM_WORDS and following == ["NAME", "LBRACE"])

    # --- what is not a word ---

    def _without_hidden(self) -> str:
        """The text with hidden characters blanked, each run of them reported."""
        hidden = sorted(c for c in set(self.text) if is_hidden(c) and c not in "\t\n")
        if not hidden:
            return self.text
        pattern = re.compile("[" + re.escape("".join(hidden)) + "]+")
        for match in pattern.finditer(self.text):
            at, end = match.span()
            run = match.group()
            if (run == "\r" and self.text[end : end + 1] == "\n") or (at == 0 and run == "\ufeff"):
                continue
            if len(self.found) >= limits.ERRORS:
                break
            self._fault(
                "E0102",
                f"a file has no control or invisible characters, but here is "
                f"U+{ord(run[0]):04X} ({_character_name(run[0])})",
                at,
                end,
                "delete it",
            )
        return pattern.sub(lambda match: " " * len(match.group()), self.text)

    def _unexpected(self, text: str, at: int) -> int:
        """Report what no word begins with; the offset behind it."""
        if text[at] == '"':
            line_end = text.find("\n", at)
            end = len(text) if line_end < 0 else line_end
            self._fault(
                "E0110", "this string is not closed on its line", at, end, 'close it with `"`'
            )
            return end
        single = _SINGLE_QUOTED.match(text, at)
        if single is not None:
            self._fault("E0101", "`'` is not part of the language", at, single.end(), _ADVICE["'"])
            self._keep("STRING", '"' + single.group()[1:-1] + '"', at, single.end())
            return single.end()
        name = _FOREIGN_NAME.match(text, at)
        if name is not None and text[at] not in _ADVICE:
            return self._foreign_name(at, name.end())
        run = _JUNK.match(text, at)
        end = at + 1 if run is None else run.end()
        character = text[at]
        quoted = f"`{character}`" if character.isascii() else f"`{character}` "
        if not character.isascii():
            quoted += f"(U+{ord(character):04X} {_character_name(character)})"
        help_text = _ADVICE.get(character, "")
        if character in "“”„«»":
            help_text = 'text in an import stands between plain double quotes `"`'
        if character == "." and self.tokens and self.tokens[-1].end_pos == at:
            help_text = self._advice_on_dot()
        self._fault("E0101", f"unexpected character {quoted}", at, end, help_text)
        return end

    def _advice_on_dot(self) -> str:
        if any(token.type == "IMPORT" for token in self.tokens[-2:]):
            return 'the file to import stands in double quotes: `import "file.cnn"`'
        return "an operator is applied with an arrow, as in `x -> relu`"

    def _fault(self, code: str, message: str, at: int, end: int, help_text: str = "") -> None:
        span = Span(self.source, at, end)
        self.faulty_lines.add(span.line)
        self.found.error(code, message, span, helps=(help_text,) if help_text else ())

    def _stop(self, code: str, message: str, at: int, end: int, help_text: str = "") -> None:
        self._fault(code, message, at, end, help_text)
        raise SpecError(self.found.sorted())


_NUMBER_RUN = re.compile(r"[0-9](?:[0-9A-Za-z_]|(?<=[eE])[+-](?=[0-9])|\.(?=[0-9]))*\.?")
_FOREIGN_NAME = re.compile(r"\w+")
_SINGLE_QUOTED = re.compile(r"'[^'\n]*'")
_JUNK = re.compile(r"([^\w\s])\1*")


@cache
def _master() -> tuple[re.Pattern[str], dict[str, str]]:
    """One expression for every word, and the kinds of the keywords by spelling."""
    words = grammar()
    signs = {k: v for k, v in words.fixed.items() if not v.isalpha()}
    parts = [f"(?P<MISTAKEN>{'|'.join(re.escape(s) for s in sorted(MISTAKEN, key=_longest))})"]
    # A float begins like an integer and a size too, so the longer forms are tried first.
    parts += [f"(?P<{kind}>{words.patterns[kind]})" for kind in ("FLOAT", "SIZE", "INT")]
    rest = (kind for kind in words.patterns if kind not in ("FLOAT", "SIZE", "INT"))
    parts += [f"(?P<{kind}>{words.patterns[kind]})" for kind in rest]
    ordered = sorted(signs.items(), key=lambda item: _longest(item[1]))
    parts += [f"(?P<{kind}>{re.escape(sign)})" for kind, sign in ordered]
    return re.compile("|".join(parts)), words.keywords


def _longest(sign: str) -> tuple[int, str]:
    return -len(sign), sign


def _character_name(character: str) -> str:
    return unicodedata.name(character, "no name").lower()


def _number_fault(kind: str, word: str, whole: str) -> tuple[str, str, str] | None:
    """Code, message and help for what is wrong with a number, if anything is."""
    shown = whole if len(whole) <= 24 else whole[:20] + "..."
    mantissa = re.split("[eE]", whole, maxsplit=1)[0] if kind == "FLOAT" else whole
    lengths = [
        len(part.replace("_", "").replace(".", "").lstrip("0")) for part in mantissa.split("x")
    ]
    if len(whole) > limits.NUMBER_CHARACTERS or max(lengths) > limits.DIGITS:
        count = sum(c.isdigit() for c in whole)
        message = f"a number has at most {limits.DIGITS} digits, but this one has {count}"
        return "E0108", message, ""
    if whole != word:
        return "E0108", f"`{shown}` is not a number", _number_help(whole)
    if kind == "SIZE":
        extents = [int(part) for part in word.split("x")]
        if len(extents) > 3:
            return (
                "E0114",
                f"a size has two or three extents, but `{shown}` has {len(extents)}",
                "a tuple such as (3, 3) has any number of elements",
            )
        if 0 in extents:
            return "E0114", f"every extent of a size is at least 1, but this one is `{shown}`", ""
    if kind == "FLOAT" and math.isinf(float(word.replace("_", ""))):
        return "E0108", f"`{shown}` is beyond the range of 64-bit floats", ""
    return None


def _number_help(whole: str) -> str:
    if whole.endswith("."):
        return f"a number has digits on both sides of its point: `{whole}0`"
    if re.fullmatch(r"[0-9]+(x[0-9A-Za-z_]+)+", whole) and not whole.startswith("0x"):
        parts = ", ".join(whole.split("x"))
        return f"a size with names in it is written as a tuple: `({parts})`"
    if whole.startswith("0x"):
        return "numbers are decimal"
    if "__" in whole or whole.endswith("_"):
        return "an underscore stands between two digits"
    if re.match(r"[0-9]+[A-Za-z_]", whole):
        return "a name begins with a letter or an underscore"
    return ""
