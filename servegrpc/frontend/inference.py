"""servegrpc.v1.InferenceService. Requests stay raw bytes: they are routed here, and decoded by the worker."""

from __future__ import annotations

from functools import partial

import grpc

from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry
from servegrpc.core.request import Request
from servegrpc.errors import InvalidInput
from servegrpc.frontend import public
from servegrpc.frontend.calls import begin_in_sequence, forwarded_headers, new_request_id, put, submit, submit_stream
from servegrpc.frontend.methods import Call, Method, Pump, ServerStream, Session, Stream, Unary
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import Route, route

SERVICE = "servegrpc.v1.InferenceService"


class InferenceService:
    """The three methods."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._methods: dict[str, Method] = {
            "Predict": Unary(Dialect.NATIVE, self._predict),
            "PredictStream": ServerStream(Dialect.NATIVE, self._predict_stream),
            "PredictSession": Session(Dialect.NATIVE, partial(PredictSession, registry)),
        }

    def add_to(self, server: grpc.Server) -> None:
        """Serve the methods on a server."""
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, public.handlers(self._methods)),))

    def fast_methods(self) -> dict[str, Method]:
        """Return the methods that a fast lane may serve in place of `add_to`'s, with the same results."""
        return {f"/{SERVICE}/{name}": method for name, method in self._methods.items()}

    def _predict(self, call: Call, raw: bytes) -> Pump | None:
        return submit(self._registry, Dialect.NATIVE, _checked(route(raw)), raw, call)

    def _predict_stream(self, stream: Stream, raw: bytes) -> Pump | None:
        return submit_stream(self._registry, Dialect.NATIVE, _checked(route(raw)), raw, stream)


class PredictSession:
    """A sequence of requests, each read when the one before it has been answered; the first that fails ends the session."""

    def __init__(self, registry: ModelRegistry, stream: Stream) -> None:
        self._registry = registry
        self._stream = stream
        self._id = new_request_id()
        self._first: Route | None = None
        self._pools: set[WorkerPool] = set()  # in which the sequence has been started
        stream.read_next()

    def message(self, raw: bytes) -> Pump | None:
        """Take the next request."""
        where = route(raw)
        self._first = self._first or _checked(where)
        name = where.model_name or self._first.model_name
        version = where.model_version or (self._first.model_version if name == self._first.model_name else "")
        self._stream.model_name, self._stream.request_id = name, where.request_id or new_request_id()
        pool = self._registry.get(name, version).pool
        headers = forwarded_headers(self._stream.metadata)
        request = Request(raw, Dialect.NATIVE, self._stream.request_id, self._answered, self._stream.deadline, headers)
        begin_in_sequence(pool, request, self._id, start=pool not in self._pools, end=False, named=False)
        self._pools.add(pool)
        self._stream.buffer_bytes = pool.settings.stream_buffer_bytes
        self._stream.on_cancel = partial(pool.cancel, request)
        return put(pool, request)

    def half_closed(self) -> None:
        """End: the last request has been answered."""
        self._stream.answer(Reply(empty=True))

    def over(self) -> None:
        """Close the sequence."""
        pools, self._pools = self._pools, set()
        for pool in pools:
            pool.sequences.end(self._id)

    def _answered(self, reply: Reply) -> None:
        self._stream.on_cancel = None  # it holds the request
        if reply.code or reply.error:
            self._stream.answer(reply)
        else:
            reply.more = True
            self._stream.message(reply)
            self._stream.read_next()


def _checked(where: Route) -> Route:
    if not where.model_name:
        raise InvalidInput("model_name is empty; name a registered model.", field="model_name")
    return where
