"""`report` with its tables, `cost`, `matrix`, `trace` and `diff` as a person calls them."""

import json

import pytest


def test_units_are_counted_by_the_convention_that_is_asked_for(shell, small):
    assert "units        144, and 3 in the output" in shell("report", small).out
    counted = {
        which: json.loads(shell("report", small, "--units", which, "--json").out)["counted_units"]
        for which in ("hidden", "input", "output", "all")
    }
    assert {which: c["units"] for which, c in counted.items()} == {
        "hidden": 144, "input": 216, "output": 147, "all": 219,
    }  # fmt: skip
    assert (
        "219, those of input and output among them" in shell("report", small, "--units", "all").out
    )


@pytest.mark.parametrize(
    ("table", "cells"),
    [
        ("storage", "c 4x6x6 72 2592 2048 10_368"),
        ("operations", "c 4x6x6 2592 2592 5040 3952 20_592"),
        ("fields", "c 4x6x6 3 1 0 1"),
        ("shifts", "c 4x6x6 1 1 1..4, 1..4"),
        ("traffic", "c 4x6x6 576 1168"),
    ],
)
def test_each_table_has_its_numbers(table, cells, shell, small):
    out = shell("report", small, "--table", table).out
    assert cells in [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]


def test_several_tables_are_printed_in_the_order_given(shell, small):
    out = shell("report", small, "--table", "fields", "--table", "storage").out
    assert out.index("receptive fields") < out.index("stored floats") < out.index("params  ")


def test_fused_kernels_move_fewer_bytes(shell, small):
    found = json.loads(shell("report", small, "--json").out)
    # fused, the result of the convolution is not written and read again
    assert found["traffic_bytes"] - found["fused_traffic_bytes"] >= 2 * 4 * 144


def test_cost_multiplies(shell, small):
    done = shell("cost", small, "--examples", "1_000", "--epochs", "3")
    assert done.out.startswith("small: 28_539_000 operations, 2.85e+07\n")
    alone = shell("cost", small, "--examples", "1", "--epochs", "1", "--backward", "no", "--json")
    found = json.loads(alone.out)
    assert found["operations"] == found["per_example"] == 2592 + 144 + 3 * 144 + 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--examples", "3"], "--epochs"),
        (["--examples", "3", "--epochs", "1", "--layers", "cnv"], "conv, dense"),
        (["--examples", "3", "--epochs", "1", "--layers", "conv", "--count", "7"], "--count"),
        (["--examples", "0", "--epochs", "1"], "positive"),
        (["--examples", "3", "--epochs", "1", "--count", "flops"], "connections, macs"),
    ],
)
def test_cost_asks_for_what_it_lacks(words, message, shell, small):
    done = shell("cost", small, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_cost_takes_the_epochs_of_the_train_block(shell):
    found = json.loads(shell("cost", "lenet_digits", "--examples", "10", "--json").out)
    assert found["epochs"] == 20


def test_symbolic_networks_have_no_cost_but_a_given_one(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[1, H]\n  output y = x -> conv(1, 3)\n}\n")
    done = shell("cost", path, "--examples", "2", "--epochs", "2")
    assert done.code == 2
    assert "symbolic" in done.err
    given = shell("cost", path, "--examples", "2", "--epochs", "2", "--count", "5", "--json")
    assert json.loads(given.out)["operations"] == 2 * 2 * 5 * 3


def test_a_large_matrix_is_summed_up(shell, small):
    out = shell("matrix", small, "c").out.splitlines()
    assert out[1:] == [
        "144 x 72, 2048 of 10368 entries are not zero, 72 weights",
        "too large to print; --save writes it",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["c", "--save", "m.txt"], 2, ".npz or .csv"),
        (["d"], 1, "E0810"),
        (["c.relu"], 1, "E0811"),
        (["c", "--weights", "none.safetensors"], 1, "E0701"),
    ],
)
def test_matrices_that_cannot_be(words, code, says, shell, small):
    done = shell("matrix", small, *words)
    assert (done.code, done.out) == (code, "")
    assert says in done.err


def test_a_matrix_with_weights_from_a_file(shell, small, tmp_path):
    import numpy as np

    import cnncc

    model = cnncc.compile(small, target="interp")
    model.save(tmp_path / "w.safetensors")
    shell("matrix", small, "y", "--weights", "w.safetensors", "--save", "y.npz")
    saved = np.load(tmp_path / "y.npz")
    matrix = np.zeros(saved["shape"])
    matrix[saved["rows"], saved["columns"]] = saved["values"]
    assert np.array_equal(matrix, model.state_dict()["y.weight"])


def test_trace_prints_both_cones(shell, small):
    out = shell("trace", small, "c[1, 0, 2]").out.splitlines()
    assert out == [
        "c[1, 0, 2] of small",
        "is fed by",
        "  x  [0..1, 0..1, 1..3]  12 units",
        "feeds",
        "  c.relu     [1, 0, 2]  1 unit",
        "  y.flatten  [38]  1 unit",
        "  y          [0..2]  3 units",
    ]
    assert shell("trace", small, "y[0]").out.splitlines()[-1] == "feeds nothing"


def test_diff_of_a_network_with_itself_is_empty(shell, small):
    assert shell("diff", small, small).out.splitlines() == [
        "small -> small", "the same network", "weights: 4 tensors fit, 0 of the second are left",
    ]  # fmt: skip


def test_diff_shows_what_an_argument_changes(shell, small, tmp_path):
    other = tmp_path / "other.cnn"
    other.write_text(small.read_text().replace("classes = 3", "classes = 4"))
    out = shell("diff", small, other).out
    assert "  params           511 -> 656\n" in out
    assert "  y  f32[*, 3] -> f32[*, 4]\n" in out
    assert "  ~ y\n" in out
    assert "weights: 2 tensors fit, 2 of the second are left\n  y.weight\n  y.bias\n" in out
