"""Predict, PredictStream and PredictSession through a real server."""

import asyncio
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import torch
from servers import until

from servegrpc.client import AsyncClient, CallError
from servegrpc.compat.open_inference import infer_pb2
from servegrpc.v1 import inference_pb2 as pb
from servegrpc.v1 import inference_pb2_grpc
from servegrpc.values import encode_value

VALUES = {
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "text": "grüße",
    "number": 1.5,
    "whole number": 7,
    "true": True,
    "null": None,
    "list": [1, "two", None],
    "object": {"a": [1, {"b": False}]},
    "named": {"picture": b"\x01", "words": ["x"], "scores": np.array([1.5], np.float32)},
    "strings": np.array([b"a", b"", b"ccc"], object),
    "scalar": np.array(3.0),
    "empty array": np.empty((0, 3), np.int64),
} | {str(dtype): np.array([[0, 1], [1, 0]], dtype) for dtype in ("?", *"bBhHiIqQefd")}

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def echo(register):
    return register("echo", batch_size=16)


@pytest.fixture(scope="module")
def about(register):
    return register("about")


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.inference) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture(params=["sync", "async"])
async def predict(request, server, client):
    """Client.predict and AsyncClient.predict, both awaited."""
    if request.param == "sync":
        yield lambda *args, **kwargs: asyncio.to_thread(client.predict, *args, **kwargs)
    else:
        async with AsyncClient(server.inference) as async_client:
            yield async_client.predict


def same(one, other):
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_values(value, echo, predict):
    """A value of each kind → the handler gets it, and what it returns arrives the same."""
    assert same((await predict(echo, {"data": value})).output, value)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed(compression, stub, echo):
    """Compressed requests → answered as any other, at once and as a stream."""
    value = encode_value(bytes(100_000))
    request = pb.PredictRequest(model_name=echo, inputs={"data": value})
    assert stub.Predict(request, timeout=20, compression=compression).output == value
    (message,) = stub.PredictStream(pb.PredictStreamRequest(model_name=echo, inputs={"data": value}), timeout=20, compression=compression)
    assert message.output == value


def test_bfloat16(server, echo):
    """A torch tensor of bfloat16 → the same tensor back."""
    tensor = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    with server.client(tensors="torch") as client:
        assert torch.equal(client.predict(echo, tensor).output, tensor)


def test_handler_sees_python_types(client, about):
    """Each kind of input → the type the handler sees."""
    inputs = {"bytes": b"x", "text": "x", "json": {"x": 1}, "tensor": np.zeros(2), "named": {"x": b"x"}, "strings": np.array(["x"])}
    expected = {"bytes": "bytearray", "text": "str", "json": "dict", "tensor": "Tensor", "named": "dict", "strings": "ndarray"}
    assert client.predict(about, inputs).output["inputs"] == expected


async def test_request_id_and_timing(about, predict):
    """A request with an id → handler and reply have it; the reply names version, batch and times."""
    reply = await predict(about, "x", request_id="mine-1")
    assert (reply.request_id, reply.output["request_id"]) == ("mine-1", "mine-1")
    assert (reply.model_name, reply.model_version, reply.timing.batch_size) == (about, "1.0", 1)
    assert reply.timing.queue_seconds >= 0
    assert 0 < reply.timing.handler_seconds < 10


def test_request_id_made_by_server(client, about):
    """Requests without an id → each gets another one."""
    ids = {client.predict(about, "x").request_id for _ in range(3)}
    assert len(ids) == 3
    assert all(ids)


async def test_metadata_are_headers(about, predict):
    """Call metadata → request headers in the handler; the authorization stays with the server."""
    reply = await predict(about, "x", metadata=[("x-tenant", "blue"), ("authorization", "secret"), ("x-bin", b"\x01")])
    assert reply.output["headers"] == {"x-tenant": "blue"}


async def test_repeated_metadata(about, predict):
    """Call metadata with a key twice → one request header, the values joined in their order."""
    reply = await predict(about, "x", metadata=[("x-via", "one"), ("x-tenant", "blue"), ("x-via", "two")])
    assert reply.output["headers"] == {"x-via": "one, two", "x-tenant": "blue"}


