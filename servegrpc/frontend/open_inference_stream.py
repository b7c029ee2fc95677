"""ModelStreamInfer: many requests on one stream, each with any number of replies. One that fails does not end the stream."""

from __future__ import annotations

import math
from functools import partial
from time import monotonic

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.core.registry import ModelRegistry
from servegrpc.core.request import Request
from servegrpc.errors import ServeError
from servegrpc.frontend.calls import begin_in_sequence, check_free, forwarded_headers, new_request_id
from servegrpc.frontend.client_memory import ClientMemory
from servegrpc.frontend.methods import Pump, Stream
from servegrpc.frontend.open_requests import OpenRequests
from servegrpc.reply import Reply
from servegrpc.wire.codecs import CODECS
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.open_inference import Options, checked_route, request_id_of, stream_reply
from servegrpc.wire.scan import Route

ERRORS_END_STREAM = ("triton_grpc_error", "true")  # metadata by which a caller asks for a status instead of messages


class StreamInfer:
    """One stream. Messages come one by one, answers from any thread."""

    def __init__(self, registry: ModelRegistry, memory: ClientMemory, stream: Stream) -> None:
        self._registry = registry
        self._memory = memory
        self._stream = stream
        self._errors_end_stream = ERRORS_END_STREAM in stream.metadata
        self._open = OpenRequests(stream)

    def message(self, raw: bytes) -> Pump | None:
        """Take the next request."""
        pump: Pump | None = None
        try:
            pump = self._start(raw)
        except ServeError as error:
            self._send_error(Reply(error=error), request_id_of(raw))
        self._open.taken()
        return pump

    def half_closed(self) -> None:
        """End when all requests have been answered."""
        self._open.half_closed()

    def over(self) -> None:
        """Let go of what is in work."""
        self._open.over()

    def _start(self, raw: bytes) -> Pump | None:
        where, options = checked_route(raw)
        stream = self._stream
        stream.model_name, stream.request_id = where.model_name, where.request_id or new_request_id()
        version = self._registry.get(where.model_name, where.model_version)
        pool = version.pool
        stream.buffer_bytes = pool.settings.stream_buffer_bytes
        request = Request(
            self._memory.describe_to_worker(raw),
            Dialect.OPEN_INFERENCE,
            stream.request_id,
            partial(self._answered, where, options),
            min(stream.deadline, monotonic() + options.timeout_seconds),
            forwarded_headers(stream.metadata) + options.headers,
            message=lambda reply: self._send(stream_reply(reply.body, final=False)),
            priority=options.priority,
            expires=options.timeout_seconds < math.inf,
        )
        if options.sequence_id:
            begin_in_sequence(pool, request, options.sequence_id, start=options.sequence_start, end=options.sequence_end)
        else:
            check_free(version)
        return self._open.start(pool, request)

    def _answered(self, where: Route, options: Options, reply: Reply) -> None:
        if reply.error or reply.code:
            self._send_error(reply, where.request_id)
        elif not reply.empty:
            self._send(stream_reply(reply.body, final=True))
        elif options.empty_final_response:
            last = infer_pb2.ModelInferResponse(model_name=where.model_name, id=where.request_id)
            self._send(stream_reply(last.SerializeToString(), final=True))

    def _send_error(self, failed: Reply, request_id: str) -> None:
        if self._errors_end_stream:
            self._open.end(failed)
            return
        status = CODECS[Dialect.OPEN_INFERENCE].status(failed.error) if failed.error else failed
        response = infer_pb2.ModelStreamInferResponse(error_message=status.message)
        response.infer_response.id = request_id
        self._send(response.SerializeToString())

    def _send(self, body: bytes) -> None:
        if not self._open.ended:
            self._stream.message(Reply(body, more=True))
