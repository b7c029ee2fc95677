"""The server: its ports, its services, its start and its end.

Server(config) → start() → load(models) → … → drain() → exit
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import grpc
import structlog

from servegrpc.config import ServerConfig
from servegrpc.core.download import Downloads
from servegrpc.core.manager import ModelManager
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registration import Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.core.requirements import PackageCache
from servegrpc.core.startup import load_models
from servegrpc.core.state import StateStore
from servegrpc.core.timer import Timer
from servegrpc.engine.process import ProcessEngine
from servegrpc.errors import InvalidInput, ServeError, ServerError
from servegrpc.frontend import health, inference, management, open_inference, torchserve, torchserve_management
from servegrpc.frontend.access import Access, AccessInterceptor
from servegrpc.frontend.access_log import AccessLog
from servegrpc.frontend.devices import count_cpus, count_gpus
from servegrpc.frontend.fast_lane import PENDING_OPTIONS, FastLane
from servegrpc.frontend.folder import OwnFolder
from servegrpc.frontend.interceptors import CallInterceptor
from servegrpc.frontend.open_calls import open_calls
from servegrpc.frontend.reflection import add_reflection
from servegrpc.frontend.self_test import fast_lane_works
from servegrpc.frontend.sending import sending
from servegrpc.frontend.tokens import prepare_key_file
from servegrpc.metrics import MetricsServer

log = structlog.get_logger()

INFERENCE_SERVICES = (inference.SERVICE, *open_inference.SERVICES, torchserve.SERVICE)
MANAGEMENT_SERVICES = (management.SERVICE, open_inference.SERVICE, torchserve_management.SERVICE)
INFERENCE_THREADS = 256  # how many calls of the public handlers run at once; started when needed
MANAGEMENT_THREADS = 32
MAX_MILLISECONDS = 2**31 - 1  # gRPC's word for: never
REPLY_SECONDS = 1.0  # for refusals, and what else is on its way when all work is done and sent


class Server:
    """Both gRPC servers, the manager and the engine of one process. `start` first, `drain` at the end."""

    def __init__(self, config: ServerConfig) -> None:
        self._folder = OwnFolder(config.unpack_root())
        self._config = config
        open_calls.most = config.max_concurrent_calls
        self._access_log = AccessLog(config.access_log) if config.access_log else None
        keys = prepare_key_file(config.key_file, config.token_lifetime_seconds) if config.token_authorization else None
        state = StateStore(config.state_dir) if config.state_dir else None
        gpus = _gpus(config)
        default_workers = (gpus or config.cpus or count_cpus()) if config.workers == "per-core" else config.workers
        timer = Timer()
        slots = DeviceSlots(gpus, config.cpus or count_cpus())
        self.manager = ModelManager(
            engine=ProcessEngine(timer),
            timer=timer,
            slots=slots,
            model_store=config.model_store,
            unpack_root=self._folder.path,
            default_workers=default_workers,
            defaults=config.defaults(),
            state=state,
            packages=PackageCache(config.package_root()) if config.install_requirements else None,
            downloads=Downloads(config.allowed_urls),
            max_queue_bytes=config.max_queue_bytes,
        )
        self._health = health.HealthService(self.manager, dict.fromkeys((*INFERENCE_SERVICES, *MANAGEMENT_SERVICES)))
        self._management = management.ManagementService(self.manager)
        access = Access("inference", keys, model_api=config.model_api)
        self._inference_server = self._make_server(
            INFERENCE_THREADS,
            access,
            _age_options(config.inference_connection_age_seconds, config.inference_connection_grace_seconds),
        )
        inference_service = inference.InferenceService(self.manager.registry)
        inference_service.add_to(self._inference_server)
        oip_service = open_inference.OpenInferenceService(
            self.manager,
            model_store=config.model_store,
            allow_admin=config.allow_repository_api,
            memory_prefix=config.allow_client_shm,
            log_level=config.log_level,
            server_ready=self._health.is_serving,
        )
        oip_service.add_to(self._inference_server)
        torchserve_inference = torchserve.TorchServeInference(self.manager.registry)
        torchserve_inference.add_to(self._inference_server)
        self._fast_lane: FastLane | None = None
        if config.fast_lane and fast_lane_works():
            methods = inference_service.fast_methods() | oip_service.fast_methods() | torchserve_inference.fast_methods()
            self._fast_lane = FastLane(self._inference_server, methods, self._access_log, access.check if keys else None)
        self._management_server = self._make_server(
            MANAGEMENT_THREADS,
            Access("management", keys, model_api=config.model_api),
            _age_options(config.management_connection_age_seconds, config.management_connection_grace_seconds),
        )
        self._management.add_to(self._management_server)
        self._torchserve = torchserve_management.TorchServeManagement(
            self.manager, slots, default_workers=config.workers if isinstance(config.workers, int) else 0
        )
        self._torchserve.add_to(self._management_server)
        oip_service.add_to_management(self._management_server)
        for server, services in ((self._inference_server, INFERENCE_SERVICES), (self._management_server, MANAGEMENT_SERVICES)):
            self._health.add_to(server)
            add_reflection(server, (*services, health.SERVICE))
        self.inference_address = ""
        self.management_address = ""
        self.metrics_address = ""
        self._metrics: MetricsServer | None = None

    def start(self) -> None:
        """Listen on both ports; the addresses then say which. Raises InvalidInput or ServerError when a port cannot be had."""
        self.inference_address = self._listen(self._inference_server, self._config.inference_address)
        self.management_address = self._listen(self._management_server, self._config.management_address)
        if self._config.metrics_address:
            try:
                self._metrics = MetricsServer(self.manager.registry, self._config.metrics_address, lambda: open_calls.refused)
            except (OSError, ValueError) as error:
                raise ServerError(f"Cannot serve metrics on {self._config.metrics_address}: {error}.") from None
            self.metrics_address = self._metrics.address
        self._inference_server.start()
        if self._fast_lane:
            self._fast_lane.start()
        self._management_server.start()

    def load(self, registrations: Sequence[Registration]) -> list[ModelVersion]:
        """Register what was saved, then these models, and wait for them; then the server is healthy. Raises what `load_models` does."""
        config = self._config
        skip_registered = config.state_dir is not None
        versions = load_models(self.manager, registrations, skip_registered=skip_registered, skip_failed=config.skip_failed_models)
        self._torchserve.server_ready()
        self._health.server_ready()
        return versions

    def drain(self, grace_seconds: float) -> bool:
        """Take no new calls, finish those accepted within the grace, end everything. Returns whether all were finished and sent.

        The gRPC servers are stopped last: at that moment grpcio ends calls that come in as CANCELLED, which nobody tries again, while
        those refused before go elsewhere, and come back later.
        """
        self._health.enter_graceful_shutdown()
        self._management.close()
        deadline = monotonic() + grace_seconds
        finished = self.manager.drain(grace_seconds)  # new calls are still answered: they are refused with DRAINING, and may go elsewhere
        finished = sending.wait(deadline - monotonic()) and finished
        stopped = [server.stop(REPLY_SECONDS) for server in (self._inference_server, self._management_server)]
        for event in stopped:
            event.wait(2 * REPLY_SECONDS)  # a caller that does not read keeps its connection, and grpcio waits for that
        self.manager.close()
        if self._fast_lane:
            self._fast_lane.stop()  # only now is no worker left that could answer on it
        self._health.close()
        if self._metrics:
            self._metrics.close()
        if self._access_log:
            self._access_log.close()
        self._folder.remove()
        return finished

    def _make_server(self, threads: int, access: Access, options: Sequence[tuple[str, int]]) -> grpc.Server:
        return grpc.server(
            ThreadPoolExecutor(max_workers=threads, thread_name_prefix="call"),
            interceptors=[CallInterceptor(self._access_log), AccessInterceptor(access)],
            options=[
                ("grpc.so_reuseport", 0),  # two servers on one port would silently share the calls
                ("grpc.max_receive_message_length", self._config.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                *PENDING_OPTIONS,
                *self._stream_options(),
                *options,
            ],
        )

    def _stream_options(self) -> list[tuple[str, int]]:
        most = self._config.max_streams_per_connection
        return [("grpc.max_concurrent_streams", most)] if most else []

    def _listen(self, server: grpc.Server, address: str) -> str:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidInput(f'"{address}" is no address; give host:port, as 127.0.0.1:7070.', field="address")
        try:
            credentials = _credentials(self._config)
            bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        except RuntimeError:
            raise ServerError(f"Cannot listen on {address}: is another server there? Give another port, or :0 for a free one.") from None
        return f"{host}:{bound}"


def _gpus(config: ServerConfig) -> int:
    there = count_gpus() if config.gpus != 0 else 0
    return there if config.gpus is None else min(there, config.gpus)


def _age_options(age_seconds: float | None, grace_seconds: float | None) -> list[tuple[str, int]]:
    options = (("grpc.max_connection_age_ms", age_seconds), ("grpc.max_connection_age_grace_ms", grace_seconds))
    return [(name, min(int(seconds * 1000), MAX_MILLISECONDS)) for name, seconds in options if seconds is not None]


def _credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    if not (config.certificate_file or config.private_key_file or config.client_ca_file):
        return None
    if not config.certificate_file or not config.private_key_file:
        raise InvalidInput("TLS needs both a certificate file and a private key file.", field="tls")
    try:
        key, certificate = config.private_key_file.read_bytes(), config.certificate_file.read_bytes()
        client_ca = config.client_ca_file.read_bytes() if config.client_ca_file else None
    except OSError as error:
        raise ServeError(f"Cannot read {error.filename}: {error.strerror}.") from None
    return grpc.ssl_server_credentials([(key, certificate)], client_ca, require_client_auth=client_ca is not None)
