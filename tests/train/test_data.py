"""Data sets: known values, exact splits and orders, and files that lie."""

import gzip
import hashlib
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.errors import SpecError
from cnncc.train.data import DataError, Dataset, batch_count, batches, info, load, synthetic
from cnncc.train.data.order import random_bits, random_floats, random_order
from cnncc.train.data.split import stratified_split


def code_of(error: pytest.ExceptionInfo[DataError]) -> str:
    assert isinstance(error.value, SpecError)
    return error.value.diagnostics[0].code


# ---- The order of things ----------------------------------------------------------------------


def splitmix(state: int, steps: int) -> int:
    """SplitMix64 in Python integers: the value `steps` steps after `state`."""
    mask = (1 << 64) - 1
    z = (state + steps * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_random_bits_are_splitmix64():
    # The first values of Vigna's splitmix64.c from state 0.
    assert random_bits(3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    # One seed: the same sequence from the state that its own first step from that seed gives.
    state = int(random_bits(1, 41)[0])
    assert state == splitmix(splitmix(0, 42), 1)


@given(st.integers(0, 300), st.integers(-(1 << 70), 1 << 70), st.integers(0, 1 << 70))
def test_orders_are_permutations_and_repeat(count, seed, epoch):
    order = random_order(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == random_order(count, seed, epoch).tolist()


def test_orders_differ_by_seed_and_by_epoch_and_are_fair():
    orders = [random_order(50, s, e).tolist() for s in range(5) for e in range(5)]
    assert len({tuple(order) for order in orders}) == 25
    firsts = np.array([random_order(10, 3, epoch)[0] for epoch in range(2000)])
    counts = np.bincount(firsts, minlength=10)
    assert counts.min() > 140  # 200 expected, standard deviation 13
    assert counts.max() < 260


def test_floats_are_uniform_below_one():
    values = random_floats(100_000, 1)
    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.004
    assert abs(values.var() - 1 / 12) < 0.002


@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.data())
def test_a_split_is_a_partition_in_proportion(labels, data):
    array = np.array(labels, np.int64)
    tests = data.draw(st.integers(1, len(labels) - 1))
    train, test = stratified_split(array, tests, seed=3)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(test) == tests
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    for label in set(labels):
        share = tests * labels.count(label) / len(labels)
        assert abs((array[test] == label).sum() - share) < 1


def test_a_split_needs_both_sides():
    for tests in (0, 5, 6):
        with pytest.raises(ValueError, match="5 samples cannot be split"):
            stratified_split(np.zeros(5, np.int64), tests, 0)


# ---- Batches ----------------------------------------------------------------------------------


def numbered(count: int) -> Dataset:
    x = np.arange(count, dtype=np.float32).reshape(count, 1)
    return Dataset(x, np.arange(count, dtype=np.int64), count, "numbered")


@given(st.integers(1, 60), st.integers(1, 70), st.booleans(), st.integers(0, 9))
def test_an_epoch_shows_every_sample_once(count, batch, shuffle, epoch):
    found = list(batches(numbered(count), batch, seed=1, epoch=epoch, shuffle=shuffle))
    assert len(found) == batch_count(count, batch)
    assert [len(x) for x, _ in found[:-1]] == [batch] * (len(found) - 1)
    seen = np.concatenate([y for _, y in found])
    assert sorted(seen.tolist()) == list(range(count))
    assert all((x[:, 0] == y).all() for x, y in found)
    if not shuffle:
        assert seen.tolist() == list(range(count))


def test_drop_last_keeps_full_batches_only():
    found = [len(x) for x, _ in batches(numbered(10), 4, drop_last=True)]
    assert found == [4, 4]
    assert batch_count(10, 4, drop_last=True) == 2
    with pytest.raises(ValueError, match="no batch of 11"):
        batches(numbered(10), 11, drop_last=True)


def test_a_resumed_epoch_continues_with_the_same_batches():
    whole = list(batches(numbered(33), 4, seed=5, epoch=2))
    for start in range(len(whole) + 1):
        rest = list(batches(numbered(33), 4, seed=5, epoch=2, start=start))
        assert len(rest) == len(whole) - start
        for (x, y), (wanted_x, wanted_y) in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(x, wanted_x)
            np.testing.assert_array_equal(y, wanted_y)


def test_the_order_never_changes_between_versions():
    first = next(batches(numbered(12), 12, seed=0, epoch=0))[1].tolist()
    second = next(batches(numbered(12), 12, seed=0, epoch=1))[1].tolist()
    assert first == [10, 6, 9, 1, 5, 2, 8, 4, 11, 7, 3, 0]
    assert second == [6, 5, 11, 4, 2, 10, 0, 9, 8, 7, 3, 1]


def test_wrong_arguments_are_errors_at_once_and_not_at_the_first_batch():
    for keywords in ({"batch": 0}, {"batch": 1, "epoch": -1}, {"batch": 1, "start": -1}):
        with pytest.raises(ValueError, match=r"at least 1|count from 0"):
            batches(numbered(3), **keywords)


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        (np.zeros((0, 1), np.float32), np.zeros(0, np.int64), 2, "it needs samples"),
        (np.zeros(3, np.float32), np.zeros(3, np.int64), 2, "it needs samples"),
        (np.zeros((3, 1), np.float32), np.zeros(2, np.int64), 2, "3 samples, but y"),
        (np.zeros((3, 1)), np.zeros(3, np.int64), 2, "float32 or uint8, not float64"),
        (np.zeros((3, 1), np.float32), np.zeros(3, np.int32), 2, "int64 of shape"),
        (np.zeros((3, 1), np.float32), np.zeros((3, 1), np.int64), 2, "int64 of shape"),
        (np.zeros((3, 1), np.float32), np.array([0, 2, 1]), 2, "sample 1 has 2"),
        (np.zeros((3, 1), np.float32), np.array([0, 1, -1]), 2, "sample 2 has -1"),
        (np.zeros((3, 1), np.float32), np.zeros(3), None, "y must be float32"),
    ],
)
def test_a_dataset_checks_itself(x, y, classes, message):
    with pytest.raises(DataError, match=message):
        Dataset(x, y, classes, "mine")


