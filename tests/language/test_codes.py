"""The table of codes: complete, and its examples are what they say they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnncc.errors import CODES, SpecError, explain
from cnncc.syntax import limits, parse

ROOT = Path(__file__).parents[2] / "cnncc"


def is_text(example: str) -> bool:
    """True for examples in the language; the others are commands or Python."""
    return example.startswith(("net ", "block ", "import ", "#"))


def codes(text: str) -> set[str]:
    try:
        parse(text)
    except SpecError as error:
        return {diagnostic.code for diagnostic in error.diagnostics}
    return set()


def test_every_code_that_is_raised_is_explained():
    raised: dict[str, str] = {}
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "errors":
            found = re.findall(r"\bE0[1-8][0-9]{2}\b", path.read_text(encoding="utf-8"))
            raised.update(dict.fromkeys(found, str(path)))
    assert {code: path for code, path in raised.items() if code not in CODES} == {}


@pytest.mark.parametrize("code", [c for c in CODES if c < "E0120" and c != "E0106"])
def test_wrong_examples_of_the_syntax_are_wrong_in_this_way(code):
    assert code in codes(CODES[code].wrong)


@pytest.mark.parametrize("code", CODES)
def test_all_other_examples_are_read(code):
    entry = CODES[code]
    assert not is_text(entry.right) or codes(entry.right) == set()
    if code >= "E0120" and code != "E0305":
        assert not is_text(entry.wrong) or codes(entry.wrong) == set()
    assert entry.wrong != entry.right


@pytest.mark.parametrize("code", CODES)
def test_explanations_are_whole(code):
    text = explain(code)
    assert text.startswith(f"{code}: {CODES[code].title}\n\n")
    assert CODES[code].law[0].isupper() or CODES[code].law[0] == "`"
    assert CODES[code].law.endswith(".")
    assert "Wrong:" in text
    assert "Right:" in text


def test_the_limits_that_explanations_name_are_the_ones_that_hold():
    assert f"{limits.NESTING} deep" in CODES["E0105"].law
    assert f"{limits.WORDS // 1000} 000 words" in CODES["E0106"].law
    assert f"{limits.NAME_CHARACTERS} characters" in CODES["E0107"].law
    assert f"{limits.DIGITS} digits" in CODES["E0108"].law
    with pytest.raises(KeyError):
        explain("E0199")
