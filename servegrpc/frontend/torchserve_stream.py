"""TorchServe's StreamPredictions2: many requests on one stream, each with any number of answers. One that fails does not end the stream."""

from __future__ import annotations

from functools import partial

from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry
from servegrpc.core.request import Request
from servegrpc.errors import ServeError
from servegrpc.frontend.calls import begin_in_sequence, forwarded_headers, new_request_id
from servegrpc.frontend.methods import Pump, Stream
from servegrpc.frontend.open_requests import OpenRequests
from servegrpc.reply import Reply
from servegrpc.wire import torchserve
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import Route
from servegrpc.wire.torchserve_errors import EmptySequenceId


class StreamPredictions:
    """One stream. Requests of a sequence are run in order by one worker; those without one are a sequence of the stream's own."""

    def __init__(self, registry: ModelRegistry, stream: Stream) -> None:
        self._registry = registry
        self._stream = stream
        self._own_id = new_request_id()
        self._pools: set[WorkerPool] = set()  # in which the stream's own sequence has been begun
        self._open = OpenRequests(stream)

    def message(self, raw: bytes) -> Pump | None:
        """Take the next request."""
        pump: Pump | None = None
        where, sequence_id = torchserve.route(raw)
        try:
            pump = self._start(raw, where, sequence_id)
        except ServeError as error:
            self._send(sequence_id, Reply(error=error))
        self._open.taken()
        return pump

    def half_closed(self) -> None:
        """End when all requests have been answered."""
        self._open.half_closed()

    def _start(self, raw: bytes, where: Route, sequence_id: str) -> Pump | None:
        stream = self._stream
        stream.model_name, stream.request_id = where.model_name, new_request_id()
        with torchserve.asked(where):
            version = self._registry.get(where.model_name, where.model_version)
            if not sequence_id and version.archive.config.sequence_batching:
                raise EmptySequenceId(
                    "sequence_id is empty; the model keeps sequences and must know which one this is.", field="sequence_id"
                )
            pool = version.pool
            stream.buffer_bytes = pool.settings.stream_buffer_bytes
            send = partial(self._send, sequence_id)
            headers = forwarded_headers(stream.metadata)
            request = Request(raw, Dialect.TORCHSERVE, stream.request_id, send, stream.deadline, headers, message=send)
            if not sequence_id:
                self._pools.add(pool)
            begin_in_sequence(pool, request, sequence_id or self._own_id, start=None, end=False, named=bool(sequence_id))
            return self._open.start(pool, request)

    def over(self) -> None:
        """Let go of what is in work, and close the stream's own sequence."""
        self._open.over()
        pools, self._pools = self._pools, set()
        for pool in pools:
            pool.sequences.end(self._own_id)

    def _send(self, sequence_id: str, reply: Reply) -> None:
        """Send what a request is answered by: a part, the last part, or its end with nothing more."""
        if reply.error or reply.code:
            body = torchserve.stream_status(torchserve.status(reply.error) if reply.error else reply)
        elif reply.empty:
            return
        else:
            body = reply.body
        self._stream.message(Reply(body + torchserve.sequence_field(sequence_id), more=True))