# ---- Digits -----------------------------------------------------------------------------------


def test_digits_are_the_known_images_in_the_known_split():
    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.shape == test.shape == (1, 8, 8)
    assert train.x.dtype == np.float32
    assert np.bincount(test.y).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    digest = hashlib.sha256(test.x.tobytes() + test.y.tobytes()).hexdigest()
    assert digest == "32ae8011911f16e794c3dd5160c290bd12a640e5a37c15d67ebf2b4576dba3c8"
    assert train.classes == 10
    assert train.class_names == tuple("0123456789")


def test_digits_as_bytes_and_as_floats_agree():
    raw, scaled = load("digits", dtype="uint8"), load("digits")
    assert raw.x.dtype == np.uint8
    assert raw.x.max() == 16
    np.testing.assert_array_equal(raw.x.astype(np.float32) / 16, scaled.x)
    np.testing.assert_array_equal(raw.y, scaled.y)


def test_the_digits_split_does_not_follow_the_seed():
    np.testing.assert_array_equal(load("digits", "test", 5).x, load("digits", "test", 0).x)


def test_the_first_digit_is_a_zero():
    # The first image of the source; it is in one of the two parts.
    first = np.array([0, 0, 5, 13, 9, 1, 0, 0], np.uint8)
    parts = [load("digits", split, dtype="uint8") for split in ("train", "test")]
    assert any((part.x[0, 0, 0] == first).all() and part.y[0] == 0 for part in parts)


# ---- MNIST ------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def gzipped(data: bytes) -> bytes:
    """The same bytes at any time: without it gzip writes the clock, and ids of tests hold it."""
    return gzip.compress(data, mtime=0)


