"""The TorchServe dialect without a server: routing and decoding as protobuf has it, results and errors as TorchServe sends them."""

import io
import subprocess
import sys

import pytest
import torch
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchserve_stubs import INFERENCE, message

from servegrpc.errors import (
    Code,
    Draining,
    HandlerError,
    InvalidHandlerResult,
    InvalidInput,
    ModelNotFound,
    QueueFull,
    RequestExpired,
    SequenceLost,
    WorkerLost,
)
from servegrpc.wire import torchserve
from servegrpc.wire.dialect import About
from servegrpc.wire.large import LARGE_BYTES
from servegrpc.wire.scan import Route

REQUEST, RESPONSE = message(f"{INFERENCE}.PredictionsRequest"), message(f"{INFERENCE}.PredictionResponse")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAYLOADS = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(LARGE_BYTES), b"ab" * LARGE_BYTES, b"\xff" * (LARGE_BYTES - 20)]))
ABOUT = About("digits", "1.0", "r-1", 0, 0, 1)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, PAYLOADS, max_size=3))
def test_written_by_protobuf(name, version, sequence_id, inputs):
    """A message that a client's stubs wrote → its route, its sequence, and its inputs as bytearrays."""
    raw = REQUEST(model_name=name, model_version=version, sequence_id=sequence_id, input=inputs).SerializeToString()
    assert torchserve.route(raw) == (Route(name, version, ""), sequence_id)
    row = torchserve.decode(memoryview(raw))
    assert row == inputs
    assert all(type(value) is bytearray for value in row.values())


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), st.lists(st.tuples(TEXTS, PAYLOADS), max_size=4)), st.integers(0, 60))
@example([("a", bytes(LARGE_BYTES)), ("a", b"last")], 60)
@example([("a", b"first"), ("a", bytes(LARGE_BYTES))], 60)
def test_any_bytes(parts, length):
    """Any bytes, and messages with a name twice → as protobuf parses them, or refused by both."""
    raw = parts[:length] if isinstance(parts, bytes) else b"".join(REQUEST(input=dict([part])).SerializeToString() for part in parts)
    try:
        expected = REQUEST.FromString(raw)
    except DecodeError:
        with pytest.raises(InvalidInput, match="not a valid PredictionsRequest"):
            torchserve.decode(memoryview(raw))
        return
    assert torchserve.decode(memoryview(raw)) == dict(expected.input)
    assert torchserve.route(raw) == (Route(expected.model_name, expected.model_version, ""), expected.sequence_id)


def test_borrow():
    """A large and a small input, borrowed → the large one is a view of the request, the small one a bytearray."""
    raw = bytearray(REQUEST(model_name="m", input={"image": bytes(LARGE_BYTES), "target": b"0"}).SerializeToString())
    row = torchserve.decode(memoryview(raw), borrow=True)
    assert type(row["image"]) is memoryview
    assert row["target"] == bytearray(b"0")
    raw[raw.index(bytes(LARGE_BYTES))] = 7
    assert row["image"][0] == 7


def test_long_name():
    """A name that no model can have → InvalidInput naming the field."""
    with pytest.raises(InvalidInput, match="model_name has 257 characters"):
        torchserve.route(REQUEST(model_name="m" * 257).SerializeToString())


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (b"\x00", b"\x00"),
        (bytearray(b"a"), b"a"),
        pytest.param(memoryview(b"view"), b"view", id="memoryview"),
        ("grüße", "grüße".encode()),
        (None, b"null"),
        (True, b"true"),
        (float("inf"), b"Infinity"),
        ({"ü": [1]}, b'{\n  "\\u00fc": [\n    1\n  ]\n}'),
        ((), b"[]"),
    ],
    ids=repr,
)
def test_result(result, expected):
    """A result of each kind → its bytes."""
    assert RESPONSE.FromString(torchserve.encode(result, ABOUT)).prediction == expected


def test_tensor():
    """A tensor → as torch.save writes it."""
    saved = RESPONSE.FromString(torchserve.encode(torch.ones(2, 2), ABOUT)).prediction
    assert torch.equal(torch.load(io.BytesIO(saved)), torch.ones(2, 2))


@pytest.mark.parametrize(
    "result", [{1}, pytest.param(object(), id="object"), [b"x"], {"t": torch.ones(1)}, "\ud800", {(1, 2): 3}], ids=repr
)
def test_no_result(result):
    """What JSON cannot hold → InvalidHandlerResult."""
    with pytest.raises(InvalidHandlerResult, match="cannot be sent"):
        torchserve.encode(result, ABOUT)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ModelNotFound("x", model_name="m"), Code.INTERNAL, "Model not found: m"),
        (QueueFull("x", model_name="m", asked_version="2"), Code.INTERNAL, 'Model "m" Version 2" has no worker'),
        (InvalidInput("the picture is empty"), Code.INVALID_ARGUMENT, "the picture is empty"),
        (HandlerError("x"), Code.UNAVAILABLE, "Prediction failed"),
        (HandlerError("x", problem="OUT_OF_RESOURCES"), Code.INTERNAL, "Out of resources"),
        (WorkerLost("x", cause="exit code 3"), Code.INTERNAL, "Worker died."),
        (WorkerLost("x", cause="signal 9 (SIGKILL)"), Code.RESOURCE_EXHAUSTED, "Worker died."),
        (SequenceLost("x"), Code.INTERNAL, "Worker died."),
        (Draining("stopping"), Code.UNAVAILABLE, "stopping"),
        (RequestExpired("too late"), Code.DEADLINE_EXCEEDED, "too late"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_status(error, code, text):
    """An error → TorchServe's code and text, and a google.rpc.Status of the same with our reason and cause."""
    end = torchserve.status(error, "what our own API says", {"request_id": "r-1"})
    assert (end.code, end.message.split("\n")[0][: len(text)]) == (code, text)
    status = status_pb2.Status.FromString(end.body)
    assert (status.code, status.message) == (end.code, end.message)
    detail = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(detail)
    assert detail.reason == error.reason
    assert (detail.metadata["cause"], detail.metadata["request_id"]) == ("what our own API says", "r-1")


@pytest.mark.parametrize("text", ["x" * 5000, "ü" * 5000])
def test_long_text(text):
    """A text that does not fit → cut, but for the class on the second line, and the same in the google.rpc.Status."""
    end = torchserve.status(InvalidInput(text))
    first, second = end.message.split("\n")
    assert first in text
    assert second == "org.pytorch.serve.http.BadRequestException"
    assert status_pb2.Status.FromString(end.body).message == end.message


@pytest.mark.slow
def test_without_torch():
    """The module in a process of its own, a result encoded → torch is not imported."""
    code = "import sys; from servegrpc.wire import torchserve; torchserve.encode([1], None); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
