"""`report` and `explain`: counts, codes, and one reason for every edge of a network."""

import json

import pytest

from cnncc.errors import CODES

PUBLISHED = {
    "lenet5_modern": (61_706, 416_520),
    "resnet18": (11_689_512, 1_814_073_344),
    "mobilenet": (4_231_976, 568_740_352),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_report_as_json_has_the_published_counts(name, shell):
    numbers = json.loads(shell("report", name, "--json").out)
    assert (numbers["params"], numbers["macs"]) == PUBLISHED[name]


def test_report_shows_every_layer_and_the_totals(shell, small):
    done = shell("report", small, "--arg", "classes=5")
    assert done.code == 0
    assert "c.relu" in done.out
    assert f"params       {4 * 2 * 9 + 4 + 5 * 4 * 36 + 5}" in done.out


def test_report_shows_conditions_on_symbolic_extents(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[3, H, W]\n  output y = x -> maxpool(2x2)\n}\n")
    assert shell("report", path).out.count("condition  ") == 2
    assert len(json.loads(shell("report", path, "--json").out)["conditions"]) == 2


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code, shell):
    done = shell("explain", code)
    assert done.code == 0
    assert done.out == CODES[code].text(code)


def test_an_unknown_code_suggests_others(shell):
    done = shell("explain", "e9999")
    assert (done.code, done.out) == (1, "")
    assert "E9999" in done.err
    assert shell("explain", "e0202").out.startswith("E0202")


@pytest.mark.parametrize("train", [[], ["--train"]], ids=["inference", "training"])
@pytest.mark.parametrize("name", ["lenet_digits", "resnet18", "googlenet", "mobilenet"])
def test_every_edge_has_exactly_one_reason(name, train, shell):
    ledger = json.loads(shell("explain", name, *train, "--json").out)
    home = {node: i for i, k in enumerate(ledger["kernels"]) for node in k["nodes"]}
    edges = [(e["producer"], e["consumer"]) for e in ledger["edges"]]
    assert len(edges) == len(set(edges))
    for edge in ledger["edges"]:
        assert edge["rule"]
        assert edge["reason"]
        assert edge["kernel"] == home.get(edge["consumer"])
        if edge["rule"] != "concat in place":
            assert edge["fused"] == (home.get(edge["producer"]) == edge["kernel"] is not None)
        assert (edge["bytes_saved"] != 0) == edge["fused"]
    for number, kernel in enumerate(ledger["kernels"]):
        into = {p for p, c in edges if home.get(c) == number}
        assert set(kernel["reads"]) <= into


def test_the_text_of_the_ledger_has_every_edge(shell):
    ledger = json.loads(shell("explain", "resnet18", "--json").out)
    text = shell("explain", "resnet18").out
    lines = [line.split() for line in text.splitlines() if line.startswith("  ")]
    shown = [(words[1], words[3]) for words in lines]
    assert sorted(shown) == sorted((e["producer"], e["consumer"]) for e in ledger["edges"])
    fused = shell("explain", "resnet18", "--fused").out
    assert sum(line.startswith("  ") for line in fused.splitlines()) == sum(
        e["fused"] for e in ledger["edges"]
    )
    assert "  - " not in fused


def test_nofuse_is_the_reason_where_the_spec_says_it(shell, tmp_path):
    path = tmp_path / "net.cnn"
    text = "net a {\n  input x: f32[2, 8, 8]\n  c = x -> conv(4, 3x3)\n"
    path.write_text(text + "  output y = relu(c)\n}\n")
    assert json.loads(shell("explain", path, "--json").out)["edges"][-1]["fused"]
    path.write_text(text + "  nofuse(c)\n  output y = relu(c)\n}\n")
    last = json.loads(shell("explain", path, "--json").out)["edges"][-1]
    assert (last["fused"], last["rule"]) == (False, "nofuse")


def test_explain_says_which_weights_are_in_bf16(shell, small):
    out = shell("explain", small, "--precision", "bf16").out.splitlines()
    assert out[0] == "bf16: 1 of 2 layers with weights, 432 of 504 weights"
    assert out[1].startswith("  - c (conv)")
    assert "each weight takes part in 36 products per sample" in out[1]
    assert out[2].startswith("  + y (dense)")
    assert "one product per sample" in out[2]
    assert "bf16" not in shell("explain", small).out
    ledger = json.loads(shell("explain", small, "--precision", "bf16", "--json").out)
    assert [(c["layer"], c["bf16"]) for c in ledger["bf16"]] == [("c", False), ("y", True)]
    assert "bf16" in [name for k in ledger["kernels"] for name in k["operators"]]


@pytest.mark.parametrize("verb", ["explain", "compile"])
def test_bf16_is_for_inference(verb, shell):
    done = shell(verb, "lenet_digits", "--train", "--precision", "bf16")
    assert (done.code, done.out) == (2, "")
    assert "--precision bf16 is for inference" in done.err


def test_report_counts_weights_in_bf16(shell, small):
    plain, half = (
        json.loads(shell("report", small, "--precision", p, "--json").out)
        for p in ("default", "bf16")
    )
    assert plain["fused_traffic_bytes"] - half["fused_traffic_bytes"] == 2 * 432
    kept = [r["memory"]["inference"]["parameters"] for r in (plain, half)]
    assert kept[1] - kept[0] >= 2 * 432  # beside those that state_dict gives back
