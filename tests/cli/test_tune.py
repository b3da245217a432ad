"""`tune`: what it measures, keeps, and what later compiles make of it. Times are given, so that no
test depends on how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnncc
from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.compiler import front, kernels
from cnncc.model import programs as programs_module
from cnncc.model import tuning
from cnncc.model.network import Network
from cnncc.model.programs import Options, Programs
from cnncc.model.tuning import Tuning, tune
from cnncc.passes.choices import Choice, Choices, form
from cnncc.passes.winograd import chosen, costs
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.program_step import Step

TEXT = """\
net two {
  input x: f32[16, 9, 28]
  a = x -> conv(16, 3x3, pad = same) -> relu
  b = a -> conv(16, 3x3, pad = same) -> relu
  output y = b -> conv(16, 1x1, stride = 2, fit = floor)
}
"""
TURNS = 3
DIRECT, F2, F4 = 0, 2, 4

Times = Callable[[Step], float]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of kernels for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nothing_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Choices are used, and there are none yet; widths are left out, but where they are meant."""
    monkeypatch.setitem(tuning.MOST, "width", 0)
    monkeypatch.setenv("CNNCC_TUNED", "1")
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(cache))
    yield
    for path in cache.glob("tuned_*"):
        path.unlink()


def tuned(times: Times, text: str = TEXT, exact: bool = False, **options: Any) -> Tuning:
    """`tune` in a world in which steps take the times that are given."""

    def timer(step: Step | None, run: Callable[[], object]) -> float:
        run()
        return times(step) if step is not None else 0.0

    network = Network.read(text, {})
    graph = network.inference.graph
    batch = options.pop("batch", 1)
    inputs = random_inputs(graph, concrete_shape(graph, batch, {}))
    return tune(network, inputs, Options(threads=1, exact=exact), batch=batch, extents={},
                turns=TURNS, timer=timer, **options)  # fmt: skip


def algorithm_of(step: Step) -> int | None:
    """The m of the product of a step, 0 for a direct convolution of 3x3."""
    kernels = [part.kernel for part in (step, *step.parts) if part.kernel]  # of bands: its parts'
    for node in (node for kernel in kernels for node in kernel.nodes):
        if node.op.name == "winograd_product":
            return {16: F2, 36: F4}[node.type.shape[1]]  # type: ignore[index]
        if node.op.name == "conv" and node.op.window[0].size == 3:  # type: ignore[attr-defined]
            return DIRECT
    return None


def by_algorithm(direct: float, two: float, four: float) -> Times:
    """Times of the steps that multiply; transforms take none."""
    times = {DIRECT: direct, F2: two, F4: four, None: 0.0}
    return lambda step: times[algorithm_of(step)]


def outputs(**options: Any) -> tuple[Any, set[str]]:
    """The result of a compiled network, and the operators of its kernels."""
    batch = options.get("batch") or 1
    x = np.random.default_rng(0).standard_normal((batch, 16, 9, 28)).astype(np.float32)
    model = cnncc.compile(TEXT, num_threads=1, **options)
    names = {n.op.name for n in model._programs.inference.graph.nodes}
    return model(x), names


def test_what_is_faster_is_kept_and_compiled() -> None:
    before, plain = outputs()
    assert "winograd_product" not in plain, "the cost model takes such a layer to be too small"
    found = tuned(by_algorithm(direct=3.0, two=1.0, four=2.0))
    (group,) = [f for f in found.found if f.group.kind == "algorithm"]
    assert group.group.layers == ("a", "b")
    assert group.chosen == F2
    gains = {c.value: c.turns.gain for c in group.candidates}
    assert gains == pytest.approx({F2: 2 / 3, F4: 1 / 3})
    assert outputs()[1] == plain, "nothing is kept until it is saved"
    found.save()
    after, names = outputs()
    assert {"winograd_product", "winograd_output"} <= names
    assert 0 < np.linalg.norm(after - before) < 1e-5 * np.linalg.norm(before)


def test_all_ways_to_run_have_the_bits_of_the_choice() -> None:
    tuned(by_algorithm(direct=3.0, two=1.0, four=2.0)).save()
    expected = outputs()[0]
    for options in ({"target": "interp"}, {"fuse": False}):
        assert np.array_equal(outputs(**options)[0], expected)


def test_only_calls_of_the_kind_that_was_measured_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(by_algorithm(direct=3.0, two=1.0, four=2.0)).save()
    assert "winograd_product" in outputs(batch=1)[1]
    assert "winograd_product" not in outputs(batch=2)[1]
    assert "winograd_product" not in outputs(precision="exact")[1]
    monkeypatch.setenv("CNNCC_TUNED", "0")
    assert "winograd_product" not in outputs()[1]


def test_exact_precision_never_gets_another_algorithm() -> None:
    found = tuned(by_algorithm(direct=3.0, two=1.0, four=2.0), exact=True)
    assert not [f for f in found.found if f.group.kind == "algorithm"]
    assert not found.choices


