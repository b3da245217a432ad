"""Learning-rate schedules against their formulas and against PyTorch."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnncc.train.schedule import SCHEDULES, Constant, Cosine, Schedule, Step, WarmUp


def rates(schedule: Schedule, steps: int, per_epoch: int, base: float = 0.1) -> list[float]:
    return [schedule.lr(step, per_epoch, base) for step in range(steps)]


def test_constant():
    assert rates(Constant(), 5, 2) == [0.1] * 5


def test_step_falls_between_epochs_only():
    found = rates(Step(every=2, gamma=0.5), 18, 3, base=1.0)
    assert found == [1.0] * 6 + [0.5] * 6 + [0.25] * 6


def test_step_equals_pytorch():
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    theirs = torch.optim.lr_scheduler.StepLR(optimiser, 3, 0.1)
    for epoch in range(10):
        ours = Step(every=3, gamma=0.1).lr(epoch * 7 + 6, 7, 0.1)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        optimiser.step()
        theirs.step()


def test_cosine_equals_pytorch_per_step():
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12, eta_min=0.01)
    for step in range(12):
        ours = Cosine(epochs=3, min=0.01).lr(step, 4, 0.1)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        theirs.step()


def test_cosine_passes_the_middle_and_stays_at_its_end():
    schedule = Cosine(epochs=10, min=0.02)
    assert schedule.lr(0, 8, 0.1) == 0.1
    assert schedule.lr(40, 8, 0.1) == pytest.approx(0.06)
    assert schedule.lr(80, 8, 0.1) == 0.02
    assert schedule.lr(10**9, 8, 0.1) == 0.02


def test_warm_up_is_linear_and_then_hands_over():
    found = rates(WarmUp(4, then=Step(every=1, gamma=0.5)), 10, 5, base=1.0)
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0] + [0.5] * 5


def test_warm_up_does_not_delay_what_follows():
    plain, warm = Cosine(epochs=2), WarmUp(5, then=Cosine(epochs=2))
    assert rates(plain, 40, 10)[5:] == rates(warm, 40, 10)[5:]


SCHEDULE = st.one_of(
    st.just(Constant()),
    st.builds(Step, every=st.integers(1, 5), gamma=st.floats(0.1, 1.0)),
    st.builds(Cosine, epochs=st.integers(1, 9), min=st.floats(0, 1e-3)),
)


@given(
    st.one_of(SCHEDULE, st.builds(WarmUp, steps=st.integers(1, 50), then=SCHEDULE)),
    st.integers(0, 10_000),
    st.integers(1, 100),
)
def test_rates_are_finite_and_never_above_the_base(schedule, step, per_epoch):
    rate = schedule.lr(step, per_epoch, 0.1)
    assert math.isfinite(rate)
    assert 0 <= rate <= 0.1
    assert rate == schedule.lr(step, per_epoch, 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(every=0), "every must be at least 1 epoch, but got 0"),
        (lambda: Step(every=1, gamma=0), "gamma must be a finite number above 0"),
        (lambda: Step(every=1, gamma=math.nan), "gamma must be a finite number above 0"),
        (lambda: Cosine(epochs=0), "epochs must be at least 1"),
        (lambda: Cosine(epochs=1, min=-1), "min must be a finite number of at least 0"),
        (lambda: WarmUp(0), "steps must be at least 1"),
        (lambda: Constant().lr(-1, 1, 0.1), "steps count from 0, but got -1"),
        (lambda: Constant().lr(0, 0, 0.1), "at least 1 step"),
        (lambda: Constant().lr(0, 1, 0.0), "lr must be a finite number above 0"),
        (lambda: Cosine(epochs=1).lr(0, 1, math.inf), "lr must be a finite number above 0"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_names_of_the_language_reach_every_schedule():
    assert sorted(SCHEDULES) == ["constant", "cosine", "step", "warm_up"]
    fields = {name: [f.name for f in dataclasses.fields(kind)] for name, kind in SCHEDULES.items()}
    assert fields == {
        "constant": [],
        "step": ["every", "gamma"],
        "cosine": ["epochs", "min"],
        "warm_up": ["steps", "then"],
    }