def write_mnist(folder: Path, packed: bool = False, joint: str = "-") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for prefix, count in (("train", 20), ("t10k", 6)):
        arrays[prefix] = rng.integers(0, 256, (count, 5, 4), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        arrays[prefix + "_labels"] = labels
        for what, axes, array in (("images", 3, arrays[prefix]), ("labels", 1, labels)):
            name, data = f"{prefix}-{what}{joint}idx{axes}-ubyte", idx(array)
            if packed:
                name, data = name + ".gz", gzipped(data)
            (folder / name).write_bytes(data)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("inner", ["", "raw", "MNIST/raw"])
def test_mnist(tmp_path, packed, joint, inner):
    arrays = write_mnist(tmp_path / inner, packed, joint)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        found = load(tmp_path, split)
        wanted = arrays[prefix][:, np.newaxis].astype(np.float64) / 255
        np.testing.assert_array_equal(found.x, wanted.astype(np.float32))
        np.testing.assert_array_equal(found.y, arrays[prefix + "_labels"])
        assert found.y.dtype == np.int64
        assert found.classes == 10
        raw = load(tmp_path, split, dtype="uint8")
        np.testing.assert_array_equal(raw.x[:, 0], arrays[prefix])


def test_emnist_has_as_many_classes_as_both_splits_show(tmp_path):
    write_mnist(tmp_path)
    labels = np.arange(6) * 5
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    assert load(tmp_path, "train").classes == 26
    assert load(tmp_path, "test").classes == 26


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
HUGE = b"\x00\x00\x08\x03" + b"\xff" * 12


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        (IMAGES, b"", "E0703", "ends too early"),
        (IMAGES, b"\x00\x00\x08\x03\x00", "E0703", "ends too early"),
        (IMAGES, b"\x00\x00\x0d\x03" + bytes(12), "E0702", "begins with 00 00 0d"),
        (IMAGES, idx(np.zeros(20)), "E0702", "must have 3 axes, but it has 1"),
        (IMAGES, idx(np.zeros((19, 5, 4))), "E0703", "19 images, but .* 20 labels"),
        (IMAGES, idx(np.zeros((20, 5, 4)))[:-1], "E0703", "must have 416 bytes, but it has 415"),
        (IMAGES, idx(np.zeros((20, 5, 4))) + b"0", "E0703", "must have 416 bytes, but it has 417"),
        (IMAGES, idx(np.zeros((20, 0, 4))), "E0703", "is empty"),
        (IMAGES, gzipped(b"x"), "E0702", "is gzipped"),
        (LABELS, idx(np.zeros(0)), "E0703", "is empty"),
        (LABELS, b"\x00\x00\x08\x01" + b"\xff" * 4, "E0705", "announces 4294967295 bytes"),
    ],
)
def test_idx_files_that_lie(tmp_path, name, content, code, message):
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"plain", "E0702", "not a gzip file"),
        (gzipped(idx(np.zeros((20, 5, 4))))[:-9], "E0702", "damaged"),
        (gzipped(idx(np.zeros((20, 5, 4))))[:-8] + bytes(8), "E0702", "damaged"),
        (gzipped(idx(np.zeros((20, 5, 4))) + b"0"), "E0703", "goes on after the 400 bytes"),
        (gzipped(idx(np.zeros((20, 5, 4)))[:-1]), "E0703", "ends too early"),
    ],
)
def test_gzipped_idx_files_that_lie(tmp_path, content, code, message):
    write_mnist(tmp_path, packed=True)
    (tmp_path / (IMAGES + ".gz")).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert code_of(error) == code


def test_what_a_header_announces_is_compared_with_the_limit_before_reading(tmp_path):
    write_mnist(tmp_path)
    with (tmp_path / IMAGES).open("wb") as file:  # sparse: 17 GB that take no disk
        file.write(b"\x00\x00\x08\x03" + struct.pack(">3I", 20, 29_000, 29_000))
        file.truncate(16 + 20 * 29_000**2)
    with pytest.raises(DataError, match=r"78\.3 GiB of memory, but the limit is 4\.0 GiB") as error:
        load(tmp_path)
    assert code_of(error) == "E0705"


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    write_mnist(tmp_path, packed=True)
    bomb = zlib.compressobj(9, wbits=31)
    start = bomb.compress(b"\x00\x00\x08\x03" + struct.pack(">3I", 20, 5, 4))
    data = start + bomb.compress(bytes(50_000_000)) + bomb.flush()
    assert len(data) < 100_000
    (tmp_path / (IMAGES + ".gz")).write_bytes(data)
    with pytest.raises(DataError, match="goes on after the 400 bytes"):
        load(tmp_path)