def test_a_gain_inside_the_noise_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    found = tuned(lambda step: float(rng.uniform(0.5, 1.5)))
    assert not found.choices or all(f.confirmed is not None for f in found.found if f.chosen)
    same = tuned(by_algorithm(direct=1.0, two=0.99, four=0.985))
    assert not same.choices
    assert same.call is None


def test_what_is_not_faster_a_second_time_is_not_chosen() -> None:
    seen: dict[int | None, int] = {}

    def times(step: Step) -> float:
        algorithm = algorithm_of(step)
        seen[algorithm] = seen.get(algorithm, 0) + 1
        lucky = algorithm == F4 and seen[algorithm] <= 2 * (TURNS + 1)  # two layers, and a warm-up
        return 0.0 if algorithm is None else 0.5 if lucky else 1.0

    (group,) = [f for f in tuned(times).found if f.group.kind == "algorithm"]
    assert group.confirmed is not None
    assert group.confirmed.gain == pytest.approx(0, abs=1e-6)
    assert group.chosen is None


def steps_of_the_model() -> tuple[Step, ...]:
    """The steps of the network as the cost models choose."""
    return cnncc.compile(TEXT, num_threads=1)._programs.inference.program.steps  # type: ignore[union-attr]


def width_of(step: Step) -> int:
    return step.emitted.segments[0].schedule.width if step.emitted else 0


def test_a_width_that_is_faster_changes_the_kernel_and_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tuning.MOST, "width", 4)
    before, _ = outputs()
    texts = cnncc.compile(TEXT, num_threads=1, batch=1).emitted
    models = {width_of(step) for step in steps_of_the_model()}
    found = tuned(lambda step: 2.0 if width_of(step) in models else 1.0)
    widths = {f.chosen for f in found.found if f.group.kind == "width" and f.chosen is not None}
    assert widths
    assert not widths & models
    found.save()
    after, _ = outputs()
    assert np.array_equal(before, after)
    again = [cnncc.compile(TEXT, num_threads=1, batch=1).emitted for _ in range(2)]
    assert again[0] == again[1], "the same choices give the same text"
    assert again[0] != texts


def test_measuring_anew_forgets_what_is_not_faster_any_more() -> None:
    tuned(by_algorithm(direct=3.0, two=1.0, four=2.0)).save()
    tuned(by_algorithm(direct=1.0, two=1.0, four=2.0)).save()
    assert "winograd_product" not in outputs()[1]


def test_a_network_that_is_slower_as_a_whole_stays_as_it_is() -> None:
    calls = iter([1.0, 2.0] * 100)
    network = Network.read(TEXT, {})
    inputs = random_inputs(network.inference.graph, concrete_shape(network.inference.graph, 1, {}))
    fast = by_algorithm(direct=3.0, two=1.0, four=2.0)
    whole: list[bool] = []

    def timer(step: Step | None, run: Callable[[], object]) -> float:
        run()
        if step is not None:
            return fast(step)
        return next(calls) if whole else 0.0

    def progress(what: str, done: int, of: int) -> None:
        if what == "whole calls":
            whole.append(True)

    found = tune(network, inputs, Options(threads=1), batch=1, extents={}, turns=1, timer=timer,
                 progress=progress)  # fmt: skip
    assert found.call is not None
    assert found.call.is_slower
    assert not found.choices


def test_algorithms_whose_results_are_too_far_away_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "CLOSE", 1e-12)
    with pytest.warns(RuntimeWarning, match="left out, because a result is"):
        found = tuned(by_algorithm(direct=3.0, two=1.0, four=2.0))
    assert not found.choices.algorithms


def test_a_number_that_is_none_any_more_is_infinitely_far_away() -> None:
    x = np.array([1.0, np.nan, np.inf, 0.0])
    assert tuning._furthest({"y": x}, {"y": x.copy()}) == 0
    assert tuning._furthest({"y": x}, {"y": np.array([np.nan, np.nan, np.inf, 0.0])}) == np.inf
    near = tuning._furthest({"y": x}, {"y": np.array([1.001, np.nan, np.inf, 0.0])})
    assert near == pytest.approx(1e-3)


@pytest.mark.parametrize("claim", ["require fused(a)", "expect memory <= 1_000_000_000"])
def test_a_spec_that_claims_something_of_a_layer_keeps_its_kernels(claim: str) -> None:
    text = TEXT.replace("  output y", f"  {claim}\n  output y")
    checked = front(text)
    node = next(n for n in checked.graph.nodes if costs(n, checked.graph))
    measured = Choices({form(node, checked.graph): Choice(F2)})
    fused = kernels(checked.graph, checked.module, choices=measured)
    assert node.op.name in {n.op.name for n in fused.kernel_of(node.name).nodes}


