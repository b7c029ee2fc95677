"""servegrpc.v1.InferenceService. Requests stay raw bytes: they are routed here, and decoded by the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc

from servegrpc.core.registry import ModelRegistry
from servegrpc.errors import InvalidInput
from servegrpc.frontend.calls import run_blocking
from servegrpc.frontend.fast_lane import FastCall, Handler, run_fast
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import Route, route

SERVICE = "servegrpc.v1.InferenceService"


class InferenceService:
    """The public handlers of the three methods."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def add_to(self, server: grpc.Server) -> None:
        """Serve the methods on a server."""
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Predict": grpc.unary_unary_rpc_method_handler(self.predict),
            "PredictStream": grpc.unary_stream_rpc_method_handler(self.predict_stream),
            "PredictSession": grpc.stream_stream_rpc_method_handler(self.predict_session),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def predict(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Predict."""
        return self._run(_checked(route(raw)), raw, context)

    def predict_stream(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """PredictStream."""
        yield self._run(_checked(route(raw)), raw, context)

    def predict_session(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """PredictSession: each request is answered before the next is read."""
        first: Route | None = None
        for raw in requests:
            where = route(raw)
            first = first or _checked(where)
            name = where.model_name or first.model_name
            version = where.model_version or (first.model_version if name == first.model_name else "")
            yield self._run(Route(name, version, where.request_id), raw, context)

    def fast_methods(self) -> dict[str, Handler]:
        """Return the methods that a fast lane may serve in place of `add_to`'s, with the same results."""
        return {f"/{SERVICE}/Predict": self._predict_fast}

    def _predict_fast(self, call: FastCall, raw: bytes) -> Callable[[], None] | None:
        where = _checked(route(raw))
        return run_fast(self._registry, Dialect.NATIVE, where, raw, call)

    def _run(self, where: Route, raw: bytes, context: grpc.ServicerContext) -> bytes:
        return run_blocking(self._registry, Dialect.NATIVE, where, raw, context)


def _checked(where: Route) -> Route:
    if not where.model_name:
        raise InvalidInput("model_name is empty; name a registered model.", field="model_name")
    return where
