"""`profile` and `Model.profile`: figures that add up, whatever they are on this machine."""

import json
import sys

import numpy as np
import pytest

import cnncc
from cnncc.model.profile import grouped
from cnncc.targets.cpu import memory
from cnncc.targets.cpu.peaks import Cache, Peaks

CONV, DENSE = 4 * 2 * 9 * 36, 3 * 4 * 36  # multiply-accumulates of the small network
FLOAT = 4

KERNEL = {
    "layers": list, "operation": str, "seconds": float, "macs": int, "traffic_bytes": int,
    "parameter_bytes": int, "flops_per_second": float, "bytes_per_second": float,
    "roofline_seconds": float, "roofline_share": float, "bound_by": str, "tiles": list,
}  # fmt: skip
WHOLE = {
    "name": str, "batch": int, "portion": int, "extents": dict, "threads": int,
    "precision": str, "call_seconds": float, "portion_seconds": float, "seconds": float,
    "macs": int, "roofline_share": float, "peak_flops_per_second": float,
    "bandwidth_bytes_per_second": float, "caches": list, "kernels": list,
}  # fmt: skip


PEAKS = Peaks(1e11, 2e10, 1, (Cache("L1", 1 << 15, 1e12), Cache("L2", 1 << 20, 1e11)))


@pytest.fixture
def known_peaks(monkeypatch):
    """Peaks that are not measured, which would take longer than everything else."""
    monkeypatch.setattr("cnncc.model.profile.measure_peaks", lambda threads: PEAKS)


def check_schema(found, schema):
    assert {name: type(value) for name, value in found.items()} == schema