def test_all_programs_of_a_model_make_the_same_choices() -> None:
    """What inference claims binds evaluation too, or the two would differ by rounding."""
    trained = (
        f"{TEXT}\ntrain two {{\n  target wanted: f32[16, 5, 14]\n  loss = mse(y, wanted)\n"
        "  optimizer = sgd(lr = 0.1)\n}\n"
    )
    for text in (trained, trained.replace("  output y", "  require fused(a)\n  output y")):
        network = Network.read(text, {})
        graph = network.inference.graph
        node = next(n for n in graph.nodes if costs(n, graph))
        measured = Choices({form(node, graph): Choice(F2)})
        programs = Programs(network, Options(choices=measured), False)
        programs.start_from(0)
        found = [
            {n.name: n.op.m for n in made.graph.nodes if n.op.name == "winograd_output"}
            for made in (programs.inference, programs.evaluation.runtime)
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("batch", [1, 7])
def test_run_asks_for_what_was_measured_for_its_batch(
    shell: Callable[..., Any], two: Path, tmp_path: Path, batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[int] = []
    right = programs_module.saved_choices

    def saved(key: Any) -> Choices:
        asked.append(key.batch)
        return right(key)

    monkeypatch.setattr(programs_module, "saved_choices", saved)
    model = cnncc.compile(two)
    model.save(tmp_path / "w.safetensors")
    np.save(tmp_path / "x.npy", np.zeros((2, *model._inputs[0].type.shape), np.float32))
    asked.clear()
    done = shell("run", two, "--weights", tmp_path / "w.safetensors", "--batch", batch,
                 "--input", tmp_path / "x.npy")  # fmt: skip
    assert done.code == 0, done.err
    assert asked == [batch]


def test_choices_stand_against_the_model_in_both_directions() -> None:
    checked = front("net n {\n  input x: f32[32, 28, 28]\n  output y = x -> conv(32, 3x3)\n}\n")
    node = next(n for n in checked.graph.nodes if costs(n, checked.graph))
    assert chosen(node, checked.graph) == F4
    for m, operators in ((DIRECT, {"conv"}), (F2, {"winograd_output"}), (7, {"winograd_output"})):
        measured = Choices({form(node, checked.graph): Choice(m)})
        fused = kernels(checked.graph, checked.module, choices=measured)
        assert operators <= {n.op.name for k in fused.kernels for n in k.nodes}
        widths = {n.type.shape[1] for k in fused.kernels for n in k.nodes
                  if n.op.name == "winograd_product"}  # fmt: skip
        assert widths == {DIRECT: set(), F2: {16}, 7: {36}}[m], "7 is no algorithm: the model's"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.cnn"
    path.write_text(TEXT)
    return path


def test_a_cache_folder_that_cannot_be_used_is_refused_before_measuring(
    shell: Callable[..., Any], two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    others.chmod(0o777)
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(others))
    done = shell("tune", two)
    assert done.code == 2
    assert "set CNNCC_CACHE_DIR to a folder of your own, or only measure" in done.err
    assert done.out == ""


def test_the_verb_prints_measurements_and_keeps_choices(
    shell: Callable[..., Any], two: Path, cache: Path
) -> None:
    done = shell("tune", two, "--threads", 1, "--turns", 1, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["name"], found["batch"], found["threads"]) == ("two", 1, 1)
    kinds = {c["kind"]: c for c in found["choices"]}
    assert kinds["algorithm"]["layers"] == ["a", "b"]
    assert {c["value"] for c in kinds["algorithm"]["candidates"]} == {F2, F4}
    for c in kinds["algorithm"]["candidates"]:
        assert c["seconds"] > 0
        assert c["gain"] == pytest.approx(1 - c["seconds"] / c["seconds_before"])
        assert c["spread"] == [c["gain"], c["gain"]]
    assert [str(p) for p in cache.glob("tuned_*")] == [found["saved"]]


def test_a_dry_run_keeps_nothing(shell: Callable[..., Any], two: Path, cache: Path) -> None:
    done = shell("tune", two, "--threads", 1, "--turns", 1, "--dry-run")
    assert done.code == 0, done.err
    assert "nothing is kept: --dry-run" in done.out
    assert "F(2x2)" in done.out
    assert not list(cache.glob("tuned_*"))


def test_explain_says_what_was_measured(
    shell: Callable[..., Any], two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen_line() -> str:
        lines = shell("explain", two).out.splitlines()
        line: str = lines[-1]
        return line if "algorithms, and what was measured:" in lines else ""

    assert chosen_line() == "", "nothing was measured, and nothing but definitions is used"
    found = tuned(by_algorithm(direct=3.0, two=1.0, four=2.0))
    cores = replace(found, key=replace(found.key, threads=detect().cores))
    cores.save()  # explain speaks of a call on all of them
    assert "F(2x2)   measured: 2e+03 ms against 6e+03 with direct, a gain of +67%" in chosen_line()
    choices = json.loads(shell("explain", two, "--json").out)["choices"]
    assert [(c["layers"], c["value"], c["model"]) for c in choices] == [(["a", "b"], F2, DIRECT)]
    assert choices[0]["measured_gain"] == pytest.approx(2 / 3)
    monkeypatch.setenv("CNNCC_TUNED", "0")
    assert chosen_line() == ""
