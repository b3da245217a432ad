"""Folders of image files, one folder per class, as torchvision's ImageFolder has them.

    pets/cat/1.png  pets/dog/1.png ...              a fifth of each class is set aside for testing
    pets/train/cat/1.png  pets/test/cat/9.png ...   divided already (`val` will do for `test`)

Classes are numbered in the order of their names. Decoding needs Pillow, which comes with the extra
`cnncc[images]`. Sizes are read from the headers of all files before the first one is decoded.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import FORMAT, LIMIT, PACKAGE, SIZES, UNKNOWN, DataError, open_bytes, refuse
from cnncc.train.data.arrays import split_indices
from cnncc.train.data.dataset import Dataset, Kind
from cnncc.train.data.pixels import as_pixels, check_pixels

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp"}
MAX_PIXELS = 1 << 26
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_GREY = {"1", "L"}
_TEST_NAMES = ("test", "val", "valid", "validation")

Size = tuple[int, int]


@dataclass(frozen=True)
class _Files:
    """Image files with the class number of each."""

    paths: list[Path]
    labels: NDArray[np.int64]


def is_image_folder(folder: Path) -> bool:
    """True when the folder has a folder that has an image, one or two levels down."""
    return any(
        _images_in(inner) or any(_images_in(lower) for lower in _folders_in(inner))
        for inner in _folders_in(folder)
    )


def read_images(
    folder: Path, split: str, seed: int, kind: Kind, max_bytes: int, size: Size | None
) -> Dataset:
    """`x` of shape (samples, 1 or 3, height, width), from 0 to 1 or uint8.

    One channel when all images of the split are grey, otherwise red, green and blue. With `size` =
    (height, width) images are scaled to it (bilinear with anti-aliasing), otherwise all must have
    the same size. Raises DataError when Pillow is missing, a folder is empty, an image cannot be
    decoded, or all together are over `max_bytes`.
    """
    files, names = _find(folder, split, seed)
    headers = [_read_header(path) for path in files.paths]
    height, width = size or _common_size(files.paths, [header[0] for header in headers])
    channels = 1 if all(mode in _GREY for _, mode in headers) else 3
    count = len(files.paths)
    check_pixels(count * channels * height * width, kind, max_bytes, str(folder))
    raw = np.empty((count, channels, height, width), np.uint8)
    for at, path in enumerate(files.paths):
        raw[at] = _decode(path, channels, (height, width))
    return Dataset(as_pixels(raw, kind), files.labels, len(names), folder.name, tuple(names))


def _find(folder: Path, split: str, seed: int) -> tuple[_Files, list[str]]:
    train = folder / "train"
    if not train.is_dir():
        names = [inner.name for inner in _folders_in(folder)]
        everything = _list(folder, names)
        chosen = split_indices(everything.labels, len(everything.paths), seed, str(folder))
        now = chosen[split == "test"]
        return _Files([everything.paths[at] for at in now], everything.labels[now]), names
    names = [inner.name for inner in _folders_in(train)]
    if split == "train":
        return _list(train, names), names
    tests = [folder / name for name in _TEST_NAMES if (folder / name).is_dir()]
    if not tests:
        raise refuse(
            UNKNOWN, f"{folder} has the folder train, but none of {', '.join(_TEST_NAMES)}"
        )
    present = [inner.name for inner in _folders_in(tests[0])]
    strange = [name for name in present if name not in names]
    if strange:
        raise refuse(
            SIZES,
            f"{tests[0]} has the class {strange[0]!r}, which {train} does not have",
            "both folders need the same class folders",
        )
    return _list(tests[0], names, needed=present), names


def _list(folder: Path, names: list[str], needed: list[str] | None = None) -> _Files:
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        found = _images_in(folder / name)
        if not found and (needed is None or name in needed):
            raise refuse(
                UNKNOWN,
                f"{folder / name} is a class folder without images ({', '.join(sorted(ENDINGS))})",
            )
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise refuse(UNKNOWN, f"{folder} has no class folders with images")
    return _Files(paths, np.array(labels, np.int64))


def _folders_in(folder: Path) -> list[Path]:
    inner = (path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    return sorted(inner, key=lambda path: path.name)


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS and path.is_file() and path.name[0] != "."
    )
    return sorted(found, key=lambda path: path.name)


def _common_size(paths: list[Path], sizes: list[Size]) -> Size:
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            raise refuse(
                SIZES,
                f"{path} has {size[0]}x{size[1]} pixels, but {paths[0]} has "
                f"{sizes[0][0]}x{sizes[0][1]}",
                "scale all images to one size: load(..., image_size=(height, width))",
            )
    return sizes[0]


def _read_header(path: Path) -> tuple[Size, str]:
    """The size (height, width) and Pillow's mode of an image, without its pixels."""
    with _open(path) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise refuse(LIMIT, f"{path} has {width}x{height} pixels, over {MAX_PIXELS}")
        return (height, width), image.mode


def _decode(path: Path, channels: int, size: Size) -> NDArray[np.uint8]:
    """The pixels of one image, shape (channels, height, width)."""
    with _open(path) as image:
        if math.prod(image.size) > MAX_PIXELS:  # changed since its header was read
            raise refuse(LIMIT, f"{path} has too many pixels")
        # Conversion before scaling: palette numbers cannot be averaged.
        converted = image.convert("L" if channels == 1 else "RGB")
        if converted.size != (size[1], size[0]):
            converted = converted.resize((size[1], size[0]), resample=2)  # 2: bilinear
        pixels = np.asarray(converted, np.uint8)
    return pixels.reshape(*size, channels).transpose(2, 0, 1)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        from PIL import Image
    except ImportError:
        raise refuse(
            PACKAGE,
            "reading image files needs the package Pillow, which is not installed",
            "pip install 'cnncc[images]'",
        ) from None
    with open_bytes(path) as stream:
        try:
            with Image.open(stream, formats=_FORMATS) as image:
                yield image
        except DataError:
            raise
        except Exception as error:  # decoders of broken files raise almost anything
            raise refuse(
                FORMAT,
                f"{path} cannot be decoded: {error}",
                f"it must be a whole image of one of these kinds: {', '.join(_FORMATS)}",
            ) from None
