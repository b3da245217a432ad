"""The case study of convolution: two drawings of an X that differ in many pixels and have the same
parts. The images are those of the lecture, ten rows of nine columns with the centre row twice; the
form of 9x9 that is usually shown lacks one of the two.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.ops.base import Array


def drawing(text: str) -> Array:
    """+1 where there is an X, else -1."""
    rows = text.split()
    return np.array([[1.0 if c == "X" else -1.0 for c in row] for row in rows], np.float32)


STRAIGHT = drawing("""
.........
.X.....X.
..X...X..
...X.X...
....X....
....X....
...X.X...
..X...X..
.X.....X.
.........
""")
BENT = drawing("""
.........
.......X.
.X....X..
..XX..X..
....X....
....X....
...X.XX..
...X...X.
..X......
.........
""")
PLUS = drawing("""
.........
....X....
....X....
....X....
.XXXXXXX.
.XXXXXXX.
....X....
....X....
....X....
.........
""")
DIAGONAL, CROSSING, ANTI = range(3)


def square(image: Array) -> Array:
    """The form of nine rows."""
    return np.delete(image, 5, axis=0)


@pytest.fixture(scope="module")
def look():
    """The outputs of the built-in network for one image, by its number of rows."""
    models = {r: cnncc.compile("x_or_x", rows=r, target="interp") for r in (9, 10)}

    def looked(image: Array) -> dict[str, Array]:
        found = models[len(image)](image[None, None])
        return {name: value[0] for name, value in found.items()}

    return looked


def test_s120_the_two_images() -> None:
    assert STRAIGHT.shape == BENT.shape == (10, 9)
    assert square(STRAIGHT).shape == (9, 9)
    assert np.array_equal(STRAIGHT, STRAIGHT[:, ::-1])
    assert not np.array_equal(BENT, BENT[:, ::-1])
    assert np.array_equal(square(STRAIGHT), square(STRAIGHT).T)
    assert int((STRAIGHT != BENT).sum()) == 14
    for image in (STRAIGHT, BENT):
        assert np.array_equal(image[4], image[5])


def test_s121_maps_of_the_three_kernels(look) -> None:
    maps = look(square(STRAIGHT))["matches"]
    assert maps.shape == (3, 7, 7)
    first = [0.78, -0.11, 0.11, 0.33, 0.56, -0.11, 0.33]
    np.testing.assert_allclose(maps[DIAGONAL, 0], first, atol=0.005)
    assert maps[DIAGONAL, 1, 1] == maps[CROSSING, 3, 3] == pytest.approx(1)
    assert np.array_equal(maps[ANTI], maps[DIAGONAL, :, ::-1])


def test_s122_a_bent_drawing_has_no_perfect_match(look) -> None:
    for image, perfect, best in ((STRAIGHT, 4, 9), (BENT, 0, 7)):
        responses = np.rint(look(image)["matches"] * 9)
        for kernel in (DIAGONAL, ANTI):
            assert int((responses[kernel] == 9).sum()) == perfect
            assert responses[kernel].max() == best


@pytest.mark.parametrize("form", [np.asarray, square], ids=["10 rows", "9 rows"])
def test_s122_both_drawings_pass_the_same_threshold_and_a_plus_does_not(look, form) -> None:
    evidence = [look(form(image))["evidence"].item() for image in (STRAIGHT, BENT, PLUS)]
    assert evidence[0] == pytest.approx(2)
    assert evidence[1] == pytest.approx(14 / 9)
    assert [value > 1.4 for value in evidence] == [True, True, False]


def test_s122_a_shifted_drawing_has_the_same_evidence(look) -> None:
    moved = np.roll(square(STRAIGHT), 1, axis=1)
    assert look(moved)["evidence"].item() == pytest.approx(2)


@pytest.mark.parametrize("form", [np.asarray, square], ids=["10 rows", "9 rows"])
def test_s123_features_are_nearer_than_pixels(look, form) -> None:
    images = [form(image) for image in (STRAIGHT, BENT)]
    assert not np.array_equal(*images)
    pixels = np.abs(images[0] - images[1]).sum()
    features = [look(image)["pooled"] for image in images]
    distance = np.abs(features[0] - features[1]).sum()
    assert pixels == 28
    assert distance < pixels / 2
