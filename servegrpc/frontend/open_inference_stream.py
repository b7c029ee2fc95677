"""ModelStreamInfer: many requests on one stream, each with any number of replies. One that fails does not end the stream.

message ─► Request ─► queue ─► (worker) ─► _message* ─► _answered
└──────────┴─► ModelStreamInferResponse, as they come, of all requests
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from time import monotonic

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.core.batching import Request
from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry
from servegrpc.errors import ServeError
from servegrpc.frontend.calls import begin_in_sequence, forwarded_headers, leave, mind_reader, new_request_id, put
from servegrpc.frontend.client_memory import ClientMemory
from servegrpc.frontend.methods import Pump, Stream
from servegrpc.reply import Reply
from servegrpc.wire.codecs import CODECS
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.open_inference import Options, checked_route, request_id_of, stream_reply
from servegrpc.wire.scan import Route

MAX_OPEN = 64  # requests of one stream that are in work at once; the next is read when one of them has been answered
ERRORS_END_STREAM = ("triton_grpc_error", "true")  # metadata by which a caller asks for a status instead of messages


@dataclass(slots=True, eq=False)
class Open:
    """A request that is in work. `name` is its caller's id; the request itself is not known before it is made."""

    where: Route
    options: Options
    pool: WorkerPool
    request: Request | None = None


class StreamInfer:
    """One stream. What it knows changes under its lock; messages come one by one, answers from any thread."""

    def __init__(self, registry: ModelRegistry, memory: ClientMemory, stream: Stream) -> None:
        self._registry = registry
        self._memory = memory
        self._stream = stream
        self._lock = threading.Lock()
        self._open: set[Open] = set()
        self._reading = True
        self._half_closed = False
        self._ended = False
        self._errors_end_stream = ERRORS_END_STREAM in stream.metadata
        stream.on_cancel = self._leave
        stream.on_room = self._mind_reader
        stream.read_next()

    def message(self, raw: bytes) -> Pump | None:
        """Take the next request."""
        pump: Pump | None = None
        try:
            pump = self._start(raw)
        except ServeError as error:
            self._send_error(CODECS[Dialect.OPEN_INFERENCE].status(error), request_id_of(raw), error)
        with self._lock:
            self._reading = len(self._open) < MAX_OPEN and not self._ended
            reading = self._reading
        if reading:
            self._stream.read_next()
        return pump

    def half_closed(self) -> None:
        """End when all requests have been answered."""
        with self._lock:
            self._half_closed = True
            done = not self._open
        if done:
            self._stream.answer(Reply(empty=True))

    def _start(self, raw: bytes) -> Pump | None:
        where, options = checked_route(raw)
        stream = self._stream
        stream.model_name, stream.request_id = where.model_name, where.request_id or new_request_id()
        pool = self._registry.get(where.model_name, where.model_version).pool
        stream.buffer_bytes = pool.settings.stream_buffer_bytes
        opened = Open(where, options, pool)
        opened.request = request = Request(
            self._memory.describe_to_worker(raw),
            Dialect.OPEN_INFERENCE,
            stream.request_id,
            partial(self._answered, opened),
            min(stream.deadline, monotonic() + options.timeout_seconds),
            forwarded_headers(stream.metadata) + options.headers,
            message=self._message,
            priority=options.priority,
        )
        if options.sequence_id:
            begin_in_sequence(pool, request, options.sequence_id, start=options.sequence_start, end=options.sequence_end)
        with self._lock:
            self._open.add(opened)
        try:
            return put(pool, request)
        except ServeError:
            with self._lock:
                self._open.discard(opened)
            raise

    def _message(self, reply: Reply) -> None:
        self._send(stream_reply(reply.body, final=False))

    def _send(self, body: bytes) -> None:
        if not self._ended:
            self._stream.message(Reply(body, more=True))

    def _answered(self, opened: Open, reply: Reply) -> None:
        if reply.error or reply.code:
            status = CODECS[Dialect.OPEN_INFERENCE].status(reply.error) if reply.error else reply
            self._send_error(status, opened.where.request_id, reply.error)
        elif not reply.empty:
            self._send(stream_reply(reply.body, final=True))
        elif opened.options.empty_final_response:
            last = infer_pb2.ModelInferResponse(model_name=opened.where.model_name, id=opened.where.request_id)
            self._send(stream_reply(last.SerializeToString(), final=True))
        with self._lock:
            self._open.discard(opened)
            done = self._half_closed and not self._open and not self._ended
            read = not self._reading and not self._ended
            self._reading = True
        if done:
            self._stream.answer(Reply(empty=True))
        elif read:
            self._stream.read_next()

    def _send_error(self, status: Reply, request_id: str, error: ServeError | None) -> None:
        if self._errors_end_stream:
            self._end(Reply(error=error) if error else status)
            return
        response = infer_pb2.ModelStreamInferResponse(error_message=status.message)
        response.infer_response.id = request_id
        self._send(response.SerializeToString())

    def _end(self, status: Reply) -> None:
        """End the stream with a status; what is still in work is answered to nobody."""
        with self._lock:
            first, self._ended = not self._ended, True
        if first:
            self._stream.answer(status)
            self._leave()

    def _leave(self) -> None:
        for opened in self._all_open():
            if opened.request:
                leave(self._stream, opened.pool, opened.request)

    def _mind_reader(self, room: bool) -> None:
        for opened in self._all_open():
            if opened.request:
                mind_reader(self._stream, opened.pool, opened.request, room)

    def _all_open(self) -> list[Open]:
        with self._lock:
            return list(self._open)
