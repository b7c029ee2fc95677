"""What callers do wrong, and handlers: each call gets a clear error, and the server serves on."""

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from servers import FREE_PORTS, until

from servegrpc.client import CallError
from servegrpc.v1 import inference_pb2 as pb
from servegrpc.v1 import inference_pb2_grpc
from servegrpc.values import encode_value

INVALID, NOT_FOUND, INTERNAL = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def echo(register):
    return register("echo")


@pytest.fixture(scope="module")
def misbehave(register):
    return register("misbehave")


@pytest.fixture(scope="module")
def digits(client, digits_archive):
    client.register(str(digits_archive), name="digits-bad-input")
    yield "digits-bad-input"
    client.unregister("digits-bad-input")


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.inference) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def _serves_on(client, echo):
    """After every test the same server answers, and it still has its other model."""
    yield
    assert client.predict(echo, "still there").output == "still there"


@pytest.fixture
def fails(client):
    """Run a call of the client that must fail; returns the CallError."""

    def run(method, *args, **kwargs):
        with pytest.raises(CallError) as caught:
            getattr(client, method)(*args, **kwargs)
        assert "/tmp" not in str(caught.value)
        assert "Traceback" not in str(caught.value)
        return caught.value

    return run


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
def test_no_message(method, server, request):
    """A call that ends without a request → INVALID_ARGUMENT; without the fast lane grpcio ends it, with UNIMPLEMENTED."""
    lane = request.node.callspec.params["server"]
    with grpc.insecure_channel(server.inference) as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/servegrpc.v1.InferenceService/{method}")(iter(()), timeout=20))
    assert caught.value.code() is {"on": INVALID, "off": grpc.StatusCode.UNIMPLEMENTED}[lane]


def test_unknown_model(fails, echo):
    """A model that is not there → NOT_FOUND naming it and those there are."""
    error = fails("predict", "nobody", "x")
    assert (error.code, error.reason) == (NOT_FOUND, "MODEL_NOT_FOUND")
    assert 'no model "nobody"' in error.message
    assert echo in error.message
    assert error.metadata["model_name"] == "nobody"
    assert echo in error.metadata["models"]


def test_unknown_version(fails, echo):
    """A version that is not there → NOT_FOUND naming those there are."""
    error = fails("predict", echo, "x", version="9")
    assert (error.code, error.reason) == (NOT_FOUND, "VERSION_NOT_FOUND")
    assert error.message == f'Model "{echo}" has no version 9; versions: 1.0.'
    assert error.metadata == {"model_name": echo, "model_version": "9", "versions": "1.0"}


def test_no_model_name(fails):
    """No model name → INVALID_ARGUMENT naming the field."""
    error = fails("predict", "", "x")
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_INPUT", ["model_name"])


def test_no_inputs(fails, echo):
    """No inputs → INVALID_ARGUMENT naming the field."""
    error = fails("predict", echo, {})
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_INPUT", ["inputs"])