def test_raw_stub(stub, echo):
    """The generated stub → a reply whose JSON is a Struct, not text."""
    reply = stub.Predict(pb.PredictRequest(model_name=echo, inputs={"data": encode_value({"a": [1]})}))
    assert reply.output.json.struct_value["a"][0] == 1
    assert reply.timing.batch_size == 1


def test_stream(client, echo):
    """PredictStream with a handler that returns once → one message."""
    replies = list(client.stream(echo, "x", request_id="s-1"))
    assert [(reply.output, reply.request_id, reply.timing.batch_size) for reply in replies] == [("x", "s-1", 1)]


def test_stream_error(client, echo):
    """PredictStream with a wrong input name → the error of Predict."""
    with pytest.raises(CallError) as caught:
        list(client.stream(echo, {"body": "x"}))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INTERNAL, "HANDLER_ERROR")


def session_request(model, text, **fields):
    return pb.PredictSessionRequest(model_name=model, inputs={"data": encode_value(text)}, **fields)


def test_session(stub, echo):
    """A session of several requests, the model named once → a reply to each, in order."""
    requests = [session_request(echo if index == 0 else "", str(index), request_id=f"r{index}") for index in range(20)]
    replies = list(stub.PredictSession(iter(requests)))
    assert [(reply.output.text, reply.request_id) for reply in replies] == [(str(index), f"r{index}") for index in range(20)]


def test_session_ends_with_first_error(stub, client, register):
    """A session whose second request is wrong → one reply, then its status; the third is not run."""
    model = register("gate")
    requests = [session_request(model, "", request_id="one"), session_request(model, "", model_version="9"), session_request(model, "")]
    replies = stub.PredictSession(iter(requests))
    assert next(replies).request_id == "one"
    with pytest.raises(grpc.RpcError) as caught:
        next(replies)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert client.predict(model, "", request_id="last").output["seen"] == ["one", "last"]


def test_versions(client, register):
    """Two versions at once → each by number; the first is the default until another is set."""
    model = register("about", version="1.0")
    register("about", name=model, version="2.0")
    versions = [client.predict(model, "x", version=version).output["version"] for version in ("", "1.0", "2.0")]
    assert versions == ["1.0", "1.0", "2.0"]
    client.set_default(model, "2.0")
    assert client.predict(model, "x").model_version == "2.0"


@pytest.fixture
def busy(register, client, gate):
    """A model whose one worker is busy, with two more requests waiting; all are answered when the gate is open."""
    model = register("gate")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, model, gate.path)
        gate.wait_entered()
        waiting = [threads.submit(client.predict, model, "") for _ in range(2)]
        wait_queued(client, model, 2)
        yield model
        gate.open()
        for call in (running, *waiting):
            call.result()


def wait_queued(client, model, count):
    until(lambda: client.model(model).versions[0].queued_requests == count)


def predict_later(stub, model, request_id, timeout=None):
    request = pb.PredictRequest(model_name=model, inputs={"data": encode_value("")}, request_id=request_id)
    return stub.Predict.future(request, timeout)


def test_cancelled_while_waiting(busy, stub, client, gate):
    """A call cancelled while it waits → it leaves the queue, and the handler never sees it."""
    call = predict_later(stub, busy, "cancelled")
    wait_queued(client, busy, 3)
    call.cancel()
    wait_queued(client, busy, 2)
    gate.open()
    seen = client.predict(busy, "").output["seen"]
    assert len(seen) == 4
    assert "cancelled" not in seen


def test_deadline_while_waiting(busy, stub, client, gate):
    """A deadline that passes while the call waits → DEADLINE_EXCEEDED, and the handler never sees it."""
    call = predict_later(stub, busy, "late", timeout=0.5)
    wait_queued(client, busy, 3)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_queued(client, busy, 2)
    gate.open()
    seen = client.predict(busy, "").output["seen"]
    assert len(seen) == 4
    assert "late" not in seen


def test_deadline_while_running(client, register, gate):
    """A deadline that passes while the handler runs → DEADLINE_EXCEEDED at once; the worker serves on."""
    model = register("gate")
    with ThreadPoolExecutor() as threads:
        call = threads.submit(client.predict, model, gate.path, timeout=0.5)
        gate.wait_entered()
        assert call.exception().code is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open()
    assert client.predict(model, "").output["pid"]


