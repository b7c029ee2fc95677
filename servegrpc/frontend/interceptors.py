"""What every public handler is wrapped in: errors become statuses, and nothing unexpected reaches a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError

from servegrpc.errors import InvalidInput, ServeError, ServerError
from servegrpc.frontend.access_log import AccessLog
from servegrpc.frontend.calls import call_note, end_with_error, new_request_id

log = structlog.get_logger()

Behavior = Callable[[Any, grpc.ServicerContext], Any]  # of any arity, with any messages


class CallInterceptor(grpc.ServerInterceptor):
    """Ends a call with the status of the ServeError its handler raised; any other exception is logged and becomes SERVER_ERROR.

    Writes each call to the access log, if there is one.
    """

    def __init__(self, access_log: AccessLog | None) -> None:
        self._access_log = access_log

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap the handler of one call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None  # type: ignore[return-value]  # grpcio's own way to say: unknown method
        for arity in ("unary_unary", "stream_unary", "unary_stream", "stream_stream"):
            behavior = getattr(handler, arity)
            if behavior is not None and not getattr(behavior, "experimental_non_blocking", False):  # health's Watch is called otherwise
                guard = self._guard_stream if arity.endswith("stream") else self._guard
                make = getattr(grpc, f"{arity}_rpc_method_handler")
                if arity.startswith("unary") and handler.request_deserializer:
                    behavior = _reading(behavior, handler.request_deserializer)  # grpcio would call what is no message INTERNAL
                guarded: grpc.RpcMethodHandler[Any, Any] = make(
                    guard(behavior, handler_call_details.method),
                    handler.request_deserializer if arity.startswith("stream") else None,
                    handler.response_serializer,
                )
                return guarded
        return handler

    def _guard(self, behavior: Behavior, method: str) -> Behavior:
        def call(request: object, context: grpc.ServicerContext) -> object:
            with self._watched(method, context):
                return behavior(request, context)

        return call

    def _guard_stream(self, behavior: Behavior, method: str) -> Behavior:
        def call(request: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self._watched(method, context):
                yield from behavior(request, context)

        return call

    @contextmanager
    def _watched(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started = monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one of the two places where anything may arrive
            _end(error, method, context)
        finally:
            if self._access_log:
                code: grpc.StatusCode | None = context.code()  # type: ignore[attr-defined]  # missing in the type stubs
                self._access_log.write(method, *call_note.get(), code.value[0] if code else 0, monotonic() - started)


def _reading(behavior: Behavior, deserialize: Callable[[bytes], Any]) -> Behavior:
    def call(raw: bytes, context: grpc.ServicerContext) -> object:
        try:
            request = deserialize(raw)
        except (DecodeError, ValueError) as error:
            raise InvalidInput(f"The request is no message of this method: {error}.") from None
        return behavior(request, context)

    return call


def _end(error: Exception, method: str, context: grpc.ServicerContext) -> NoReturn:
    if isinstance(error, ServeError):
        end_with_error(context, error)
    if not context.is_active() or context.code():  # type: ignore[attr-defined]  # missing in the type stubs
        raise error  # the call has ended already: by abort, or by its caller
    request_id = new_request_id()
    log.exception("server error", method=method, request_id=request_id, exc_info=error)
    end_with_error(context, ServerError(f"The server failed; its log has the trace. Request id: {request_id}.", request_id=request_id))
