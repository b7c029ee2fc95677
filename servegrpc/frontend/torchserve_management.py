"""TorchServe's management service: the manager's calls in its words, its codes and its JSON.

Fields of its messages have no presence: what is 0, negative or empty is not given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic, time
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from servegrpc.compat.torchserve import management_pb2 as pb
from servegrpc.compat.torchserve.inference_pb2 import PredictionResponse, PredictionsRequest
from servegrpc.core.manager import ModelManager
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registration import Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.core.request import Request
from servegrpc.errors import ArchiveNotFound, InvalidArchive, InvalidInput, ModelLoadFailed, ServeError
from servegrpc.frontend.calls import end_call, new_request_id
from servegrpc.frontend.torchserve_json import describe, pretty
from servegrpc.reply import Reply
from servegrpc.wire import torchserve
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.torchserve_errors import (
    DownloadFailed,
    EmptyName,
    Ending,
    NamelessArchive,
    NoModelStore,
    RelativeUrl,
    UnknownDefault,
    UrlRefused,
    description_ending,
    management_ending,
)

SERVICE = "org.pytorch.serve.grpc.management.ManagementAPIsService"
RUNTIMES = ("python", "python3", "LSP")
LARGEST_PAGE = 100
IN_PROGRESS = "Processing worker updates..."

Method = Callable[[Any, grpc.ServicerContext], pb.ManagementResponse]  # of any request


class TorchServeManagement:
    """The six methods. `default_workers` is how many a model gets when neither caller nor archive says."""

    def __init__(self, manager: ModelManager, slots: DeviceSlots, *, default_workers: int = 0) -> None:
        self._manager = manager
        self._slots = slots
        self._default_workers = default_workers
        self._ready_at = math.inf  # seconds since the epoch

    def add_to(self, server: grpc.Server) -> None:
        """Serve the methods on a server."""
        methods: dict[str, tuple[Method, type[Message]]] = {
            "DescribeModel": (self.describe_model, pb.DescribeModelRequest),
            "ListModels": (self.list_models, pb.ListModelsRequest),
            "RegisterModel": (self.register_model, pb.RegisterModelRequest),
            "ScaleWorker": (self.scale_worker, pb.ScaleWorkerRequest),
            "SetDefault": (self.set_default, pb.SetDefaultRequest),
            "UnregisterModel": (self.unregister_model, pb.UnregisterModelRequest),
        }
        handlers: dict[str, grpc.RpcMethodHandler[bytes, pb.ManagementResponse]] = {
            name: grpc.unary_unary_rpc_method_handler(
                _in_its_words(method, request),
                response_serializer=pb.ManagementResponse.SerializeToString,
            )
            for name, (method, request) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def server_ready(self) -> None:
        """Note that all versions registered so far were given at the start: their descriptions say so."""
        self._ready_at = time()

    def register_model(self, request: pb.RegisterModelRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:  # noqa: ARG002
        """RegisterModel. One that fails to start while the caller waits is removed again."""
        if not request.url:
            raise InvalidInput("Parameter url is required.", field="url")
        if ".." in request.url:
            raise RelativeUrl(f"Relative path is not allowed in url: {request.url}", field="url")
        if request.runtime and request.runtime not in RUNTIMES:
            raise InvalidInput(f"Invalid RuntimeType value: {request.runtime}", field="runtime")
        if request.runtime == "LSP":
            raise InvalidInput("runtime LSP is TorchServe's C++ backend, which is not supported; leave it out.", field="runtime")
        version = self._register(request)
        workers = version.autoscaler.min_workers
        if workers and not request.synchronous:
            return pb.ManagementResponse(msg=IN_PROGRESS)
        advice = "" if workers else ". Use scale workers API to add workers for the model."
        registered = f'Model "{version.name}" Version: {version.version} registered with {workers} initial workers{advice}'
        return pb.ManagementResponse(msg=registered)

    def _register(self, request: pb.RegisterModelRequest) -> ModelVersion:
        registration = Registration(
            request.url,
            model_name=request.model_name,
            handler=request.handler,
            fallback_workers=_given(request.initial_workers) or self._default_workers,
            batch_size=_given(request.batch_size),
            max_batch_delay_seconds=request.max_batch_delay / 1000 if request.max_batch_delay > 0 else None,
            response_timeout_seconds=_given(request.response_timeout),
            startup_timeout_seconds=_given(request.startup_timeout),
            wait=request.synchronous,
        )
        try:
            return self._manager.register(registration)
        except ModelLoadFailed as error:
            self._manager.remove_failed(error.metadata["model_name"], error.metadata["model_version"])
            raise
        except ServeError as error:
            raise _of_archive(error, request) from None

    def scale_worker(self, request: pb.ScaleWorkerRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:  # noqa: ARG002
        """ScaleWorker."""
        if not request.model_name:
            raise EmptyName("Parameter model_name is required.", field="model_name")
        least = max(1, request.min_worker)
        most = _given(request.max_worker) or least
        if most < least:
            raise InvalidInput("max_worker cannot be less than min_worker.", field="max_worker")
        self._manager.scale(request.model_name, request.model_version, least, max_workers=most, wait=request.synchronous)
        if not request.synchronous:
            return pb.ManagementResponse(msg=IN_PROGRESS)
        version = f", version: {request.model_version}" if request.model_version else ""
        return pb.ManagementResponse(msg=f"Workers scaled to {least} for model: {request.model_name}{version}")

    def set_default(self, request: pb.SetDefaultRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:  # noqa: ARG002
        """SetDefault."""
        name, version = request.model_name, request.model_version
        if version not in self._manager.registry.model(name).versions:
            raise UnknownDefault(f"Model version {version} does not exist for model {name}", model_name=name, model_version=version)
        self._manager.set_default(name, version)
        return pb.ManagementResponse(msg=f'Default version successfully updated for model "{name}" to "{version}"')

    def unregister_model(self, request: pb.UnregisterModelRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:  # noqa: ARG002
        """UnregisterModel; without a version, the default one."""
        name = request.model_name
        if not name:
            raise InvalidInput("Parameter url is required.", field="url")  # TorchServe's own slip
        self._manager.unregister(name, request.model_version or self._manager.registry.model(name).default_version)
        return pb.ManagementResponse(msg=f'Model "{name}" unregistered')

    def list_models(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:  # noqa: ARG002
        """ListModels; the token is the number of models before the page."""
        limit = request.limit if 0 < request.limit <= LARGEST_PAGE else LARGEST_PAGE
        begin = max(0, request.next_page_token)
        models = self._manager.registry.models()
        page = [
            {"modelName": model.name, "modelUrl": model.versions[model.default_version].archive.source}
            for model in models[begin : begin + limit]
        ]
        token = {"nextPageToken": str(begin + limit)} if begin + limit < len(models) else {}
        return pb.ManagementResponse(msg=pretty({**token, "models": page}))

    def describe_model(self, request: pb.DescribeModelRequest, context: grpc.ServicerContext) -> pb.ManagementResponse:
        """DescribeModel. With `customized`, the handler of one version is asked too, and errors are those of a prediction."""
        registry = self._manager.registry
        if request.model_version == "all":
            return self._described(*registry.model(request.model_name).versions.values())
        if not request.customized:
            return self._described(registry.get(request.model_name, request.model_version))
        try:
            version = registry.get(request.model_name, request.model_version)
            return self._described(version, customizedMetadata=_ask_handler(version, context))
        except ServeError as error:
            _end(context, error, description_ending(error))

    def _described(self, *versions: ModelVersion, **more: object) -> pb.ManagementResponse:
        described = [
            {**describe(version, self._slots, loaded_at_startup=version.register_time <= self._ready_at), **more} for version in versions
        ]
        return pb.ManagementResponse(msg=pretty(described))


def _of_archive(error: ServeError, request: pb.RegisterModelRequest) -> ServeError:
    """Return the error that TorchServe has words of its own for, where it depends on the request."""
    if isinstance(error, InvalidInput) and error.field == "model_name" and not request.model_name:
        return NamelessArchive(error.message)
    if isinstance(error, ArchiveNotFound) and "://" in request.url:
        return DownloadFailed(error.message, archive=request.url)
    if isinstance(error, ArchiveNotFound) and error.metadata.get("model_store") == "is not set":
        return NoModelStore(error.message, archive=request.url)
    if isinstance(error, InvalidArchive) and "refused_url" in error.metadata:
        return UrlRefused(error.message, archive=request.url)
    return error


def _given(number: int) -> int | None:
    return number if number > 0 else None


def _ask_handler(version: ModelVersion, context: grpc.ServicerContext) -> dict[str, object]:
    """Run the handler with an empty row and the header `describe`; returns what it says, nothing when that is no JSON object."""
    replies: SimpleQueue[Reply] = SimpleQueue()
    raw = PredictionsRequest(model_name=version.name).SerializeToString()
    remaining = context.time_remaining()
    deadline = math.inf if remaining is None else monotonic() + remaining
    version.pool.submit(Request(raw, Dialect.TORCHSERVE, new_request_id(), replies.put, deadline, (("describe", "True"),)))
    reply = replies.get()
    if reply.error:
        raise reply.error
    if reply.code:
        end_call(context, reply.code, reply.message, reply.body)
    try:
        said = json.loads(PredictionResponse.FromString(reply.body).prediction)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _in_its_words(method: Method, message: type[Message]) -> Callable[[bytes, grpc.ServicerContext], pb.ManagementResponse]:
    """Let a method end calls that fail as TorchServe does, those without a message too."""

    def call(raw: bytes, context: grpc.ServicerContext) -> pb.ManagementResponse:
        try:
            return method(_read(raw, message), context)
        except ServeError as error:
            _end(context, error, management_ending(error))

    return call


def _read(raw: bytes, message: type[Message]) -> Message:
    try:
        return message.FromString(raw)
    except DecodeError:
        raise InvalidInput(f"The request is not a valid {message.DESCRIPTOR.name} message.") from None


def _end(context: grpc.ServicerContext, error: ServeError, ending: Ending) -> NoReturn:
    reply = torchserve.ended(error, ending)
    end_call(context, reply.code, reply.message, reply.body)
