"""The servers compared.

Each is opened once, then given one model after another:

    open ──► (deploy ──► scale ──► withdraw)* ──► close

TorchServe and servegrpc are one process that models are registered with. The others are started with their model, so for them
`open` and `close` do nothing.
"""

from __future__ import annotations

import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from benchmarks import load, measure, wire
from benchmarks.models import ENVIRONMENTS, HERE, MODELS, Model, python
from benchmarks.process import ServerProcess, free_port
from benchmarks.target import ECHO, OPEN_INFERENCE, OPEN_INFERENCE_BYTES, SERVEGRPC, TORCHSERVE, Dialect, GrpcTarget, HttpTarget, Target

DEFAULT_DELAY_MS = 5  # for peers that wait to fill batches: well below TorchServe's own 100 ms, which would flatter the comparison
WARM_UP_SECONDS = 30
CALL_SECONDS = 120


@dataclass(frozen=True)
class Deployment:
    """A model with its settings; without a delay, each server batches as it does best."""

    model: Model
    batch_size: int
    delay_ms: int | None = None
    workers: int = 1


class Peer(ABC):
    """One server. `environment` names the folder of its Python environment; `handlers` is false for the echoes."""

    name: str
    environment: str
    managed = False
    handlers = True
    grace_seconds = 10.0
    default_delay_ms = DEFAULT_DELAY_MS

    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=folder))
        self.process: ServerProcess | None = None
        self.deployment: Deployment | None = None

    def missing(self) -> str:
        """Return why the server cannot run here; empty when it can."""
        reason = ENVIRONMENTS / f"{self.environment}.missing"
        if reason.exists():
            return reason.read_text().strip()
        return "" if Path(python(self.environment)).exists() else "its environment is not made yet"

    @property
    def pid(self) -> int:
        """The root of the server's process tree."""
        if self.process is None:
            raise RuntimeError(f"{self.name} is not running.")
        return self.process.pid

    @abstractmethod
    def open(self) -> None:
        """Start the server without a model, where it can be."""

    @abstractmethod
    def deploy(self, deployment: Deployment) -> Target:
        """Serve a model; returns when it can be called."""

    def scale(self, workers: int) -> None:
        """Change the number of workers of the deployed model; returns when they are ready."""
        if self.deployment is None:
            raise RuntimeError(f"{self.name} serves no model.")
        deployment = replace(self.deployment, workers=workers)
        self.withdraw()
        self.deploy(deployment)

    @abstractmethod
    def withdraw(self) -> None:
        """Stop serving the model."""

    def close(self) -> None:
        """Stop the server."""
        if self.process is not None:
            self.process.stop(self.grace_seconds)
            self.process = None


class StartedPeer(Peer):
    """A server that is started with its model."""

    script = ""

    def open(self) -> None:
        """Do nothing: the server starts with its model."""

    def command(self, port: int) -> list[str]:
        """Return the command that starts it."""
        return [python(self.environment), str(HERE / "servers" / self.script), str(port)]

    def environ(self, deployment: Deployment, port: int) -> Mapping[str, str]:
        """Return the variables that its script reads."""
        delay = self.default_delay_ms if deployment.delay_ms is None else deployment.delay_ms
        settings = {
            "HANDLER": deployment.model.handler,
            "BATCH_SIZE": deployment.batch_size,
            "DELAY_MS": delay,
            "WORKERS": deployment.workers,
            "SHAPE": " ".join(map(str, deployment.model.shape)),
        }
        return {name: str(value) for name, value in settings.items()} | {"PORT": str(port), "HTTP_PORT": str(free_port())}

    @abstractmethod
    def target(self, model: Model, port: int) -> Target:
        """Return how to call it."""

    def deploy(self, deployment: Deployment) -> Target:
        """See Peer."""
        port = free_port()
        log = self.folder / "log"
        self.process = ServerProcess(self.command(port), log, self.environ(deployment, port))
        self.deployment, target = deployment, self.target(deployment.model, port)
        try:
            self.process.wait_until(lambda: _answers(target))
        except BaseException:
            self.withdraw()
            raise
        return target

    def withdraw(self) -> None:
        """See Peer."""
        self.close()


class Mosec(StartedPeer):
    """mosec: HTTP, a Rust front end."""

    name, environment, script = "mosec", "mosec", "mosec_server.py"
    grace_seconds = 1  # it does not end once a caller has left in the middle of a request
    timeout_ms = 60_000  # of a request; its own default is 3000, which the slower models exceed with many callers

    def command(self, port: int) -> list[str]:
        """See StartedPeer."""
        flags = ["--address", "127.0.0.1", "--port", str(port), "--path", str(self.folder / f"ipc-{port}")]
        return [python(self.environment), str(HERE / "servers" / self.script), *flags, "--timeout", str(self.timeout_ms)]

    def target(self, model: Model, port: int) -> Target:
        """See StartedPeer."""
        return HttpTarget(f"127.0.0.1:{port}", "/inference", model)


