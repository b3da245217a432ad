"""Saved choices: what was kept is found again, by those whom it concerns, and a bad file is refused
with a warning.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from cnncc.passes.choices import NONE, Choice, Choices
from cnncc.targets.cache import cache_clear, cache_info
from cnncc.targets.tuned import Key, is_used, save_choices, saved_choices

KEY = Key(threads=2, batch=1, precision="default")
CHOICES = Choices({"conv a": Choice(4, 1e-3, 2e-3)}, {"conv b": Choice(7, 3e-6, 4e-6)})
NOTHING: dict[str, list[str]] = {}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, whose choices are used."""
    monkeypatch.setenv("CNNCC_TUNED", "1")
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved() -> Path:
    return save_choices(KEY, CHOICES, NOTHING)


def test_what_is_kept_is_found() -> None:
    assert saved_choices(KEY) == NONE
    path = saved()
    assert saved_choices(KEY) == CHOICES
    assert path.read_bytes() == save_choices(KEY, CHOICES, NOTHING).read_bytes()


@pytest.mark.parametrize(
    "other", [replace(KEY, threads=1), replace(KEY, batch=2), replace(KEY, precision="exact")]
)
def test_only_by_calls_of_the_same_kind(other: Key) -> None:
    saved()
    assert saved_choices(other) == Choices(batch=other.batch)
    save_choices(other, Choices({"conv a": Choice(2)}), NOTHING)
    assert saved_choices(KEY) == CHOICES


def test_a_new_measurement_replaces_the_old_one_and_leaves_others() -> None:
    saved()
    save_choices(KEY, Choices({"conv a": Choice(2), "conv c": Choice(0)}), NOTHING)
    found = saved_choices(KEY)
    assert {text: c.value for text, c in found.algorithms.items()} == {"conv a": 2, "conv c": 0}
    assert found.widths == CHOICES.widths
    save_choices(KEY, NONE, {"algorithm": ["conv a"], "width": ["conv a"]})
    assert set(saved_choices(KEY).algorithms) == {"conv c"}
    assert saved_choices(KEY).widths == CHOICES.widths


def test_they_can_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    saved()
    monkeypatch.setenv("CNNCC_TUNED", "0")
    assert saved_choices(KEY) == NONE
    monkeypatch.setenv("CNNCC_TUNED", "no")
    with pytest.raises(ValueError, match=r"CNNCC_TUNED must be 0 or 1, but got 'no'"):
        is_used()


def test_the_cache_counts_and_clears_them() -> None:
    assert cache_info().files == 0
    size = saved().stat().st_size
    assert (cache_info().files, cache_info().bytes) == (1, size)
    assert cache_clear().files == 1
    assert saved_choices(KEY) == NONE


GOOD = {"kind": "width", "form": "conv a", "precision": "default", "batch": 1, "value": 7,
        "seconds": 1.0, "before": 2.0}  # fmt: skip
BAD = {
    "no json": "{",
    "another thing": "[]",
    "deep": "[" * 100_000,
    "another version": {"version": 99},
    "another machine": {"machine": {}},
    "no list": {"results": 7},
    "no results": {"results": [7]},
    "a missing part": {"results": [{"kind": "width"}]},
    "a part too many": {"results": [{**GOOD, "more": 1}]},
    "a kind": {"results": [{**GOOD, "kind": "colour"}]},
    "a value of another type": {"results": [{**GOOD, "value": "7"}]},
    "a negative value": {"results": [{**GOOD, "value": -1}]},
    "a huge value": {"results": [{**GOOD, "value": 10**9}]},
    "no time": {"results": [{**GOOD, "seconds": float("nan")}]},
    "no name": {"results": [{**GOOD, "form": None}]},
}


@pytest.mark.parametrize("what", BAD.values(), ids=BAD)
def test_a_bad_file_is_ignored_with_a_warning(what: object) -> None:
    path = saved()
    content = json.loads(path.read_text())
    text = what if isinstance(what, str) else json.dumps({**content, **dict(what)})  # type: ignore[call-overload]
    path.write_text(text)
    with pytest.warns(RuntimeWarning, match=r"are ignored: it is .*`cnncc tune` measures again"):
        assert saved_choices(KEY) == NONE
    with pytest.warns(RuntimeWarning):
        saved()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert saved_choices(KEY) == CHOICES


def test_values_of_forms_that_nobody_has_do_no_harm() -> None:
    save_choices(KEY, Choices({"conv a": Choice(1000)}, {"conv a": Choice(0)}), NOTHING)
    assert saved_choices(KEY).algorithms["conv a"].value == 1000
