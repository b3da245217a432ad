"""The training loop: its order, what it leaves behind, and that a run which was stopped goes on as
if it had not been.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import cnncc
from cnncc import Dataset
from cnncc.train.callbacks import Callback, EarlyStopping
from cnncc.train.checkpoint import load
from cnncc.train.log import History
from tests.train.small import CONVOLUTION, blobs, perceptron, same_state

X, LABELS = blobs(28)


def seeds_of_chance() -> cnncc.Model:
    """A model whose training needs everything that a checkpoint must keep."""
    return perceptron("adam(lr = 0.02)", schedule="cosine(epochs = 4)", dropout=True, seed=5)


def test_it_learns():
    model = perceptron("adam(lr = 0.03)")
    history = model.fit(X, LABELS, epochs=12, validation=blobs(30, 1), verbose=False)
    assert history.epochs == 12
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_accuracy"][-1] >= 0.9
    measured = model.evaluate(*blobs(30, 1), batch=7)
    assert measured["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert measured["accuracy"] == history["val_accuracy"][-1]


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path: Path):
    whole = seeds_of_chance()
    expected = whole.fit(X, LABELS, epochs=4, batch=8, log=tmp_path / "whole.csv", verbose=False)
    file = tmp_path / "run.checkpoint"
    first = seeds_of_chance()
    first.fit(
        X, LABELS, epochs=2, batch=8, checkpoint=file, log=tmp_path / "run.csv", verbose=False
    )
    second = perceptron(
        "adam(lr = 0.02)", schedule="cosine(epochs = 4)", dropout=True, seed=99
    )  # the seed of the run counts, not that of the process
    found = second.fit(
        X,
        LABELS,
        epochs=4,
        batch=8,
        checkpoint=file,
        resume=True,
        log=tmp_path / "run.csv",
        verbose=False,
    )
    assert same_state(second, whole)
    assert found == expected
    assert rows(tmp_path / "run.csv") == rows(tmp_path / "whole.csv")
    assert second.step(X[:8], LABELS[:8]) == whole.step(X[:8], LABELS[:8])


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log without the times."""
    with path.open(newline="") as stream:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(stream)]


def test_the_compiled_step_resumes_too(tmp_path: Path):
    data = cnncc.load_data("digits")
    part = Dataset(data.x[:100], data.y[:100], 10, "part")

    def run(epochs: int, **options: object) -> cnncc.Model:
        model = cnncc.compile("lenet_digits", train=True)
        model.fit(part, epochs=epochs, verbose=False, **options)  # type: ignore[arg-type]
        return model

    run(1, checkpoint=tmp_path / "c")
    assert same_state(run(2, resume=tmp_path / "c"), run(2))


def test_running_statistics_are_kept_and_used(tmp_path: Path):
    rng = np.random.default_rng(0)
    x = (3 + rng.standard_normal((12, 2, 6, 6))).astype(np.float32)
    y = rng.integers(0, 4, 12)

    def model() -> cnncc.Model:
        return cnncc.compile(CONVOLUTION, target="interp", train=True)

    whole = model()
    before = whole(x)
    whole.fit(x, y, epochs=2, verbose=False)
    assert not np.array_equal(whole(x), before)
    assert (whole.state_dict()["c1.batchnorm.running_var"] != 1).all()
    model().fit(x, y, epochs=1, checkpoint=tmp_path / "c", verbose=False)
    resumed = model()
    resumed.fit(x, y, epochs=2, resume=tmp_path / "c", verbose=False)
    assert same_state(resumed, whole)


def test_resuming_needs_the_same_run(tmp_path: Path):
    file = tmp_path / "c"
    seeds_of_chance().fit(X, LABELS, epochs=1, batch=8, checkpoint=file, verbose=False)
    with pytest.raises(cnncc.SpecError, match="its batch is 8, but here it is 4"):
        seeds_of_chance().fit(X, LABELS, epochs=2, batch=4, resume=file, verbose=False)
    with pytest.raises(cnncc.SpecError, match="its samples is 28, but here it is 20"):
        seeds_of_chance().fit(X[:20], LABELS[:20], epochs=2, batch=8, resume=file, verbose=False)
    with pytest.raises(cnncc.SpecError, match="E0707"):
        perceptron("sgd(lr = 0.1)").fit(X, LABELS, batch=8, resume=file, verbose=False)
    with pytest.raises(cnncc.SpecError, match="E0701"):
        seeds_of_chance().fit(X, LABELS, resume=tmp_path / "none", verbose=False)
    with pytest.raises(ValueError, match="but there is none"):
        seeds_of_chance().fit(X, LABELS, resume=True, verbose=False)


def test_resume_true_begins_where_there_is_no_checkpoint_yet(tmp_path: Path):
    file = tmp_path / "c"
    history = seeds_of_chance().fit(
        X, LABELS, epochs=1, batch=8, checkpoint=file, resume=True, verbose=False
    )
    assert history.epochs == 1
    found = load(file)
    assert (found.step, found.epoch, found.seed) == (4, 1, 5)
    assert set(found.params) == {"h.weight", "h.bias", "y.weight", "y.bias"}
    assert "h.weight.square" in found.optimiser


