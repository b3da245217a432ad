"""The command line as a whole: exit codes, help, and that no failure shows a traceback."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from cnncc import __version__
from cnncc.cli import main, texts
from cnncc.cli import shell as shell_module
from cnncc.cli.shell import make_parser
from cnncc.errors import CODES, CompilerBug

VERBS = {
    "check", "fmt", "report", "explain", "compile", "run", "eval", "train", "bench", "data info",
    "cache info", "cache clear", "doctor", "cost", "matrix", "trace", "diff",
    "relax", "project", "verify", "tune", "view", "profile",
}  # fmt: skip


def verbs(parser: argparse.ArgumentParser, before: str = "") -> dict[str, argparse.ArgumentParser]:
    """Every verb with its parser, those of groups as `data info`."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                deeper = verbs(inner, f"{before}{name} ")
                found |= deeper or {before + name: inner}
    return found


def test_the_verbs_are_all_there():
    assert set(verbs(make_parser())) == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_has_examples_that_can_be_parsed(verb, shell):
    done = shell(*verb.split(), "--help")
    assert done.code == 0
    examples = verbs(make_parser())[verb].get_default("examples")
    assert examples
    for example in examples:
        assert example in done.out
        words = shlex.split(example.partition(" < ")[0].partition(" > ")[0])
        assert words[0] == "cnncc"
        assert make_parser().parse_args(words[1:]).run


def test_commands_in_explanations_can_be_parsed():
    for code, entry in CODES.items():
        for text in (entry.wrong, entry.right):
            if text.startswith("cnncc ") and "(" not in text:
                words = shlex.split(text, comments=True)[1:]
                assert make_parser().parse_args(words).run, code


def test_version(shell):
    assert shell("--version").out == f"cnncc {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["check"],
        ["report", "lenet_digits", "--nonsense"],
        ["report", "lenet_digits", "--js"],
        ["report", "lenet_digits", "--arg", "classes"],
        ["report", "lenet_digits", "--arg", "classes=many"],
        ["report", "lenet_digits", "--arg", "9x=1"],
        ["report", "lenet_digits", "--arg", "x=1e999"],
        ["report", "lenet_digits", "--arg", "x=1111111111111111111"],
        ["compile", "lenet_digits", "--emit=nonsense"],
        ["compile", "lenet_digits", "--batch", "0"],
        ["compile", "lenet_digits", "--extent", "H=-1"],
        ["compile", "lenet_digits", "--max-memory", "lots"],
        ["bench", "lenet_digits", "--seconds", "nan"],
        ["data"],
        ["cache", "fill"],
    ],
    ids=" ".join,
)
def test_mistakes_on_the_command_line_exit_with_2(words, shell):
    done = shell(*words)
    assert done.code == 2
    assert done.err.startswith("usage: cnncc")
    assert done.out == ""


def failing(error: BaseException):
    def run(options: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (CompilerBug("fuse", "c1", "a law holds"), 3, "fuse broke an invariant at c1: a law holds"),
        (ZeroDivisionError("by zero"), 3, "bug in cnncc: ZeroDivisionError: by zero"),
        (RecursionError(), 3, "bug in cnncc"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "too little memory"),
        (OSError(28, "No space left on device", "out.npy"), 1, "out.npy: No space left on device"),
        (PermissionError(13, "Permission denied"), 1, "Permission denied"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_failure_has_its_exit_code(error, code, says, shell, monkeypatch):
    monkeypatch.setattr(texts, "check", failing(error))
    done = shell("check", "net.cnn")
    assert done.code == code
    assert says in done.err


def test_a_bug_shows_its_traceback_only_when_asked(monkeypatch, capsys):
    monkeypatch.setattr(texts, "check", failing(CompilerBug("fuse", "c1", "a law holds")))
    monkeypatch.delenv("CNNCC_DEBUG", raising=False)
    assert main(["check", "x.cnn"]) == 3
    assert "CNNCC_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("CNNCC_DEBUG", "1")
    assert main(["check", "x.cnn"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_warnings_are_one_line(shell, monkeypatch):
    def run(options: argparse.Namespace) -> int:
        import warnings

        warnings.warn("the cache\nis not private", stacklevel=1)
        return 0

    monkeypatch.setattr(texts, "check", run)
    assert shell("check", "x").err == "warning: the cache\nis not private\n"


def command(*words: str, **more: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "cnncc", *words], text=True, **more)


def test_a_reader_that_goes_away_is_no_failure():
    process = command(
        "report", "resnet152", stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() in (0, 141)  # 0 when all fitted into the pipe


def test_a_terminal_without_unicode_is_no_failure():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = command(
        "report", "lenet_digits", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "lenet_digits" in out


def test_python_m_cnncc_is_the_command():
    process = command("--version", stdout=subprocess.PIPE)
    assert process.communicate()[0] == f"cnncc {__version__}\n"
    assert process.returncode == 0


def test_a_wrong_environment_variable_is_a_mistake_of_the_user():
    process = command(
        "doctor", "--json", stdout=subprocess.PIPE, env=os.environ | {"CNNCC_ISA": "nonsense"}
    )
    assert "CNNCC_ISA must be one of" in process.communicate()[0]
    assert process.returncode == 1
    process = command(
        "cache", "info", stderr=subprocess.PIPE, env=os.environ | {"CNNCC_ISA": "nonsense"}
    )
    assert process.communicate()[1].startswith("error: CNNCC_ISA must be one of")
    assert process.returncode == 1


def test_an_interrupt_ends_a_training_without_a_traceback(tmp_path):
    net, log = tmp_path / "dots.cnn", tmp_path / "run.jsonl"
    net.write_text(
        "net dots {\n  input x: f32[1, 4, 4]\n  output y = x -> flatten -> dense(2)\n}\n"
        "train dots {\n  target label: class[2]\n  loss = cross_entropy(y, label)\n"
        "  optimizer = sgd(lr = 0.01)\n  epochs = 1_000_000\n}\n"
    )
    words = ["--data", "synthetic:1x4x4:2:200", "--log", str(log)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:  # in the background of a shell tests ignore it, and so would what they start
        process = command("train", str(net), *words, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (log.exists() and log.read_text().count("\n") > 1):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted\n"
    assert process.returncode == 130


def test_groups_are_modules_with_verbs():
    assert all(callable(group.add) for group in shell_module.GROUPS)
