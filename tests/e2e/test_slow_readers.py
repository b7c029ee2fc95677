"""Callers who do not read their streams, through a real server: what becomes of theirs, and of others."""

from contextlib import contextmanager

import grpc
import pytest

from servegrpc.v1 import inference_pb2 as pb
from servegrpc.v1 import inference_pb2_grpc
from servegrpc.values import encode_value

LIVE = {
    "step-wise": """
from servegrpc.handlers.stepping import StepHandler
from servegrpc.handlers.streaming import Last


class Steps(StepHandler):
    def start(self, request):
        request.state = 0

    def step(self, active):
        for request in active:
            request.state += 1
        return [Last("end") if request.state == request.data["count"] else "x" * request.data["size"] for request in active]
""",
    "asynchronous": """
import asyncio


async def handle(data, context):
    for _ in range(data[0]["count"] - 1):
        yield ["x" * data[0]["size"]]
        await asyncio.sleep(0)
    yield ["end"]
""",
}

pytestmark = pytest.mark.both_lanes


@contextmanager
def unread(server, model, count):
    """Open a stream of messages of 10,000 bytes, read the first, and give the iterator of the others."""
    with grpc.insecure_channel(server.inference) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.PredictStreamRequest(model_name=model, inputs={"count": encode_value(count), "size": encode_value(10_000)})
        stream = stub.PredictStream(request)
        assert len(next(stream).output.text) == 10_000
        yield stream


def test_waited_for(server, register):
    """A caller reads nothing for now, alone in its batch → its handler is paused, and then it gets everything in order."""
    model = register("count", config="streamBufferBytes: 100000\n")
    with unread(server, model, 300) as stream:
        assert sum(1 for _ in stream) == 299


def test_ended(server, client, register):
    """A caller reads nothing where the model does not wait → that stream ends with SLOW_READER, and the next is served."""
    model = register("count", config="streamBufferBytes: 100000\nonSlowReader: end\n")
    with unread(server, model, 10**6) as stream:
        assert [prediction.output for prediction in client.stream(model, {"count": 1})] == [1]  # it waits until the worker is free
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", LIVE)
def test_beside_others(server, client, register, kind):
    """A caller of a live worker does not read → the streams of others go on, and then it gets all of its own."""
    model = register(code=LIVE[kind], config="streamBufferBytes: 100000\n", batch_size=4)
    with unread(server, model, 2000) as slow:
        for _ in range(2):
            others = [prediction.output for prediction in client.stream(model, {"count": 500, "size": 10_000})]
            assert (len(others), others[-1]) == (500, "end")
        assert client.predict(model, {"count": 3, "size": 1}).output == "end"
        *messages, last = (message.output.text for message in slow)
        assert ({len(text) for text in messages}, len(messages), last) == ({10_000}, 1998, "end")
