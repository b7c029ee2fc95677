"""Every call of the API as data: method, request, and how its reply is read. Both clients run these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from servegrpc.client.results import HealthStatus, Model, ModelEvent, Prediction, read_event, read_model, read_prediction
from servegrpc.v1 import inference_pb2, management_pb2, value_pb2
from servegrpc.values import Tensors, encode_into

_INFERENCE = "/servegrpc.v1.InferenceService/"
_MANAGEMENT = "/servegrpc.v1.ManagementService/"
SESSION_METHOD = _INFERENCE + "PredictSession"
_HEALTH = "/grpc.health.v1.Health/"

Reply = TypeVar("Reply", bound=Message)
Result = TypeVar("Result")
Seconds = float | timedelta
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Call(Generic[Reply, Result]):
    """One call: what to send where, and how to read each reply."""

    method: str
    request: Message
    reply_type: type[Reply]
    read: Callable[[Reply], Result]


def predict(model: str, inputs: object, version: str, request_id: str, tensors: Tensors) -> Call[inference_pb2.PredictResponse, Prediction]:
    """InferenceService.Predict; `inputs` that are no mapping are the input "data"."""
    request = inference_pb2.PredictRequest(model_name=model, model_version=version, request_id=request_id)
    _encode_inputs(request.inputs, inputs)
    return Call(_INFERENCE + "Predict", request, inference_pb2.PredictResponse, partial(read_prediction, tensors=tensors))


def predict_stream(
    model: str, inputs: object, version: str, request_id: str, tensors: Tensors
) -> Call[inference_pb2.PredictStreamResponse, Prediction]:
    """InferenceService.PredictStream; `inputs` as for `predict`."""
    request = inference_pb2.PredictStreamRequest(model_name=model, model_version=version, request_id=request_id)
    _encode_inputs(request.inputs, inputs)
    return Call(_INFERENCE + "PredictStream", request, inference_pb2.PredictStreamResponse, partial(read_prediction, tensors=tensors))


def session_request(model: str, inputs: object, version: str, request_id: str) -> inference_pb2.PredictSessionRequest:
    """One message to InferenceService.PredictSession; `inputs` as for `predict`, no `model` means that of the session's first request."""
    request = inference_pb2.PredictSessionRequest(model_name=model, model_version=version, request_id=request_id)
    _encode_inputs(request.inputs, inputs)
    return request


def health(service: str) -> Call[Int32Value, HealthStatus]:
    """Health.Check. The wrappers have the wire form of the health messages, whose package the client does without."""
    return Call(_HEALTH + "Check", StringValue(value=service), Int32Value, _read_health)


def watch_health(service: str) -> Call[Int32Value, HealthStatus]:
    """Health.Watch, with the same messages."""
    return Call(_HEALTH + "Watch", StringValue(value=service), Int32Value, _read_health)


def health_service(model: str, version: str) -> str:
    """Return the health service name of the server, of a model, or of one version of it."""
    if not model:
        return ""
    return f"models/{model}/versions/{version}" if version else f"models/{model}"


def register(
    archive: str,
    *,
    name: str,
    handler: str,
    workers: int | None,
    max_workers: int | None,
    batch_size: int | None,
    max_batch_delay: Seconds | None,
    response_timeout: Seconds | None,
    startup_timeout: Seconds | None,
    max_queue_size: int | None,
    wait: bool,
) -> Call[management_pb2.RegisterModelResponse, Model]:
    """ManagementService.RegisterModel; None leaves a setting to the archive and the server."""
    settings = management_pb2.ModelSettings(
        batch_size=batch_size,
        max_batch_delay=_duration(max_batch_delay),
        response_timeout=_duration(response_timeout),
        startup_timeout=_duration(startup_timeout),
        max_queue_size=max_queue_size,
    )
    request = management_pb2.RegisterModelRequest(
        archive=archive,
        model_name=name,
        handler=handler,
        workers=workers,
        max_workers=max_workers,
        settings=settings,
        no_wait=not wait,
    )
    return Call(_MANAGEMENT + "RegisterModel", request, management_pb2.RegisterModelResponse, lambda reply: read_model(reply.model))


def unregister(model: str, version: str, wait: bool) -> Call[management_pb2.UnregisterModelResponse, None]:
    """ManagementService.UnregisterModel."""
    request = management_pb2.UnregisterModelRequest(model_name=model, model_version=version, no_wait=not wait)
    return Call(_MANAGEMENT + "UnregisterModel", request, management_pb2.UnregisterModelResponse, lambda _reply: None)


def model(name: str) -> Call[management_pb2.GetModelResponse, Model]:
    """ManagementService.GetModel."""
    request = management_pb2.GetModelRequest(model_name=name)
    return Call(_MANAGEMENT + "GetModel", request, management_pb2.GetModelResponse, lambda reply: read_model(reply.model))


def models(page_token: str) -> Call[management_pb2.ListModelsResponse, tuple[list[Model], str]]:
    """ManagementService.ListModels: one page and the token of the next, empty on the last."""
    request = management_pb2.ListModelsRequest(page_token=page_token)
    return Call(_MANAGEMENT + "ListModels", request, management_pb2.ListModelsResponse, _read_page)


def scale(model: str, workers: int, max_workers: int | None, version: str, wait: bool) -> Call[management_pb2.ScaleModelResponse, Model]:
    """ManagementService.ScaleModel."""
    request = management_pb2.ScaleModelRequest(
        model_name=model, model_version=version, workers=workers, max_workers=max_workers, no_wait=not wait
    )
    return Call(_MANAGEMENT + "ScaleModel", request, management_pb2.ScaleModelResponse, lambda reply: read_model(reply.model))


def set_default(model: str, version: str) -> Call[management_pb2.SetDefaultVersionResponse, Model]:
    """ManagementService.SetDefaultVersion."""
    request = management_pb2.SetDefaultVersionRequest(model_name=model, model_version=version)
    reply_type = management_pb2.SetDefaultVersionResponse
    return Call(_MANAGEMENT + "SetDefaultVersion", request, reply_type, lambda reply: read_model(reply.model))


def watch(model: str) -> Call[management_pb2.WatchModelsResponse, ModelEvent]:
    """ManagementService.WatchModels."""
    request = management_pb2.WatchModelsRequest(model_name=model)
    return Call(_MANAGEMENT + "WatchModels", request, management_pb2.WatchModelsResponse, read_event)


def _encode_inputs(target: Mapping[str, value_pb2.Value], inputs: object) -> None:
    """Fill a request's inputs: reading a missing name of a protobuf map adds it."""
    for name, item in inputs.items() if isinstance(inputs, Mapping) else [("data", inputs)]:
        try:
            encode_into(target[name], item)
        except TypeError as error:
            raise TypeError(f"input {name!r}: {error}") from None
        except ValueError as error:
            raise ValueError(f"input {name!r}: {error}") from None


def _duration(seconds: Seconds | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromTimedelta(seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds))
    return duration


def _read_health(reply: Int32Value) -> HealthStatus:
    return HealthStatus(reply.value)


def _read_page(reply: management_pb2.ListModelsResponse) -> tuple[list[Model], str]:
    return [read_model(found) for found in reply.models], reply.next_page_token