@pytest.mark.slow
def test_load(client, echo):
    """640 calls, 64 at a time → each its own result and id, some of them in one batch."""
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda n: client.predict(echo, {"data": {"n": n}}, request_id=f"load-{n}"), range(640)))
    assert [(reply.output["n"], reply.request_id) for reply in replies] == [(n, f"load-{n}") for n in range(640)]
    assert max(reply.timing.batch_size for reply in replies) > 1


@pytest.mark.slow
def test_large_payload(client, echo):
    """20 MB each way → the same bytes."""
    tensor = np.arange(5_000_000, dtype=np.float32)
    assert np.array_equal(client.predict(echo, tensor).output, tensor)


def test_session_keeps_its_version(stub, register):
    """A session that begins with a version → later requests get it too, unless they name another."""
    model = register("about", version="1.0")
    register("about", name=model, version="2.0")
    fields = [{"model_name": model, "model_version": "2.0"}, {}, {"model_name": model}, {"model_version": "1.0"}]
    requests = [pb.PredictSessionRequest(inputs={"data": encode_value("x")}, **one) for one in fields]
    assert [reply.model_version for reply in stub.PredictSession(iter(requests))] == ["2.0", "2.0", "2.0", "1.0"]


@pytest.mark.parametrize("streamed", [False, True])
def test_own_timeout(server, register, client, gate, streamed):
    """A request of Open Inference with a timeout of its own waits behind a running one → it is told when that has passed, and not run."""
    model = register("gate")
    request = infer_pb2.ModelInferRequest(model_name=model, id="late", raw_input_contents=[b"\x01\0\0\0x"])
    request.inputs.add(name="data", datatype="BYTES", shape=[1])
    request.parameters["timeout"].int64_param = 50_000
    with ThreadPoolExecutor() as threads, grpc.insecure_channel(server.inference) as channel:
        running = threads.submit(client.predict, model, gate.path)
        gate.wait_entered()
        if streamed:
            infer = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            said = infer_pb2.ModelStreamInferResponse.FromString(next(infer(iter([request.SerializeToString()]), timeout=30))).error_message
        else:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as raised:
                infer(request.SerializeToString(), timeout=30)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            said = raised.value.details()
        assert "the deadline passed while the request waited for a worker" in said
        assert not running.done()
        gate.open()
        assert running.result().output["seen"]
    assert "late" not in client.predict(model, "").output["seen"]


@pytest.mark.parametrize("streamed", [False, True])
def test_priority(server, register, client, gate, streamed):
    """Calls wait behind a running one, the last of them with a priority → it runs before those that the worker has not got yet."""
    model = register("gate")
    with ThreadPoolExecutor() as threads, grpc.insecure_channel(server.inference) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        def call(name, in_flight, *metadata):
            request = pb.PredictRequest(model_name=model, inputs={"data": encode_value("")}, request_id=name)
            started = stub.PredictStream(request, metadata=metadata) if streamed else stub.Predict.future(request, metadata=metadata)
            until(lambda: f'in_flight_requests{{model_name="{model}",model_version="1.0"}} {in_flight}.0' in metrics(server))
            return started

        running = threads.submit(client.predict, model, gate.path)
        gate.wait_entered()
        calls = [call("first", 2), call("second", 3), call("urgent", 4, ("servegrpc-priority", "1"))]
        gate.open()
        running.result()
        for one in calls:
            list(one) if streamed else one.result()
    seen = client.predict(model, "").output["seen"]
    assert seen.index("urgent") < seen.index("second")


def metrics(server):
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as page:
        return page.read().decode()


@pytest.mark.parametrize("priority", ["-1", "1.5", "high", "9" * 30])
def test_wrong_priority(server, echo, priority):
    """The header for the priority is no whole number → INVALID_INPUT naming it."""
    with grpc.insecure_channel(server.inference) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="servegrpc-priority must be a whole number"):
            stub.Predict(pb.PredictRequest(model_name=echo), metadata=[("servegrpc-priority", priority)])
