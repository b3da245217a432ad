"""Steps of the optimizers against PyTorch's, and initial values against their definitions."""

import hashlib
import math

import numpy as np
import pytest

from cnncc.graph.layer import Init
from cnncc.graph.module import Choice
from cnncc.train.data.order import random_bits
from cnncc.train.init import BLOCK, PART, drawn, fans
from cnncc.train.optim import ENDLESS, Optimizer, schedule_of
from cnncc.train.schedule import Constant, Cosine, Step, WarmUp
from tests.train.small import blobs, perceptron

# the optimizer in the language, and in PyTorch
OPTIMIZERS = {
    "sgd(lr = 0.1)": ("SGD", {"lr": 0.1}),
    "sgd(lr = 0.1, momentum = 0.9, weight_decay = 0.01)": (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    ),
    "sgd(lr = 0.1, momentum = 0.9, weight_decay = 0.01, nesterov = true)": (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    ),
    "adam(lr = 0.01, weight_decay = 0.1)": ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw(lr = 0.01, beta1 = 0.8, beta2 = 0.95, eps = 1e-6, weight_decay = 0.1)": (
        "AdamW",
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("ours", OPTIMIZERS)
def test_steps_equal_pytorch(ours: str):
    torch = pytest.importorskip("torch")
    name, settings = OPTIMIZERS[ours]
    model = perceptron(ours)
    theirs = {k: torch.tensor(v, requires_grad=True) for k, v in model.state_dict().items()}
    optimizer = getattr(torch.optim, name)(theirs.values(), **settings)
    x, label = blobs(12)
    for _ in range(5):
        hidden = torch.tanh(torch.tensor(x) @ theirs["h.weight"].T + theirs["h.bias"])
        scores = hidden @ theirs["y.weight"].T + theirs["y.bias"]
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(label))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model.step(x, label) == pytest.approx(loss.item(), rel=1e-5)
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value, theirs[key].detach().numpy(), rtol=2e-5, atol=2e-6)


def test_numbers_are_rounded_once():
    adam = Choice(
        "adam",
        (("lr", 0.001), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8), ("weight_decay", 0.0)),
    )
    numbers = Optimizer(adam, Constant()).numbers(2, 0.001)
    assert numbers["step.rest2"] == np.float32(1 - 0.999)
    assert numbers["step.step"] == np.float32(0.001 / (1 - 0.9**3))
    assert numbers["step.root"] == np.float32(math.sqrt(1 - 0.999**3))
    assert numbers["step.keep"] == 1


def test_a_schedule_is_read_with_those_inside_it():
    inner = Choice("cosine", (("epochs", 5), ("min", 0.01)))
    found = schedule_of(Choice("warm_up", (("steps", 10), ("then", inner))))
    assert found == WarmUp(10, Cosine(5, 0.01))


def test_outside_of_epochs_schedules_stay_at_their_beginning():
    sgd = Choice("sgd", (("lr", 0.5), ("momentum", 0.0), ("weight_decay", 0.0)))
    assert Optimizer(sgd, Step(1, 0.1)).rate(10**6) == 0.5
    assert Optimizer(sgd, Step(1, 0.1)).rate(10**6, 10**6) == pytest.approx(0.05)
    assert ENDLESS > 2**60


def test_another_learning_rate():
    optimizer = perceptron("adam(lr = 0.1)").optimizer.with_lr(0.5)
    assert optimizer.lr == 0.5
    assert optimizer.choice["beta1"] == 0.9
    for wrong in (0, -1.0, math.inf, math.nan, "fast"):
        with pytest.raises(ValueError, match="lr must be"):
            optimizer.with_lr(wrong)  # type: ignore[arg-type]


# --- initial values ---

KERNEL = (64, 32, 3, 3)


@pytest.mark.parametrize(
    ("kind", "std"),
    [
        ("he", math.sqrt(2 / 288)),
        ("lecun", math.sqrt(1 / 288)),
        ("glorot", math.sqrt(6 / (288 + 576)) / math.sqrt(3)),
    ],
)
def test_spread_of_initial_values(kind: str, std: float):
    values = drawn(Init(kind), KERNEL, 0, "c1.weight").astype(np.float64)
    # the mean of n values lies within 5 std / sqrt(n) of 0, their spread within 5 / sqrt(2n) of 1
    assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
    assert values.std() == pytest.approx(std, rel=5 / math.sqrt(2 * values.size))


def test_shapes_of_the_distributions():
    uniform = drawn(Init("uniform", (0.25,)), (10_000,), 1, "w") / 0.25
    assert -1 <= uniform.min() < -0.99
    assert 0.99 < uniform.max() <= 1
    assert np.mean(uniform**4) == pytest.approx(1 / 5, abs=0.01)
    normal = drawn(Init("normal", (2.0,)), (40_001,), 1, "w") / 2
    assert np.mean(normal**4) == pytest.approx(3, abs=0.15)
    assert np.mean(np.abs(normal) < 1) == pytest.approx(0.6827, abs=0.01)
    assert abs(np.corrcoef(normal[:20_000], normal[20_000:40_000])[0, 1]) < 0.03


def test_given_values():
    assert (drawn(Init("constant", (0.5,)), (2, 3), 0, "w") == 0.5).all()
    assert (drawn(Init("ones"), (2,), 0, "w") == 1).all()
    literal = Init("literal", literal=((1.0, 2.0), (3.0, 4.0)))
    assert drawn(literal, (2, 2), 0, "w").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="no initialiser 'hey'"):
        drawn(Init("hey"), (2,), 0, "w")


def test_a_parameter_depends_on_seed_and_name_alone():
    first = drawn(Init("he"), KERNEL, 7, "c1.weight")
    assert np.array_equal(first, drawn(Init("he"), KERNEL, 7, "c1.weight"))
    assert not np.array_equal(first, drawn(Init("he"), KERNEL, 8, "c1.weight"))
    assert not np.array_equal(first, drawn(Init("he"), KERNEL, 7, "c2.weight"))


@pytest.mark.parametrize("count", [1, 5, 2 * BLOCK + 7, PART + 2 * BLOCK + 1])
def test_values_come_from_the_parts_streams_whatever_is_drawn_at_a_time(count: int):
    values = drawn(Init("normal", (2.0,)), (count,), 3, "w")
    key = int.from_bytes(hashlib.sha256(b"w").digest()[:8], "little")
    for number, start in enumerate(range(0, count, PART)):
        part = values[start : start + PART]
        bits = random_bits(-(-len(part) // 2), 3, key, number)
        u, v = (b.astype(np.float64) * 2.0**-32 for b in (bits >> 32, bits & 0xFFFFFFFF))
        radius, angle = 2 * np.sqrt(-2 * np.log(1 - u)), 2 * np.pi * v
        whole = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: len(part)]
        assert np.array_equal(part, whole.astype(np.float32))


def test_large_parameters_do_not_repeat_themselves():
    values = drawn(Init("uniform", (1.0,)), (PART + 100,), 0, "w")
    assert not np.array_equal(values[:100], values[PART:])


def test_fans():
    assert fans(KERNEL) == (288, 576)
    assert fans((10, 84)) == (84, 10)
    assert fans((32, 1, 3, 3)) == (9, 288), "depthwise: one input channel per group"
    assert fans((16,)) == (1, 1)
