"""What a certificate says: checks with the number of elements they compared, one verdict per
kernel, operator and program, and what of the network was made smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["equal", "close", "differs", "skipped"]
"""`equal` is bit for bit or number for number, `close` within the stated tolerance."""


@dataclass(frozen=True)
class Check:
    """One comparison: its outcome, how many elements (or proofs) it looked at, and the figures."""

    name: str
    outcome: Outcome
    elements: int = 0
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it speaks against the network. A comparison of nothing does too."""
        return self.outcome == "differs" or (self.outcome != "skipped" and not self.elements)


@dataclass(frozen=True)
class Verdict:
    """The checks of one kernel, operator or program.

    `subject` names it in the network's words; `places` are all that it stands for: a network that
    repeats a kernel has one verdict for it.
    """

    kind: Literal["kernel", "operator", "program"]
    subject: str
    checks: tuple[Check, ...]
    places: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Nothing failed, and something was compared."""
        compared = any(c.outcome != "skipped" for c in self.checks)
        return compared and not any(c.failed for c in self.checks)


@dataclass(frozen=True)
class Certificate:
    """All verdicts of a network, and what is needed to repeat them."""

    name: str
    verdicts: tuple[Verdict, ...]
    reduced: str
    batch: int
    seed: int
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every verdict holds, and there is one."""
        return bool(self.verdicts) and all(v.holds for v in self.verdicts)

    @property
    def elements(self) -> int:
        """Elements compared in all checks together."""
        return sum(c.elements for v in self.verdicts for c in v.checks)

    @property
    def failing(self) -> tuple[Verdict, ...]:
        """The verdicts that do not hold."""
        return tuple(v for v in self.verdicts if not v.holds)

    def as_json(self) -> dict[str, Any]:
        """Everything, with `certified` and a verdict's `holds` spelled out."""
        found = asdict(self)
        found["verdicts"] = [{**asdict(v), "holds": v.holds} for v in self.verdicts]
        return {"certified": self.holds, "elements": self.elements, **found}
