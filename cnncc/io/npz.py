"""NumPy's npz archives, read without evaluating anything in them.

An npz file is a zip archive of .npy members (NumPy Enhancement Proposal 1). NumPy reads a member's
header by evaluating a Python literal and can unpickle objects; here three patterns find the three
facts that a header states, so an object array is refused by its dtype and nothing else can happen.
What a member claims to hold is compared with the limit before any of it is decompressed, and never
more than that is.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import (
    CODE,
    FORMAT,
    GIB,
    LIMIT,
    MISMATCH,
    SIZES,
    DataError,
    check_limit,
    open_bytes,
    read_exact,
    refuse,
)
from cnncc.io.layout import MAX_AXES, MAX_EXTENT, MAX_NAME, MAX_TENSORS, TensorInfo

METADATA = "__metadata__"
MAX_BYTES = 4 * GIB

_MAX_HEADER = 10_000
_DESCR = re.compile(r"['\"]descr['\"]\s*:\s*['\"]([<>|=]?[a-zA-Z][0-9]{0,9})['\"]")
_ORDER = re.compile(r"['\"]fortran_order['\"]\s*:\s*(True|False)")
_SHAPE = re.compile(r"['\"]shape['\"]\s*:\s*\(([0-9,\s]*)\)")
_PLAIN = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1"}


def read_npz(
    path: Path,
    max_bytes: int = MAX_BYTES,
    check: Callable[[Mapping[str, TensorInfo]], None] | None = None,
    only: Collection[str] | None = None,
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every array of an npz file by name, numbers and booleans only, and the texts kept with them.

    `only` leaves out all other names, whatever they hold. `check` sees the names, dtypes and shapes
    before any value is decompressed, and may raise.
    Raises DataError: E0702 not an npz file, E0703 sizes disagree, E0704 a pickle inside, E0705 more
    than `max_bytes` in all.
    """
    with _open_archive(path) as archive:
        headers = _read_headers(archive, path, only)
        total = sum(header.info.bytes for header in headers.values())
        check_limit(total, max_bytes, f"{path} unpacked")
        metadata = _read_metadata(archive, headers.pop(METADATA, None), path)
        if check is not None:
            check({name: header.info for name, header in headers.items()})
        arrays = {name: _read_array(archive, header) for name, header in headers.items()}
        return arrays, metadata


def npz_names(path: Path) -> frozenset[str]:
    """The names of the arrays, from the archive's directory alone. Raises DataError E0702."""
    with _open_archive(path) as archive:
        return frozenset(name.removesuffix(".npy") for name in archive.namelist())


