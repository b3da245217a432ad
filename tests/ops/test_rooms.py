"""What single operators promise beyond agreeing with their oracle: NaN and infinity, overflow,
random masks, accuracy, error messages, symbolic extents.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import ArgumentError
from cnncc.graph.sources import Input
from cnncc.ops import LAYERS, OPERATORS
from cnncc.ops.dropout import RNG, Dropout
from cnncc.ops.elementwise import Normalize
from cnncc.ops.embed import Embed
from cnncc.ops.loss import CrossEntropy
from cnncc.ops.moments import BatchMoments, Moments
from cnncc.ops.optimizer import AdamNumbers, adam, sgd
from cnncc.ops.rectifier import Elu, LeakyRelu, Relu, ReluGrad
from cnncc.ops.reduce import CHANNEL, Sum
from cnncc.ops.sigmoidal import Gelu, Sigmoid, Softplus, Stanh, Tanh
from cnncc.ops.softmax import Softmax
from cnncc.tensor import DType, TensorType, evaluate, symbol
from tests.ops.evaluate import evaluate as evaluate_graph
from tests.ops.evaluate import run_nest
from tests.ops.layers import network

torch = pytest.importorskip("torch")
F = torch.nn.functional

SPECIAL = np.array(
    [[np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-40, 100.0, -100.0, 1.0, -1.0]], np.float32
)
LINE = TensorType(DType.F32, (SPECIAL.size,))


@pytest.mark.parametrize(
    ("op", "twin"),
    [
        (Relu(), F.relu),
        (LeakyRelu(0.25), lambda x: F.leaky_relu(x, 0.25)),
        (Elu(), F.elu),
        (Gelu(), F.gelu),
        (Sigmoid(), torch.sigmoid),
        (Tanh(), torch.tanh),
        (Stanh(), lambda x: 1.7159 * torch.tanh(2 / 3 * x)),
        (Softplus(), F.softplus),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_special_values_as_torch(op: object, twin: object) -> None:
    result = run_nest(op, (LINE,), (SPECIAL,), batch=1)
    expected = twin(torch.tensor(SPECIAL, dtype=torch.float64)).numpy().astype(np.float32)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-38)


def test_gradient_of_relu_keeps_nan_as_torch() -> None:
    x = torch.tensor(SPECIAL, requires_grad=True)
    dy = np.arange(1, SPECIAL.size + 1, dtype=np.float32)[None]
    y = F.relu(x)
    y.backward(torch.tensor(dy))
    result = run_nest(ReluGrad(), (LINE, LINE), (y.detach().numpy(), dy), batch=1)
    np.testing.assert_array_equal(result, x.grad.numpy())


def test_huge_scores_do_not_overflow() -> None:
    scores = np.array([[1e30, -1e30, 0.0], [200.0, 100.0, -500.0]], np.float32)
    label = np.array([[1], [0]])
    types = (TensorType(DType.F32, (3,)), TensorType(DType.I64, (1,)))
    expected = F.cross_entropy(torch.tensor(scores), torch.tensor(label[:, 0]), reduction="none")
    loss = run_nest(CrossEntropy(), types, (scores, label))
    np.testing.assert_allclose(loss[:, 0], expected.numpy(), rtol=1e-6)
    shares = run_nest(Softmax(), types[:1], (scores,))
    np.testing.assert_allclose(shares, F.softmax(torch.tensor(scores), 1).numpy(), rtol=1e-6)


def test_sum_adds_rows_first() -> None:
    """The order is part of the result: one partial sum per sample and row, in float32."""
    x = (np.random.default_rng(0).standard_normal((2, 3, 5, 7)) * 1e3).astype(np.float32)
    total = np.zeros(3, np.float32)
    for sample in x:
        for row in range(5):
            part = np.zeros(3, np.float32)
            for column in range(7):
                part = part + sample[:, row, column]
            total = total + part
    result = run_nest(Sum((CHANNEL,)), (TensorType(DType.F32, (3, 5, 7)),), (x,))
    np.testing.assert_array_equal(result, total)


def test_moments_survive_a_large_mean() -> None:
    x = (np.random.default_rng(0).standard_normal((4, 3, 9, 9)) + 1e4).astype(np.float32)
    types = (TensorType(DType.F32, (3, 9, 9)),)
    m = run_nest(Moments(), types, (x,), batch=4)
    stats = run_nest(BatchMoments(81), (TensorType(DType.F32, (2, 3)),), (m,), batch=4)
    wide = x.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(stats[0], wide.mean(axis=1), rtol=1e-6)
    # a mean of 1e4 has a step of 1e-3 in float32; mean(x^2) - mean(x)^2 would be wrong by about 6
    np.testing.assert_allclose(stats[1], wide.var(axis=1), rtol=1e-3)
    np.testing.assert_allclose(stats[2], wide.var(axis=1, ddof=1), rtol=1e-3)


# --- dropout --------------------------------------------------------------------------------------

WIDE = TensorType(DType.F32, (10_000,))


def mask(seed: int, step: int, stream: int, p: float = 0.3, dtype: type = np.float32) -> np.ndarray:
    ones = np.ones((1, 10_000), dtype)
    op = Dropout(p, stream)
    return run_nest(op, (WIDE, RNG), (ones, np.array([seed, step])), dtype, batch=1) != 0


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    ones = np.ones((1, 10_000), np.float32)
    y = run_nest(Dropout(0.3), (WIDE, RNG), (ones, np.array([1, 2])), batch=1)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(np.mean(y == 0) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 10_000)


def test_dropout_masks_are_functions_of_seed_step_and_stream() -> None:
    first = mask(7, 3, 0)
    assert np.array_equal(first, mask(7, 3, 0))
    for other in (mask(8, 3, 0), mask(7, 4, 0), mask(7, 3, 1), mask(-7, 3, 0)):
        assert abs(np.mean(first != other) - 2 * 0.3 * 0.7) < 0.03


def test_dropout_drops_the_same_elements_in_float64() -> None:
    for p in (0.1, 0.3, 0.7):
        assert np.array_equal(mask(1, 1, 0, p), mask(1, 1, 0, p, np.float64))


@pytest.mark.parametrize("p", [0.1, 0.2, 1 / 3, 0.9, 1e-9])
def test_dropout_compares_with_a_multiple_of_the_generators_step(p: float) -> None:
    """Otherwise p would round differently in float32 and float64."""
    threshold = Dropout(p).threshold
    assert threshold == np.float32(threshold)
    assert threshold * 2**24 == np.ceil(p * 2**24)


def test_dropout_is_nothing_at_inference() -> None:
    net = network("dropout", (5,))
    assert net.output is net.inputs[0]
    assert network("dropout", (5,), train=True).output.op == Dropout(0.5, 0)


# --- optimisers -----------------------------------------------------------------------------------


def optimise(kind: str, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The weight after some steps of ours and of PyTorch's optimiser, in float64."""
    rng = np.random.default_rng(0)
    rate, decay, eps = 0.1, 0.02, 1e-8
    w = rng.standard_normal((3, 4))
    twin = torch.tensor(w.copy(), requires_grad=True)
    settings = {"lr": rate, "weight_decay": decay}
    optimiser = {
        "sgd": lambda: torch.optim.SGD([twin], momentum=0.9, **settings),
        "adam": lambda: torch.optim.Adam([twin], eps=eps, **settings),
        "adamw": lambda: torch.optim.AdamW([twin], eps=eps, **settings),
    }[kind]()

    b = Builder("step")

    def number(name: str) -> Node:
        return b.add(Input(TensorType(DType.F32, (1,), batched=False)), name=name)

    names = ("w", "g", "m", "v")
    tensor = TensorType(DType.F32, (3, 4), batched=False)
    weight, gradient, mean, square = (b.add(Input(tensor), name=name) for name in names)
    if kind == "sgd":
        numbers = {n: number(n) for n in ("rate", "momentum", "decay")}
        results = sgd(b, weight, gradient, mean, **numbers)
    else:
        fields = ("rest1", "beta2", "rest2", "decay", "keep", "step", "root", "eps")
        numbers = {n: number(n) for n in fields}
        results = adam(b, weight, gradient, mean, square, AdamNumbers(**numbers))
    graph = b.graph([])

    m = v = np.zeros((3, 4))
    for t in range(1, steps + 1):
        g = rng.standard_normal((3, 4))
        constants = {
            "rate": rate, "momentum": 0.9, "rest1": 0.1, "beta2": 0.999, "rest2": 0.001,
            "decay": 0.0 if kind == "adamw" else decay,
            "keep": 1 - rate * decay if kind == "adamw" else 1.0,
            "step": rate / (1 - 0.9**t), "root": np.sqrt(1 - 0.999**t), "eps": eps,
        }  # fmt: skip
        arrays = {name: np.array([value]) for name, value in constants.items()}
        values = evaluate_graph(graph, {"w": w, "g": g, "m": m, "v": v, **arrays})
        new = [values[node.name] for node in results]
        w, m, v = (*new, v) if kind == "sgd" else new
        twin.grad = torch.tensor(g)
        optimiser.step()
    return w, twin.detach().numpy()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_optimiser_steps_as_torch(kind: str) -> None:
    ours, expected = optimise(kind)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


