"""The safetensors file format, read with nothing taken on trust.

    8 bytes   little-endian length n of the header
    n bytes   JSON: name -> {dtype, shape, data_offsets: [begin, end]}, "__metadata__" -> texts
    the rest  the values, little-endian, C order; offsets count from here

(https://github.com/huggingface/safetensors, section Format.) The header is checked completely
against the length of the file before any array is made: offsets must tile the data without gap or
overlap, and each length must equal its shape times its element size, in Python integers, which do
not wrap. Files are written by the safetensors library and read by this module, so that each is a
check of the other.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Never

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import (
    CODE,
    FORMAT,
    LIMIT,
    MISMATCH,
    SIZES,
    DataError,
    file_size,
    read_exact,
    refuse,
)

MAX_HEADER = 16 << 20
MAX_TENSORS = 100_000
MAX_NAME = 512
MAX_AXES = 16
MAX_EXTENT = (1 << 31) - 1

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}


@dataclass(frozen=True)
class TensorInfo:
    """What a file says, or a model expects, of one tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> "TensorInfo":
        """The dtype and shape of an array."""
        return cls(array.dtype, array.shape)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Layout:
    """A checked header: the tensors in the order of their bytes, and where those begin."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def read_layout(stream: BinaryIO, path: Path) -> Layout:
    """Read and check the header of an open file; the position is then at the first value.

    Raises DataError: E0702 when this is not a safetensors file, E0703 when its sizes disagree.
    """
    size = file_size(stream)
    if size < 8:
        raise refuse(FORMAT, f"{path} has {size} bytes; a safetensors file has at least 8")
    length = int.from_bytes(read_exact(stream, 8, path), "little")
    if length > size - 8:
        if length & 0xFF == 0x80 and 2 <= length >> 8 & 0xFF <= 5:
            raise refuse(
                CODE,
                f"{path} is a pickle; reading it could run any code, so cnncc never does",
                "convert it where it was made: safetensors.torch.save_file(model.state_dict(), f)",
            )
        raise refuse(
            FORMAT,
            f"{path} is not a safetensors file, or it is truncated: its first 8 bytes announce a "
            f"header of {length} bytes, but {size - 8} bytes follow",
        )
    if length > MAX_HEADER:
        raise refuse(LIMIT, f"{path}: a header of {length} bytes is over the limit, {MAX_HEADER}")
    header = _parse(bytes(read_exact(stream, length, path)), path)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    if len(header) > MAX_TENSORS:
        raise refuse(LIMIT, f"{path}: {len(header)} tensors are over the limit, {MAX_TENSORS}")
    entries = sorted(_entry(name, value, path) for name, value in header.items())
    _check_tiling(entries, size - 8 - length, path)
    return Layout({name: info for _, _, name, info in entries}, metadata, 8 + length)


def read_tensors(
    stream: BinaryIO, layout: Layout, path: Path
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of a file whose header `read_layout` has checked, one by one, in file order.

    Each array owns its memory, so no more than one need be in memory at a time.
    """
    stream.seek(layout.data_start)
    for name, info in layout.tensors.items():
        flat = np.fromfile(stream, info.dtype, math.prod(info.shape))
        if flat.nbytes != info.bytes:
            raise refuse(SIZES, f"{path} became shorter while it was read, at tensor {name!r}")
        if info.dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
            raise refuse(FORMAT, f"{path}: {name!r} is boolean but holds other bytes than 0 and 1")
        yield name, flat.reshape(info.shape)


_Entry = tuple[int, int, str, TensorInfo]


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise refuse(FORMAT, f"{path}: the header says something twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except DataError:
        raise
    except (ValueError, RecursionError):  # bad UTF-8, bad JSON, integers of 5000 digits, nesting
        raise refuse(FORMAT, f"{path} is not a safetensors file: no JSON header") from None
    if not isinstance(header, dict):
        raise refuse(FORMAT, f"{path} is not a safetensors file: the header is no JSON object")
    return header


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise refuse(FORMAT, f"{path}: __metadata__ must map names to texts")
    return value


def _entry(name: str, value: Any, path: Path) -> _Entry:
    def wrong(why: str) -> Never:
        raise refuse(FORMAT, f"{path}: tensor {name[:80]!r}: {why}")

    if not 0 < len(name) <= MAX_NAME:
        wrong(f"a name has 1 to {MAX_NAME} characters")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        wrong("an entry has exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise refuse(
            MISMATCH,
            f"{path}: tensor {name[:80]!r} has dtype {str(dtype)[:20]!r}, which NumPy lacks",
            "convert it to F32 with the program that wrote it",
        )
    if not _are_counts(shape) or len(shape) > MAX_AXES or any(n > MAX_EXTENT for n in shape):
        wrong(f"a shape has at most {MAX_AXES} extents of 0 to {MAX_EXTENT}")
    if not _are_counts(offsets) or len(offsets) != 2:
        wrong("data_offsets is a pair of whole numbers")
    info = TensorInfo(np.dtype(DTYPES[dtype]), tuple(shape))
    begin, end = offsets
    if end - begin != info.bytes:
        raise refuse(
            SIZES,
            f"{path}: tensor {name!r} is {info} and needs {info.bytes} bytes, but its offsets "
            f"span {end - begin}",
        )
    return begin, end, name, info


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(entries: list[_Entry], available: int, path: Path) -> None:
    at = 0
    for begin, end, name, _ in entries:
        if begin != at:
            raise refuse(
                SIZES,
                f"{path}: tensor {name!r} begins at byte {begin}, but the one before ends at {at}",
            )
        at = end
    if at != available:
        raise refuse(
            SIZES,
            f"{path}: the tensors take {at} bytes, but the file has {available} bytes of values",
            "the file is probably truncated: copy or download it again",
        )
