"""Tries the fast lane at start-up, on a server of its own, with real calls: everything the lane relies on in grpcio's private parts."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog

from servegrpc.errors import InvalidInput
from servegrpc.frontend.calls import DETAILS_KEY
from servegrpc.frontend.fast_lane import FastLane
from servegrpc.frontend.methods import Call, Pump, Session, Stream, Unary
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect

log = structlog.get_logger()

METHOD = "/servegrpc.SelfTest/Echo"
TALK = "/servegrpc.SelfTest/Talk"
SECONDS = 5.0  # for each step; it takes milliseconds


class SelfTestError(Exception):
    """A step went wrong; the message says which."""


def fast_lane_works() -> bool:
    """Return whether the fast lane works with the installed grpcio; logs one warning with the reason when it does not."""
    try:
        _run()
    except Exception as error:  # noqa: BLE001 - private parts may fail in any way
        log.warning(
            "fast lane is off; grpcio's public handlers serve, slower", reason=f"{type(error).__name__}: {error}", grpcio=grpc.__version__
        )
        return False
    return True


class EchoTalk:
    """Sends each message back, and one at the end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        stream.read_next()

    def message(self, raw: bytes) -> Pump | None:
        """Send it back."""
        self._stream.message(Reply(raw, more=True))
        self._stream.read_next()
        return None

    def half_closed(self) -> None:
        """End."""
        self._stream.answer(Reply(b"end"))

    def over(self) -> None:
        """Do nothing: there is nothing to let go of."""


def _run() -> None:
    cancelled, waiting = threading.Event(), threading.Event()

    def echo(call: Call, raw: bytes) -> Pump | None:
        if raw == b"refuse":
            raise InvalidInput("refused")
        if raw == b"wait":
            call.on_cancel = cancelled.set
            waiting.set()
            return None
        metadata = dict(call.metadata)
        if metadata.get("self-test") != "yes" or call.deadline == math.inf:
            raise InvalidInput("metadata or deadline is missing")
        return lambda: call.answer(Reply(raw, trailers=(("self-test", "done"),)))

    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    lane = FastLane(server, {METHOD: Unary(Dialect.NATIVE, echo), TALK: Session(Dialect.NATIVE, EchoTalk)})
    server.start()
    lane.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            _check(channel.unary_unary(METHOD), waiting, cancelled)
            talk: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(TALK)
            if list(talk(iter([b"a", b"b"]), timeout=SECONDS)) != [b"a", b"b", b"end"]:
                raise SelfTestError("a stream came back wrong")
    finally:
        server.stop(0).wait(SECONDS)
        lane.stop()


def _check(method: grpc.UnaryUnaryMultiCallable[bytes, bytes], waiting: threading.Event, cancelled: threading.Event) -> None:
    reply, call = method.with_call(b"echo", timeout=SECONDS, metadata=(("self-test", "yes"),))
    if reply != b"echo" or "self-test" not in dict(call.trailing_metadata()):
        raise SelfTestError("a reply or its trailing metadata came back wrong")
    try:
        method(b"refuse", timeout=SECONDS)
        raise SelfTestError("an error status was lost")
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or DETAILS_KEY not in [pair.key for pair in error.trailing_metadata()]:
            raise SelfTestError("an error status came back wrong") from None
    left = method.future(b"wait", timeout=SECONDS)
    if not waiting.wait(SECONDS):
        raise SelfTestError("a call did not arrive")
    left.cancel()
    if not cancelled.wait(SECONDS):
        raise SelfTestError("a cancelled call was not noticed")
