"""docs/performance.md is what its generator makes of the JSON, and the JSON is what pages need."""

import json

import pytest

from bench.record import update
from bench.report import DATA, PICTURES, by_batch, main, page, spread

RECORD = json.loads(DATA.read_text())


def test_the_page_is_up_to_date():
    assert main(["--check"]) == 0, "run python -m bench.report --charts"


def test_its_charts_are_there():
    for batch in by_batch(RECORD["peers"]):
        assert (PICTURES / f"performance_batch_{batch}.svg").exists()


def test_every_figure_names_its_machine():
    for results in RECORD.values():
        for r in results:
            assert {"processor", "isa", "threads", "cnncc", "torch"} <= r["machine"].keys()


def test_all_outputs_were_compared():
    for r in RECORD["peers"]:
        timed = {t["contestant"] for t in r["timings"]}
        assert timed == r["distances"].keys()
        assert max(r["distances"].values()) <= 2e-5
        assert timed.isdisjoint(r["left_out"])


def test_a_page_follows_its_figures():
    result = RECORD["peers"][0]
    timings = [{**t, "median": 1000.0 * (i + 1)} for i, t in enumerate(result["timings"])]
    text = page({"peers": [{**result, "timings": timings}]})
    assert spread(timings[0]) in text
    assert "Single layers" not in text
    assert text != page({"peers": [result]})


def test_results_replace_those_of_the_same_key(tmp_path):
    path = tmp_path / "results.json"
    update(path, "a", ("n",), [{"n": 1, "v": 1}, {"n": 2, "v": 2}])
    update(path, "b", ("n",), [{"n": 1, "v": 3}])
    update(path, "a", ("n",), [{"n": 1, "v": 4}])
    assert json.loads(path.read_text()) == {
        "a": [{"n": 2, "v": 2}, {"n": 1, "v": 4}],
        "b": [{"n": 1, "v": 3}],
    }


def test_a_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from bench.chart import draw_peers

    draw_peers(RECORD["peers"][:2], tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    assert all(r["network"] in text for r in RECORD["peers"][:2])
