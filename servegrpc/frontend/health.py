"""grpc.health.v1 for the server, its services, its models and their versions.

`""` and each service are SERVING from the time the models given at start are loaded until the server drains. `models/NAME` and
`models/NAME/versions/V` are SERVING while a worker is ready to take a request for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servegrpc.core.manager import ModelManager
from servegrpc.core.model import ModelChange, State

SERVICE = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no type hints
    """The standard service, fed by the manager's changes on a thread of its own: a watcher that does not read holds up nobody else."""

    def __init__(self, manager: ModelManager, services: Iterable[str]) -> None:
        super().__init__()
        self._registry = manager.registry
        self._services = ("", *services)
        for service in self._services:
            self.set(service, NOT_SERVING)
        self._changes: SimpleQueue[ModelChange | Callable[[], None] | None] = SimpleQueue()
        self._unsubscribe = manager.changes.listen(self._changes.put)
        self._thread = threading.Thread(target=self._follow, name="health", daemon=True)
        self._thread.start()

    def add_to(self, server: grpc.Server) -> None:
        """Serve it on a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def server_ready(self) -> None:
        """Say that the server takes requests."""
        for service in self._services:
            self.set(service, SERVING)

    def is_serving(self) -> bool:
        """Return whether the server takes requests."""
        return bool(self._server_status[""] == SERVING)

    def close(self) -> None:
        """Stop following the manager."""
        self._unsubscribe()
        self._changes.put(None)
        self._thread.join()

    def _follow(self) -> None:
        while change := self._changes.get():
            if isinstance(change, ModelChange):
                self._show(change)
            else:
                change()

    def _on_close_callback(self, send_response_callback: Callable[[object], None], service: str) -> Callable[[], None]:
        """Return what is called when a watcher has left, by grpcio's only thread for the port's events.

        Upstream it takes the lock, which a Watch that begins holds while it waits for that very thread: then neither port lives on.
        """

        def forget() -> None:
            with self._lock:
                self._send_response_callbacks[service].discard(send_response_callback)
                if not self._send_response_callbacks[service]:
                    del self._send_response_callbacks[service]
            send_response_callback(None)

        return lambda: self._changes.put(forget)

    def List(self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext) -> health_pb2.HealthListResponse:  # noqa: N802, ARG002
        """Return the status of everything there is one for."""
        with self._lock:
            statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    def _show(self, change: ModelChange) -> None:
        model = f"models/{change.model_name}"
        up = change.ready_workers > 0 and change.state in (State.LOADING, State.ACTIVE)
        version_name = f"{model}/versions/{change.model_version}"
        if change.state is State.UNLOADED:
            self._remove(version_name)
        else:
            self._set_changed(version_name, SERVING if up else NOT_SERVING)
        self._show_default(change.model_name)

    def _show_default(self, name: str) -> None:
        """Show a model as its default version is."""
        default = self._registry.default_version(name)
        status = self._server_status.get(f"models/{name}/versions/{default}")
        if not default:
            self._remove(f"models/{name}")
        elif status is not None:
            self._set_changed(f"models/{name}", status)

    def _set_changed(self, service: str, status: int) -> None:
        if self._server_status.get(service) != status:  # watchers hear of changes only
            self.set(service, status)

    def _remove(self, service: str) -> None:
        if service in self._server_status:
            self.set(service, SERVICE_UNKNOWN)  # what watchers see
        with self._lock:
            self._server_status.pop(service, None)
