"""The pages of docs/ do what they say: their commands and snippets run and print what stands there.

`pytest --update-golden tests/docs` rewrites what differs; read the difference before keeping it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnncc.cli import main
from cnncc.ops import LAYERS
from tests.docs.blocks import blocks, matches, run_page

ROOT = Path(__file__).parents[2]
PAGES = ["docs/tutorial.md", "docs/walkthrough.md", "README.md"]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(page for folder in ("docs", "cnncc") for page in (ROOT / folder).rglob("*.md")),
]

MADE_WHEN_NEEDED = {"tests/golden"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    update = request.config.getoption("--update-golden")
    wrong = run_page(ROOT / page, update)
    if wrong and not update:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_the_tutorial_runs_something():
    kinds = [block.kind for block in blocks((ROOT / "docs/tutorial.md").read_text())]
    assert kinds.count("sh") >= 6
    assert kinds.count("python") >= 3
    assert kinds.count("text") == kinds.count("python")


def test_a_page_that_lies_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(6 * 7)\n```\n\n```text\n41\n```\n\n"
        "```sh\n$ cnncc --version\ncnncc 99\n```\n"
    )
    assert len(run_page(page)) == 2
    assert len(run_page(page, update=True)) == 2
    assert run_page(page) == []
    assert "42" in page.read_text()
    assert not matches("a ... c\n", "b c\n")


def test_the_language_reference_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_language_reference_has_every_operator_and_argument():
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    for name, layer in LAYERS.items():
        section = text.split(f"\n#### {name}\n")[1].split("\n#### ")[0]
        for argument in layer.arguments:
            assert f"| `{argument.name}` |" in section, (name, argument.name)


def test_the_example_of_the_language_reference_is_correct(tmp_path, capsys):
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    nets = [block.text for block in blocks(text) if block.kind == "cnn"]
    assert nets
    for number, net in enumerate(nets):
        path = tmp_path / f"{number}.cnn"
        path.write_text(net)
        assert main(["check", str(path)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("#"):
            continue
        assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:cnncc|tests|specs|docs|grammar|bench)/[\w./]+)`", text):
        assert (ROOT / name).exists() or name in MADE_WHEN_NEEDED, name


@pytest.mark.parametrize("words", [["googlenet"], ["resnet18", "--train"], ["unet"]], ids=" ".join)
def test_the_note_on_fusion_has_every_rule(words, capsys):
    assert main(["explain", *words, "--json"]) == 0
    rules = {edge["rule"] for edge in json.loads(capsys.readouterr().out)["edges"]}
    note = (ROOT / "docs/notes/fusion.md").read_text(encoding="utf-8")
    known = {
        rule.strip()
        for row in re.findall(r"^\| ([\w ,]+) \| (?:yes|no) ", note, re.MULTILINE)
        for rule in row.split(",")
    }
    assert rules <= known


def test_every_package_folder_is_introduced():
    for folder in sorted((ROOT / "cnncc").rglob("__init__.py")):
        if folder.parent.name in ("__pycache__",):
            continue
        readme = folder.parent / "README.md"
        inside = folder.read_text(encoding="utf-8").strip()
        assert readme.exists() or inside.startswith('"""'), (
            f"{folder.parent} says nothing of itself"
        )
