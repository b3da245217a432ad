"""`data info`, `cache` and `doctor`."""

import json

import numpy as np
import pytest

from cnncc.cli import upkeep


def test_data_info_of_the_digits(shell):
    done = shell("data", "info", "digits")
    assert done.code == 0
    assert "1437 samples" in done.out
    assert "CC BY 4.0" in done.out
    facts = json.loads(shell("data", "info", "digits", "--json").out)
    assert (facts["classes"], facts["shape"], facts["test"]["samples"]) == (10, [1, 8, 8], 360)


def test_data_info_of_a_file(shell, tmp_path):
    x = np.zeros((20, 3, 4, 4), np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(20) % 2)
    facts = json.loads(shell("data", "info", tmp_path / "set.npz", "--json").out)
    assert (facts["shape"], facts["train"]["samples"]) == ([3, 4, 4], 16)


@pytest.mark.parametrize("name", ["digitz", "missing.npz", "broken.npz", "pickle.npz", "."])
def test_data_that_cannot_be_read_is_a_diagnostic(name, shell, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not an archive")
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], object), y=np.zeros(1))
    done = shell("data", "info", name)
    assert (done.code, done.out) == (1, "")
    assert "error[E07" in done.err


def test_the_cache_can_be_looked_at_and_emptied(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(tmp_path / "cache"))
    small = "net a {\n  input x: f32[5]\n  output y = relu(x)\n}\n"
    (tmp_path / "a.cnn").write_text(small)
    before = json.loads(shell("cache", "info", "--json").out)
    assert before == {"path": str(tmp_path / "cache"), "files": 0, "bytes": 0}
    assert shell("compile", "a.cnn").code == 0
    held = json.loads(shell("cache", "info", "--json").out)
    removed = json.loads(shell("cache", "clear", "--json").out)
    assert held == removed
    assert "holds 0 files" in shell("cache", "info").out


def test_the_doctor_finds_this_installation_healthy(shell):
    done = shell("doctor", "--json")
    found = json.loads(done.out)
    assert set(found["checks"].values()) == {"ok"}
    assert done.code == 0
    assert {"cnncc", "python", "numba", "processor", "cores"} <= found["facts"].keys()


def test_the_doctor_says_what_is_wrong(shell, monkeypatch):
    def broken():
        raise OSError("no such processor")

    monkeypatch.setitem(upkeep.CHECKS, "the machine is known", broken)
    done = shell("doctor")
    assert done.code == 1
    assert "FAILED       the machine is known: OSError: no such processor" in done.out
    assert "ok           the digits are there" in done.out
