"""Who takes part in bench/peers.py: each function takes a network with its weights and an input,
and returns what is timed, a call that gives the output as an array. ImportError and
NotImplementedError mean that somebody cannot take part.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cnncc
from cnncc.graph.ir import TypedGraph
from tests.networks.twin import Twin

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[], Array]


@dataclass(frozen=True)
class Task:
    """A network (a built-in name or a file), its graph, weights and inputs by name."""

    name: str
    graph: TypedGraph
    values: Mapping[str, Array]
    data: Mapping[str, Array]
    threads: int

    @property
    def image(self) -> Array:
        """The only input."""
        (array,) = self.data.values()
        return array

    @property
    def batch(self) -> int:
        return len(self.image)


def model_of(task: Task, precision: str = "default") -> cnncc.Model:
    """The network compiled by cnncc, with its weights."""
    model = cnncc.compile(
        task.name, batch=task.batch, num_threads=task.threads, precision=precision
    )
    model.load_state_dict(task.values)
    return model


def own(task: Task) -> Run:
    model = model_of(task)
    return lambda: model(**task.data)  # type: ignore[no-any-return]


def own_exact(task: Task) -> Run:
    model = model_of(task, "exact")
    return lambda: model(**task.data)  # type: ignore[no-any-return]


def of_twin(twin: Twin, data: Mapping[str, Array]) -> Run:
    """PyTorch call by call, its tensors in its memory format before the clock starts."""
    tensors = {name: twin.tensor(array) for name, array in data.items()}
    ((public, _),) = twin.graph.outputs

    def run() -> Array:
        with torch.inference_mode():
            return twin.run(tensors)[public].numpy()  # type: ignore[no-any-return]

    return run


def eager(task: Task) -> Run:
    return of_twin(Twin(task.graph, task.values), task.data)


def channels_last(task: Task) -> Run:
    return of_twin(Twin(task.graph, task.values, channels_last=True), task.data)


def compiled(task: Task) -> Run:
    """torch.compile with frozen weights, channels_last."""
    from bench.torch_module import NetworkModule

    module = NetworkModule(task.graph, task.values)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.from_numpy(task.image)
    if image.ndim == 4:
        image = image.contiguous(memory_format=torch.channels_last)
    from torch._inductor import config

    config.freezing = True  # dynamo asks for it too, so an option of torch.compile is not enough
    torch._dynamo.reset()
    fast = torch.compile(module, dynamic=False)

    def run() -> Array:
        with torch.no_grad():
            return fast(image).numpy()  # type: ignore[no-any-return]

    return run


def onnx_runtime(task: Task) -> Run:
    import onnxruntime

    from bench.onnx_model import onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", task.batch)
    session = onnxruntime.InferenceSession(
        onnx_model(task.graph, task.values).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    feed = dict(task.data)
    return lambda: np.asarray(session.run(None, feed)[0])


def openvino(task: Task) -> Run:
    """OpenVINO's reader of the same ONNX model, for a fixed batch, tuned for latency in float32."""
    import openvino as ov

    from bench.onnx_model import onnx_model

    core = ov.Core()
    model = core.read_model(onnx_model(task.graph, task.values).SerializeToString(), b"")
    model.reshape(list(task.image.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(task.image, shared_memory=True))

    def run() -> Array:
        request.infer()
        return np.array(request.get_output_tensor().data)

    return run


def ncnn(task: Task) -> Run:
    """ncnn in float32 with everything else as it is by default (Winograd, packed layouts), from a
    traced module that pnnx converts. It has no batches: samples run one after the other.
    """
    import ncnn as library
    import pnnx

    from bench.torch_module import NetworkModule

    net = library.Net()
    net.opt.num_threads = task.threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    shape = ",".join(map(str, (1, *task.image.shape[1:])))
    with tempfile.TemporaryDirectory() as folder:
        module = NetworkModule(task.graph, task.values)
        traced = torch.jit.trace(module, torch.from_numpy(task.image[:1]))
        traced.save(f"{folder}/net.pt")
        command = [str(pnnx.EXEC_PATH), "net.pt", f"inputshape=[{shape}]", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        files = {"ncnnparam": f"{folder}/net.ncnn.param", "ncnnbin": f"{folder}/net.ncnn.bin"}
        if done.returncode or not all(Path(path).exists() for path in files.values()):
            raise NotImplementedError(f"pnnx cannot convert it: {done.stderr[-500:]}")
        if net.load_param(files["ncnnparam"]) or net.load_model(files["ncnnbin"]):
            raise NotImplementedError("ncnn cannot load what pnnx makes of this network")

    def run() -> Array:
        outputs = []
        for image in task.image:
            extractor = net.create_extractor()
            extractor.input("in0", library.Mat(image))
            failed, output = extractor.extract("out0")
            if failed:
                raise RuntimeError(f"ncnn failed with {failed}")
            outputs.append(np.array(output))
        return np.stack(outputs)

    return run


CNNCC = "cnncc"
CONTESTANTS: dict[str, Callable[[Task], Run]] = {
    CNNCC: own,
    "cnncc exact": own_exact,
    "PyTorch": eager,
    "PyTorch channels_last": channels_last,
    "torch.compile": compiled,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "ncnn": ncnn,
}
