"""`ts.launcher`: a server started and stopped from Python, as TorchServe's test-suite does it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import IO, cast

import grpc

from servegrpc.client import CallError, Client

MANAGEMENT_ADDRESS = "127.0.0.1:7071"
MAX_LINES = 1_000
STOP_SECONDS = 60.0

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.UNAVAILABLE: 503,
}


@dataclass
class _Server:
    """A server that this process has started."""

    process: subprocess.Popen[str]
    output: IO[str]
    lines: Queue[str | None] = field(default_factory=lambda: Queue(MAX_LINES))
    management_address: str = MANAGEMENT_ADDRESS
    reader: threading.Thread | None = None

    def wait_ready(self) -> None:
        """Read until the line that names the ports; raises RuntimeError with what it said when it ends before."""
        said: list[str] = []
        for line in self.output:
            said.append(line)
            sys.stdout.write(line)
            if line.startswith("ready "):
                self.management_address = dict(part.split("=", 1) for part in line.split()[1:])["management"]
                self.reader = threading.Thread(target=self._read, daemon=True)
                self.reader.start()
                return
        raise RuntimeError(f"The server did not start: {''.join(said[-5:]).strip()}")

    def end(self) -> None:
        """Wait until it has ended, and been read to its end."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.reader:
            self.reader.join()
        self.output.close()

    def _read(self) -> None:
        for line in self.output:
            sys.stdout.write(line)
            try:
                self.lines.put_nowait(line)
            except Full:  # nobody reads them; those that come first are kept, as in TorchServe
                continue
        while self.lines.full():
            self.lines.get_nowait()
        self.lines.put_nowait(None)


_running: list[_Server] = []  # at most one: `start` stops the last one


@dataclass(frozen=True)
class Response:
    """What became of a registration, in HTTP's terms."""

    status_code: int
    text: str

    def json(self) -> dict[str, str]:
        """Return the text as TorchServe's JSON has it."""
        return {"status": self.text}


def start(
    model_store: str,
    snapshot_file: str | None = None,
    no_config_snapshots: bool = False,
    plugin_folder: str | None = None,
    disable_token: bool = False,
    models: str | None = None,
    enable_model_api: bool = False,
) -> Queue[str | None]:
    """Start `servegrpc serve` with TorchServe's options and wait until it is ready; one started before is stopped.

    Returns a queue of the lines it writes from then on, the first 1,000, with None at its end. They are also written to standard output.
    """
    stop()
    options = {"--model-store": model_store, "--ts-config": snapshot_file, "--plugins-path": plugin_folder, "--models": models}
    flags = {"--ncs": no_config_snapshots, "--disable-token-auth": disable_token, "--enable-model-api": enable_model_api}
    command = [sys.executable, "-P", "-m", "servegrpc", "serve", "--start", *(name for name, given in flags.items() if given)]
    for name, value in options.items():
        command += [name, str(value)] if value else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - our own command
    server = _Server(process, cast("IO[str]", process.stdout))
    _running.append(server)
    server.wait_ready()
    return server.lines


def stop(wait: bool = True) -> None:
    """Stop the server that `start` started, if there is one; with `wait`, return when it has ended."""
    while _running:
        server = _running.pop()
        server.process.terminate()
        if wait:
            server.end()


def register_model(model_name: str, url: str) -> Response:
    """Register an archive with one worker, and wait until it serves."""
    return register_model_with_params({"model_name": model_name, "url": url, "initial_workers": "1", "synchronous": "true"})


def register_model_with_params(params: Mapping[str, str] | Iterable[tuple[str, str]]) -> Response:
    """Register an archive with the parameters of TorchServe's REST call."""
    given = dict(params)
    milliseconds = given.get("max_batch_delay")
    address = _running[-1].management_address if _running else MANAGEMENT_ADDRESS
    name = given.get("model_name", "")
    with Client(address, management_address=address) as client:
        try:
            model = client.register(
                given.get("url", ""),
                name=name,
                handler=given.get("handler", ""),
                workers=int(given.get("initial_workers", 0)),
                batch_size=_number(given, "batch_size"),
                max_batch_delay=None if milliseconds is None else int(milliseconds) / 1000,
                response_timeout=_number(given, "response_timeout"),
                startup_timeout=_number(given, "startup_timeout"),
                wait=str(given.get("synchronous", "")).lower() == "true",
            )
        except CallError as error:
            return Response(_HTTP.get(error.code, 500), str(error))
    return Response(
        200, f'Model "{model.name}" Version: {model.versions[-1].version} registered with {given.get("initial_workers", 0)} workers'
    )


def _number(given: Mapping[str, str], key: str) -> int | None:
    return int(given[key]) if key in given else None
