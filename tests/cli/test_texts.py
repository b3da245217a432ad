"""`check` and `fmt`: all mistakes at once, on stderr, as text or JSON; files written in place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cnncc.graph.locate import built_in

ROOT = Path(__file__).parents[2]


def test_the_networks_in_specs_are_clean(shell):
    done = shell("check", ROOT / "specs")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_check_shows_every_mistake_with_its_place(shell, wrong):
    done = shell("check", wrong)
    assert (done.code, done.out) == (1, "")
    assert f"{wrong.name}:3:" in done.err
    assert f"{wrong.name}:4:" in done.err
    assert done.err.count("error[") == 2


def test_check_of_several_files_reports_each(shell, small, wrong):
    done = shell("check", small, wrong, "no_such_network")
    assert done.code == 1
    assert done.err.count("error[") == 3
    assert "no_such_network" in done.err


def test_check_as_json_is_one_object_per_line(shell, wrong):
    done = shell("check", wrong, "--error-format", "json")
    assert (done.code, done.out) == (1, "")
    found = [json.loads(line) for line in done.err.splitlines()]
    assert [d["span"]["line"] for d in found] == [3, 4]
    assert {d["severity"] for d in found} == {"error"}


def test_check_reads_stdin(shell, wrong):
    assert shell("check", "-", stdin=wrong.read_text()).err.count("error[") == 2
    assert shell("check", "-", stdin="").code == 0  # a library without blocks


def test_check_with_arguments_builds_the_net_with_them(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text(
        "net a(classes) {\n  input x: f32[4]\n  output y = x -> dense(classes)\n"
        "  expect params == 15\n}\n"
    )
    assert shell("check", path).code == 0  # waits for a value
    assert shell("check", path, "--arg", "classes=3").code == 0
    assert "E0501" in shell("check", path, "--arg", "classes=4").err
    assert "E0312" in shell("check", path, "--arg", "klasses=3").err


@pytest.mark.parametrize(
    "name", ["missing.cnn", "missing", "folder", "binary.cnn", "a\0b.cnn", "x" * 5000 + ".cnn"]
)
def test_what_cannot_be_read_is_a_diagnostic(name, shell, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.cnn").write_bytes(b"\xff\xfe\x00")
    for verb in ("check", "fmt"):
        done = shell(verb, name)
        assert done.code == 1, done
        assert "error[E0" in done.err


def test_fmt_writes_the_canonical_layout_and_keeps_comments(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("# mine\nnet a{input x:f32[4]\noutput relu(x)}\n")
    assert shell("fmt", "--check", path).code == 1
    assert path.read_text().startswith("# mine\nnet a{")  # --check writes nothing
    assert shell("fmt", path).code == 0
    assert path.read_text() == "# mine\nnet a {\n  input x: f32[4]\n  output relu(x)\n}\n"
    assert (shell("fmt", "--check", path).code, shell("fmt", path).out) == (0, "")


def test_fmt_check_shows_the_difference(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[4]\n   output relu( x )\n}\n")
    done = shell("fmt", "--check", tmp_path)
    assert done.code == 1
    assert "-   output relu( x )" in done.out
    assert "+  output relu(x)" in done.out


def test_fmt_of_stdin_goes_to_stdout(shell):
    done = shell("fmt", "-", stdin="net a{input x:f32[4]\noutput relu(x)}")
    assert (done.code, done.out) == (0, "net a {\n  input x: f32[4]\n  output relu(x)\n}\n")


def test_fmt_leaves_a_wrong_file_alone_and_goes_on(shell, tmp_path):
    bad, good = tmp_path / "a.cnn", tmp_path / "b.cnn"
    bad.write_text("net a {\n")
    good.write_text("net a{input x:f32[4]\noutput relu(x)}\n")
    done = shell("fmt", bad, good)
    assert done.code == 1
    assert "a.cnn:" in done.err
    assert bad.read_text() == "net a {\n"
    assert good.read_text().startswith("net a {\n  input")


def test_the_built_in_networks_are_formatted(shell):
    assert shell("fmt", "--check", ROOT / "specs").out == ""
    assert len(built_in()) >= 10


@pytest.mark.parametrize("words", [["check"], ["fmt", "--check"], ["report"], ["explain"]])
def test_reading_needs_no_numba(words, small):
    asking = words in (["report"], ["explain"])  # LLVM for the processor
    slow = {"numba", "torch"} if asking else {"numba", "llvmlite", "torch"}
    script = f"""
import sys
from cnncc.cli import main
assert main({[*words, str(small)]!r}) == 0
print(*(sys.modules.keys() & {slow!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


def test_a_claim_about_memory_is_checked_without_numba(tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text(
        "net a {\n  input x: f32[4, 32, 32]\n  output y = x -> maxpool(2x2)\n"
        "  expect memory <= 20_479\n}\n"
    )
    script = f"""
import sys
from cnncc.cli import main
code = main(["check", {str(path)!r}])
print(code, "numba" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "False"]
    assert "expected memory <= 20_479, but it is 20_480" in done.stderr
    assert "at batch 1: 20_480 bytes of activations, 0 of parameters" in done.stderr


def test_fmt_says_when_it_cannot_write(shell, tmp_path, monkeypatch):
    path = tmp_path / "net.cnn"
    path.write_text("net a{input x:f32[4]\noutput relu(x)}\n")

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    done = shell("fmt", path)
    assert done.code == 1
    assert "E0710" in done.err
    assert "Permission denied" in done.err
