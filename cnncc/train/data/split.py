"""Dividing samples into training and test sets, the same way every time.

The rule: test places are shared out among the classes in proportion to their sizes; what rounding
leaves over goes to the classes with the largest remainders, the lower class first. Within a class
the samples are put into the random order of (seed, class), and the first ones are for testing. Both
sets are then in the order of the source.
"""

import numpy as np
from numpy.typing import NDArray

from cnncc.train.data.order import random_order


def stratified_split(
    labels: NDArray[np.int64], tests: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices for training and for testing, each ascending.

    `labels` has the class of each sample, shape (samples,). Raises ValueError unless `tests` leaves
    at least one sample on either side.
    """
    if not 0 < tests < len(labels):
        raise ValueError(f"{len(labels)} samples cannot be split with {tests} for testing")
    classes, counts = np.unique(labels, return_counts=True)
    shares = _shares([int(count) for count in counts], tests)
    chosen = np.zeros(len(labels), np.bool_)
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        chosen[members[random_order(len(members), seed, int(label))[:share]]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _shares(counts: list[int], total: int) -> list[int]:
    """`total` divided in proportion to `counts` by largest remainders (Hamilton's method)."""
    whole = sum(counts)
    shares = [total * count // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda at: -(total * counts[at] % whole))
    for at in by_remainder[: total - sum(shares)]:
        shares[at] += 1
    return shares