def test_long_request_id(fails, echo):
    """A request id of 129 characters → INVALID_ARGUMENT naming the field."""
    error = fails("predict", echo, "x", request_id="x" * 129)
    assert (error.code, list(error.fields)) == (INVALID, ["request_id"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "no kind is set"),
        ({"tensor": {"data_type": "DATA_TYPE_FP32", "shape": [3], "data": b"\0" * 8}}, "data has 8 bytes, shape [3] of FP32 needs 12"),
        ({"tensor": {"data_type": "DATA_TYPE_FP32", "shape": [-1], "data": b""}}, "shape [-1] has a negative dimension"),
        ({"tensor": {"shape": [1], "data": b"\0"}}, "data type 0 is not known"),
        ({"tensor": {"data_type": "DATA_TYPE_BOOL", "shape": [1], "data": b"\2"}}, "BOOL data holds a byte other than 0 and 1"),
        (
            {"tensor": {"data_type": "DATA_TYPE_BYTES", "shape": [1], "data": b"\xff\0\0\0"}},
            "element 0 of the BYTES data ends beyond its 4 bytes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_value(value, words, stub, echo):
    """A value without a kind, or a tensor that contradicts itself → INVALID_ARGUMENT naming the input and the contradiction."""
    request = pb.PredictRequest(model_name=echo)
    request.inputs["data"].SetInParent()
    if "tensor" in value:
        request.inputs["data"].tensor.SetInParent()
        tensor = value["tensor"]
        request.inputs["data"].tensor.data_type = tensor.get("data_type", 0)
        request.inputs["data"].tensor.shape.extend(tensor["shape"])
        request.inputs["data"].tensor.data = tensor["data"]
    with pytest.raises(grpc.RpcError, match=re.escape(f'inputs["data"]: {words}')) as caught:
        stub.Predict(request)
    assert caught.value.code() is INVALID


def test_no_protobuf(server):
    """Bytes that are no message → INVALID_ARGUMENT."""
    with grpc.insecure_channel(server.inference) as channel:
        for raw in (b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.RpcError, match="not a valid PredictRequest") as caught:
                channel.unary_unary("/servegrpc.v1.InferenceService/Predict")(raw)
            assert caught.value.code() is INVALID


def test_no_protobuf_for_management(server):
    """The same to methods with messages of their own, one of them a stream → the same."""
    with grpc.insecure_channel(server.management) as channel:
        for make in (channel.unary_unary, lambda path: lambda raw: list(channel.unary_stream(path)(raw))):
            name = "GetModel" if make == channel.unary_unary else "WatchModels"
            with pytest.raises(grpc.RpcError, match="no message of this method") as caught:
                make(f"/servegrpc.v1.ManagementService/{name}")(b"\xff\xff\xff")
            assert caught.value.code() is INVALID


def test_unknown_method(server):
    """A method that is not there → UNIMPLEMENTED."""
    with grpc.insecure_channel(server.inference) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/servegrpc.v1.InferenceService/Fly")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("inputs", "field", "words"),
    [
        ({"data": b"no picture"}, "inputs.data", "cannot be decoded: it is no known picture format"),
        ({"data": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}, "inputs.data", "cannot be decoded"),
        ({"data": b""}, "inputs.data", "cannot be decoded"),
        ({"data": {"a": 1}}, "inputs.data", "of type dict"),
        ({"picture": b"x"}, "inputs", 'inputs sent: "picture"'),
    ],
    ids=["no picture", "half a picture", "nothing", "wrong kind", "wrong name"],
)
def test_undecodable_picture(inputs, field, words, fails, digits):
    """A picture that cannot be decoded, or something else → INVALID_ARGUMENT naming the input."""
    error = fails("predict", digits, inputs)
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_INPUT", [field])
    assert words in error.message
    assert error.metadata["model_name"] == digits


def test_one_bad_picture_in_a_batch(client, digits, digits_archive):
    """A bad picture among good ones in one batch → only its call fails."""
    client.unregister(digits)
    client.register(str(digits_archive), name=digits, batch_size=4, max_batch_delay=30)
    picture = np.zeros((1, 8, 8), np.float32)

    def outcome(value):
        try:
            return "digit" in client.predict(digits, value).output
        except CallError as error:
            return error.reason

    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(outcome, [picture, b"no picture", picture, picture]))
    assert outcomes == [True, "INVALID_INPUT", True, True]
    client.unregister(digits)
    client.register(str(digits_archive), name=digits)


def test_handler_raises(fails, server, misbehave):
    """A handler that raises → INTERNAL with the request id and nothing of the exception; the trace is in the log under that id."""
    error = fails("predict", misbehave, "raise", request_id="bad-1")
    assert (error.code, error.reason) == (INTERNAL, "HANDLER_ERROR")
    assert "ZeroDivision" not in str(error)
    assert error.metadata["request_id"] == "bad-1"
    assert "bad-1" in error.message
    server.log.wait_for(f"model={misbehave}", "request ids: bad-1")
    server.log.wait_for(f"model={misbehave}", "ZeroDivisionError: division by zero")