def test_the_seed_decides_everything():
    def trained(seed: int) -> cnncc.Model:
        model = perceptron(dropout=True, seed=seed)
        model.fit(X, LABELS, epochs=1, batch=5, verbose=False)
        return model

    assert same_state(trained(1), trained(1))
    assert not same_state(trained(1), trained(2))


class Listener(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_train_begin(self, model: object, history: History) -> None:
        self.heard.append(f"begin {history.epochs}")

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        self.heard.append(f"step {step} {sorted(metrics)}")

    def on_epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> bool | None:
        self.heard.append(f"epoch {epoch}")
        return None

    def on_train_end(self, history: History) -> None:
        self.heard.append(f"end {history.epochs}")


def test_callbacks_hear_of_everything_and_the_last_batch_is_smaller():
    listener = Listener()
    perceptron().fit(X[:10], LABELS[:10], epochs=1, batch=8, callbacks=[listener], verbose=False)
    steps = [f"step {n} ['accuracy', 'loss']" for n in (1, 2)]
    assert listener.heard == ["begin 0", *steps, "epoch 1", "end 1"]


def test_a_function_ends_the_run():
    history = perceptron().fit(
        X, LABELS, epochs=9, callbacks=[lambda epoch, metrics: epoch == 2], verbose=False
    )
    assert history.epochs == 2
    with pytest.raises(TypeError, match="a callback is"):
        perceptron().fit(X, LABELS, callbacks=["stop"], verbose=False)


def test_early_stopping_waits_and_restores():
    class Pretended:
        """A model whose parameters are the epoch."""

        def __init__(self) -> None:
            self.state = 0

        def state_dict(self) -> int:
            return self.state

        def load_state_dict(self, state: int) -> None:
            self.state = state

    stopping = EarlyStopping("val_loss", patience=1, restore_best=True)
    model = Pretended()
    stopping.on_train_begin(model, History())
    ends = []
    for epoch, loss in enumerate([3.0, 2.0, 2.5, math.nan, 1.0], 1):
        model.state = epoch
        ends.append(stopping.on_epoch_end(epoch, {"val_loss": loss}))
    assert ends == [False, False, False, True, False]
    stopping.on_train_end(History())
    assert model.state == 5
    upward = EarlyStopping("val_accuracy", patience=0)
    upward.on_train_begin(model, History(val_accuracy=[0.5, 0.9]))
    assert upward.on_epoch_end(3, {"val_accuracy": 0.8})
    with pytest.raises(ValueError, match="measures loss"):
        upward.on_epoch_end(4, {"loss": 1.0})
    with pytest.raises(ValueError, match="at least 0"):
        EarlyStopping(patience=-1)


def test_logs(tmp_path: Path):
    logs = [tmp_path / "log.jsonl", tmp_path / "log.csv"]
    model = perceptron(schedule="step(every = 1, gamma = 0.5)")
    history = model.fit(X, LABELS, epochs=2, batch=14, log=logs, verbose=False)
    lines = [json.loads(line) for line in logs[0].read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["lr"] for line in lines] == [0.1, 0.05] == history["lr"]
    assert [line["loss"] for line in lines] == history["loss"]
    assert [row["step"] for row in rows(logs[1])] == ["2", "4"]
    with pytest.raises(ValueError, match="a log ends in"):
        model.fit(X, LABELS, log=tmp_path / "log.txt", verbose=False)


def test_a_second_fit_is_a_run_of_its_own():
    model = perceptron(schedule="cosine(epochs = 1)")
    first = model.fit(X, LABELS, epochs=1, verbose=False)
    second = model.fit(X, LABELS, epochs=1, verbose=False)
    assert first["lr"] == second["lr"], "its schedule begins anew"
    assert second["loss"][0] < first["loss"][0], "its parameters do not"
    whole = perceptron()
    whole.fit(X, LABELS, epochs=2, verbose=False)
    halves = perceptron()
    for _ in range(2):
        halves.fit(X, LABELS, epochs=1, verbose=False)
    assert same_state(halves, whole)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_does_harm(tmp_path: Path):
    model = perceptron()
    model.fit(X, LABELS, epochs=1, batch=28, checkpoint=tmp_path / "c", verbose=False)
    before = model.state_dict()
    broken = X.copy()
    broken[3, 1] = np.nan
    with pytest.raises(cnncc.SpecError, match="the loss of step 2 is nan") as caught:
        model.fit(broken, LABELS, epochs=1, batch=28, checkpoint=tmp_path / "c", verbose=False)
    assert caught.value.diagnostics[0].code == "E0606"
    assert "smaller learning rate than 0.1" in str(caught.value)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())
    assert load(tmp_path / "c").step == 1
    assert isinstance(caught.value, ArithmeticError)


def test_a_progress_bar_is_drawn_when_asked_for(capsys: pytest.CaptureFixture[str]):
    perceptron().fit(X, LABELS, epochs=1, verbose=False)
    assert capsys.readouterr().err == ""
    perceptron().fit(X, LABELS, epochs=1, verbose=True)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "accuracy" in shown


def test_counts_are_checked():
    model = perceptron()
    for wrong in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="epochs must be a whole number"):
            model.fit(X, LABELS, epochs=wrong, verbose=False)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="batch must be a whole number"):
            model.fit(X, LABELS, batch=wrong, verbose=False)  # type: ignore[arg-type]
