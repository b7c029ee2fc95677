"""What the Open Inference Protocol asks about the server and its models: liveness, metadata, configuration, statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from time import monotonic, time
from typing import Any, cast

from google.protobuf.message import Message

from servegrpc.compat.open_inference import model_config_pb2, server_pb2
from servegrpc.core.model import State
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.worker import WorkerState
from servegrpc.errors import Code, InvalidInput, ModelNotFound, ServeError, VersionNotFound
from servegrpc.tensors import TensorSpec
from servegrpc.values import BYTES, ElementType
from servegrpc.wire.open_inference import in_triton_words

pb = server_pb2
config_pb = model_config_pb2

PLATFORM, BACKEND = "pytorch", "python"
EXTENSIONS = (
    "classification",
    "sequence",
    "schedule_policy",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)


class AboutMethods:
    """The methods that change nothing. `server_ready` says whether the models given at the start are loaded and the server goes on."""

    def __init__(self, registry: ModelRegistry, server_ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._server_ready = server_ready

    def methods(self) -> dict[str, tuple[type[Message], Callable[[Any], Message]]]:
        """Return each method's request and function."""
        return {
            "ServerLive": (pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, self.ready),
            "ModelReady": (pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self.metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self.model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self.model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self.statistics),
        }

    def ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:  # noqa: ARG002
        """ServerReady: every model's default version can answer."""
        defaults = [model.versions[model.default_version] for model in self._registry.models()]
        return pb.ServerReadyResponse(ready=self._server_ready() and all(map(is_ready, defaults)))

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """ModelReady: false, not an error, for a model that is not there."""
        try:
            return pb.ModelReadyResponse(ready=is_ready(self._find(request.name, request.version)))
        except ServeError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return pb.ModelReadyResponse(ready=False)

    def metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:  # noqa: ARG002
        """ServerMetadata."""
        return pb.ServerMetadataResponse(name="servegrpc", version=installed_version("servegrpc"), extensions=EXTENSIONS)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """ModelMetadata."""
        version = self._find(request.name, request.version)
        declared = version.archive.config.tensors
        return pb.ModelMetadataResponse(
            name=version.name,
            versions=list(self._registry.model(version.name).versions),
            platform=PLATFORM,
            inputs=map(_tensor_metadata, declared.inputs.values()),
            outputs=map(_tensor_metadata, declared.outputs.values()),
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """ModelConfig."""
        version = self._find(request.name, request.version)
        said, settings = version.archive.config, version.settings
        declared = said.tensors
        config = config_pb.ModelConfig(
            name=version.name,
            platform=PLATFORM,
            backend=BACKEND,
            max_batch_size=settings.batch_size if declared.batchable else 0,
            input=map(_input, declared.inputs.values()),
            output=map(_output, declared.outputs.values()),
            instance_group=_instance_groups(version),
            model_transaction_policy=config_pb.ModelTransactionPolicy(decoupled=version.pool.handler.yields),
        )
        if said.sequence_batching:
            config.sequence_batching.max_sequence_idle_microseconds = round((said.sequence_max_idle_seconds or 0) * 1e6)
        if settings.batch_size > 1:
            config.dynamic_batching.max_queue_delay_microseconds = round(settings.max_batch_delay_seconds * 1e6)
        return pb.ModelConfigResponse(config=config)

    def statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """ModelStatistics: one entry for a model that is named, else one for each version there is."""
        versions = [self._find(request.name, request.version)] if request.name else self._registry.versions()
        return pb.ModelStatisticsResponse(model_stats=map(_statistics, versions))

    def _find(self, name: str, version: str) -> ModelVersion:
        if not name:
            raise InvalidInput("name is empty; name a registered model.", field="name")
        with unknown_model_in_triton_words():
            return self._registry.get(name, version)


@contextmanager
def unknown_model_in_triton_words() -> Iterator[None]:
    """Say that a model or version is not there as Triton says it, which clients look for; and which are."""
    try:
        yield
    except (ModelNotFound, VersionNotFound) as error:
        raise in_triton_words(error) from None


def is_ready(version: ModelVersion) -> bool:
    """Return whether a version can answer requests."""
    up = version.pool.state in (State.LOADING, State.ACTIVE)
    return up and any(record.state is WorkerState.READY for record in version.pool.records())


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.element.name, shape=spec.shape)


def _input(spec: TensorSpec) -> config_pb.ModelInput:
    return config_pb.ModelInput(
        name=spec.name, data_type=_data_type(spec.element), dims=_dims(spec), allow_ragged_batch=spec.ragged, optional=spec.optional
    )


def _output(spec: TensorSpec) -> config_pb.ModelOutput:
    return config_pb.ModelOutput(name=spec.name, data_type=_data_type(spec.element), dims=_dims(spec))


def _dims(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape as Triton's configuration has it: without the dimension of the batch."""
    return spec.shape[1:] if spec.batchable else spec.shape


def _data_type(element: ElementType) -> config_pb.DataType:
    name = "STRING" if element is BYTES else element.name
    return cast("config_pb.DataType", config_pb.DataType.Value(f"TYPE_{name}"))


def _instance_groups(version: ModelVersion) -> list[config_pb.ModelInstanceGroup]:
    groups: dict[str, config_pb.ModelInstanceGroup] = {}
    for record in version.pool.records():
        device = record.device
        group = groups.setdefault(str(device), config_pb.ModelInstanceGroup(name=f"{version.name}_{device}"))
        group.count += 1
        group.kind = config_pb.ModelInstanceGroup.KIND_CPU if device.gpu is None else config_pb.ModelInstanceGroup.KIND_GPU
        group.gpus[:] = [] if device.gpu is None else [device.gpu]
    return list(groups.values())


def _statistics(version: ModelVersion) -> pb.ModelStatistics:
    stats = version.pool.stats
    succeeded = stats.replies[Code.OK]
    failed = sum(stats.replies.values()) - succeeded
    well, queued = max(0.0, stats.request_seconds.sum - stats.failed_seconds), stats.queue_seconds.sum
    return pb.ModelStatistics(
        name=version.name,
        version=version.version,
        last_inference=_milliseconds_since_1970(stats.last_hand_over),
        inference_count=stats.rows,
        execution_count=sum(stats.batch_size.counts),
        inference_stats=pb.InferStatistics(
            success=_duration(succeeded, well),
            fail=_duration(failed, stats.failed_seconds),
            queue=_duration(sum(stats.queue_seconds.counts), queued),
            compute_infer=_duration(succeeded, max(0.0, well - queued)),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=_duration(count, seconds))
            for size, (count, seconds) in sorted(stats.batches.copy().items())
        ],
    )


def _milliseconds_since_1970(moment: float | None) -> int:
    return 0 if moment is None else round((time() - monotonic() + moment) * 1000)


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
