"""TorchServe's Ping and Predictions, by a client with its stubs: results as it encodes them, failures with its codes and texts."""

import io
import json
import re

import grpc
import pytest
import torch
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2
from servers import until
from torchserve_stubs import TorchServeClient

NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
VERSION_NOT_FOUND = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
SERVER_ERROR = "org.pytorch.serve.http.InternalServerException"
NO_WORKER = (
    "has no worker to serve inference request. Please use scale workers API to add workers. "
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)

VALUES = """
import torch

VALUES = {
    "dict": {"label": "grüße", "scores": [0.5, None, True]},
    "tuple": (1, float("nan")),
    "str": "grüße",
    "bytes": b"\\x00\\xff",
    "bytearray": bytearray(b"array"),
    "none": None,
    "tensor": torch.arange(6.0).reshape(2, 3),
    "set": {1},
}


def handle(data, context):
    return None if data is None else [VALUES[row["data"].decode()] for row in data]
"""

KINDS = """
def handle(data, context):
    if data is None:
        return None
    return [{name: [type(value).__name__, len(value)] for name, value in row.items()} for row in data]
"""

PREDICTION_EXCEPTION = """
from ts.utils.util import PredictionException


def handle(data, context):
    if data is not None:
        raise PredictionException("the picture is empty", int(data[0]["data"]))
"""

OWN_EXCEPTION = """
from ts.utils.util import PredictionException


class TooSmall(PredictionException):
    def __init__(self):
        super().__init__("the picture is too small", 422)


def handle(data, context):
    if data is not None:
        raise TooSmall
"""

FAILS = """
import os
import signal
import threading


def fail(error):
    raise error


DEEDS = {
    "raise": lambda: 1 / 0,
    "memory": lambda: fail(MemoryError("too much")),
    "cuda": lambda: fail(RuntimeError("CUDA error: out of memory")),
    "no list": lambda: {"digit": 7},
    "too many": lambda: [1, 2],
    "unsendable": lambda: [object()],
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: threading.Event().wait(),
}


def handle(data, context):
    return None if data is None else DEEDS.get(data[0]["data"].decode(), lambda: ["fine"])()
"""

STATUS = """
def handle(data, context):
    if data is None:
        return None
    context.set_response_status(code=int(data[0]["data"]), phrase="so it is", idx=0)
    context.set_response_header(0, "x-said", "so")
    return ["body"] * len(data)
"""

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def echo(register):
    return register("echo")


@pytest.fixture(scope="module")
def values(register):
    return register("values", code=VALUES)


@pytest.fixture(scope="module")
def fails(register):
    return register("fails", code=FAILS)


@pytest.fixture(scope="module")
def raises(register):
    return register("raises", code=PREDICTION_EXCEPTION)


def test_ping(torchserve, echo):
    """All models have their workers → Healthy, in indented JSON."""
    assert torchserve.ping(Empty()).health == '{\n  "status": "Healthy"\n}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("dict", b'{\n  "label": "gr\\u00fc\\u00dfe",\n  "scores": [\n    0.5,\n    null,\n    true\n  ]\n}'),
        ("tuple", b"[\n  1,\n  NaN\n]"),
        ("str", "grüße".encode()),
        ("bytes", b"\x00\xff"),
        ("bytearray", b"array"),
        ("none", b"null"),
    ],
)
def test_result(torchserve, values, value, expected):
    """Each kind of result → the bytes that TorchServe sends."""
    assert torchserve.predict(values, value.encode()) == expected