class Triton(StartedPeer):
    """Triton with its Python backend, by pytriton."""

    name, environment, script = "Triton", "triton", "triton_server.py"

    def environ(self, deployment: Deployment, port: int) -> Mapping[str, str]:
        """See StartedPeer; Triton embeds Python and must find the library of the interpreter that it was installed for."""
        libraries = Path(python(self.environment)).resolve().parents[1] / "lib"
        return {**super().environ(deployment, port), "LD_LIBRARY_PATH": str(libraries)}

    def close(self) -> None:
        """See Peer; pytriton leaves its shared memory behind."""
        pids = [process.pid for process in measure.tree(self.pid)] if self.process else []
        super().close()
        for pid in pids:
            for left in Path("/dev/shm").glob(f"pytrtion{pid}-*"):
                left.unlink()

    def target(self, model: Model, port: int) -> Target:
        """See StartedPeer."""
        return GrpcTarget(f"127.0.0.1:{port}", OPEN_INFERENCE, model)


class MLServer(StartedPeer):
    """MLServer: gRPC, the model in the server's process (in worker processes when there is more than one).

    It gets tensors as bytes: of one with a datatype it makes a list of Python numbers.
    """

    name, environment = "MLServer", "mlserver"

    def command(self, port: int) -> list[str]:  # noqa: ARG002 - MLServer reads its port from the environment
        """See StartedPeer."""
        return [str(ENVIRONMENTS / self.environment / "bin" / "mlserver"), "start", str(self.folder)]

    def environ(self, deployment: Deployment, port: int) -> Mapping[str, str]:
        """See StartedPeer."""
        settings = dict(super().environ(deployment, port))
        server = {"HOST": "127.0.0.1", "GRPC_PORT": port, "HTTP_PORT": settings["HTTP_PORT"], "METRICS_PORT": free_port()}
        server |= {"GRPC_MAX_MESSAGE_LENGTH": 2**26, "DEBUG": 0, "PARALLEL_WORKERS": deployment.workers if deployment.workers > 1 else 0}
        model = {"NAME": "model", "IMPLEMENTATION": "mlserver_model.HandlerModel"}
        if deployment.batch_size > 1:
            model |= {"MAX_BATCH_SIZE": str(deployment.batch_size), "MAX_BATCH_TIME": str(int(settings["DELAY_MS"]) / 1000)}
        settings |= {f"MLSERVER_{name}": str(value) for name, value in server.items()}
        settings |= {f"MLSERVER_MODEL_{name}": value for name, value in model.items()}
        return settings | {"PYTHONPATH": str(HERE / "servers")}

    def target(self, model: Model, port: int) -> Target:
        """See StartedPeer."""
        return GrpcTarget(f"127.0.0.1:{port}", OPEN_INFERENCE_BYTES, model)


class Echo(StartedPeer):
    """A server that does nothing at all: a limit to measure against, not a peer."""

    environment, handlers = "harness", False

    def target(self, model: Model, port: int) -> Target:
        """See StartedPeer."""
        return GrpcTarget(f"127.0.0.1:{port}", ECHO, model)


class AioEcho(Echo):
    """`grpc.aio`."""

    name, script = "aio echo", "aio_echo.py"


class QueueEcho(Echo):
    """A completion-queue loop."""

    name, script = "queue echo", "queue_echo.py"


class ManagedPeer(Peer):
    """A server that models are registered with over gRPC."""

    managed = True
    dialect: Dialect
    service: str
    inference = management = ""

    def manage(self, method: str, *fields: tuple[int, wire.Field]) -> bytes:
        """Make one management call."""
        with grpc.insecure_channel(self.management) as channel:
            return channel.unary_unary(f"/{self.service}/{method}")(wire.message(*fields), timeout=CALL_SECONDS)

    @abstractmethod
    def register(self, deployment: Deployment) -> None:
        """Register the model's archive with its settings and wait for the workers."""

    def deploy(self, deployment: Deployment) -> Target:
        """See Peer."""
        deployment.model.write_archive(self.folder)
        self.register(deployment)
        self.deployment = deployment
        target = GrpcTarget(self.inference, self.dialect, deployment.model)
        target.send(0)
        return target

    def withdraw(self) -> None:
        """See Peer."""
        if self.deployment is not None:
            self.manage("UnregisterModel", (1, self.deployment.model.name))
            self.deployment = None


