"""inference.GRPCInferenceService: the Open Inference Protocol with Triton's extensions. Requests stay raw bytes: the worker decodes them.

The inference port has all of it, but what changes the server only when it is told so; the management port has all but inference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message

from servegrpc.core.manager import ModelManager
from servegrpc.errors import NotSupported
from servegrpc.frontend import public
from servegrpc.frontend.calls import submit
from servegrpc.frontend.client_memory import ClientMemory
from servegrpc.frontend.methods import Call, Method, Pump, Session, Unary
from servegrpc.frontend.open_inference_about import AboutMethods
from servegrpc.frontend.open_inference_admin import AdminMethods
from servegrpc.frontend.open_inference_stream import StreamInfer
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.open_inference import checked_route

SERVICE = "inference.GRPCInferenceService"
SERVICES = (SERVICE, "org.pytorch.serve.grpc.openinference.GRPCInferenceService")  # the same under TorchServe's name

Methods: TypeAlias = dict[str, "grpc.RpcMethodHandler[Any, Any]"]  # each has messages of its own


class OpenInferenceService:
    """All methods of the service. With `allow_admin` the inference port has also those that change the server."""

    def __init__(
        self,
        manager: ModelManager,
        *,
        model_store: Path | None,
        allow_admin: bool,
        memory_prefix: str,
        log_level: str,
        server_ready: Callable[[], bool],
    ) -> None:
        self._registry = manager.registry
        self._memory = ClientMemory(memory_prefix)
        self._about = AboutMethods(manager.registry, server_ready)
        self._admin = AdminMethods(manager, model_store, self._memory, log_level)
        self._allow_admin = allow_admin
        self._methods: dict[str, Method] = {
            "ModelInfer": Unary(Dialect.OPEN_INFERENCE, self._infer),
            "ModelStreamInfer": Session(Dialect.OPEN_INFERENCE, partial(StreamInfer, manager.registry, self._memory)),
        }

    def add_to(self, server: grpc.Server) -> None:
        """Serve the methods of the inference port."""
        admin = _typed(self._admin.methods())
        if not self._allow_admin:
            admin = {name: grpc.unary_unary_rpc_method_handler(_refuse(name)) for name in admin}
        handlers: Methods = {
            **public.handlers(self._methods),
            **_typed(self._about.methods()),
            **_typed(self._admin.memory_methods()),
            **admin,
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers) for service in SERVICES])

    def add_to_management(self, server: grpc.Server) -> None:
        """Serve the methods of the management port."""
        handlers = _typed({**self._about.methods(), **self._admin.methods(), **self._admin.memory_methods()})
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def fast_methods(self) -> dict[str, Method]:
        """Return the methods that a fast lane may serve in place of `add_to`'s, with the same results."""
        return {f"/{service}/{name}": method for service in SERVICES for name, method in self._methods.items()}

    def _infer(self, call: Call, raw: bytes) -> Pump | None:
        where, options = checked_route(raw)
        return submit(
            self._registry,
            Dialect.OPEN_INFERENCE,
            where,
            self._memory.describe_to_worker(raw),
            call,
            headers=options.headers,
            timeout_seconds=options.timeout_seconds,
            priority=options.priority,
            sequence_id=options.sequence_id,
            sequence_start=options.sequence_start,
            sequence_end=options.sequence_end,
        )


def _typed(methods: dict[str, tuple[type[Message], Callable[[Any], Message]]]) -> Methods:
    """Return the handlers of methods that take and return messages."""
    return {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, _, answer=answer: answer(request), request_class.FromString, lambda reply: reply.SerializeToString()
        )
        for name, (request_class, answer) in methods.items()
    }


def _refuse(name: str) -> Callable[[bytes, grpc.ServicerContext], NoReturn]:
    def refuse(raw: bytes, context: grpc.ServicerContext) -> NoReturn:  # noqa: ARG001
        text = f"{name} is served on the management port; to have it here too, start the server with --allow-repository-api."
        raise NotSupported(text, method=name)

    return refuse
