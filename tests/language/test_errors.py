"""Wrong specs and what is said about them.

Every tests/errors/*.cnn is a wrong text that ends in a comment block: a line `# expect:` and then,
behind `# `, the diagnostics exactly as they are printed. `pytest --update-golden` rewrites the
blocks; read the difference before keeping it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cnncc.compiler import check_file
from cnncc.errors import CODES, render

FOLDER = Path(__file__).parents[1] / "errors"
MARK = "# expect:\n"
SPECS = sorted(FOLDER.glob("*.cnn"))


def check(path: Path) -> str:
    """What the front end says about a file of the current folder, every mistake in turn."""
    return "\n\n".join(render(diagnostic) for diagnostic in check_file(path.name))


def as_comments(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_wrong_specs_get_the_expected_diagnostics(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(FOLDER)
    text = path.read_text(encoding="utf-8")
    spec, mark, expected = text.partition(MARK)
    said = check(path)
    assert said, f"{path.name} is accepted"
    if request.config.getoption("--update-golden"):
        path.write_text(spec.rstrip() + "\n\n" + MARK + as_comments(said), encoding="utf-8")
        return
    assert mark, f"{path.name} does not say what to expect; run pytest --update-golden"
    assert as_comments(said) == expected


def test_there_are_many_wrong_specs():
    assert len(SPECS) >= 60


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_code_is_explained(path: Path):
    codes = {line[8:13] for line in path.read_text("utf-8").splitlines() if "# error[" in line}
    assert codes
    assert codes <= set(CODES)
