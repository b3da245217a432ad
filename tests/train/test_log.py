"""Logs that a resumed run continues as if nothing had happened, and a bar that knows its place."""

import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from cnncc.io import DataError
from cnncc.train.log import CsvRows, History, JsonLines, Progress

LOGS = [JsonLines, CsvRows]


def row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1 / (step + 1)}


def test_history_keeps_every_list_as_long_as_the_epochs():
    history = History()
    history.record({"loss": 2.0})
    history.record({"loss": np.float32(1.5), "val_loss": 3})
    history.record({"val_loss": 2})
    assert history["loss"][:2] == [2.0, 1.5]
    assert math.isnan(history["loss"][2])
    assert math.isnan(history["val_loss"][0])
    assert history["val_loss"][1:] == [3.0, 2.0]
    assert history.epochs == 3
    assert history.history["loss"] is history["loss"]
    assert all(type(value) is float for values in history.values() for value in values)
    assert History().epochs == 0


def test_json_lines_are_json_also_for_nan_and_numpy(tmp_path):
    with JsonLines(tmp_path / "a" / "log.jsonl") as log:
        log.write({"step": np.int64(1), "loss": np.float32(0.5), "note": 'a "b"\n'})
        log.write({"step": 2, "loss": math.nan, "lr": math.inf})
        # Before the file is closed: what is written must survive a crash of this process.
        lines = (tmp_path / "a" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5, "note": 'a "b"\n'},
        {"step": 2, "loss": None, "lr": None},
    ]


def test_csv_rows_have_one_header_and_fixed_columns(tmp_path):
    path = tmp_path / "log.csv"
    with CsvRows(path) as log:
        log.write({"step": 1, "loss": 0.5, "name": 'a,"b"'})
        log.write({"step": 2, "name": "c"})
        with pytest.raises(ValueError, match=r"not \['lr'\]"):
            log.write({"step": 3, "lr": 1})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "loss", "name"],
            ["1", "0.5", 'a,"b"'],
            ["2", "", "c"],
        ]


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_resumed_log_equals_an_unbroken_one(tmp_path, log, cut):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    with log(unbroken) as file:
        for step in range(8):
            file.write(row(step))
    with log(broken) as file:
        for step in range(6):
            file.write(row(step))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) - cut])
    with log(broken, keep_through=3) as file:
        for step in range(4, 8):
            file.write(row(step))
    assert broken.read_bytes() == unbroken.read_bytes()


@pytest.mark.parametrize("log", LOGS)
def test_continuing_nothing_starts_a_log_and_starting_anew_empties_it(tmp_path, log):
    path = tmp_path / "log"
    for keep_through in (5, None):
        with log(path, keep_through=keep_through) as file:
            file.write(row(6))
        assert path.read_text().count("\n") == (1 if log is JsonLines else 2)


@pytest.mark.parametrize(
    ("log", "content", "message"),
    [
        (JsonLines, "{}\nnonsense\n", "line 2, is not JSON"),
        (JsonLines, "[1]\n", "line 1, is not a JSON object"),
        (CsvRows, "time,loss\n1,2\n", "line 1, names no column step"),
        (CsvRows, "step,loss\n1,2\n3\n", "line 3, does not have the columns"),
        (CsvRows, "step,loss\nx,2\n", "line 2, does not have the columns"),
        (CsvRows, 'step\n"1\n', "line 2"),
    ],
)
def test_a_foreign_file_is_not_continued_and_not_touched(tmp_path, log, content, message):
    path = tmp_path / "log"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        log(path, keep_through=1)
    assert error.value.diagnostics[0].code == "E0702"
    assert path.read_text() == content


@pytest.mark.parametrize("log", LOGS)
def test_a_log_that_cannot_be_written_is_the_users_error(tmp_path, log):
    with pytest.raises(DataError, match="cannot write the log") as error:
        log(tmp_path)
    assert error.value.diagnostics[0].code == "E0710"


def test_progress_is_silent_when_nobody_looks():
    text = io.StringIO()
    with Progress(10, console=Console(file=text, force_terminal=False)) as progress:
        progress.advance(32, {"loss": 1.0})
    assert not progress.enabled
    assert text.getvalue() == ""


def test_progress_shows_loss_metric_and_count_on_a_terminal():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with Progress(10, done=4, title="epoch 2/3", console=console) as progress:
        for _ in range(6):
            progress.advance(32, {"loss": 0.12345, "accuracy": 0.5})
    shown = text.getvalue()
    assert "epoch 2/3" in shown
    assert "loss 0.1235" in shown or "loss 0.1234" in shown
    assert "accuracy 0.5" in shown
    assert "10/10" in shown
    assert "/s" in shown
