"""The public handlers by themselves, on a real server: how many streams they take."""

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import grpc
import pytest

from servegrpc.frontend.methods import ServerStream, Unary
from servegrpc.frontend.public import MAX_STREAMS, handlers
from servegrpc.frontend.sending import sending
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect

SERVICE = "test.Public"


class Public:
    """A server with a unary method that echoes, and a stream that sends its input and then goes on until the test ends it."""

    def __init__(self):
        self.open = SimpleQueue()
        self.cancelled = threading.Semaphore(0)
        methods = {
            "Echo": Unary(Dialect.NATIVE, self._echo),
            "Later": Unary(Dialect.NATIVE, self._begin_later),
            "Stream": ServerStream(Dialect.NATIVE, self._begin),
            "LaterStream": ServerStream(Dialect.NATIVE, self._begin_later),
        }
        self.server = grpc.server(ThreadPoolExecutor(MAX_STREAMS + 2), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers(methods)),))
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def _echo(self, call, raw):
        call.answer(Reply(raw))

    def _begin(self, call, raw):
        self.open.put(call)
        call.message(Reply(raw))

    def _begin_later(self, call, raw):
        call.on_cancel = self.cancelled.release  # and a worker goes on
        self.open.put(call)

    def echo(self):
        return self.channel.unary_unary(f"/{SERVICE}/Echo")(b"x", timeout=20)

    def stream(self):
        """Begin a stream; returns when its first message is there."""
        stream = self.channel.unary_stream(f"/{SERVICE}/Stream")(b"x", timeout=60)
        assert next(stream) == b"x"
        return stream

    def close(self):
        self.channel.close()
        self.server.stop(5).wait()


@pytest.fixture
def public():
    public = Public()
    yield public
    public.close()


@pytest.mark.slow
def test_streams_leave_threads_for_calls(public):
    """As many streams as there may be are open → another is RESOURCE_EXHAUSTED, a call is answered; when one has ended, another begins."""
    streams = [public.stream() for _ in range(MAX_STREAMS)]
    with pytest.raises(grpc.RpcError) as refused:
        public.stream()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{MAX_STREAMS} streams are open" in refused.value.details()
    assert public.echo() == b"x"
    public.open.get().answer(Reply(b"end"))
    assert list(streams[0]) == [b"end"]
    public.stream()


@pytest.mark.parametrize("method", ["Later", "LaterStream"])
def test_answered_after_the_caller_left(public, method):
    """Callers leave, and their requests are answered afterwards → nothing is left that a drain would wait for."""
    kind = public.channel.unary_unary if method == "Later" else public.channel.unary_stream
    make, calls = kind(f"/{SERVICE}/{method}"), []
    for _ in range(3):
        call = make.future(b"x") if method == "Later" else make(b"x")
        calls.append(public.open.get(timeout=20))
        call.cancel()
        assert public.cancelled.acquire(timeout=20)
    public.server.stop(None).wait(20)  # until the calls have been told
    for call in calls:
        call.answer(Reply(b"late"))
    assert not sending._calls.intersection(calls)
