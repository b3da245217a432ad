"""A built-in network for smaller images, so that a test of all its layers takes seconds."""

from __future__ import annotations

import re
from pathlib import Path

SPECS = Path(__file__).parents[2] / "specs"
EXTENTS = re.compile(r"(input image: f32\[3), \d+, \d+\]")


def with_images_of(name: str, pixels: int, folder: Path) -> Path:
    """A copy of the network in `folder` that takes square images of so many pixels a side.

    What the network expects of itself is left out, because shapes and counts are others.
    """
    for file in SPECS.glob("*.cnn"):
        text = "\n".join(
            line for line in file.read_text().splitlines() if not line.startswith("  expect ")
        )
        changed, found = EXTENTS.subn(rf"\1, {pixels}, {pixels}]", text)
        assert found == 1 or file.stem != name, f"{file} has no image of three channels"
        (folder / file.name).write_text(changed + "\n")
    return folder / f"{name}.cnn"
