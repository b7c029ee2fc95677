"""What every public handler is wrapped in: errors become statuses, and nothing unexpected reaches a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import structlog

from servegrpc.errors import ServeError, ServerError
from servegrpc.frontend.calls import end_with_error, new_request_id

log = structlog.get_logger()

Behavior = Callable[[Any, grpc.ServicerContext], Any]  # of any arity, with any messages


class ErrorInterceptor(grpc.ServerInterceptor):
    """Ends a call with the status of the ServeError its handler raised; any other exception is logged and becomes SERVER_ERROR."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap the handler of one call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None  # type: ignore[return-value]  # grpcio's own way to say: unknown method
        method = handler_call_details.method
        for arity, guard in ARITIES.items():
            behavior = getattr(handler, arity)
            if behavior is not None and not getattr(behavior, "experimental_non_blocking", False):  # health's Watch is called otherwise
                make = getattr(grpc, f"{arity}_rpc_method_handler")
                guarded: grpc.RpcMethodHandler[Any, Any] = make(
                    guard(behavior, method), handler.request_deserializer, handler.response_serializer
                )
                return guarded
        return handler


def _guarded(behavior: Behavior, method: str) -> Behavior:
    def call(request: object, context: grpc.ServicerContext) -> object:
        try:
            return behavior(request, context)
        except Exception as error:  # noqa: BLE001 - one of the two places where anything may arrive
            _end(error, method, context)

    return call


def _guarded_stream(behavior: Behavior, method: str) -> Callable[[object, grpc.ServicerContext], Iterator[object]]:
    def call(request: object, context: grpc.ServicerContext) -> Iterator[object]:
        try:
            yield from behavior(request, context)
        except Exception as error:  # noqa: BLE001 - as above
            _end(error, method, context)

    return call


def _end(error: Exception, method: str, context: grpc.ServicerContext) -> NoReturn:
    if isinstance(error, ServeError):
        end_with_error(context, error)
    if not context.is_active() or context.code():  # type: ignore[attr-defined]  # missing in the type stubs
        raise error  # the call has ended already: by abort, or by its caller
    request_id = new_request_id()
    log.exception("server error", method=method, request_id=request_id, exc_info=error)
    end_with_error(context, ServerError(f"The server failed; its log has the trace. Request id: {request_id}.", request_id=request_id))


ARITIES = {"unary_unary": _guarded, "stream_unary": _guarded, "unary_stream": _guarded_stream, "stream_stream": _guarded_stream}
