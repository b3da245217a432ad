"""The networks of the lectures are certified: the small ones whenever tests run, all of them with
-m slow.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cnncc import compiler
from cnncc.cli.shell import main
from cnncc.graph.locate import built_in
from cnncc.verify import Verdict, verify_network

LIBRARIES = ("classifier_features", "lenet5_table", "residual")  # blocks and tables only
FAST = ("edge_detection", "lenet_digits")
LARGE = [n for n in built_in() if n not in (*LIBRARIES, *FAST)]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_network_is_certified(name: str) -> None:
    found = verify_network(name)
    assert found.holds, [(v.subject, [c for c in v.checks if c.failed]) for v in found.failing]
    kinds = {v.kind for v in found.verdicts}
    assert kinds == {"program", "kernel", "operator"}
    original = [v for v in found.verdicts if v.subject.endswith("as it is")]
    assert len(original) == (2 if found.reduced else 0)
    shares = [_same_code(v) for v in original]
    assert all(same for same, _ in shares), "no kernel of the network as it is was compared"
    if found.reduced and not any(n.type.symbols for n in compiler.front(name).graph.nodes):
        same, calls = map(sum, zip(*shares, strict=True))
        assert same / calls > 0.85
        assert all(a / b > 0.75 for a, b in shares)


def _same_code(v: Verdict) -> tuple[int, int]:
    """Calls of the network as it is that run code that was compared, and all calls."""
    notes = [c.note for c in v.checks if c.name == "same code"]
    same, calls = re.findall(r"\d+", notes[0])[:2] if notes else (0, 1)
    return int(same), int(calls)


def test_verdict_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "edge_detection", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["certified"] is True
    assert found["name"] == "edge_detection"
    assert "24" in found["reduced"]
    for v in found["verdicts"]:
        assert v["holds"]
        assert {c["outcome"] for c in v["checks"]} <= {"equal", "close", "skipped"}
    names = {c["name"] for v in found["verdicts"] for c in v["checks"]}
    assert {
        "fused = interp",
        "unfused = interp",
        "bounds",
        "same code",
        "oracle, integers",
    } <= names


def test_text_with_a_mistake_is_not_certified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.cnn"
    file.write_text("net n {\n  input x: f32[1, 4, 4]\n  output y = x -> conv(2, 9x9)\n}\n")
    assert main(["verify", str(file)]) == 1
    assert "wrong.cnn" in capsys.readouterr().err
