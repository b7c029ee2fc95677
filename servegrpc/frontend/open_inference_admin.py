"""What the Open Inference Protocol, with Triton's extensions, changes: models, shared memory, settings of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from servegrpc.compat.open_inference import server_pb2 as pb
from servegrpc.core.archive import archive_names
from servegrpc.core.manager import ModelManager
from servegrpc.core.model import State
from servegrpc.core.registration import Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.errors import ArchiveNotFound, InvalidInput, ModelLoadFailed, NotSupported, VersionExists
from servegrpc.frontend.client_memory import ClientMemory
from servegrpc.frontend.open_inference_about import is_ready, unknown_model_in_triton_words
from servegrpc.wire.shared_memory import Region

ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz", "")
LEVELS = ("error", "warning", "info", "debug")
TRACE_SETTINGS = {
    "trace_level": "OFF",
    "trace_rate": "0",
    "trace_count": "0",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


class AdminMethods:
    """The methods that change the server, or tell what only those who may do so should know."""

    def __init__(self, manager: ModelManager, model_store: Path | None, memory: ClientMemory, log_level: str) -> None:
        self._manager = manager
        self._model_store = model_store
        self._memory = memory
        self._log_level = log_level

    def methods(self) -> dict[str, tuple[type[Message], Callable[[Any], Message]]]:
        """Return the request and function of each method that needs permission."""
        return {
            "RepositoryIndex": (pb.RepositoryIndexRequest, self.index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self.load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self.unload),
            "TraceSetting": (pb.TraceSettingRequest, self.trace),
            "LogSettings": (pb.LogSettingsRequest, self.log),
        }

    def memory_methods(self) -> dict[str, tuple[type[Message], Callable[[Any], Message]]]:
        """Return the request and function of each method about shared memory."""
        return {
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, self.memory_status),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, self.register_memory),
            "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, self.unregister_memory),
            "CudaSharedMemoryStatus": (pb.CudaSharedMemoryStatusRequest, lambda _: pb.CudaSharedMemoryStatusResponse()),
            "CudaSharedMemoryRegister": (pb.CudaSharedMemoryRegisterRequest, _refuse_cuda),
            "CudaSharedMemoryUnregister": (pb.CudaSharedMemoryUnregisterRequest, lambda _: pb.CudaSharedMemoryUnregisterResponse()),
        }

    def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """RepositoryIndex: every version that is registered, and the archives of the model store under whose names none is."""
        versions = self._manager.registry.versions()
        entries = [_index_entry(version) for version in versions]
        there = {version.name for version in versions}
        for name in sorted(self._stored() - there):
            entries.append(pb.RepositoryIndexResponse.ModelIndex(name=name, state="UNAVAILABLE", reason="unloaded"))
        kept = [entry for entry in entries if entry.state == "READY" or not request.ready]
        return pb.RepositoryIndexResponse(models=kept)

    def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """RepositoryModelLoad: the archive of that name becomes the default version; the same version again is only waited for."""
        if request.parameters:
            text = "RepositoryModelLoad takes no parameters here; put the configuration into the archive's model-config.yaml."
            raise NotSupported(text, parameters=", ".join(request.parameters))
        name = _model_name(request)
        try:
            with unknown_model_in_triton_words():
                self._load(name, self._archive(name))
        except ModelLoadFailed as error:
            about = error.metadata
            text = f"load failed for model '{name}': version {about['model_version']} is at UNAVAILABLE state: {about['cause']};"
            raise ModelLoadFailed(text).about(**about) from None
        return pb.RepositoryModelLoadResponse(model_name=name, is_loaded=True)

    def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """RepositoryModelUnload: all versions finish what they have and go."""
        name = _model_name(request)
        with unknown_model_in_triton_words():
            self._manager.unregister(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, is_unloaded=True)

    def trace(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """TraceSetting: what Triton says with tracing off; it cannot be turned on."""
        if request.model_name:
            with unknown_model_in_triton_words():
                self._manager.registry.model(request.model_name)
        for key, setting in request.settings.items():
            if list(setting.value) not in ([], [TRACE_SETTINGS.get(key)]):
                raise NotSupported(f"trace setting '{key}' cannot be changed: this server traces nothing", setting=key)
        settings = {key: pb.TraceSettingResponse.SettingValue(value=[value]) for key, value in TRACE_SETTINGS.items()}
        return pb.TraceSettingResponse(settings=settings)

    def log(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """LogSettings: what is logged; it is set when the server starts."""
        verbosity = LEVELS.index(self._log_level)
        value = pb.LogSettingsResponse.SettingValue
        settings = {
            "log_file": value(string_param=""),
            "log_error": value(bool_param=True),
            "log_warning": value(bool_param=verbosity >= 1),
            "log_info": value(bool_param=verbosity >= 2),
            "log_verbose_level": value(uint32_param=int(verbosity >= 3)),
            "log_format": value(string_param="default"),
        }
        for key, asked in request.settings.items():
            if key not in settings or asked.SerializeToString() != settings[key].SerializeToString():
                raise NotSupported(f"log setting '{key}' cannot be changed while the server runs; start it with --log-level", setting=key)
        return pb.LogSettingsResponse(settings=settings)

    def memory_status(self, request: pb.SystemSharedMemoryStatusRequest) -> pb.SystemSharedMemoryStatusResponse:
        """SystemSharedMemoryStatus."""
        status = pb.SystemSharedMemoryStatusResponse.RegionStatus
        regions = {r.name: status(name=r.name, key=r.key, offset=r.offset, byte_size=r.size) for r in self._memory.status(request.name)}
        return pb.SystemSharedMemoryStatusResponse(regions=regions)

    def register_memory(self, request: pb.SystemSharedMemoryRegisterRequest) -> pb.SystemSharedMemoryRegisterResponse:
        """SystemSharedMemoryRegister."""
        self._memory.register(Region(request.name, request.key, request.offset, request.byte_size))
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister_memory(self, request: pb.SystemSharedMemoryUnregisterRequest) -> pb.SystemSharedMemoryUnregisterResponse:
        """SystemSharedMemoryUnregister."""
        self._memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _load(self, name: str, archive: str) -> None:
        try:
            self._manager.register(Registration(archive, model_name=name, make_default=True))
        except VersionExists as error:
            version = error.metadata["model_version"]
            self._manager.wait_loaded(name, version)  # another call may have begun it just now
            self._manager.set_default(name, version)

    def _stored(self) -> set[str]:
        """The names of the archives in the model store, without what their files end with."""
        names = archive_names(self._model_store) if self._model_store and self._model_store.is_dir() else []
        return {next(name.removesuffix(suffix) for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)) for name in names}

    def _archive(self, name: str) -> str:
        """Return the archive of a model: the file or folder of that name in the model store."""
        names = archive_names(self._model_store) if self._model_store and self._model_store.is_dir() else []
        found = next((name + suffix for suffix in ARCHIVE_SUFFIXES if name + suffix in names), None)
        if found is None:
            text = f"failed to load '{name}': no archive of that name in the model store, which has {len(names)}."
            raise ArchiveNotFound(text, archive=name)
        return found


def _model_name(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """Return the model: in Triton's field, or in KServe's, which is Triton's for the repository."""
    name = request.model_name or request.repository_name
    if not name:
        raise InvalidInput("model_name is empty; name an archive of the model store.", field="model_name")
    return name


def _index_entry(version: ModelVersion) -> pb.RepositoryIndexResponse.ModelIndex:
    pool = version.pool
    states = {State.LOADING: "LOADING", State.DRAINING: "UNLOADING"}
    state = "READY" if is_ready(version) else states.get(pool.state, "UNAVAILABLE")
    return pb.RepositoryIndexResponse.ModelIndex(name=version.name, version=version.version, state=state, reason=pool.cause)


def _refuse_cuda(request: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:  # noqa: ARG001
    raise NotSupported("This server takes no tensors in GPU memory of other processes; send them, or use system shared memory.")