def test_tensor_result(torchserve, values):
    """A tensor → what torch.save writes."""
    assert torch.equal(torch.load(io.BytesIO(torchserve.predict(values, b"tensor"))), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_inputs(torchserve, register, size):
    """Inputs of any name and size, beside each other → bytearrays under their names, never decoded."""
    kinds = register("kinds", code=KINDS)
    reply = torchserve.predict(kinds, bytes(size), 画像=b"{}")
    assert json.loads(reply) == {"data": ["bytearray", size], "画像": ["bytearray", 2]}


def test_version(torchserve, echo):
    """A version → that version; the model is found."""
    assert torchserve.predict(echo, b"x", version="1.0") == b"x"


def test_no_inputs(torchserve, register):
    """A request without inputs → the handler gets an empty row."""
    kinds = register("kinds", code=KINDS)
    assert torchserve.predictions(torchserve.request(model_name=kinds)).prediction == b"{}"


def test_model_config(torchserve, register):
    """A model-config.yaml → the handler sees all of it, in the file's order."""
    code = "def handle(data, context):\n    return data and [context.model_yaml_config] * len(data)\n"
    config = "minWorkers: 1\nbatchSize: 2\nhandler:\n  z: 1\n  a: [1.5, yes]\n"
    reply = torchserve.predict(register("configured", code=code, config=config))
    assert reply == json.dumps({"minWorkers": 1, "batchSize": 2, "handler": {"z": 1, "a": [1.5, True]}}, indent=2).encode()


def test_metadata(torchserve, register):
    """Metadata of the call → the handler sees it as request headers."""
    request = torchserve.request(model_name=register("about"), input={"data": b"x"})
    reply = json.loads(torchserve.predictions(request, metadata=(("trace", "t-1"),)).prediction)
    assert reply["headers"]["trace"] == "t-1"


def test_response_status(torchserve, register, refused):
    """A handler that sets a status and a header on its response → the call ends with the status's code and phrase, and the header."""
    model = register("status", code=STATUS)
    assert refused(torchserve.predict, model, b"404") == ("NOT_FOUND", "so it is", SERVER_ERROR)
    request = torchserve.request(model_name=model, input={"data": b"200"})
    reply, call = torchserve.predictions.with_call(request)
    assert (reply.prediction, dict(call.trailing_metadata())["x-said"]) == (b"body", "so")


def test_too_large(torchserve, start_server, refused):
    """A message that is larger than the server takes → RESOURCE_EXHAUSTED, naming size and limit."""
    client = TorchServeClient(start_server("--max-message-bytes", 100_000))
    code, text = refused(client.predict, "any", bytes(200_000))
    client.close()
    assert code == "RESOURCE_EXHAUSTED"
    assert re.search(r"200\d\d\d vs\. 100000", text)


def test_no_model_name(torchserve, refused):
    """No model name → INTERNAL that names the parameter."""
    assert refused(torchserve.predict, "") == ("INTERNAL", "Parameter model_name is required.", "BadRequestException.()")


def test_unknown_model(torchserve, refused):
    """A model that is not there → INTERNAL with the exception's name."""
    assert refused(torchserve.predict, "nobody") == ("INTERNAL", "Model not found: nobody", NOT_FOUND)


def test_unknown_version(torchserve, echo, refused):
    """A version that is not there → INTERNAL with the exception's name."""
    text = f"Model version: 9.9 does not exist for model: {echo}"
    assert refused(torchserve.predict, echo, version="9.9") == ("INTERNAL", text, VERSION_NOT_FOUND)


@pytest.mark.parametrize(("version", "shown"), [("", '"'), ("1.0", '" Version 1.0"')])
def test_no_workers(torchserve, register, refused, version, shown):
    """A model without workers → INTERNAL; with a version, an odd quotation mark."""
    idle = register("echo", workers=0)
    code, text, kind = refused(torchserve.predict, idle, version=version)
    assert (code, text, kind) == ("INTERNAL", f'Model "{idle}{shown} {NO_WORKER}', "InternalServerException.()")


@pytest.mark.parametrize(
    ("deed", "text"),
    [
        ("raise", "Prediction failed"),
        ("no list", "Invalid model predict output"),
        ("too many", "number of batch response mismatched"),
        ("unsendable", "Unsupported model output data type."),
    ],
)
def test_handler_at_fault(torchserve, fails, refused, deed, text):
    """A handler that raises, or returns what cannot be sent → UNAVAILABLE, saying which; the model serves on."""
    assert refused(torchserve.predict, fails, deed.encode()) == ("UNAVAILABLE", text, SERVER_ERROR)
    assert torchserve.predict(fails, b"nothing") == b"fine"


@pytest.mark.parametrize("deed", ["memory", "cuda"])
def test_out_of_resources(torchserve, fails, refused, deed):
    """A MemoryError, or an error about CUDA → INTERNAL, Out of resources."""
    assert refused(torchserve.predict, fails, deed.encode()) == ("INTERNAL", "Out of resources", SERVER_ERROR)


@pytest.mark.parametrize(
    ("http", "code"),
    [
        *((200, "INTERNAL"), (204, "INTERNAL"), (302, "UNKNOWN"), (400, "INVALID_ARGUMENT"), (404, "NOT_FOUND"), (409, "ABORTED")),
        *((413, "RESOURCE_EXHAUSTED"), (422, "FAILED_PRECONDITION"), (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL")),
        *((503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED"), (42, "UNKNOWN")),
    ],
)
def test_prediction_exception(torchserve, raises, refused, http, code):
    """A PredictionException with an HTTP code → its text, and TorchServe's status code, but for a code of success, which is none."""
    assert refused(torchserve.predict, raises, str(http).encode()) == (code, "the picture is empty", SERVER_ERROR)


def test_own_prediction_exception(torchserve, register, refused):
    """A class of the handler's own that extends PredictionException → its text and code as well."""
    model = register("raises", code=OWN_EXCEPTION)
    assert refused(torchserve.predict, model, b"x") == ("FAILED_PRECONDITION", "the picture is too small", SERVER_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "code"), [("exit", "INTERNAL"), ("kill", "RESOURCE_EXHAUSTED")])
def test_worker_died(torchserve, register, refused, deed, code):
    """A worker that ends → INTERNAL, RESOURCE_EXHAUSTED when it was killed; the next one serves."""
    model = register("fails", code=FAILS)
    assert refused(torchserve.predict, model, deed.encode()) == (code, "Worker died.", SERVER_ERROR)
    until(lambda: "READY" in [worker["status"] for worker in torchserve.describe(model)[0]["workers"]])
    assert torchserve.predict(model, b"nothing") == b"fine"


@pytest.mark.slow
def test_response_timeout(torchserve, register, refused):
    """A handler that takes longer than the response timeout → INTERNAL, Worker died."""
    model = register("fails", code=FAILS, response_timeout=0.2)
    assert refused(torchserve.predict, model, b"hang") == ("INTERNAL", "Worker died.", SERVER_ERROR)


def test_queue_full(torchserve, register, gate, refused):
    """As many requests wait as may → INTERNAL with the text for no worker; the others are answered."""
    model = register("gate", max_queue_size=1)

    def call(data):
        return torchserve.predictions.future(torchserve.request(model_name=model, input={"data": data}), timeout=60)

    calls = [call(gate.path.encode())]
    gate.wait_entered()
    calls += [call(b"") for _ in range(8)]
    until(lambda: any(call.done() for call in calls))
    gate.open()
    errors = [call.exception() for call in calls]
    assert None in errors
    texts = {(error.code().name, error.details()) for error in errors if error}
    assert texts == {("INTERNAL", f'Model "{model}" {NO_WORKER}\nInternalServerException.()')}


def test_job_ticket(torchserve, register, gate, refused):
    """With useJobTicket, a call comes while the only worker is busy → refused as without a worker, and the next one is served."""
    model = register("gate", config="useJobTicket: true")
    call = torchserve.predictions.future(torchserve.request(model_name=model, input={"data": gate.path.encode()}), timeout=60)
    gate.wait_entered()
    assert refused(torchserve.predict, model, b"") == ("INTERNAL", f'Model "{model}" {NO_WORKER}', "InternalServerException.()")
    gate.open()
    assert call.result().prediction
    assert torchserve.predict(model, b"")


def test_cause(torchserve, fails):
    """A failed call → beside TorchServe's text a google.rpc.Status of the same code and text, with the reason and what our own API says."""
    with pytest.raises(grpc.RpcError) as caught:
        torchserve.predict(fails, b"raise")
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (caught.value.code().value[0], caught.value.details())
    detail = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(detail)
    assert (detail.reason, detail.domain) == ("HANDLER_ERROR", "servegrpc")
    assert "Request id: " in detail.metadata["cause"]
    assert detail.metadata["model_name"] == fails


def test_not_a_message(torchserve, server, refused):
    """Bytes that are no PredictionsRequest → INVALID_ARGUMENT that says so."""
    with grpc.insecure_channel(server.inference) as channel:
        call = channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")
        code, text, _ = refused(call, b"\xff\xff\xff")
    assert (code, text) == ("INVALID_ARGUMENT", "The request is not a valid PredictionsRequest message.")