def test_missing_mnist_files_are_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert load(tmp_path, "train").classes == 10
    with pytest.raises(DataError, match=r"no test labels: .* t10k-labels-idx1-ubyte") as error:
        load(tmp_path, "test")
    assert code_of(error) == "E0701"
    assert info(tmp_path)["test"] is None


# ---- CIFAR ------------------------------------------------------------------------------------


def write_cifar(folder: Path, names: dict[str, int], classes: tuple[int, ...]) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, count in names.items():
        records = rng.integers(0, 256, (count, len(classes) + 3072), np.uint8)
        for at, limit in enumerate(classes):
            records[:, at] = rng.integers(0, limit, count)
        written[name] = records
        (folder / name).write_bytes(records.tobytes())
    return written


CIFAR10 = {**{f"data_batch_{n}.bin": n for n in range(1, 6)}, "test_batch.bin": 3}
CIFAR100 = {"train.bin": 7, "test.bin": 3}


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, inner):
    written = write_cifar(tmp_path / inner, CIFAR10, (10,))
    train, test = load(tmp_path), load(tmp_path, "test")
    assert train.x.shape == (15, 3, 32, 32)
    assert (train.classes, train.name) == (10, "cifar10")
    raw = np.concatenate([written[f"data_batch_{n}.bin"] for n in range(1, 6)])
    np.testing.assert_array_equal(train.y, raw[:, 0])
    np.testing.assert_array_equal(
        train.x, (raw[:, 1:].reshape(-1, 3, 32, 32) / 255).astype(np.float32)
    )
    np.testing.assert_array_equal(test.y, written["test_batch.bin"][:, 0])
    as_bytes = load(tmp_path, dtype="uint8")
    # Planes of red, green and blue, rows from the top: byte 1 + 1024 * c + 32 * h + w.
    assert as_bytes.x[4, 2, 7, 9] == raw[4, 1 + 2 * 1024 + 7 * 32 + 9]


def test_cifar100_uses_the_fine_labels(tmp_path):
    written = write_cifar(tmp_path, CIFAR100, (20, 100))
    found = load(tmp_path, "test")
    np.testing.assert_array_equal(found.y, written["test.bin"][:, 1])
    np.testing.assert_array_equal(
        load(tmp_path, "test", dtype="uint8").x.reshape(3, -1), written["test.bin"][:, 2:]
    )
    assert (found.classes, found.name) == (100, "cifar100")


def test_a_cifar_label_out_of_range_is_found(tmp_path):
    write_cifar(tmp_path, CIFAR10, (10,))
    path = tmp_path / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[3073] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin.* sample 1 has 10") as error:
        load(tmp_path)
    assert code_of(error) == "E0706"


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_cifar_files_hold_whole_records(tmp_path, size):
    write_cifar(tmp_path, CIFAR10, (10,))
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"{size} bytes, which is no whole number of 3073") as error:
        load(tmp_path, "test")
    assert code_of(error) == "E0703"


def test_cifar_is_not_read_over_the_limit_or_in_part(tmp_path):
    write_cifar(tmp_path, CIFAR10, (10,))
    with pytest.raises(DataError, match="but the limit is 1000 bytes") as error:
        load(tmp_path, max_bytes=1000)
    assert code_of(error) == "E0705"
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_2\.bin") as error:
        load(tmp_path)
    assert code_of(error) == "E0701"


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize(
    "name", ["data_batch_1", "test", "cifar-10-batches-py/data_batch_1", "cifar-100-python/train"]
)
def test_cifar_pickles_are_refused_with_a_pointer_to_the_binary_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"pickle(.|\n)*binary\.tar\.gz") as error:
        load(tmp_path)
    assert code_of(error) == "E0704"
    assert not Path("exploded").exists()


# ---- npz --------------------------------------------------------------------------------------


def test_npz_that_is_divided(tmp_path):
    path = tmp_path / "mine.npz"
    x = np.arange(2 * 3 * 4, dtype=np.float64).reshape(2, 3, 4)
    np.savez(path, x_train=x, y_train=[1, 0], x_test=x[:1], y_test=[[4]], other=[None])
    train, test = load(path), load(path, "test")
    np.testing.assert_array_equal(train.x, x.astype(np.float32))
    assert test.y.tolist() == [4]
    assert train.classes == test.classes == 5
    assert train.name == "mine.npz"