class TorchServe(ManagedPeer):
    """TorchServe: a Java front end. It needs Java 17 and half a minute to warm up."""

    name, environment = "TorchServe", "torchserve"
    grace_seconds = 1  # its launcher waits for the Java process without telling it to end
    dialect, service = TORCHSERVE, "org.pytorch.serve.grpc.management.ManagementAPIsService"
    properties: Sequence[str] = ("job_queue_size=1000",)  # of its configuration, beside the ports
    options: Sequence[str] = ("--disable-token-auth", "--enable-model-api")

    def open(self) -> None:
        """See Peer."""
        ports = {name: free_port() for name in ("inference", "management", "metrics", "grpc_inference", "grpc_management", "worker")}
        settings = [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in ("inference", "management", "metrics")]
        settings += [f"{name}_port={ports[name]}" for name in ("grpc_inference", "grpc_management")]
        settings += [f"initial_worker_port={ports['worker']}", *self.properties]
        (self.folder / "config.properties").write_text("\n".join(settings))
        self.inference, self.management = (f"127.0.0.1:{ports[name]}" for name in ("grpc_inference", "grpc_management"))
        program = ENVIRONMENTS / self.environment / "bin" / "torchserve"
        flags = ["--start", "--foreground", "--ncs", "--model-store", str(self.folder)]
        command = [str(program), *flags, *self.options, "--ts-config", str(self.folder / "config.properties")]
        path = {"PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(self.folder), "TEMP": str(self.folder)}
        self.process = ServerProcess(command, self.folder / "log", path)
        self.process.wait_until(self._ping)

    def warm_up(self) -> None:
        """Let the Java compiler see the traffic that will be measured."""
        for batch_size in (1, 8):
            target = self.deploy(Deployment(MODELS["noop"], batch_size))
            load.run(target, 64, WARM_UP_SECONDS / 2, load.check(target))
            self.withdraw()

    def register(self, deployment: Deployment) -> None:
        """See ManagedPeer."""
        delay = self.default_delay_ms if deployment.delay_ms is None else deployment.delay_ms
        settings = (1, deployment.batch_size), (3, deployment.workers), (4, delay), (8, 1)
        self.manage("RegisterModel", *settings, (9, f"{deployment.model.name}.mar"))

    def scale(self, workers: int) -> None:
        """See Peer."""
        if self.deployment is not None:
            self.manage("ScaleWorker", (1, self.deployment.model.name), (3, workers), (4, workers), (6, 1))

    def _ping(self) -> bool:
        try:
            with grpc.insecure_channel(self.inference) as channel:
                channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping")(b"", timeout=1)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.PERMISSION_DENIED)  # it asks for a token
        return True


class ServeGrpc(ManagedPeer):
    """servegrpc, from the project's own environment."""

    name, environment = "servegrpc", "servegrpc"
    dialect, service = SERVEGRPC, "servegrpc.v1.ManagementService"
    fast_lane = "on"
    options: Sequence[str] = ()

    def open(self) -> None:
        """See Peer."""
        program = Path(python(self.environment)).with_name("servegrpc")
        addresses = ["--inference-address", "127.0.0.1:0", "--management-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
        logged = ["--access-log", str(self.folder / "access.log")]
        command = [
            str(program),
            "serve",
            "--model-store",
            str(self.folder),
            *addresses,
            *logged,
            "--fast-lane",
            self.fast_lane,
            *self.options,
        ]
        self.process = ServerProcess(command, self.folder / "log", {})
        self.process.wait_until(self._ready)

    def register(self, deployment: Deployment, name: str = "") -> None:
        """See ManagedPeer; another name lets one archive be many models."""
        settings = wire.message((1, deployment.batch_size))
        if deployment.delay_ms is not None:
            settings += wire.message((2, wire.message((2, deployment.delay_ms * 10**6))))  # a Duration's nanos
        self.manage("RegisterModel", (1, f"{deployment.model.name}.mar"), (2, name), (4, deployment.workers), (5, settings))

    def scale(self, workers: int) -> None:
        """See Peer."""
        if self.deployment is not None:
            self.manage("ScaleModel", (1, self.deployment.model.name), (3, workers))

    def _ready(self) -> bool:
        line = re.search(r"^ready .*inference=(\S+) management=(\S+)", self.process.log.read_text() if self.process else "", re.MULTILINE)
        if line:
            self.inference, self.management = line.groups()
        return line is not None


class ServeGrpcPublic(ServeGrpc):
    """servegrpc on grpcio's public handlers only."""

    name, fast_lane = "servegrpc, no fast lane", "off"


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (ServeGrpc, ServeGrpcPublic, TorchServe, Mosec, Triton, MLServer, AioEcho, QueueEcho)
}


def _answers(target: Target) -> bool:
    try:
        return target.result(target.send(0)) == target.right(0)
    except (grpc.RpcError, OSError):
        return False
