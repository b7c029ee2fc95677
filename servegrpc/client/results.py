"""What the client returns: plain frozen dataclasses, and how each is read from its message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import SupportsIndex, overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servegrpc.client.notebook import table
from servegrpc.v1 import inference_pb2, management_pb2
from servegrpc.values import Tensors, decode_value


class HealthStatus(Enum):
    """The state of a server or model by `grpc.health.v1`; true only when SERVING."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3

    def __bool__(self) -> bool:
        return self is HealthStatus.SERVING


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went inside the server; `batch_size` requests shared the handler's time."""

    queue_seconds: float
    handler_seconds: float
    batch_size: int


@dataclass(frozen=True)
class Prediction:
    """One result: `output` is bytes, str, an array, a JSON object, or a dict that mixes them."""

    output: object
    model_name: str
    model_version: str
    request_id: str
    timing: Timing


@dataclass(frozen=True)
class Worker:
    """One worker process; `state` is STARTING, READY or STOPPING, `start_time` None while it is not started."""

    id: int
    state: str
    pid: int
    device: str
    start_time: datetime | None
    resident_memory_bytes: int


@dataclass(frozen=True)
class ModelSettings:
    """How a model version batches and waits."""

    batch_size: int
    max_batch_delay_seconds: float
    response_timeout_seconds: float
    startup_timeout_seconds: float
    max_queue_size: int


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model; `state` is LOADING, ACTIVE, DRAINING, UNLOADED or FAILED, and `cause` why it failed."""

    version: str
    state: str
    cause: str
    archive: str
    register_time: datetime | None
    settings: ModelSettings
    target_workers: int
    workers: tuple[Worker, ...]
    queued_requests: int
    min_workers: int
    max_workers: int

    @property
    def ready_workers(self) -> int:
        """How many workers take batches."""
        return sum(worker.state == "READY" for worker in self.workers)


@dataclass(frozen=True, repr=False)
class Model:
    """A model and its versions, in the order of registration."""

    name: str
    default_version: str
    versions: tuple[ModelVersion, ...]

    def __repr__(self) -> str:
        """Return the versions in short; `versions` shows all there is."""
        return f"<Model {self.name}: {', '.join(map(self._short, self.versions))}>"

    def _short(self, version: ModelVersion) -> str:
        default = " (default)" if version.version == self.default_version else ""
        return f"{version.version}{default} {version.state} {version.ready_workers} of {version.target_workers} workers"

    def _repr_html_(self) -> str:
        return table([self])


class Models(list[Model]):
    """Models, sorted by name; a list that notebooks show as a table, and slices of it. `Models(sorted(…))` makes a table of any list."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Model: ...
    @overload
    def __getitem__(self, index: slice) -> Models: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Model | Models:
        found = super().__getitem__(index)
        return found if isinstance(found, Model) else Models(found)

    def _repr_html_(self) -> str:
        return table(self)


@dataclass(frozen=True)
class ModelEvent:
    """The state of one version, as it was or as it became at `change_time`."""

    model_name: str
    model_version: str
    state: str
    ready_workers: int
    target_workers: int
    cause: str
    change_time: datetime | None


def read_prediction(reply: inference_pb2.PredictResponse | inference_pb2.PredictStreamResponse, tensors: Tensors) -> Prediction:
    """Return the Prediction of a reply or of one message of a stream."""
    timing = Timing(_seconds(reply.timing.queue), _seconds(reply.timing.handler), reply.timing.batch_size)
    return Prediction(decode_value(reply.output, tensors=tensors), reply.model_name, reply.model_version, reply.request_id, timing)


def read_model(model: management_pb2.Model) -> Model:
    """Return the Model of its message."""
    return Model(model.name, model.default_version, tuple(map(_read_version, model.versions)))


def read_event(reply: management_pb2.WatchModelsResponse) -> ModelEvent:
    """Return the ModelEvent of its message."""
    return ModelEvent(
        model_name=reply.model_name,
        model_version=reply.model_version,
        state=_model_state(reply.state),
        ready_workers=reply.ready_workers,
        target_workers=reply.target_workers,
        cause=reply.cause,
        change_time=_time(reply.change_time),
    )


def _read_version(version: management_pb2.ModelVersion) -> ModelVersion:
    settings = version.settings
    return ModelVersion(
        version=version.version,
        state=_model_state(version.state),
        cause=version.cause,
        archive=version.archive,
        register_time=_time(version.register_time),
        settings=ModelSettings(
            settings.batch_size,
            _seconds(settings.max_batch_delay),
            _seconds(settings.response_timeout),
            _seconds(settings.startup_timeout),
            settings.max_queue_size,
        ),
        target_workers=version.target_workers,
        workers=tuple(map(_read_worker, version.workers)),
        queued_requests=version.queued_requests,
        min_workers=version.min_workers,
        max_workers=version.max_workers,
    )


def _read_worker(worker: management_pb2.Worker) -> Worker:
    state = _enum_name(management_pb2.WorkerState.items(), worker.state).removeprefix("WORKER_STATE_")
    return Worker(worker.id, state, worker.pid, worker.device, _time(worker.start_time), worker.resident_memory_bytes)


def _model_state(number: int) -> str:
    return _enum_name(management_pb2.ModelState.items(), number).removeprefix("MODEL_STATE_")


def _enum_name(items: list[tuple[str, int]], number: int) -> str:
    """Return the name of an enum value; its number as text when a newer server knows more values."""
    return next((name for name, value in items if value == number), str(number))


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def _time(timestamp: Timestamp) -> datetime | None:
    return timestamp.ToDatetime(tzinfo=UTC) if timestamp.ByteSize() else None