def test_npz_that_is_not_divided_is_split_by_the_seed(tmp_path):
    path = tmp_path / "mine.npz"
    x = np.arange(50, dtype=np.uint8).reshape(50, 1, 1)
    np.savez(path, x=x, y=np.arange(50) % 2)
    train, test = load(path, dtype="uint8"), load(path, "test", dtype="uint8")
    assert train.x.shape == (40, 1, 1, 1)  # grey images got their channel
    assert np.bincount(test.y).tolist() == [5, 5]
    assert sorted([*train.x.flat, *test.x.flat]) == list(range(50))
    assert load(path, "test", 1, dtype="uint8").x.tolist() != test.x.tolist()


def test_npz_with_targets_for_regression(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.ones((10, 2, 3)), y=np.arange(20.0).reshape(10, 2))
    train, test = load(path), load(path, "test")
    assert train.classes is None
    assert train.y.dtype == np.float32
    assert sorted([*train.y[:, 0], *test.y[:, 0]]) == list(range(0, 20, 2))
    assert info(path)["train"]["class_counts"] is None


@pytest.mark.parametrize(
    ("arrays", "code", "message"),
    [
        ({"a": [1]}, "E0701", "holds a; a data set has x and y"),
        ({"x_train": np.ones((5, 1)), "y_train": np.zeros(5, int)}, "E0701", "no x_test"),
        ({"x": np.ones((5, 1)), "y": np.zeros(4, int)}, "E0703", "equally many"),
        ({"x": np.ones(5), "y": np.zeros(5, int)}, "E0703", "samples as their first axis"),
        ({"x": np.ones((4, 1)), "y": np.zeros(4, int)}, "E0703", "too few"),
        ({"x": np.ones((5, 1)), "y": np.zeros((5, 3), int)}, "E0703", "one-hot"),
        ({"x": np.ones((5, 1)), "y": np.zeros(5, int) - 1}, "E0706", "y has -1 to -1"),
        ({"x": np.ones((5, 1)), "y": np.full(5, 1 << 40)}, "E0706", "a class number is 0 to"),
        ({"x": np.full((5, 1), np.nan), "y": np.zeros(5, int)}, "E0706", "sample 0 is not"),
        ({"x": np.full((5, 1), 1e39), "y": np.zeros(5, int)}, "E0706", "finite in float32"),
        ({"x": np.ones((5, 1)), "y": np.full(5, np.inf)}, "E0706", "y must be finite"),
        ({"x": np.array([[None]] * 5), "y": np.zeros(5, int)}, "E0704", "pickle"),
    ],
)
def test_npz_files_that_are_no_data_set(tmp_path, arrays, code, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path / "mine.npz", "test")
    assert code_of(error) == code


def test_floats_are_not_turned_into_bytes(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.ones((5, 1)), y=np.zeros(5, int))
    with pytest.raises(DataError, match="the network takes bytes") as error:
        load(tmp_path / "mine.npz", dtype="uint8")
    assert code_of(error) == "E0706"


def test_npz_over_the_limit(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", x=np.zeros((5, 10_000)), y=np.zeros(5, int))
    with pytest.raises(DataError, match="limit is 9999 bytes") as error:
        load(tmp_path / "mine.npz", max_bytes=9999)
    assert code_of(error) == "E0705"


# ---- Folders of images ------------------------------------------------------------------------


def write_image(path: Path, value: int | tuple[int, int, int], size=(4, 3)) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)


def test_a_divided_image_folder(tmp_path):
    for number, name in enumerate(("cat", "dog", "eel")):
        write_image(tmp_path / "train" / name / "b.png", (10 * number, 1, 2))
        write_image(tmp_path / "train" / name / "a.png", (10 * number + 1, 1, 2))
    write_image(tmp_path / "val" / "eel" / "z.bmp", (99, 98, 97))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    train, test = load(tmp_path, dtype="uint8"), load(tmp_path, "test", dtype="uint8")
    assert train.x.shape == (6, 3, 3, 4)  # 4 wide, 3 high
    assert train.x[:, 0, 0, 0].tolist() == [1, 0, 11, 10, 21, 20]  # by name of class, then of file
    assert train.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.class_names == ("cat", "dog", "eel")
    assert test.x[0, :, 0, 0].tolist() == [99, 98, 97]
    assert test.y.tolist() == [2]
    assert test.classes == 3