def test_figures_belong_together(shell, small):
    words = ["--batch", 2, "--threads", 1, "--repeats", 3, "--json"]
    done = shell("profile", small, *words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    check_schema(found, WHOLE)
    kernels = found["kernels"]
    for k in kernels:
        check_schema(k, KERNEL)
        flops = 2 * k["macs"] if k["seconds"] else 0  # a clock may show no time at all
        assert k["flops_per_second"] * k["seconds"] == pytest.approx(flops)
        assert k["bytes_per_second"] * k["seconds"] in (0, pytest.approx(k["traffic_bytes"]))
        assert k["roofline_share"] * k["seconds"] in (0, pytest.approx(k["roofline_seconds"]))
        assert k["roofline_seconds"] >= 2 * k["macs"] / found["peak_flops_per_second"]
        assert 0 <= k["parameter_bytes"] <= k["traffic_bytes"]
    assert (found["batch"], found["threads"]) == (2, 1)
    assert found["seconds"] == pytest.approx(sum(k["seconds"] for k in kernels))
    assert found["macs"] == sum(k["macs"] for k in kernels) == 2 * (CONV + DENSE)
    least = sum(k["roofline_seconds"] for k in kernels)
    assert found["roofline_share"] == pytest.approx(least / found["seconds"])
    assert [c["name"] for c in found["caches"]][:2] == ["L1", "L2"]
    assert all(c["bytes"] > 0 and c["bytes_per_second"] > 0 for c in found["caches"])


@pytest.mark.usefixtures("known_peaks")
def test_every_kernel_has_its_layers_and_bytes(shell, small):
    found = json.loads(shell("profile", small, "--batch", 2, "--repeats", 1, "--json").out)
    by_layer = {tuple(k["layers"]): k for k in found["kernels"]}
    conv = by_layer["c", "c.relu"]
    assert conv["operation"] == "conv + relu"
    weights = 4 * 2 * 9 + 4
    assert conv["macs"] == 2 * CONV
    assert conv["parameter_bytes"] == FLOAT * weights
    assert conv["traffic_bytes"] == FLOAT * (weights + 2 * (2 * 36 + 4 * 36))
    dense = by_layer["y.flatten", "y"]
    assert (dense["operation"], dense["macs"]) == ("reshape + dense", 2 * DENSE)
    assert dense["traffic_bytes"] == FLOAT * (DENSE + 3 + 2 * (144 + 3))
    border = next(k for k in found["kernels"] if k["operation"].startswith("border of x"))
    assert border["layers"] == []
    assert border["traffic_bytes"] == FLOAT * 2 * 2 * (8 * 8 - 6 * 6)


@pytest.mark.usefixtures("known_peaks")
def test_the_table_shows_the_slowest_kernels(shell, small):
    lines = shell("profile", small, "--top", 1, "--repeats", 9).out.splitlines()
    assert "GFLOP/s" in lines[1]
    (rest,) = (line for line in lines if line.endswith("more kernels"))
    shares = [line.split()[1] for line in (lines[3], rest)]  # names may take more lines
    assert sum(float(s.rstrip("%")) for s in shares) == pytest.approx(100, abs=0.2)
    assert lines[-2].startswith("small, batch 1, ")
    assert lines[-1].startswith("peaks: ")


EXACT = """\
net wide {
  input x: f32[32, 28, 28]
  output y = x -> conv(32, 3x3, pad = same)
}
"""


@pytest.mark.usefixtures("known_peaks")
def test_precision_decides_on_the_multiplications(shell, tmp_path):
    path = tmp_path / "wide.cnn"
    path.write_text(EXACT)
    found = {
        p: json.loads(shell("profile", path, "--precision", p, "--repeats", 1, "--json").out)
        for p in ("default", "exact", "bf16")
    }
    assert all(f["precision"] == p for p, f in found.items())
    assert found["bf16"]["macs"] == found["default"]["macs"]  # no layer is bound by weights
    assert found["exact"]["macs"] == 32 * 32 * 9 * 28 * 28
    assert found["default"]["macs"] == 32 * 32 * 36 * 7 * 7
    operations = {o for k in found["default"]["kernels"] for o in k["operation"].split(" + ")}
    assert {"winograd_input", "winograd_product", "winograd_output"} <= operations
    assert all(k["layers"] in ([], ["y"]) for k in found["default"]["kernels"])


@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.usefixtures("known_peaks")
def test_a_chart_is_drawn(suffix, shell, small, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"chart.{suffix}"
    done = shell("profile", small, "--repeats", 1, "-o", path)
    assert done.code == 0, done.err
    start = {"svg": b"<?xml", "png": b"\x89PNG"}[suffix]
    assert path.read_bytes().startswith(start)


@pytest.mark.usefixtures("known_peaks")
def test_without_matplotlib_the_chart_says_what_to_install(shell, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = shell("profile", small, "--repeats", 1, "-o", tmp_path / "chart.svg")
    assert done.code == 1
    assert "E0709" in done.err
    assert "cnncc[plot]" in done.err


def test_another_kind_of_chart_is_refused(shell, small):
    assert shell("profile", small, "-o", "chart.xls").code == 2


@pytest.mark.usefixtures("known_peaks")
def test_symbolic_extents_are_asked_for(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[1, H, W]\n  output y = x -> conv(2, 3x3)\n}\n")
    assert "--extent H=64 --extent W=64" in shell("profile", path).err
    words = ["--extent", "H=9", "--extent", "W=7", "--repeats", 1, "--json"]
    found = json.loads(shell("profile", path, *words).out)
    assert found["extents"] == {"H": 9, "W": 7}
    assert found["macs"] == 2 * 9 * 7 * 5


@pytest.mark.usefixtures("known_peaks")
def test_a_model_is_profiled_on_arrays_and_still_computes_the_same(small):
    model = cnncc.compile(small, num_threads=1)
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype(np.float32)
    before = model(x)
    found = model.profile(x, repeats=2)
    assert (found.name, found.batch, found.macs) == ("small", 3, 3 * (CONV + DENSE))
    assert str(found).splitlines()[-1].startswith("peaks: ")
    assert [k.seconds for k in found.slowest()] == sorted(
        (k.seconds for k in found.kernels), reverse=True
    )
    assert np.array_equal(model(x), before)


@pytest.mark.usefixtures("known_peaks")
def test_a_batch_in_portions_is_profiled_as_it_runs(small, monkeypatch):
    monkeypatch.setattr(memory, "samples_at_once", lambda traffic, batch, cache: 2)
    model = cnncc.compile(small, num_threads=1)
    found = model.profile(np.ones((6, 2, 6, 6), np.float32), repeats=3)
    assert [b.batch for b in model._programs.inference._bindings.values()] == [2]
    assert (found.batch, found.portion) == (6, 2)
    assert found.macs == 2 * (CONV + DENSE)
    assert found.portion_seconds == pytest.approx(found.call_seconds / 3)
    text = found.totals()
    assert ", batch 6, 2 samples at a time, 1 threads" in text
    assert f"kernels take {1e3 * found.seconds:.3f} ms per 2 samples, " in text
    assert f"ms, {1e3 * found.portion_seconds:.3f} ms per 2 samples\n" in text


def test_what_cannot_be_profiled(small):
    x = np.zeros((1, 2, 6, 6), np.float32)
    with pytest.raises(ValueError, match="machine code"):
        cnncc.compile(small, target="interp").profile(x)
    model = cnncc.compile(small)
    with pytest.raises(ValueError, match="repeats"):
        model.profile(x, repeats=0)
    with pytest.raises(cnncc.SpecError, match="E0802"):
        model.profile(x[:, :1])


@pytest.mark.parametrize(
    ("names", "title"),
    [
        ((), ""),
        (("y",), "y"),
        (("c", "c.relu"), "c, c.relu"),
        (("u.main.conv", "u.main.norm"), "u.main.{conv, norm}"),
        (("u.main.conv", "u.add"), "u.{main.conv, add}"),
        (("a.conv", "b.conv"), "a.conv, b.conv"),
    ],
)
def test_names_share_what_they_have_in_common(names, title):
    assert grouped(names) == title


def test_the_lowest_line_of_the_roofline_is_the_bound():
    caches = (Cache("L1", 100, 50.0), Cache("L3", 1000, 20.0))
    peaks = Peaks(flops=10.0, bandwidth=5.0, threads=1, caches=caches)
    assert (peaks.bound(1000, 100, 0).by, peaks.bound(1000, 100, 0).seconds) == ("arithmetic", 100)
    assert (peaks.bound(10, 100, 0).by, peaks.bound(10, 100, 0).seconds) == ("L1", 2)
    assert (peaks.bound(10, 101, 0).by, peaks.bound(10, 101, 0).seconds) == ("L3", 101 / 20)
    assert (peaks.bound(10, 2000, 0).by, peaks.bound(10, 2000, 0).seconds) == ("memory", 400)
    assert (peaks.bound(10, 101, 90).by, peaks.bound(10, 101, 90).seconds) == ("memory", 18)
