"""What the shell says when something fails, and the exit code that goes with it. A mistake of the
user's is shown as a diagnostic and never as a traceback; a fault of ours is one short message that
says where to report it, with the traceback only when CNNCC_DEBUG is set."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import TextIO

from cnncc.cli.output import use_color
from cnncc.errors import CompilerBug, Diagnostic, SpecError, printable, render, to_json

DONE, MISTAKE, USAGE, BUG, INTERRUPTED, CLOSED = 0, 1, 2, 3, 130, 141
"""Exit codes; the last two are what a shell gives for SIGINT and SIGPIPE."""

REPORT = (
    "This is a fault of cnncc, not of your files. Please report it with the command and the spec."
)


class UsageError(Exception):
    """Options that do not go together; what argparse cannot see by itself."""


def guarded(action: Callable[[], int], *, as_json: bool = False) -> int:
    """Run a verb and return its exit code, whatever happens in it."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = action()
        sys.stdout.flush()
    except SpecError as error:
        show(error.diagnostics, as_json=as_json)
        return MISTAKE
    except UsageError as error:
        _say(f"cnncc: error: {error}")
        return USAGE
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at
        # exit, so what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except MemoryError:
        _say("error: the machine has too little memory for this; try a smaller batch")
        return MISTAKE
    except OSError as error:
        _say(f"error: {_reason(error)}")
        return MISTAKE
    except CompilerBug as error:
        return _bug(str(error))
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("CNNCC_"):
            _say(f"error: {error}")  # the value of an environment variable
            return MISTAKE
        return _bug(f"bug in cnncc: {type(error).__name__}: {error}")
    return code


def show(diagnostics: Iterable[Diagnostic], *, as_json: bool = False) -> None:
    """Write diagnostics to stderr: drawn, or one JSON object per line."""
    if as_json:
        lines = [json.dumps(to_json(diagnostic)) for diagnostic in diagnostics]
        print("\n".join(lines), file=sys.stderr)
        return
    color = use_color(sys.stderr)
    print("\n\n".join(render(d, color) for d in diagnostics), file=sys.stderr)


def _bug(message: str) -> int:
    if os.environ.get("CNNCC_DEBUG"):
        traceback.print_exc()
    _say(message)
    _say(REPORT)
    if not os.environ.get("CNNCC_DEBUG"):
        _say("CNNCC_DEBUG=1 shows where it happened.")
    return BUG


def _reason(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)