def inspect_npz(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Names, dtypes and shapes of an npz file and its texts. Errors as `read_npz`."""
    with _open_archive(path) as archive:
        headers = _read_headers(archive, path)
        metadata = _read_metadata(archive, headers.pop(METADATA, None), path)
        return {name: header.info for name, header in headers.items()}, metadata


def write_npz(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and texts as an uncompressed npz file, which `numpy.load` also reads.

    The texts are JSON in UTF-8, in an array of bytes named `__metadata__`.
    """
    text = np.frombuffer(json.dumps(dict(metadata), sort_keys=True).encode(), np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {**tensors, METADATA: text}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@dataclass(frozen=True)
class _Header:
    """One member of the archive, what its header says, and how many bytes that header takes."""

    member: zipfile.ZipInfo
    where: Path
    info: TensorInfo
    fortran: bool
    length: int


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_bytes(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive
        except DataError:
            raise
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,  # a compression or zip version that Python lacks
            RuntimeError,  # an encrypted member
            ValueError,  # an offset before the start of the file
            UnicodeDecodeError,
        ) as error:
            raise refuse(
                FORMAT,
                f"{path} is not an npz file, or it is damaged: {error}",
                "write it with numpy.savez, and copy it again if it was truncated",
            ) from None


def _read_headers(
    archive: zipfile.ZipFile, path: Path, only: Collection[str] | None = None
) -> dict[str, _Header]:
    found: dict[str, _Header] = {}
    listed = archive.infolist()
    if len(listed) > MAX_TENSORS:
        raise refuse(LIMIT, f"{path}: {len(listed)} arrays are over the limit, {MAX_TENSORS}")
    for member in listed:
        name = member.filename.removesuffix(".npy")
        if only is not None and name not in only:
            continue
        if name.endswith((".pkl", ".pickle")):
            raise refuse(
                CODE,
                f"{path} holds the pickle {name[-80:]!r}, as torch.save writes it; reading it "
                "could run any code, so cnncc never does",
                "convert it where it was made: safetensors.torch.save_file(model.state_dict(), f)",
            )
        if name == member.filename or not 0 < len(name) <= MAX_NAME:
            raise refuse(FORMAT, f"{path}: {member.filename[:80]!r} is not the name of an array")
        if name in found:
            raise refuse(FORMAT, f"{path}: there are two arrays named {name[:80]!r}")
        found[name] = _read_header(archive, member, Path(f"{path}:{member.filename}"))
    return found


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: Path) -> _Header:
    with archive.open(member) as stream:
        start = bytes(read_exact(stream, 8, where))
        if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\x01\x00", b"\x02\x00"):
            raise refuse(FORMAT, f"{where} is not an array of npy format 1 or 2")
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(read_exact(stream, width, where), "little")
        if length > _MAX_HEADER:
            raise refuse(LIMIT, f"{where}: a header of {length} bytes is over {_MAX_HEADER}")
        info, fortran = _parse_header(bytes(read_exact(stream, length, where)), where)
    length += 8 + width
    if member.file_size - length != info.bytes:
        raise refuse(
            SIZES,
            f"{where} is {info} and needs {info.bytes} bytes, but it holds "
            f"{member.file_size - length}",
        )
    return _Header(member, where, info, fortran, length)


def _read_array(archive: zipfile.ZipFile, header: _Header) -> NDArray[Any]:
    with archive.open(header.member) as stream:
        read_exact(stream, header.length, header.where)
        flat = np.frombuffer(read_exact(stream, header.info.bytes, header.where), header.info.dtype)
        if stream.read(1):  # also makes zipfile compare the checksum
            raise refuse(SIZES, f"{header.where} goes on after its {header.info.bytes} bytes")
    if flat.dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
        raise refuse(FORMAT, f"{header.where} is boolean but holds other bytes than 0 and 1")
    array = flat.reshape(header.info.shape, order="F" if header.fortran else "C")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _read_metadata(archive: zipfile.ZipFile, header: _Header | None, path: Path) -> dict[str, str]:
    if header is None:
        return {}
    try:
        texts = json.loads(_read_array(archive, header).tobytes().decode("utf-8"))
    except DataError:
        raise
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise refuse(FORMAT, f"{path}: {METADATA} must map names to texts")
    return texts


def _parse_header(header: bytes, where: Path) -> tuple[TensorInfo, bool]:
    text = header.decode("latin-1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if descr is None or order is None or shape is None:
        raise refuse(
            FORMAT,
            f"{where}: the header does not state one plain dtype, an order and a shape",
            "records and dates cannot be read; store numbers",
        )
    code = descr.group(1)
    if code.lstrip("<>|=")[0] == "O":
        raise refuse(
            CODE,
            f"{where} holds Python objects, which are stored as a pickle: reading it could run "
            "any code",
            "store numbers: array.astype(numpy.float32)",
        )
    if code.lstrip("<>|=") not in _PLAIN:
        raise refuse(MISMATCH, f"{where} has dtype {code!r}; only numbers and booleans are read")
    extents = [part.strip() for part in shape.group(1).split(",") if part.strip()]
    if len(extents) > MAX_AXES or any(not e.isdecimal() or len(e) > 10 for e in extents):
        raise refuse(FORMAT, f"{where}: the shape must have at most {MAX_AXES} plain extents")
    numbers = tuple(int(extent) for extent in extents)
    if any(number > MAX_EXTENT for number in numbers):
        raise refuse(LIMIT, f"{where}: an extent is over {MAX_EXTENT}")
    return TensorInfo(np.dtype(code), numbers), order.group(1) == "True"
