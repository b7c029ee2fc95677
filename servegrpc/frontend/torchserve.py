"""TorchServe's inference service, under its own name. Requests stay raw bytes: they are routed here, and decoded by the worker."""

from __future__ import annotations

from functools import partial

import grpc

from servegrpc.compat.torchserve.inference_pb2 import TorchServeHealthResponse
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.worker import WorkerState
from servegrpc.frontend import public
from servegrpc.frontend.calls import submit, submit_stream
from servegrpc.frontend.methods import Call, Method, Pump, ServerStream, Session, Stream, Unary
from servegrpc.frontend.torchserve_json import pretty
from servegrpc.frontend.torchserve_stream import StreamPredictions
from servegrpc.wire import torchserve
from servegrpc.wire.dialect import Dialect

SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"


class TorchServeInference:
    """The four methods."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._methods: dict[str, Method] = {
            "Predictions": Unary(Dialect.TORCHSERVE, self._predictions),
            "StreamPredictions": ServerStream(Dialect.TORCHSERVE, self._stream_predictions),
            "StreamPredictions2": Session(Dialect.TORCHSERVE, partial(StreamPredictions, registry)),
        }

    def add_to(self, server: grpc.Server) -> None:
        """Serve the methods on a server."""
        handlers = {"Ping": grpc.unary_unary_rpc_method_handler(self.ping), **public.handlers(self._methods)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def fast_methods(self) -> dict[str, Method]:
        """Return the methods that a fast lane may serve in place of `add_to`'s, with the same results."""
        return {f"/{SERVICE}/{name}": method for name, method in self._methods.items()}

    def ping(self, raw: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: ARG002
        """Ping."""
        defaults = [model.versions[model.default_version] for model in self._registry.models()]
        healthy = all(_has_its_workers(version) for version in defaults)
        health = pretty({"status": "Healthy" if healthy else "Unhealthy"})
        return TorchServeHealthResponse(health=health).SerializeToString()

    def _predictions(self, call: Call, raw: bytes) -> Pump | None:
        where, sequence_id = torchserve.route(raw)
        with torchserve.asked(where):
            return submit(self._registry, Dialect.TORCHSERVE, where, raw, call, sequence_id=sequence_id)

    def _stream_predictions(self, stream: Stream, raw: bytes) -> Pump | None:
        where, _ = torchserve.route(raw)
        with torchserve.asked(where):
            return submit_stream(self._registry, Dialect.TORCHSERVE, where, raw, stream)


def _has_its_workers(version: ModelVersion) -> bool:
    ready = sum(record.state is WorkerState.READY for record in version.pool.records())
    return ready >= version.autoscaler.min_workers