def test_handler_raises_and_tells(fails, register):
    """The same with exposeErrors in the model's config → exception class and message too."""
    error = fails("predict", register("misbehave", config="exposeErrors: true\n"), "raise")
    assert (error.code, error.reason) == (INTERNAL, "HANDLER_ERROR")
    assert "the handler raised ZeroDivisionError: division by zero" in error.message
    assert error.metadata["exception"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("too many", "returned 2 results for 1 requests; it must return one for each"),
        ("no list", "returned dict; it must return a list with one result per request"),
        ("unsendable", "cannot be sent: cannot send a value of type object"),
    ],
)
def test_handler_result(deed, words, fails, client, misbehave):
    """A handler whose result is no list of one sendable result per request → INTERNAL saying so; its worker serves on."""
    pid = client.predict(misbehave, "pid").output
    error = fails("predict", misbehave, deed, request_id="bad-2")
    assert (error.code, error.reason) == (INTERNAL, "INVALID_HANDLER_RESULT")
    assert words in error.message
    assert error.metadata["request_id"] == "bad-2"
    assert client.predict(misbehave, "pid").output == pid


def test_queue_full(client, register, fails, gate):
    """More requests than may wait → RESOURCE_EXHAUSTED at once, with a time to try again; the others are answered."""
    model = register("gate", max_queue_size=1)
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(client.predict, model, gate.path)]
        gate.wait_entered()
        calls.append(threads.submit(client.predict, model, ""))
        until(lambda: client.model(model).versions[0].queued_requests == 1)
        error = fails("predict", model, "")
        gate.open()
        assert [call.exception() for call in calls] == [None, None]
    assert (error.code, error.reason) == (EXHAUSTED, "QUEUE_FULL")
    assert error.retry_after_seconds > 0
    assert error.metadata["max_queue_size"] == "1"


@pytest.mark.slow
def test_message_too_large(server, echo):
    """A request above 64 MiB → RESOURCE_EXHAUSTED naming size and limit; one just below is answered."""
    with server.client(max_message_bytes=-1) as client:
        with pytest.raises(CallError, match=r"\(67108\d\d\d vs\. 67108864\)") as caught:
            client.predict(echo, b"x" * 67108864)
        assert caught.value.code is EXHAUSTED
        assert len(client.predict(echo, b"x" * (67108864 - 1000)).output) == 67108864 - 1000


def test_max_message_bytes(start_server, archive):
    """--max-message-bytes → that limit instead, for requests alone."""
    server = start_server("--max-message-bytes", "1000", archive("echo"))
    with server.client() as client:
        with pytest.raises(CallError, match=r"vs\. 1000\)") as caught:
            client.predict("echo", b"x" * 1001)
        assert caught.value.code is EXHAUSTED
        assert client.predict("echo", b"x" * 900).output == b"x" * 900


def test_port_in_use(server, run_cli):
    """A port that another server has → exit 1 and one line naming it, for either port."""
    for option, address in (("--inference-address", server.inference), ("--management-address", server.management)):
        result = run_cli("serve", *FREE_PORTS, option, address)
        assert result.returncode == 1
        assert f"error: Cannot listen on {address}: is another server there?" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_garbage_on_the_wire(server):
    """A client that speaks HTTP/1 → cut off."""
    host, port = server.inference.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while connection.recv(4096):
            pass


def test_clients_that_leave(server, echo):
    """Channels closed in the middle of their calls → nobody else notices."""

    def leave(_):
        with grpc.insecure_channel(server.inference) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            for _ in range(5):
                stub.Predict.future(pb.PredictRequest(model_name=echo, inputs={"data": encode_value("x")}))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(leave, range(20)))
    assert threading.active_count() < 200
