"""The lane by itself, on a real server and real channels: what it needs of grpcio, on every version that is supported."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import grpc
import pytest
from google.rpc import status_pb2

from servegrpc.errors import InvalidInput
from servegrpc.frontend.fast_lane import PENDING_OPTIONS, FastLane
from servegrpc.frontend.methods import Unary
from servegrpc.frontend.self_test import fast_lane_works
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect

METHOD = "/test.Lane/Call"
LIMIT_BYTES = 1024 * 1024


class Lane:
    """A server with one method in the lane, handled by whatever the test puts in `handler`."""

    def __init__(self):
        self.handler = lambda call, raw: call.answer(Reply(raw))
        self.server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", LIMIT_BYTES), *PENDING_OPTIONS])
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.lane = FastLane(self.server, {METHOD: Unary(Dialect.NATIVE, self._handle)})
        self.server.start()
        self.lane.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.method = self.channel.unary_unary(METHOD)

    def _handle(self, call, raw):
        return self.handler(call, raw)

    def close(self):
        self.channel.close()
        self.server.stop(5).wait()
        self.lane.stop()


@pytest.fixture
def lane():
    lane = Lane()
    yield lane
    lane.close()


def test_self_test():
    """The installed grpcio → the self test passes."""
    assert fast_lane_works()


@pytest.mark.parametrize("payload", [b"x", b"x" * 1_000_000, b""], ids=["small", "large", "empty"])
def test_reply(lane, payload):
    """A message of any size → the reply, byte for byte."""
    assert lane.method(payload, timeout=10) == payload


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_request(lane, compression):
    """A compressed request → its plain bytes reach the handler."""
    assert lane.method(b"x" * 100_000, timeout=10, compression=compression) == b"x" * 100_000


def test_metadata_and_deadline(lane):
    """Metadata and a deadline → the handler sees both, the deadline on the monotonic clock."""
    seen = {}

    def handler(call, raw):
        seen.update(metadata=dict(call.metadata), left=call.deadline - monotonic())
        call.answer(Reply(b"", trailers=(("answered", "yes"),)))

    lane.handler = handler
    _, call = lane.method.with_call(b"", timeout=10, metadata=(("who", "me"),))
    assert seen["metadata"]["who"] == "me"
    assert 5 < seen["left"] < 10.1
    assert ("answered", "yes") in [tuple(pair) for pair in call.trailing_metadata()]


def test_no_deadline(lane):
    """No deadline → infinity."""
    seen = []

    def handler(call, raw):
        seen.append(call.deadline)
        call.answer(Reply(b""))

    lane.handler = handler
    lane.method(b"")
    assert seen == [math.inf]


def test_error(lane):
    """A handler refuses → its code, message and details."""

    def handler(call, raw):
        raise InvalidInput("not this one: ä", field="inputs.x")

    lane.handler = handler
    with pytest.raises(grpc.RpcError) as caught:
        lane.method(b"", timeout=10)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "not this one: ä")
    details = dict(tuple(pair) for pair in caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert status_pb2.Status.FromString(details).message == "not this one: ä"


def test_fault(lane):
    """A handler of ours fails → INTERNAL without a trace, and the next call is served."""
    lane.handler = lambda call, raw: 1 / 0
    with pytest.raises(grpc.RpcError) as caught:
        lane.method(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "ZeroDivisionError" not in caught.value.details()
    lane.handler = lambda call, raw: call.answer(Reply(b"well"))
    assert lane.method(b"", timeout=10) == b"well"


def test_too_large(lane):
    """A message over the limit → RESOURCE_EXHAUSTED naming size and limit, and the next call is served."""
    with pytest.raises(grpc.RpcError) as caught:
        lane.method(b"x" * (LIMIT_BYTES + 1), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT_BYTES) in caught.value.details()
    assert lane.method(b"x", timeout=10) == b"x"


def test_cancel(lane):
    """A caller leaves → the handler's on_cancel is called, and answering all the same does no harm."""
    cancelled, arrived = threading.Event(), threading.Event()
    calls = []

    def handler(call, raw):
        call.on_cancel = cancelled.set
        calls.append(call)
        arrived.set()

    lane.handler = handler
    future = lane.method.future(b"", timeout=10)
    assert arrived.wait(10)
    future.cancel()
    assert cancelled.wait(10)
    calls[0].answer(Reply(b"too late"))
    lane.handler = lambda call, raw: call.answer(Reply(b"next"))
    assert lane.method(b"", timeout=10) == b"next"


def test_burst(lane):
    """5,000 calls at once, answered from other threads → each gets its own reply."""
    with ThreadPoolExecutor(4) as threads:
        lane.handler = lambda call, raw: threads.submit(call.answer, Reply(raw)) and None
        futures = [lane.method.future(str(number).encode(), timeout=60) for number in range(5000)]
        assert [future.result() for future in futures] == [str(number).encode() for number in range(5000)]


def test_stop_finishes_calls():
    """The server stops while a call is handled → that call is answered first."""
    lane = Lane()
    arrived = threading.Event()
    calls = []

    def handler(call, raw):
        calls.append(call)
        arrived.set()

    lane.handler = handler
    future = lane.method.future(b"", timeout=10)
    assert arrived.wait(10)
    stopped = lane.server.stop(10)
    calls[0].answer(Reply(b"answered"))
    assert future.result() == b"answered"
    stopped.wait()
    lane.close()


def test_no_message(lane):
    """A call that ends without a message → INVALID_ARGUMENT, and it does not stay."""
    with pytest.raises(grpc.RpcError) as caught:
        lane.channel.stream_unary(METHOD)(iter(()), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