def test_an_image_folder_that_is_not_divided_keeps_a_fifth_of_each_class(tmp_path):
    for name, count in (("a", 10), ("b", 5)):
        for number in range(count):
            write_image(tmp_path / name / f"{number:02}.png", number)
    train, test = load(tmp_path), load(tmp_path, "test")
    assert np.bincount(train.y).tolist() == [8, 4]
    assert np.bincount(test.y).tolist() == [2, 1]
    assert train.x.shape == (12, 1, 3, 4)  # grey stays one channel
    assert train.x.max() <= np.float32(9 / 255)


def test_images_of_different_sizes_need_a_size(tmp_path):
    write_image(tmp_path / "train" / "a" / "1.png", 7, (4, 3))
    write_image(tmp_path / "train" / "b" / "2.png", (7, 7, 7), (8, 6))
    with pytest.raises(DataError, match=r"6x8 pixels, but .* 3x4") as error:
        load(tmp_path)
    assert code_of(error) == "E0703"
    found = load(tmp_path, dtype="uint8", image_size=(5, 2))
    assert found.x.shape == (2, 3, 5, 2)  # one of the two has colours, so both get three channels
    assert (found.x == 7).all()


def test_image_folders_that_cannot_be_read(tmp_path):
    write_image(tmp_path / "train" / "a" / "1.png", 7)
    (tmp_path / "train" / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(DataError, match=r"2\.png cannot be decoded") as error:
        load(tmp_path)
    assert code_of(error) == "E0702"
    (tmp_path / "train" / "a" / "2.png").unlink()
    with pytest.raises(DataError, match="none of test, val") as error:
        load(tmp_path, "test")
    assert code_of(error) == "E0701"
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(DataError, match="a class folder without images") as error:
        load(tmp_path)
    assert code_of(error) == "E0701"
    (tmp_path / "train" / "b").rmdir()
    write_image(tmp_path / "test" / "c" / "1.png", 7)
    with pytest.raises(DataError, match="the class 'c', which") as error:
        load(tmp_path, "test")
    assert code_of(error) == "E0703"


def test_a_truncated_image_and_a_giant_one(tmp_path):
    path = tmp_path / "train" / "a" / "1.png"
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="cannot be decoded"):
        load(tmp_path)
    # A header of 60000 x 60000 pixels, and nothing behind it.
    header = struct.pack(">2I5B", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert code_of(error) in ("E0702", "E0705")


def test_images_are_counted_before_they_are_decoded(tmp_path):
    for number in range(4):
        write_image(tmp_path / "train" / "a" / f"{number}.png", 1, (100, 100))
    with pytest.raises(DataError, match="but the limit is 39999 bytes") as error:
        load(tmp_path, dtype="uint8", max_bytes=39_999)
    assert code_of(error) == "E0705"


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    write_image(tmp_path / "train" / "a" / "1.png", 7)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'cnncc\[images\]'") as error:
        load(tmp_path)
    assert code_of(error) == "E0709"


# ---- Synthetic --------------------------------------------------------------------------------


def test_synthetic_sets_repeat_and_can_be_learnt():
    train = synthetic((3, 6, 5), classes=4, count=203, seed=2)
    again = synthetic((3, 6, 5), classes=4, count=203, seed=2)
    test = synthetic((3, 6, 5), classes=4, count=50, seed=2, split="test")
    assert train.x.tobytes() == again.x.tobytes()
    assert train.x.shape == (203, 3, 6, 5)
    assert np.bincount(train.y).tolist() == [51, 51, 51, 50]
    means = np.stack([train.x[train.y == c].mean(axis=0) for c in range(4)])
    distances = ((test.x[:, None] - means) ** 2).reshape(50, 4, -1).sum(axis=2)
    assert (distances.argmin(axis=1) == test.y).all()
    assert not (test.x[:, None] == train.x).all(axis=(2, 3, 4)).any()
    assert synthetic((3, 6, 5), 4, 203, seed=3).x.tobytes() != train.x.tobytes()


def test_synthetic_sets_by_name():
    assert load("synthetic").x.shape == (1000, 1, 8, 8)
    found = load("synthetic:2x5:3:7", dtype="uint8")
    assert found.x.shape == (7, 2, 5)
    assert found.x.dtype == np.uint8
    assert found.classes == 3
    floats = load("synthetic:2x5:3:7")
    np.testing.assert_array_equal(found.x, np.floor(floats.x * 256))


@pytest.mark.parametrize(
    "name",
    ["synthetic:", "synthetic:0x1", "synthetic:1x-1", "synthetic:1:2:3:4", "synthetic:1:0",
     "synthetic:٣x٣", "synthetic:" + "9" * 99],
)  # fmt: skip
def test_synthetic_names_that_make_no_sense(name):
    with pytest.raises(DataError, match="does not describe a synthetic set") as error:
        load(name)
    assert code_of(error) == "E0701"


def test_a_synthetic_set_over_the_limit_is_not_made():
    with pytest.raises(DataError, match="GiB of memory") as error:
        load("synthetic:9999999x9999999:10:9999999999")
    assert code_of(error) == "E0705"
    for arguments in (((), 1, 1), ((0,), 1, 1), ((1,), 0, 1), ((1,), 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            synthetic(*arguments)


# ---- Names and paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("digit", "E0701", "did you mean digits"),
        ("mnist", "E0701", "cnncc downloads nothing(.|\n)*train-images-idx3-ubyte.gz"),
        ("CIFAR-10", "E0701", "cifar-10-binary.tar.gz"),
        ("none.npz", "E0701", "neither a built-in data set"),
        ("a\0b", "E0701", "neither a built-in|cannot look"),
        ("x" * 5000, "E0701", "cannot look into|neither"),
        ("file.pkl", "E0704", "may be a pickle"),
        ("file.npy", "E0704", "may be a pickle"),
        ("file.tar.gz", "E0702", "is an archive(.|\n)*unpack it"),
        ("file.txt", "E0702", "not a data set that cnncc reads"),
        (".", "E0701", "holds no data set that cnncc knows"),
    ],
)
def test_what_is_not_found_or_not_understood(tmp_path, monkeypatch, name, code, message):
    monkeypatch.chdir(tmp_path)
    for existing in ("file.pkl", "file.npy", "file.tar.gz", "file.txt"):
        Path(existing).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=message) as error:
        load(name)
    assert code_of(error) == code
    assert not Path("exploded").exists()


