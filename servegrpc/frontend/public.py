"""The methods that run models, served by grpcio's public API: one thread for each call, two for a session.

They serve where the fast lane does not, with the same results.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from time import monotonic
from typing import TypeVar

import grpc

from servegrpc.core.request import why_left
from servegrpc.errors import Code, QueueFull, RequestCancelled, RequestExpired, ServeError
from servegrpc.frontend.calls import call_note, end_call
from servegrpc.frontend.methods import BUFFER_BYTES, Conversation, Method, ServerStream, Session, Unary
from servegrpc.frontend.open_calls import open_calls
from servegrpc.frontend.sending import sending
from servegrpc.reply import Reply
from servegrpc.wire.codecs import CODECS
from servegrpc.wire.dialect import Dialect

Started = TypeVar("Started")

MAX_STREAMS = 224  # of the 256 threads of the port; a session takes one more, of its own
_streams = threading.BoundedSemaphore(MAX_STREAMS)


def handlers(methods: Mapping[str, Method]) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Return grpcio's handlers of the methods, by name."""
    return {name: _handler(method) for name, method in methods.items()}


def _handler(method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(lambda raw, context: PublicCall(context, method.dialect).run(method, raw))
    if isinstance(method, ServerStream):
        return grpc.unary_stream_rpc_method_handler(lambda raw, context: PublicCall(context, method.dialect).stream(method, raw))
    return grpc.stream_stream_rpc_method_handler(lambda requests, context: PublicCall(context, method.dialect).converse(method, requests))


class PublicCall:
    """A call or a stream on grpcio's public API. What it is sent waits in a queue for the call's own thread."""

    def __init__(self, context: grpc.ServicerContext, dialect: Dialect) -> None:
        self.metadata = tuple((pair[0], pair[1]) for pair in context.invocation_metadata())
        remaining = context.time_remaining()
        self.deadline = math.inf if remaining is None else monotonic() + remaining
        self.model_name = self.request_id = ""
        self.on_cancel: Callable[[], object] | None = None
        self.on_room: Callable[[bool], None] | None = None
        self.buffer_bytes = BUFFER_BYTES
        self._context = context
        self._dialect = dialect
        self._waiting: SimpleQueue[tuple[Reply, bool]] = SimpleQueue()  # and whether it is the last
        self._waiting_bytes = 0
        self._lock = threading.Lock()  # guards the next three, and `_waiting_bytes`
        self._over = False  # its caller has left, or has all of its answer
        self._paused = False
        self._postponed = 0  # readings of the caller's messages
        self._wanted = threading.Semaphore(0)  # messages of the caller
        self._ended = False

    # --- what the request is answered by, from any thread

    def answer(self, reply: Reply) -> None:
        """End the call."""
        with self._lock:
            if not self._over:  # else nothing would end the sending
                sending.begin(self)
        self._waiting.put((reply, True))

    def message(self, reply: Reply) -> None:
        """Send a message."""
        with self._lock:
            self._waiting_bytes += len(reply.body)
            pause = not self._paused and self._waiting_bytes > self.buffer_bytes
            self._paused = self._paused or pause
        self._waiting.put((reply, False))
        if pause and self.on_room:
            self.on_room(False)

    def read_next(self) -> None:
        """Take the caller's next message, when there is room for what it will be answered."""
        with self._lock:
            self._postponed += self._paused
            if self._paused:
                return
        self._wanted.release()

    # --- the call's own thread

    def run(self, method: Unary, raw: bytes) -> bytes:
        """Serve a call with one answer."""
        with self._counted():
            self._start(lambda: method.start(self, raw))
            reply, _ = self._waiting.get()
            return self._close(reply)

    def stream(self, method: ServerStream, raw: bytes) -> Iterator[bytes]:
        """Serve a call with one message in and any number out."""
        with self._counted(), self._one_of_many():
            self._start(lambda: method.start(self, raw))
            yield from self._send_all()

    def converse(self, method: Session, requests: Iterator[bytes]) -> Iterator[bytes]:
        """Serve a call with messages both ways."""
        with self._counted(), self._one_of_many():
            yield from self._converse(method, requests)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the call, or refuse it when there are too many."""
        counted = self._guarded(open_calls.begin)
        try:
            yield
        finally:
            if counted:
                open_calls.end()

    @contextmanager
    def _one_of_many(self) -> Iterator[None]:
        """Hold one of the places for streams; a call without one is refused, so that they do not take all threads."""
        if not _streams.acquire(blocking=False):
            full = QueueFull(
                f"{MAX_STREAMS} streams are open, as many as this server takes without its fast lane.", retry_after_seconds=1.0
            )
            self._close(Reply(error=full))
        try:
            yield
        finally:
            _streams.release()

    def _converse(self, method: Session, requests: Iterator[bytes]) -> Iterator[bytes]:
        conversation = self._guarded(lambda: method.start(self))
        reader = threading.Thread(target=self._read, args=(conversation, requests), name="session", daemon=True)
        self._listen()
        reader.start()
        try:
            yield from self._send_all()
        finally:
            self._ended = True
            self._wanted.release()
            conversation.over()

    def _read(self, conversation: Conversation, requests: Iterator[bytes]) -> None:
        try:
            for raw in requests:
                self._wanted.acquire()
                if self._ended:
                    return
                pump = conversation.message(raw)
                if pump:
                    pump()
            self._wanted.acquire()
            conversation.half_closed()
        except ServeError as error:
            self.answer(Reply(error=error))
        except Exception:  # noqa: BLE001 - grpc raises a bare one when the caller leaves
            self._left()

    def _start(self, start: Callable[[], Callable[[], None] | None]) -> None:
        pump = self._guarded(start)
        self._listen()
        if pump:
            pump()

    def _guarded(self, start: Callable[[], Started]) -> Started:
        try:
            return start()
        except ServeError as error:
            self._close(Reply(error=error))
            raise AssertionError from error  # _close raises

    def _listen(self) -> None:
        call_note.set((self.model_name, self.request_id))
        if not self._context.add_callback(self._left) or not self._context.is_active():
            self._left()

    def _left(self) -> None:
        """Note that the call is over: its caller has left, or has all of its answer."""
        on_cancel, self.on_cancel = self.on_cancel, None
        if not self._ended and on_cancel:
            on_cancel()
        expired = why_left(self.deadline) is Code.DEADLINE_EXCEEDED
        gone = RequestExpired("The deadline has passed.") if expired else RequestCancelled("The caller left.")
        with self._lock:
            self._over = True
        self.answer(Reply(error=gone))  # wakes the call's thread; the access log is told
        sending.end(self)

    def _send_all(self) -> Iterator[bytes]:
        while True:
            reply, last = self._waiting.get()
            if last:
                body = self._close(reply)
                if not reply.empty:
                    yield body
                return
            yield reply.body
            with self._lock:
                self._waiting_bytes -= len(reply.body)
                resume = self._paused and self._waiting_bytes <= self.buffer_bytes // 2
                self._paused = self._paused and not resume
                postponed, self._postponed = (self._postponed, 0) if resume else (0, self._postponed)
            for _ in range(postponed):
                self._wanted.release()
            if resume and self.on_room:
                self.on_room(True)

    def _close(self, reply: Reply) -> bytes:
        """Return the body of the last reply; ends the call when it failed."""
        self._ended = True
        self.on_cancel = None
        call_note.set((self.model_name, self.request_id))
        if reply.error:
            reply = CODECS[self._dialect].status(reply.error)
        if reply.code:
            end_call(self._context, reply.code, reply.message, reply.body)
        if reply.trailers:
            self._context.set_trailing_metadata(reply.trailers)
        return reply.body
