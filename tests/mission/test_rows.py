"""Every row of the lecture table has a test: its number is in the name of one, or here is the
reason why it needs none.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent

ROWS = [
    *(f"S{k:02d}" for k in range(1, 24)),
    *(f"S{k}" for k in range(30, 49)), "S34a",
    *(f"S{k}" for k in range(50, 68)),
    *(f"S{k}" for k in range(70, 90)), "S89a", "S89b",
    *(f"S{k}" for k in range(90, 115)),
    *(f"S{k}" for k in range(120, 124)),
]  # fmt: skip

WITHOUT = {
    "S113": "memory cells, attention and learning through time are named in the lectures and not "
    "defined; embeddings are in S20 and shared kernels over steps in S92",
    "S114": "accuracies of other people's networks and facts about the visual cortex are history",
}
"""Rows without a test, and why."""

_ROW = re.compile(r"(?<![a-z0-9])s(\d+[ab]?)(?![a-z0-9])")


def rows_in(name: str) -> set[str]:
    """The rows that the name of a test carries: `test_s62_s63_...` has S62 and S63."""
    return {f"S{found}" for found in _ROW.findall(name.lower())}


def rows_in_test_names() -> dict[str, list[str]]:
    """For each row the tests that carry it."""
    found: dict[str, list[str]] = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in rows_in(node.name):
                    found.setdefault(row, []).append(f"{path.name}::{node.name}")
    return found


def test_every_row_has_a_test_or_a_reason() -> None:
    have = rows_in_test_names()
    assert [row for row in ROWS if row not in have and row not in WITHOUT] == []


def test_no_test_carries_a_row_that_does_not_exist() -> None:
    assert {row: names for row, names in rows_in_test_names().items() if row not in ROWS} == {}


def test_rows_without_a_test_have_none_and_are_few() -> None:
    assert set(WITHOUT) <= set(ROWS)
    assert not set(WITHOUT) & set(rows_in_test_names())
    assert len(ROWS) == len(set(ROWS)) == 112


def test_names_are_read_as_they_are_written() -> None:
    assert rows_in("test_S34a_and_s34_of_sobel_s") == {"S34a", "S34"}
    assert rows_in("test_across_bus3_rows") == set()
