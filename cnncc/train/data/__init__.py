"""Data sets for training: where they come from, and the order in which their samples are used.

    from cnncc.train.data import load, batches
    train = load("digits")              # or a folder, an .npz file, "synthetic:1x8x8:10:500"
    for x, y in batches(train, batch=32, seed=0, epoch=0): ...

Nothing is downloaded. `sources` finds out what a name means; `digits`, `idx`, `cifar`, `images`,
`arrays` and `synthetic` read one kind each; `split` and `order` decide which sample goes where.
"""

from cnncc.io.files import DataError
from cnncc.train.data.dataset import Dataset, batch_count, batches
from cnncc.train.data.sources import info, load
from cnncc.train.data.synthetic import synthetic

__all__ = ["DataError", "Dataset", "batch_count", "batches", "info", "load", "synthetic"]
