"""servegrpc.v1.ManagementService: the manager's calls with protocol messages around them."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import grpc
import psutil
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servegrpc.core.manager import ModelManager
from servegrpc.core.model import ModelChange
from servegrpc.core.registration import Registration
from servegrpc.core.registry import Model, ModelVersion
from servegrpc.core.worker import WorkerRecord
from servegrpc.errors import InvalidInput, QueueFull
from servegrpc.v1 import management_pb2 as pb
from servegrpc.v1 import management_pb2_grpc

SERVICE = "servegrpc.v1.ManagementService"
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000
MAX_WATCHERS = 24  # each holds a thread of the management server


class ManagementService(management_pb2_grpc.ManagementServiceServicer):
    """The seven methods."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._watchers = threading.Semaphore(MAX_WATCHERS)
        self._watching: set[SimpleQueue[ModelChange | None]] = set()

    def add_to(self, server: grpc.Server) -> None:
        """Serve it on a server."""
        management_pb2_grpc.add_ManagementServiceServicer_to_server(self, server)

    def close(self) -> None:
        """End all watches."""
        for changes in list(self._watching):
            changes.put(None)

    def RegisterModel(self, request: pb.RegisterModelRequest, context: grpc.ServicerContext) -> pb.RegisterModelResponse:  # noqa: N802, ARG002
        """Register an archive."""
        if not request.archive:
            raise InvalidInput("archive is empty; name a file or folder in the model store, or give an absolute path.", field="archive")
        settings = request.settings
        registration = Registration(
            request.archive,
            model_name=request.model_name,
            handler=request.handler,
            workers=request.workers if request.HasField("workers") else None,
            max_workers=request.max_workers if request.HasField("max_workers") else None,
            batch_size=settings.batch_size if settings.HasField("batch_size") else None,
            max_batch_delay_seconds=_seconds(settings, "max_batch_delay"),
            response_timeout_seconds=_seconds(settings, "response_timeout"),
            startup_timeout_seconds=_seconds(settings, "startup_timeout"),
            max_queue_size=settings.max_queue_size if settings.HasField("max_queue_size") else None,
            wait=not request.no_wait,
        )
        version = self._manager.register(registration)
        return pb.RegisterModelResponse(model=self._model(version.name), model_version=version.version)

    def UnregisterModel(self, request: pb.UnregisterModelRequest, context: grpc.ServicerContext) -> pb.UnregisterModelResponse:  # noqa: N802, ARG002
        """Drain and remove a version or a model."""
        self._manager.unregister(_named(request.model_name), request.model_version, wait=not request.no_wait)
        return pb.UnregisterModelResponse()

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:  # noqa: N802, ARG002
        """Return one model."""
        return pb.GetModelResponse(model=self._model(_named(request.model_name)))

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:  # noqa: N802, ARG002
        """Return a page of models; the token is the last name of the page before, so that changes in between skip nothing."""
        if request.page_size < 0:
            raise InvalidInput(f"page_size must not be negative, and is {request.page_size}.", field="page_size")
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _decode_token(request.page_token)
        left = [model for model in self._manager.registry.models() if model.name > after]
        token = base64.urlsafe_b64encode(left[size - 1].name.encode()).decode() if len(left) > size else ""
        return pb.ListModelsResponse(models=[_model_message(model) for model in left[:size]], next_page_token=token)

    def ScaleModel(self, request: pb.ScaleModelRequest, context: grpc.ServicerContext) -> pb.ScaleModelResponse:  # noqa: N802, ARG002
        """Set the number of workers."""
        max_workers = request.max_workers if request.HasField("max_workers") else None
        name = _named(request.model_name)
        self._manager.scale(name, request.model_version, request.workers, max_workers=max_workers, wait=not request.no_wait)
        return pb.ScaleModelResponse(model=self._model(request.model_name))

    def SetDefaultVersion(self, request: pb.SetDefaultVersionRequest, context: grpc.ServicerContext) -> pb.SetDefaultVersionResponse:  # noqa: N802, ARG002
        """Change the default version."""
        if not request.model_version:
            raise InvalidInput("model_version is empty; name the version that shall be the default.", field="model_version")
        self._manager.set_default(_named(request.model_name), request.model_version)
        return pb.SetDefaultVersionResponse(model=self._model(request.model_name))

    def WatchModels(self, request: pb.WatchModelsRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchModelsResponse]:  # noqa: N802
        """Stream states and changes until the caller ends it."""
        if not self._watchers.acquire(blocking=False):
            raise QueueFull(f"{MAX_WATCHERS} callers watch already; try again when one has ended.", retry_after_seconds=10.0)
        changes, unsubscribe = self._manager.changes.subscribe()
        self._watching.add(changes)
        if not context.add_callback(lambda: changes.put(None)):
            changes.put(None)  # the caller has left already
        try:
            while change := changes.get():
                if request.model_name in ("", change.model_name):
                    yield _change_message(change)
        finally:
            unsubscribe()
            self._watching.discard(changes)
            self._watchers.release()

    def _model(self, name: str) -> pb.Model:
        return _model_message(self._manager.registry.model(name))


def _named(name: str) -> str:
    if not name:
        raise InvalidInput("model_name is empty; name a registered model.", field="model_name")
    return name


def _seconds(settings: pb.ModelSettings, name: str) -> float | None:
    if not settings.HasField(name):
        return None
    duration: Duration = getattr(settings, name)
    return duration.ToNanoseconds() / 1e9


def _decode_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidInput("page_token is not one that this server gave; leave it empty for the first page.", field="page_token") from None


def _model_message(model: Model) -> pb.Model:
    versions = [_version_message(version) for version in model.versions.values()]
    return pb.Model(name=model.name, default_version=model.default_version, versions=versions)


def _version_message(version: ModelVersion) -> pb.ModelVersion:
    pool, settings = version.pool, version.settings
    return pb.ModelVersion(
        version=version.version,
        state=int(pool.state),  # type: ignore[arg-type]  # the same numbers
        cause=pool.cause,
        archive=version.archive.source,
        register_time=_timestamp(version.register_time),
        settings=pb.ModelSettings(
            batch_size=settings.batch_size,
            max_batch_delay=_duration(settings.max_batch_delay_seconds),
            response_timeout=_duration(settings.response_timeout_seconds),
            startup_timeout=_duration(settings.startup_timeout_seconds),
            max_queue_size=settings.max_queue_size,
        ),
        target_workers=pool.target,
        min_workers=version.autoscaler.min_workers,
        max_workers=version.autoscaler.max_workers,
        workers=[_worker_message(record) for record in pool.records()],
        queued_requests=len(pool.queue),
    )


def _worker_message(record: WorkerRecord) -> pb.Worker:
    pid = record.worker.pid if record.worker else 0
    try:
        memory = psutil.Process(pid).memory_info().rss if pid else 0
    except psutil.Error:
        memory = 0
    return pb.Worker(
        id=record.id,
        state=int(record.state),  # type: ignore[arg-type]  # the same numbers
        pid=pid,
        device=str(record.device),
        start_time=_timestamp(record.start_time),
        resident_memory_bytes=memory,
    )


def _change_message(change: ModelChange) -> pb.WatchModelsResponse:
    return pb.WatchModelsResponse(
        model_name=change.model_name,
        model_version=change.model_version,
        state=int(change.state),  # type: ignore[arg-type]  # the same numbers
        ready_workers=change.ready_workers,
        target_workers=change.target_workers,
        cause=change.cause,
        change_time=_timestamp(change.time),
    )


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(int(seconds * 1e9))
    return timestamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
