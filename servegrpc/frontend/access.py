"""Who may call what on a port: its token, and whether models may be registered by calls at all.

`AccessInterceptor` guards the public handlers; the fast lane calls the same `Access.check` for each of its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import grpc

from servegrpc.errors import ModelApiDisabled, ServeError
from servegrpc.frontend.tokens import KeyFile, Port, check_token

MODEL_API = ("RegisterModel", "UnregisterModel", "RepositoryModelLoad", "RepositoryModelUnload")  # of all services
DISABLED = "Model API disabled"
TORCHSERVE = "/org.pytorch.serve.grpc."
TORCHSERVE_CLASS = "\norg.pytorch.serve.archive.model.ModelException"  # its details name the exception
ADVICE = "; start the server with model_api = true, or --enable-model-api."


class Access:
    """The rules of one port. Without keys everyone may call."""

    def __init__(self, port: Port, keys: KeyFile | None, *, model_api: bool) -> None:
        self._port = port
        self._keys = keys
        self._model_api = model_api

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raise TokenRefused or ModelApiDisabled for a call that is not allowed."""
        if self._keys:
            check_token(self._keys, self._port, method, metadata)
        if not self._model_api and method.rpartition("/")[2] in MODEL_API:
            raise ModelApiDisabled(DISABLED + (TORCHSERVE_CLASS if method.startswith(TORCHSERVE) else ADVICE))


class AccessInterceptor(grpc.ServerInterceptor):
    """Lets a call through to its handler, or puts one in its place that raises what `check` raised."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Check one call."""
        handler = continuation(handler_call_details)
        try:
            self._access.check(handler_call_details.method, handler_call_details.invocation_metadata)
        except ServeError as error:
            return _refusing(handler, error)
        return handler  # type: ignore[return-value]  # None is grpcio's own way to say: unknown method


def _refusing(handler: grpc.RpcMethodHandler[Any, Any] | None, error: ServeError) -> grpc.RpcMethodHandler[Any, Any]:
    def refuse(*_: object) -> NoReturn:
        raise error

    if handler is None:
        return grpc.unary_unary_rpc_method_handler(refuse)
    arity = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    make = getattr(grpc, f"{arity}_rpc_method_handler")
    refusing: grpc.RpcMethodHandler[Any, Any] = make(refuse, handler.request_deserializer, handler.response_serializer)
    return refusing
