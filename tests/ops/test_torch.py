"""What a layer means: values and all gradients against PyTorch's layer of that meaning, both in
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from cnncc.graph.layer import Pad, Size, Word
from cnncc.tensor import DType, TensorType
from tests.ops.layers import network

torch = pytest.importorskip("torch")
F = torch.nn.functional
ERROR = 1e-10  # relative L2, float64


@dataclass(frozen=True)
class Twin:
    """A layer with its arguments, and PyTorch's function of inputs and parameters (in the layer's
    order).
    """

    layer: str
    inputs: tuple[Any, ...]
    torch: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    train: bool = False
    classes: int = 0
    label: str = ""


def same(pad: int) -> Pad:
    return Pad(pad)


IMAGE, SIGNAL, VOLUME, VECTOR = (3, 7, 6), (3, 8), (2, 5, 4, 6), (7,)
CLASS = TensorType(DType.I64, (1,))


def twins() -> list[Twin]:
    activations: dict[str, Any] = {
        "relu": F.relu,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
        "elu": F.elu,
        "gelu": F.gelu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "stanh": lambda x: 1.7159 * torch.tanh(2 / 3 * x),
        "softplus": F.softplus,
        "softmax": lambda x: F.softmax(x, 1),
    }
    table = [Twin(name, (s,), f) for name, f in activations.items() for s in (IMAGE, VECTOR)]
    table += [
        Twin("leaky_relu", (IMAGE,), lambda x: F.leaky_relu(x, -0.3), {"slope": -0.3}),
        Twin("elu", (IMAGE,), lambda x: F.elu(x, 0.4), {"alpha": 0.4}),
        Twin("dense", (VECTOR,), F.linear, {"out": 4}),
        Twin("dense", (VECTOR,), F.linear, {"out": 1, "bias": "none"}),
        Twin("flatten", (IMAGE,), lambda x: x.flatten(1)),
        Twin("reshape", (IMAGE,), lambda x: x.reshape(-1, 14, 9), {"shape": (14, 9)}),
        Twin("concat", (IMAGE, (2, 7, 6), IMAGE), lambda *xs: torch.cat(xs, 1)),
        Twin("add", (IMAGE, IMAGE), torch.add),
        Twin("sub", (IMAGE, IMAGE), torch.sub),
        Twin("mul", (IMAGE, IMAGE), torch.mul),
        Twin("mul", (IMAGE, (3,)), lambda x, s: x * s[:, :, None, None], label="gate"),
        Twin("mul", ((3,), IMAGE), lambda s, x: x * s[:, :, None, None], label="gate-first"),
        Twin("sub", ((1,), IMAGE), lambda s, x: s[:, :, None, None] - x, label="number"),
    ]
    table += normalisations()
    table += losses()
    table += convolutions()
    table += pools()
    return table


def normalisations() -> list[Twin]:
    table = []
    for shape in (VECTOR, SIGNAL, IMAGE, VOLUME):
        table += [
            Twin(
                "batchnorm", (shape,),
                lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, training=False),
            ),
            Twin(
                "batchnorm", (shape,),
                lambda x, w, b, m, v: F.batch_norm(x, None, None, w, b, training=True, eps=1e-3),
                {"eps": 1e-3}, train=True, label="train",
            ),
            Twin("layernorm", (shape,), lambda x, w, b: F.group_norm(x, 1, w, b)),
        ]  # fmt: skip
    table.append(Twin("layernorm", (VECTOR,), lambda x, w, b: F.layer_norm(x, (7,), w, b)))
    for groups in (1, 2, 3, 6):
        twin = lambda x, w, b, g=groups: F.group_norm(x, g, w, b)  # noqa: E731 - a table entry
        for shape in ((6, 4, 3), (6, 5), (6, 2, 3, 2)):
            table.append(Twin("groupnorm", (shape,), twin, {"groups": groups}))
    for size, beta in ((5, 0.75), (2, 0.75), (3, 0.5), (4, 1.0), (5, 0.6)):
        twin = lambda x, s=size, p=beta: F.local_response_norm(x, s, 0.4, p, 2.0)  # noqa: E731
        arguments = {"size": size, "alpha": 0.4, "beta": beta, "k": 2.0}
        table.append(Twin("lrn", ((7, 4, 3),), twin, arguments))
    return table


def losses() -> list[Twin]:
    def labelled(x: Any, label: Any) -> Any:
        return F.cross_entropy(x, label.reshape(x.shape[0], *x.shape[2:])).reshape(1)

    labels = TensorType(DType.I64, (7, 6))
    return [
        Twin("cross_entropy", ((5,), CLASS), labelled, classes=5),
        Twin("cross_entropy", (IMAGE, labels), labelled, classes=3),
        Twin("mse", (VECTOR, VECTOR), lambda x, t: F.mse_loss(x, t).reshape(1)),
        Twin("mse", (IMAGE, IMAGE), lambda x, t: F.mse_loss(x, t).reshape(1)),
        Twin(
            "embed", (TensorType(DType.I64, (6,)),),
            lambda t, w: F.embedding(t, w).transpose(1, 2),
            {"vocabulary": 5, "width": 3}, classes=5,
        ),
    ]  # fmt: skip


def convolutions() -> list[Twin]:
    conv = [F.conv1d, F.conv2d, F.conv3d]
    back = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
    table = []
    for rank, shape in ((1, (4, 9)), (2, (4, 7, 9)), (3, (4, 5, 7, 5))):
        size = Size((3,) * rank)
        for groups in (1, 2, 4):
            arguments = {"out": 8, "size": size, "stride": (2,), "pad": same(1)}
            if groups > 1:
                arguments["connect"] = Word("groups", (groups,))
            twin = lambda x, w, b=None, r=rank, g=groups: conv[r - 1](  # noqa: E731
                x, w, b, stride=2, padding=1, groups=g
            )
            table.append(Twin("conv", (shape,), twin, arguments))
        twin = lambda x, w, r=rank: conv[r - 1](x, w, dilation=2)  # noqa: E731
        table.append(
            Twin("conv", (shape,), twin, {"out": 3, "size": size, "dilation": (2,), "bias": "none"})
        )
        twin = lambda x, w, b, r=rank: back[r - 1](x, w, b, stride=2, padding=1)  # noqa: E731
        arguments = {"channels": 3, "size": size, "stride": (2,), "pad": same(1)}
        table.append(Twin("conv_transpose", (shape,), twin, arguments))
    return table


def pools() -> list[Twin]:
    largest = [F.max_pool1d, F.max_pool2d, F.max_pool3d]
    average = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d]
    adaptive = [F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d]
    table = []
    for rank, shape in ((1, (3, 9)), (2, (3, 7, 9)), (3, (2, 5, 7, 5))):
        size = Size((3,) * rank)
        arguments: dict[str, Any] = {"size": size, "stride": (2,), "pad": same(1)}
        twin = lambda x, r=rank: largest[r - 1](x, 3, 2, 1)  # noqa: E731
        table.append(Twin("maxpool", (shape,), twin, arguments))
        twin = lambda x, r=rank: largest[r - 1](x, 2, 2, 0, ceil_mode=True)  # noqa: E731
        partial = {"size": Size((2,) * rank), "fit": "partial"}
        table.append(Twin("maxpool", (shape,), twin, partial, label="partial"))
        for include in (True, False):
            twin = lambda x, r=rank, i=include: average[r - 1](  # noqa: E731
                x, 3, 2, 1, count_include_pad=i
            )
            table.append(
                Twin("avgpool", (shape,), twin, {**arguments, "count_include_pad": include})
            )
        twin = lambda x, r=rank: adaptive[r - 1](x, 3)  # noqa: E731
        table.append(Twin("adaptiveavgpool", (shape,), twin, {"out": (3,) * rank}))
        table.append(Twin("globalavgpool", (shape,), lambda x: x.flatten(2).mean(2)))
        table.append(Twin("globalmaxpool", (shape,), lambda x: x.flatten(2).amax(2)))
    table.append(
        Twin("upsample", (IMAGE,), lambda x: F.interpolate(x, scale_factor=2), {"factor": (2,)})
    )
    table.append(
        Twin(
            "upsample", (IMAGE,),
            lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear", align_corners=False),
            {"factor": (2, 3), "mode": "bilinear"},
        )
    )  # fmt: skip
    return table


def ident(twin: Twin) -> str:
    shape = twin.inputs[0].shape if isinstance(twin.inputs[0], TensorType) else twin.inputs[0]
    return "-".join(filter(None, [twin.layer, "x".join(map(str, shape)), twin.label]))


@pytest.mark.parametrize("twin", twins(), ids=ident)
def test_layer_equals_torch(twin: Twin) -> None:
    net = network(twin.layer, *twin.inputs, train=twin.train, **twin.arguments)
    arrays = net.arrays(batch=3, classes=twin.classes)
    result = net.value(arrays)[net.output.name]

    given = [*net.inputs, *net.parameters]
    tensors = [
        torch.tensor(
            arrays[n.name], requires_grad=n.type.dtype.is_float and ".running_" not in n.name
        )
        for n in given
    ]
    expected = twin.torch(*tensors)
    assert near(result, expected.detach().numpy())

    dy = np.random.default_rng(9).standard_normal(result.shape)
    expected.backward(torch.tensor(dy))
    gradients = net.gradients(arrays, dy)
    compared = 0
    for node, tensor in zip(given, tensors, strict=True):
        if node.name in gradients:
            assert near(gradients[node.name], tensor.grad.numpy()), node.name
            compared += 1
    assert compared == len(gradients)


def near(actual: Any, expected: Any) -> bool:
    assert actual.shape == expected.shape
    scale = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(actual - expected)) <= ERROR * scale


@pytest.mark.parametrize("shape", [VECTOR, SIGNAL, IMAGE, VOLUME], ids=str)
def test_running_statistics_equal_torch(shape: tuple[int, ...]) -> None:
    net = network("batchnorm", shape, train=True, momentum=0.3)
    arrays = net.arrays(batch=3)
    mean, variance = (
        torch.tensor(arrays[f"layer.running_{word}"].copy()) for word in ("mean", "var")
    )
    F.batch_norm(torch.tensor(arrays["x0"]), mean, variance, training=True, momentum=0.3)
    values = net.value(arrays)
    assert [state.name for state, _ in net.updates] == ["layer.running_mean", "layer.running_var"]
    for (_, new), expected in zip(net.updates, (mean, variance), strict=True):
        assert near(values[new.name], expected.numpy())