# --- what is refused, and how ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "inputs", "arguments", "code", "words"),
    [
        ("dense", [(3, 4, 5)], {"out": 2}, "E0203", ["f32[*, 3, 4, 5]", "flatten", "60 inputs"]),
        ("add", [(3, 4, 5), (2, 4, 5)], {}, "E0201", ["f32[*, 2, 4, 5]", "1x1 convolution"]),
        ("sub", [(3, 4, 5), (3, 4, 6)], {}, "E0201", ["pad, crop or pool"]),
        ("concat", [(3, 4, 5), (2, 4, 6)], {}, "E0215", ["tensor 2: f32[*, 2, 4, 6]"]),
        ("reshape", [(3, 4, 5)], {"shape": (7, 9)}, "E0214", ["3 * 4 * 5 = 60", "7 * 9 = 63"]),
        ("relu", [TensorType(DType.U8, (3, 4))], {}, "E0210", ["u8[*, 3, 4]", "mean"]),
        ("embed", [(7,)], {"vocabulary": 5, "width": 2}, "E0210", ["i64[length]"]),
        ("mse", [(3, 4), (3, 5)], {}, "E0211", ["f32[3, 4]"]),
        ("groupnorm", [(5, 4)], {"groups": 2}, "E0204", ["2 groups", "1 group of 5 channels"]),
        (
            "cross_entropy", [(10,), TensorType(DType.I64, (4,))], {}, "E0211",
            ["class[10]", "i64[*, 4]"],
        ),
        (
            "cross_entropy", [(10, 4, 4), TensorType(DType.I64, (1,))], {}, "E0211",
            ["i64[4, 4]"],
        ),
    ],
)  # fmt: skip
def test_shape_errors_show_the_numbers_and_a_fix(
    layer: str, inputs: list[object], arguments: dict[str, object], code: str, words: list[str]
) -> None:
    with pytest.raises(ShapeError) as caught:
        network(layer, *inputs, **arguments)
    error = caught.value
    assert error.code == code
    text = "\n".join([error.rule, *error.arithmetic, *error.fixes])
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("layer", "arguments", "argument"),
    [
        ("dropout", {"p": 1.0}, "p"),
        ("dropout", {"p": -0.1}, "p"),
        ("elu", {"alpha": -1.0}, "alpha"),
        ("batchnorm", {"eps": 0.0}, "eps"),
        ("batchnorm", {"momentum": 1.5}, "momentum"),
        ("layernorm", {"eps": -1e-5}, "eps"),
        ("lrn", {"k": 0.0}, "k"),
        ("lrn", {"alpha": -1.0}, "alpha"),
    ],
)
def test_arguments_out_of_range_are_refused(
    layer: str, arguments: dict[str, float], argument: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        network(layer, (4, 5), **arguments)
    assert caught.value.argument == argument
    assert str(arguments[argument]) in caught.value.message


def test_normalize_refuses_a_wrong_number_of_channels() -> None:
    with pytest.raises(ShapeError, match="one per channel"):
        Normalize(1.0, (0.0, 0.0)).infer((TensorType(DType.U8, (3, 4)),))
    with pytest.raises(ShapeError, match="positive"):
        Normalize(1.0, (0.0,), (0.0,)).infer((TensorType(DType.U8, (3, 4)),))


def test_unknown_tokens_read_zeros() -> None:
    tokens = np.array([[0, 5, -1, 2**40]])
    weight = np.ones((5, 2), np.float32)
    types = (TensorType(DType.I64, (4,)), TensorType(DType.F32, (5, 2), batched=False))
    y = run_nest(Embed(), types, (tokens, weight), batch=1)
    np.testing.assert_array_equal(y, [[[1, 0, 0, 0], [1, 0, 0, 0]]])


# --- symbols and the language ---------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["batchnorm", "layernorm", "softmax", "lrn", "mse", "flatten"])
def test_layers_serve_symbolic_extents(layer: str) -> None:
    shape = (3, symbol("H"), symbol("W"))
    inputs = [shape] * (2 if layer == "mse" else 1)
    net = network(layer, *inputs, train=True)
    for node in net.graph.nodes:
        if node.op.name not in OPERATORS:
            continue
        nest = node.op.nest(net.graph.types(node), node.type)
        sizes = {n: evaluate(e, {"*": 2, "H": 4, "W": 5}) for n, e in nest.sizes.items()}
        assert sizes.get("positions", 20) in (20, 1)
        assert all(size >= 1 for size in sizes.values())


def test_every_layer_has_an_entry_in_the_language_reference() -> None:
    for name, layer in LAYERS.items():
        assert "Example:" in layer.doc, name
