"""What the command line makes of words: values of net arguments, sizes of memory, counts."""

import argparse

import pytest

from cnncc.cli.verbs import extent, memory, natural, net_argument, positive, rate, threads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", ("a", 3)),
        ("a=-3", ("a", -3)),
        ("a=60_850", ("a", 60_850)),
        ("a=0.5", ("a", 0.5)),
        ("a=1e-3", ("a", 0.001)),
        ("a=true", ("a", True)),
        ("_b2=false", ("_b2", False)),
    ],
)
def test_values_of_net_arguments(text, value):
    found = net_argument(text)
    assert found == value
    assert type(found[1]) is type(value[1])


@pytest.mark.parametrize(
    "text", ["a", "=1", "a=", "a=b", "a=nan", "a=inf", "a b=1", "á=1", "a=1=2"]
)
def test_words_that_are_no_net_arguments(text):
    with pytest.raises(argparse.ArgumentTypeError):
        net_argument(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("800", 800),
        ("64K", 64 << 10),
        ("512m", 512 << 20),
        ("1.5G", 3 << 29),
        ("2GiB", 2 << 30),
        ("1 TB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes_of_memory(text, size):
    assert memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.0G", "G", "-1", "1X", "1e9", "1" * 19, "1G2"])
def test_words_that_are_no_sizes(text):
    with pytest.raises(argparse.ArgumentTypeError):
        memory(text)


def test_counts_and_rates():
    assert (natural("0"), positive("12"), rate("0.25"), extent("H=64")) == (0, 12, 0.25, ("H", 64))
    for convert, text in [
        (natural, "-1"),
        (positive, "0"),
        (positive, "1.0"),
        (positive, "9" * 30),
        (rate, "0"),
        (threads, "0"),
        (threads, "1025"),
        (rate, "nan"),
        (extent, "H"),
        (extent, "1=2"),
    ]:
        with pytest.raises(argparse.ArgumentTypeError):
            convert(text)
