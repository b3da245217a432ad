"""`train` blocks: what is recorded, what goes into the graph, and what is refused."""

import pytest

from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.graph.module import Choice, Target
from cnncc.tensor import DType, TensorType

NET = "net n(classes = 3) { input x: f32[1, 4, 4]\n output y = x -> flatten -> dense(classes) }\n"
LOSS = "target t: class[classes]\n loss = cross_entropy(y, t)\n"


def training(block: str, net: str = NET):  # type: ignore[no-untyped-def]
    return front(f"{net}train n {{\n {block}\n}}\n").module.training


def codes(block: str, net: str = NET) -> list[str]:
    with pytest.raises(SpecError) as caught:
        training(block, net)
    return [d.code for d in caught.value.diagnostics]


def test_what_is_recorded() -> None:
    found = training(
        LOSS + "optimizer = sgd(lr = 1 / 20, momentum = 0.9) schedule = cosine(epochs = 3) "
        "batch = 8 * 2 epochs = 7"
    )
    assert found.targets == (Target("t", TensorType(DType.I64, (1,)), 3),)
    assert found.optimizer["lr"] == 0.05
    assert found.optimizer["momentum"] == 0.9
    assert found.optimizer["nesterov"] is False
    assert found.schedule == Choice("cosine", (("epochs", 3), ("min", 0.0)))
    assert (found.batch, found.epochs) == (16, 7)


def test_what_is_left_out_has_defaults() -> None:
    found = training(LOSS + "optimizer = adam()")
    assert found.schedule == Choice("constant")
    assert found.optimizer.name == "adam"
    assert found.optimizer["beta2"] == 0.999
    assert (found.batch, found.epochs) == (32, 10)


def test_schedules_may_be_nested() -> None:
    found = training(
        LOSS + "optimizer = adamw() schedule = warm_up(steps = 5, then = step(every = 2))"
    )
    assert found.schedule["then"] == Choice("step", (("every", 2), ("gamma", 0.1)))


def test_the_choices_are_those_of_the_training_code() -> None:
    from dataclasses import fields

    from cnncc.graph.training import SCHEDULES
    from cnncc.train.schedule import SCHEDULES as CLASSES

    assert {n: set(a) for n, a in SCHEDULES.items()} == {
        name: {f.name for f in fields(cls)} for name, cls in CLASSES.items()
    }


def test_the_loss_is_in_the_graph_only_for_training() -> None:
    text = NET + "train n {" + LOSS + "optimizer = adam() }"
    assert [n for n, _ in front(text).graph.outputs] == ["y"]
    trained = front(text, train=True)
    assert [n for n, _ in trained.graph.outputs] == ["y", "loss"]
    assert trained.graph[dict(trained.graph.outputs)["loss"]].type.elements == 1
    assert front(text).graph.nodes == tuple(
        n for n in trained.graph.nodes if not n.name.startswith(("loss", "t"))
    )


def test_weighted_sums_of_losses() -> None:
    block = LOSS + "target z: f32[3]\n optimizer = adam()"
    block = block.replace("(y, t)", "(y, t) + 0.25 * mse(y, z)")
    graph = front(NET + f"train n {{ {block} }}", train=True).graph
    assert graph["loss"].op.name == "add"
    assert [n.op.value for n in graph.of("constant")] == [0.25]


def test_one_class_per_position() -> None:
    net = "net n { input x: f32[1, 4, 4]\n output y = x -> conv(5, 1x1) }\n"
    block = "target t: i64[4, 4]\n loss = cross_entropy(y, t)\n optimizer = adam()"
    assert training(block, net).targets == (Target("t", TensorType(DType.I64, (4, 4))),)


def test_there_is_a_score_for_every_class() -> None:
    block = LOSS.replace("class[classes]", "class[classes + 1]") + "optimizer = adam()"
    assert codes(block) == ["E0603"]


def test_training_without_a_block_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be trained"):
        front(NET, train=True)


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("optimizer = adam()", "E0601"),
        (LOSS, "E0601"),
        (LOSS + "optimizer = sgd()", "E0303"),
        (LOSS + "optimizer = sgd(0.1)", "E0602"),
        (LOSS + "optimizer = rmsprop(lr = 0.1)", "E0602"),
        (LOSS + "optimizer = 0.1", "E0602"),
        (LOSS + "optimizer = sgd(lr = 0)", "E0605"),
        (LOSS + "optimizer = sgd(lr = 0.1, nesterov = 1)", "E0605"),
        (LOSS + "optimizer = sgd(lr = same)", "E0605"),
        (LOSS + "optimizer = adam() batch = 0", "E0605"),
        (LOSS + "optimizer = adam() batch = 1.5", "E0308"),
        (LOSS + "optimizer = adam() epochs = 0 - 1", "E0605"),
        (LOSS + "optimizer = adam() steps = 5", "E0602"),
        (LOSS + "optimizer = adam() schedule = cosine()", "E0303"),
        (LOSS + "optimizer = adam() schedule = warm_up(steps = 3, then = linear())", "E0602"),
        (LOSS + "optimizer = adam() schedule = step(every = 2.5)", "E0605"),
        ("target t: class[0]\n loss = cross_entropy(y, t) optimizer = adam()", "E0603"),
        ("target t: class[2, 2]\n loss = cross_entropy(y, t) optimizer = adam()", "E0603"),
        ("target y: class[3]\n loss = cross_entropy(y, y) optimizer = adam()", "E0305"),
        ("target t: f32[3]\n loss = y optimizer = adam()", "E0604"),
        ("target t: f32[3]\n loss = 3 optimizer = adam()", "E0604"),
        ("target t: f32[3]\n loss = mse(z, t) optimizer = adam()", "E0301"),
    ],
)
def test_what_is_refused(block: str, code: str) -> None:
    assert codes(block)[0] == code
