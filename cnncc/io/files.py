"""Reading files that nobody vouches for: weights, data sets, checkpoints.

Everything in this project that opens such a file goes through here, so that a missing file, a
folder in its place, a named pipe or a short read becomes a `DataError` that names the file, the
rule, the numbers and a fix. Sizes are compared with what a header claims before memory is taken.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from cnncc.errors import Diagnostic, Note, SpecError

GIB = 1 << 30

UNKNOWN = "E0701"  # no such data set, file or folder
FORMAT = "E0702"  # the bytes are not of the format that they should be
SIZES = "E0703"  # sizes that must agree do not
CODE = "E0704"  # refused, because reading it could run code
LIMIT = "E0705"  # over a limit on memory
RANGE = "E0706"  # a value outside its range
MISMATCH = "E0707"  # names, shapes or dtypes differ from what is expected
CHECKPOINT = "E0708"  # a damaged or foreign checkpoint
PACKAGE = "E0709"  # an optional package is not installed
WRITE = "E0710"  # a file cannot be written


class DataError(SpecError, ValueError):
    """A data, weights or checkpoint file is not what it must be; nothing of it was used.

    A `SpecError`, so the shell prints it like every other mistake of the user's, and a ValueError
    for those who call the readers from Python.
    """


class ByteStream(Protocol):
    """What the readers need of a plain file, a gzip stream or a member of a zip archive."""

    def read(self, size: int = -1, /) -> bytes: ...


def refuse(code: str, message: str, *helps: str, notes: tuple[str, ...] = ()) -> DataError:
    """The error to raise: `code` is one of the constants above, `helps` are fixes in order."""
    return DataError(Diagnostic(code, message, None, "", tuple(map(Note, notes)), helps))


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading without a buffer; anything else raises DataError.

    The kind of file is checked first: opening a named pipe would wait for a writer for ever.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise refuse(UNKNOWN, f"{path} is {what}, but a file is needed")
        stream = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise refuse(UNKNOWN, f"there is no file {path}", *_nearby(path)) from None
    except OSError as error:
        raise refuse(UNKNOWN, f"cannot open {path}: {error.strerror}") from None
    except ValueError:
        raise refuse(UNKNOWN, f"{path} is not a possible file name") from None
    with stream:
        try:
            yield stream
        except OSError as error:
            raise refuse(FORMAT, f"cannot read {path}: {error.strerror or error}") from None


def file_size(stream: BinaryIO) -> int:
    """Bytes in the open file; the position stays where it is."""
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size


def read_exact(stream: ByteStream, count: int, path: Path) -> bytearray:
    """Exactly `count` bytes, or DataError. `count` has been checked against a limit before."""
    data = bytearray()
    while len(data) < count:
        part = stream.read(min(count - len(data), 1 << 24))
        if not part:
            raise refuse(
                SIZES,
                f"{path} ends too early: {count} bytes were expected here, but only "
                f"{len(data)} are left",
                "the file is probably truncated: copy or download it again",
            )
        data += part
    return data


def check_limit(needed: int, max_bytes: int, what: str) -> None:
    """Raise DataError when `what` would take more than `max_bytes` of memory."""
    if needed > max_bytes:
        raise refuse(
            LIMIT,
            f"{what} needs {amount(needed)} of memory, but the limit is {amount(max_bytes)}",
            "use a smaller set, or raise max_bytes if the machine has the memory",
        )


def amount(count: int) -> str:
    """A number of bytes as a person reads it: `3073 bytes`, `44.9 MiB`."""
    if count < 1 << 20:
        return f"{count} bytes"
    return f"{count / (1 << 20):.1f} MiB" if count < GIB else f"{count / GIB:.1f} GiB"


def _nearby(path: Path) -> tuple[str, ...]:
    if not path.parent.is_dir():
        return (f"the folder {path.parent} does not exist either",)
    return ()
