"""What is printed where: JSON without NaN, colour only on terminals, remarks only to people."""

import io
import json
import sys

import numpy as np
import pytest

from cnncc.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_is_one_line_when_piped_and_indented_on_a_terminal(capsys, monkeypatch):
    output.print_json({"a": [1.0, float("nan"), float("inf")], "b": (1, {"c": None})})
    out = capsys.readouterr().out
    assert out == '{"a": [1.0, null, null], "b": [1, {"c": null}]}\n'
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.print_json({"a": [1]})
    assert json.loads(terminal.getvalue()) == {"a": [1]}
    assert terminal.getvalue().count("\n") > 1


@pytest.mark.parametrize(
    ("stream", "environment", "colored"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),  # an empty value counts as unset
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream, environment, colored, monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert output.use_color(stream) is colored


def test_a_diagnostic_on_a_terminal_is_coloured(shell, wrong, monkeypatch):
    plain = shell("check", wrong).err
    terminal = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    shell("check", wrong)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in plain
    assert "2 mistakes in 1 source" in terminal.getvalue()
    assert "2 mistakes" not in plain


def test_numbers_of_numpy_are_not_silently_dropped():
    with pytest.raises(TypeError):
        output.print_json({"a": np.int64(1)})
