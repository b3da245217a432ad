"""Running the shell inside the test's own process: `shell("check", "net.cnn")`."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnncc.cli import main

ROOT = Path(__file__).parents[2]

SMALL = """\
net small(classes = 3) {
  input x: f32[2, 6, 6]
  c = x -> conv(4, 3x3, pad = same) -> relu
  output y = c -> flatten -> dense(classes)
}
"""

WRONG = """\
net wrong {
  input x: f32[1, 28, 28]
  a = x -> conv(8, 3x3, stride = 2)
  output b = a -> rellu
}
"""


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Callable[..., Done]:
    """Run a command line in an empty folder; `stdin` is what it may read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNNCC_DEBUG", raising=False)

    def run(*words: str | Path, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main([str(word) for word in words])
        wrote = capsys.readouterr()
        assert "Traceback" not in wrote.err
        return Done(code, wrote.out, wrote.err)

    return run


@pytest.fixture
def small(tmp_path) -> Path:
    """A file with a small correct network."""
    path = tmp_path / "small.cnn"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def wrong(tmp_path) -> Path:
    """A file with two mistakes."""
    path = tmp_path / "wrong.cnn"
    path.write_text(WRONG, encoding="utf-8")
    return path