def test_a_name_cannot_draw_on_the_terminal():
    with pytest.raises(DataError) as error:
        load("\x1b[2J\u202egnp.exe")
    assert "\x1b" not in str(error.value)
    assert "\u202e" not in str(error.value)


def test_wrong_options_are_value_errors():
    with pytest.raises(ValueError, match="split is one of"):
        load("digits", "validation")
    with pytest.raises(ValueError, match="dtype is float32 or uint8"):
        load("digits", dtype="float64")
    with pytest.raises(ValueError, match="image_size is"):
        load("digits", image_size=(0, 3))


def test_info_is_json_and_counts_everything():
    found = info("digits")
    assert json.loads(json.dumps(found)) == found
    assert found["shape"] == [1, 8, 8]
    assert found["train"]["samples"] == 1437
    assert found["test"]["class_counts"] == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert (found["train"]["min"], found["train"]["max"]) == (0.0, 1.0)
    assert "CC BY 4.0" in found["attribution"]
    assert info("synthetic:1x2:2:9")["attribution"] is None


@given(st.data())
def test_damaged_files_never_end_in_a_traceback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    kind = data.draw(st.sampled_from(["idx", "idx.gz", "cifar"]))
    if kind == "cifar":
        write_cifar(folder, CIFAR100, (20, 100))
    else:
        write_mnist(folder, packed=kind == "idx.gz")
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(40, len(content) - 1)))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = load(folder)
    except DataError:
        return
    assert len(found.x) == len(found.y)
