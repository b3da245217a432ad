"""What a training run says while it runs, and what it leaves behind.

`History` collects metrics per epoch. `JsonLines` and `CsvRows` write them to files that can be
continued after a crash. `Progress` draws a bar for a person and is silent for everybody else.
"""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from cnncc.io.files import FORMAT, WRITE, DataError, refuse
from cnncc.io.replace import replace_file

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, int | float | str]


class History(dict[str, list[float]]):
    """Metrics by name, one value per epoch: `history["loss"][-1]`.

    Every list has one entry per epoch. A metric that an epoch did not measure is NaN there.
    """

    def record(self, metrics: Mapping[str, float]) -> None:
        """Append one epoch."""
        epochs = self.epochs
        for name in metrics:
            self.setdefault(name, [math.nan] * epochs)
        for name, values in self.items():
            values.append(float(metrics.get(name, math.nan)))

    @property
    def epochs(self) -> int:
        """How many epochs were recorded."""
        return max(map(len, self.values()), default=0)

    @property
    def history(self) -> Self:
        """Itself, for code that was written for Keras."""
        return self


class _Log:
    """A text file of one row per event, handed to the system before `write` returns.

    `keep_through=n` continues a file: rows up to step n stay, later ones go, and so does a last
    line that a crash cut short; so a resumed run leaves the file that an unbroken one would have.
    Without it, the file starts empty. Raises DataError when it cannot be written or continued.
    """

    def __init__(self, path: str | Path, *, keep_through: int | None = None) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if keep_through is not None and self.path.exists():
                self._continue(keep_through)
                self._file: TextIO = self.path.open("a", encoding="utf-8", newline="")
            else:
                self._file = self.path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise refuse(
                WRITE, f"cannot write the log {self.path}: {error.strerror or error}"
            ) from error

    def write(self, row: Row) -> None:
        """Add one row."""
        self._file.write(self._format(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _continue(self, through: int) -> None:
        """Cut the file back to step `through`, in one step, so that a crash here loses no row."""
        old = self.path.read_bytes()
        whole = old[: old.rfind(b"\n") + 1].decode("utf-8", errors="replace")
        kept = self._keep(whole, through).encode()
        if kept != old:
            replace_file(self.path, lambda new: _write(new, kept), lambda new: None)

    def _not_ours(self, line: int, why: str) -> DataError:
        return refuse(
            FORMAT,
            f"{self.path}, line {line}, {why}: this log cannot be continued",
            "choose another file for the log, or remove this one",
        )

    def _keep(self, text: str, through: int) -> str:
        raise NotImplementedError

    def _format(self, row: Row) -> str:
        raise NotImplementedError


class JsonLines(_Log):
    """One JSON object per line. NaN and infinities, which JSON lacks, become null."""

    def _format(self, row: Row) -> str:
        return json.dumps({name: _json_value(value) for name, value in row.items()}) + "\n"

    def _keep(self, text: str, through: int) -> str:
        kept = []
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            try:
                row = json.loads(line)
            except ValueError:
                raise self._not_ours(number, "is not JSON") from None
            if not isinstance(row, dict):
                raise self._not_ours(number, "is not a JSON object")
            if not isinstance(row.get("step"), int) or row["step"] <= through:
                kept.append(line)
        return "".join(kept)


class CsvRows(_Log):
    """Comma-separated values (RFC 4180). The first row fixes the columns and writes their names.

    A later row may lack columns, which stay empty; a column that the first row lacks is a
    ValueError.
    """

    _columns: list[str] | None = None

    def _format(self, row: Row) -> str:
        lines = []
        if self._columns is None:
            self._columns = list(row)
            lines.append(self._columns)
        new = [name for name in row if name not in self._columns]
        if new:
            raise ValueError(f"{self.path} has the columns {self._columns}, but not {new}")
        return _csv([*lines, [_plain(row.get(name, "")) for name in self._columns]])

    def _keep(self, text: str, through: int) -> str:
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error:
            raise self._not_ours(1, "or a later one, is not CSV") from None
        if not rows:
            return ""
        self._columns = rows[0]
        if "step" not in rows[0]:
            raise self._not_ours(1, "names no column step")
        at = rows[0].index("step")
        kept = []
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(rows[0]) or not row[at].isdecimal():
                raise self._not_ours(number, "does not have the columns of line 1")
            if int(row[at]) <= through:
                kept.append(row)
        return _csv([rows[0], *kept])


class Progress:
    """A progress bar with the loss, the metrics, samples per second and the time left.

    Draws only on a terminal (`enabled=None`), or as `enabled` says; otherwise nothing is printed
    and nothing is counted. `steps` is the number of steps of the whole run, `done` those that an
    earlier run did.
    """

    def __init__(
        self,
        steps: int,
        *,
        done: int = 0,
        title: str = "training",
        enabled: bool | None = None,
        console: "Console | None" = None,
    ) -> None:
        # not above: most programs do not train, and Rich takes as long to import as a small network
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = console or Console(stderr=True)
        self.enabled = console.is_terminal if enabled is None else enabled
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.enabled,
        )
        self._samples = 0
        self._task = self._bars.add_task(title, total=steps, completed=done, metrics="", rate="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def advance(self, samples: int, metrics: Mapping[str, float]) -> None:
        """One step is done: it took `samples` samples, and `metrics` is what to show."""
        if not self.enabled:
            return
        self._samples += samples
        elapsed = self._bars.tasks[0].elapsed or 0.0
        self._bars.update(
            self._task,
            advance=1,
            metrics="  ".join(f"{name} {value:.4g}" for name, value in metrics.items()),
            rate=f"{self._samples / elapsed:,.0f}/s" if elapsed > 0 else "",
        )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python number that it is."""
    return value.item() if hasattr(value, "item") else value


def _json_value(value: Any) -> Any:
    value = _plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
