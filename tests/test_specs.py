"""The built-in networks: each is clean, formatted, and has the numbers that are published."""

import json
from pathlib import Path

import pytest

from cnncc.compiler import check_file, front
from cnncc.graph.locate import built_in, specs_folder
from cnncc.passes.report import report, table_text
from cnncc.syntax.format import format_text

SPECS = sorted(specs_folder().glob("*.cnn"))

PUBLISHED = {
    "lenet5_modern": (61_706, 416_520),
    "cifar10": (1_116_970, 25_528_832),
    "alexnet": (60_965_224, 724_406_816),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "googlenet": (6_998_552, 1_582_671_872),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet152": (60_192_808, 11_513_626_624),
    "mobilenet": (4_231_976, 568_740_352),
    "lenet1989": (9_760, 63_660),
    "lenet1989_nips": (2_578, 91_520),
    "lenet5": (60_850, 326_520),
    "all_convolutional": (1_369_738, 281_174_016),
}


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_file_is_clean(path: Path) -> None:
    assert check_file(path) == ()


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_file_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_text(text) == text


@pytest.mark.parametrize("name", built_in())
def test_every_network_can_be_trained_and_says_what_it_expects(name: str) -> None:
    checked = front(name, train=True)
    assert checked.module.training is not None
    assert checked.module.expectations
    assert checked.graph.name == name


@pytest.mark.parametrize(("name", "numbers"), PUBLISHED.items(), ids=PUBLISHED)
def test_published_numbers(name: str, numbers: tuple[int, int]) -> None:
    found = json.loads(json.dumps(report(front(name).graph)))
    assert (found["params"], found["macs"]) == numbers
    assert sum(x["params"] for x in found["layers"]) == numbers[0]
    assert sum(x["macs"] for x in found["layers"]) == numbers[1]


def test_a_report_is_a_table_too() -> None:
    text = table_text(front("lenet5_modern").graph)
    assert "61_706" in text
    assert "416_520" in text
    assert all(len(line) <= 120 for line in text.splitlines())
