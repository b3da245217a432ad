"""The phase of a stride: which of its positions a windowed layer keeps.

With stride s, phase p keeps positions p, p + s, p + 2 s, ... of the layer without stride. Phase 0
starts at the first position; counting from 1, the multiples of s are phase s - 1.
"""

from __future__ import annotations

from cnncc.graph.ir import ShapeError
from cnncc.ops.spatial import Pairs, axis_word, per_axis
from cnncc.tensor import TensorType
from cnncc.window import Axis, Window


def phases_of(phase: tuple[int, ...], stride: tuple[int, ...], t: TensorType) -> tuple[int, ...]:
    """One phase per axis. Raises ShapeError E0203 (wrong number), E0213 (no remainder of the
    stride, or nothing is left).
    """
    phases = per_axis("phase", phase, t)
    for a, (p, s) in enumerate(zip(phases, stride, strict=True)):
        if p >= s:
            raise ShapeError(
                "E0213",
                f"`phase` picks one of the {s} positions of a stride, 0 to {s - 1}, but got {p}",
                arithmetic=[f"{axis_word(t.rank, a)}: phase {p}, stride {s}"],
                fixes=[f"phase = {p % s}", f"stride = {p + 1} or more"],
                argument="phase",
            )
        n = t.spatial[a]
        if isinstance(n, int) and p >= n:
            raise ShapeError(
                "E0213",
                f"`phase` leaves nothing of the {axis_word(t.rank, a)}",
                arithmetic=[f"{axis_word(t.rank, a)}: {n}, the first position kept is {p}"],
                fixes=[f"phase = {n - 1}"],
                argument="phase",
            )
    return phases


def check_phase_fits(
    window: Window, phases: tuple[int, ...], skipped: Pairs, t: TensorType
) -> None:
    """Raises ShapeError E0202, which names the phase, where an exact fit fails because of it."""
    for a, (axis, p, (drop, _)) in enumerate(zip(window, phases, skipped, strict=True)):
        slack = axis.slack(t.spatial[a] - drop)
        if not p or axis.fit != "exact" or not isinstance(slack, int) or slack < 0:
            continue
        if slack % axis.stride:
            lo = axis.lo + p - drop  # what the text says
            raise ShapeError(
                "E0202",
                f"stride {axis.stride} from phase {p} on does not fit {t.spatial[a]}",
                arithmetic=[
                    f"{axis_word(t.rank, a)}: (extent {t.spatial[a]} + pad {lo} + {axis.hi} "
                    f"- window {span_text(axis)} - phase {p}) / stride {axis.stride} + 1 "
                    f"= {slack / axis.stride + 1:.2f}"
                ],
                fixes=[
                    f"phase = {(slack + p) % axis.stride} along the {axis_word(t.rank, a)}",
                    f"fit = floor (output {slack // axis.stride + 1})",
                ],
                argument="phase",
            )


def span_text(axis: Axis) -> str:
    """The window's extent; with dilation also where it comes from."""
    if axis.dilation == 1:
        return str(axis.span)
    return f"{axis.span} (= {axis.dilation} * ({axis.size} - 1) + 1)"
