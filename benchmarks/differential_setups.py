"""How the servers of the differential are configured, alike, and the calls that each of them gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from google.protobuf.empty_pb2 import Empty

from benchmarks.differential_calls import READY, Call, calls, describe, list_models, predict, register, scale, set_default, unregister
from servegrpc.compat.open_inference import infer_pb2 as infer
from servegrpc.compat.open_inference import server_pb2 as about
from servegrpc.compat.open_inference import tensors_pb2 as tensors


@dataclass(frozen=True)
class Setup:
    """A configuration: lines of a config.properties and options, the same for both servers. `name` goes before the labels of its calls."""

    name: str
    calls: Callable[[], Iterator[Call]]
    properties: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


ECHO_SETTINGS = {"minWorkers": 1, "maxWorkers": 2, "batchSize": 3, "maxBatchDelay": 50, "responseTimeout": 70, "startupTimeout": 80}
ECHO_2_SETTINGS = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 1}


def _secured() -> Iterator[Call]:
    """What may be called with which token when nothing is said of tokens and the model API; and models of the start."""
    for model in ("echo", "configured", "values"):
        yield replace(describe(f"until {model} is ready", model, until=READY), key="management")
    made = (
        Call("Ping", "Ping", (Empty(),)),
        predict("echo", "echo"),
        predict("echo", "echo", method="StreamPredictions"),
        list_models("all", 10),
        describe("echo", "echo"),
        register("echo", url="echo.mar"),
        unregister("echo", "echo"),
        scale("echo", model_name="echo", min_worker=1, synchronous=True),
        set_default("echo", "echo", "1.0"),
    )
    for call in made:
        for key in ("", "wrong", "inference", "management"):
            if (call.method, key) != ("StreamPredictions", "inference"):  # TorchServe loses the worker
                yield replace(call, label=f"{call.label}, {key or 'no'} key", key=key)
    for model in ("configured", "values"):
        yield replace(describe(model, model), key="management")


def _open_inference() -> Iterator[Call]:
    """TorchServe's Open Inference service, with its envelope."""
    yield describe("until tensors is ready", "tensors", until=READY)
    yield Call("ServerLive", "ServerLive", (about.ServerLiveRequest(),))
    yield Call("ServerReady", "ServerReady", (about.ServerReadyRequest(),))
    yield Call("ServerMetadata", "ServerMetadata", (about.ServerMetadataRequest(),))
    for label, name, version in (
        ("tensors", "tensors", ""),
        ("with a version", "tensors", "1.0"),
        ("unknown model", "nobody", ""),
        ("unknown version", "tensors", "9.9"),
        ("no name", "", ""),
    ):
        yield Call(f"ModelReady: {label}", "ModelReady", (about.ModelReadyRequest(name=name, version=version),))
        yield Call(f"ModelMetadata: {label}", "ModelMetadata", (about.ModelMetadataRequest(name=name, version=version),))
    floats = _tensor("FP32", 2, fp32_contents=[0.5, -2.0])
    yield _infer("FP32", floats)
    yield _infer("FP64", _tensor("FP64", 2, fp64_contents=[0.1, 1e300]))
    yield _infer("INT64", _tensor("INT64", 2, int64_contents=[7, -(2**40)]))
    yield _infer("INT32", _tensor("INT32", 1, int_contents=[7]))
    yield _infer("UINT8", _tensor("UINT8", 1, uint_contents=[200]))
    yield _infer("BOOL", _tensor("BOOL", 2, bool_contents=[True, False]))
    yield _infer("BYTES", _tensor("BYTES", 1, bytes_contents=[b"text"]))
    yield _infer("two inputs", floats, _tensor("INT64", 1, name="second", int64_contents=[3]))
    raw = infer.ModelInferRequest(model_name="tensors", id="raw", inputs=[_tensor("FP32", 1)], raw_input_contents=[b"\0\0\0\x3f"])
    yield Call("ModelInfer: raw contents", "ModelInfer", (raw,))
    yield _infer("a handler that fails", _tensor("FP32", 1, name="fail", fp32_contents=[0.0]))
    yield _infer("unknown model", floats, model="nobody")
    yield _infer("unknown version", floats, version="9.9")
    yield _infer("no name", floats, model="")


def _tensor(datatype: str, count: int, *, name: str = "x", **contents: object) -> infer.ModelInferRequest.InferInputTensor:
    given = tensors.InferTensorContents(**contents) if contents else None  # type: ignore[arg-type]  # one list of its own type
    return infer.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=[count], contents=given)


def _infer(label: str, *inputs: infer.ModelInferRequest.InferInputTensor, model: str = "tensors", version: str = "") -> Call:
    request = infer.ModelInferRequest(model_name=model, model_version=version, id=label, inputs=inputs)
    return Call(f"ModelInfer: {label}", "ModelInfer", (request,))


SETUPS = (
    Setup("", calls, options=("--disable-token-auth", "--enable-model-api")),
    Setup(
        "with tokens, ",
        _secured,
        properties=(
            "load_models=echo.mar,echo-2.0.mar,configured.mar,values.mar",
            "default_workers_per_model=1",
            "default_response_timeout=66",
            "job_queue_size=7",
            f"models={json.dumps({'echo': {'1.0': ECHO_SETTINGS, '2.0': ECHO_2_SETTINGS}})}",
        ),
    ),
    Setup(
        "with the envelope, ",
        _open_inference,
        properties=(
            "load_models=tensors.mar",
            "default_workers_per_model=1",
            "service_envelope=kservev2",
            "ts_open_inference_protocol=true",
        ),
        options=("--disable-token-auth",),
    ),
)
