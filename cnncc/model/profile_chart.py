"""A profile as a bar chart in a file, drawn by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnncc.errors import printable
from cnncc.io.files import PACKAGE, WRITE, refuse
from cnncc.targets.cpu.portions import at_a_time

if TYPE_CHECKING:
    from cnncc.model.profile import KernelTime, Profile

SUFFIXES = (".svg", ".png", ".pdf")
LONGEST = 60
"""Characters of a label."""

COLORS = {"arithmetic": "#1b6ca8", "memory": "#b5541c"}
CACHE = "#7a8b2a"


def draw(profile: Profile, path: Path, most: int) -> None:
    """Write the chart. Raises DataError (E0709 without matplotlib, E0710) and ValueError."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"a chart is a file ending in {', '.join(SUFFIXES)}, but got {path}")
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise refuse(
            PACKAGE,
            "drawing a chart needs the package matplotlib, which is not installed",
            "pip install 'cnncc[plot]'",
        ) from None
    shown = profile.slowest()[:most]
    places = range(len(shown))
    figure = Figure(figsize=(11, 1.6 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(places, [1e3 * k.seconds for k in shown], color="#d8d8d8")
    axes.barh(
        places,
        [1e3 * min(k.bound.seconds, k.seconds) for k in shown],
        color=[COLORS.get(k.bound.by, CACHE) for k in shown],
    )
    for place, k in zip(places, shown, strict=True):
        rate = f"{k.flops_per_second / 1e9:.0f} GFLOP/s, " if k.macs else ""
        note = f" {rate}{k.bytes_per_second / 1e9:.0f} GB/s, {k.roofline_share:.0%}"
        axes.text(1e3 * k.seconds, place, note, va="center", fontsize=8)
    axes.set_yticks(places, [_label(k) for k in shown], fontsize=8, parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.set_xlabel("milliseconds; the coloured part is the least that the roofline allows")
    legend = {"arithmetic": COLORS["arithmetic"], "cache": CACHE, "memory": COLORS["memory"]}
    axes.legend(
        handles=[Patch(color=c, label=f"bound by {name}") for name, c in legend.items()],
        loc="lower right",
        fontsize=8,
    )
    left_out = f", the slowest {len(shown)} kernels" if len(shown) < len(profile.kernels) else ""
    portion = at_a_time(profile.portion, profile.batch)
    axes.set_title(
        f"{printable(profile.name)}, batch {profile.batch}{portion}, "
        f"{profile.peaks.threads} threads: {1e3 * profile.seconds:.3f} ms "
        f"in {len(profile.kernels)} kernels, "
        f"{profile.roofline_share:.0%} of the roofline{left_out}",
        fontsize=10,
        parse_math=False,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise refuse(WRITE, f"cannot write {path}: {error.strerror or error}") from None


def _label(kernel: KernelTime) -> str:
    text = printable(kernel.title)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
