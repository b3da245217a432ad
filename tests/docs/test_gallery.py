"""The gallery: its networks are correct, its numbers are those of the compiler, its pictures exist
and are small. Timings and the pictures themselves are not compared.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnncc.cli import main

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs/gallery"
PAGES = sorted(page for page in GALLERY.glob("*.md") if page.name != "README.md")
LARGEST_PICTURE = 40 * 1024

_spec = importlib.util.spec_from_file_location("gallery_generate", GALLERY / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def test_numbers_and_the_interactive_page_are_those_of_the_compiler():
    done = subprocess.run(
        [sys.executable, "docs/gallery/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_networks_are_correct(page, capsys):
    text = page.read_text(encoding="utf-8")
    found = generate.networks(text)
    assert found
    with generate.in_folder(text):
        for name, network in found.items():
            nets = re.findall(r"^net (\w+)", network, re.MULTILINE)
            assert nets, name
            for net in nets:
                assert main(["check", f"{name}:{net}"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_all_its_parts(page):
    text = page.read_text(encoding="utf-8")
    made = {kind: body for _, kind, _, body, _ in generate._MADE.findall(text)}
    assert {"numbers", "timing"} <= set(made)
    assert all(body.strip() for body in made.values())
    assert re.search(r"unfused .*; the same bits\. Batch \d+, \d+ threads, .*, \d{4}-\d\d-\d\d\.",
                     made["timing"])  # fmt: skip
    assert generate._PICTURE.search(text)
    assert text.count("<!-- end -->") == len(generate._MADE.findall(text))


def test_pictures_are_linked_small_and_have_a_function():
    linked = {n for page in PAGES for n in generate._PICTURE.findall(page.read_text("utf-8"))}
    drawn = set(re.findall(r"^@picture\ndef (\w+)", (GALLERY / "pictures.py").read_text(), re.M))
    files = {path.stem: path for path in (GALLERY / "pictures").iterdir()}
    assert linked == drawn == set(files)
    for path in files.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size <= LARGEST_PICTURE, path.name


def test_every_page_is_on_the_first():
    text = (GALLERY / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+)\.md\)", text)) == {page.stem for page in PAGES}


def test_a_page_that_lies_is_found():
    text = (GALLERY / "stride.md").read_text(encoding="utf-8")
    assert generate.regenerated(text, timings=False) == text
    lie = text.replace("| `unit` | 1×9 | 1×7 |", "| `unit` | 1×9 | 1×8 |")
    assert lie != text
    assert generate.regenerated(lie, timings=False) == text
    other = text.replace("stride = 2) }", "stride = 3) }")
    assert generate.regenerated(other, timings=False) != other
