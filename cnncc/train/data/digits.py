"""The handwritten digits that come with cnncc: 1797 grey images of 8x8 pixels, 10 classes.

They make the first example work without a download. Where they are from, and under which licence,
is in digits.md beside them. The split is fixed: 1437 images to train on, 360 to test, by seed 0.
"""

from importlib.resources import as_file, files

import numpy as np

from cnncc.io.npz import read_npz
from cnncc.train.data.dataset import Dataset, Kind
from cnncc.train.data.pixels import as_pixels
from cnncc.train.data.split import stratified_split

SAMPLES = 1797
TESTS = 360
TOP = 16  # each pixel counts the set dots of a 4x4 block
ATTRIBUTION = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0"
)


def read_digits(split: str, kind: Kind) -> Dataset:
    """`x` of shape (1437 or 360, 1, 8, 8), float32 in multiples of 1/16 or uint8 0 to 16."""
    with as_file(files("cnncc.train.data").joinpath("digits.npz")) as path:
        arrays, _ = read_npz(path)
    labels = arrays["y"].astype(np.int64)
    chosen = stratified_split(labels, TESTS, seed=0)[split == "test"]
    x = as_pixels(arrays["x"][chosen][:, np.newaxis], kind, TOP)
    return Dataset(x, labels[chosen], 10, "digits", tuple("0123456789"))
