"""`servegrpc serve`: run the server in the foreground until it is told to stop."""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import click
import structlog

from servegrpc.cli.torchserve import NAMES, TorchServeOptions, torchserve_options
from servegrpc.config import ModelEntry, ServerConfig, environment, load_config
from servegrpc.core.archive import archive_names
from servegrpc.core.registration import GivenSettings, Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.errors import InvalidInput
from servegrpc.frontend.server import Server
from servegrpc.logs import configure_logs
from servegrpc.memory import keep_freed_blocks

log = structlog.get_logger()

KEPT_BYTES = 64 * 1024 * 1024  # of freed memory, for the next messages
EXAMPLE = """
\b
Examples:
  servegrpc serve digits.mar
  servegrpc serve --model-store models numbers=digits.mar resnet.mar --workers 2
  servegrpc serve --model-store models all --state-dir /var/lib/servegrpc
  servegrpc serve --ts-config config.properties --ncs
"""


@click.command(epilog=EXAMPLE)
@click.argument("models", nargs=-1, metavar="[[NAME=]ARCHIVE]...")
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), help="A TOML file with these settings.")
@click.option("--model-store", type=click.Path(file_okay=False, path_type=Path), help="Folder where archives are looked up by name.")
@click.option(
    "--state-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps what is registered.  [default: none]"
)
@click.option("--inference-address", metavar="HOST:PORT", help="Port 0 picks a free one.  [default: 127.0.0.1:7070]")
@click.option("--management-address", metavar="HOST:PORT", help="Port 0 picks a free one.  [default: 127.0.0.1:7071]")
@click.option("--metrics-address", metavar="HOST:PORT", help="For Prometheus; '' serves none.  [default: 127.0.0.1:8082]")
@click.option("--workers", type=click.IntRange(0), help="Workers per model.  [default: the archive's, else one, or one per GPU]")
@click.option("--cpus", type=click.IntRange(1), help="CPU cores that a model's workers share.  [default: all this process may use]")
@click.option("--gpus", type=click.IntRange(0), help="GPUs to use.  [default: all]")
@click.option("--max-message-bytes", type=click.IntRange(1), help="Largest request accepted.  [default: 67108864]")
@click.option("--drain-seconds", type=click.FloatRange(0), help="Time for calls to finish when told to stop.  [default: 30]")
@click.option(
    "--fast-lane", type=click.BOOL, metavar="on|off", help="Serve Predict from grpcio's core; off: by its thread pool.  [default: on]"
)
@click.option("--allow-repository-api", is_flag=True, default=None, help="Serve Triton's model control on the inference port too.")
@click.option("--allow-client-shm", metavar="PREFIX", help="Take tensors in shared memory whose name begins so.  [default: none]")
@click.option("--certificate-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM certificate chain; turns TLS on.")
@click.option("--private-key-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM private key of the certificate.")
@click.option(
    "--client-ca-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM authorities; clients must then show a certificate."
)
@click.option("--token-authorization", type=click.BOOL, metavar="on|off", help="Ask callers for a token of the key file.  [default: off]")
@click.option(
    "--install-requirements", type=click.BOOL, metavar="on|off", help="Install the packages that archives ask for.  [default: off]"
)
@click.option("--access-log", metavar="FILE", help="Append a line per call to FILE; - is standard error.  [default: none]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level logged.  [default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How log lines look.  [default: text]")
@torchserve_options
def serve(models: tuple[str, ...], config_file: Path | None, **options: object) -> None:
    """Serve models until Ctrl-C or SIGTERM.

    Each ARCHIVE is a name in the model store, else a path or URL; "all" stands for all of the model store. When they are loaded, a line on
    standard output says which ports are served; a second Ctrl-C ends at once, without waiting for running calls.
    """
    torchserve = TorchServeOptions({name: options.pop(name) for name in NAMES}, environment())
    values: Mapping[str, object] = {}
    tell: Callable[[], None] | None = None
    if torchserve.asks(config_file):
        values, tell = torchserve.settings(models, options.pop("model_store"))
        models = ()
    config = load_config(config_file, {**options, "models": models or None}, values=values)
    configure_logs(config.log_level, config.log_format)
    if tell:
        tell()
    config.block_environment()
    registrations = list(_registrations(config))
    keep_freed_blocks(KEPT_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each worker takes eight descriptors
    stop = _StopRequests()
    server = Server(config)
    finished = True
    try:
        server.start()
        loading = ThreadPoolExecutor(1, "load").submit(server.load, registrations)
        loading.add_done_callback(lambda _: stop.wake())
        stop.wait(loading.done)
        if not stop.count:
            _say_ready(server, loading.result())
            stop.wait()
        log.info("draining; Ctrl-C again ends at once")
    finally:
        finished = server.drain(config.drain_seconds if stop.count < 2 else 0.0)
    sys.exit(0 if finished else 1)


def _say_ready(server: Server, versions: Sequence[ModelVersion]) -> None:
    names = ",".join(f"{version.name}:{version.version}" for version in versions)
    ports = f"inference={server.inference_address} management={server.management_address} metrics={server.metrics_address}"
    gc.freeze()  # what is there now stays: later collections need not look at it
    click.echo(f"ready {ports} models={names}")


class _StopRequests:
    """Counts SIGINT and SIGTERM; the second one ends the process at once, and its workers with it."""

    def __init__(self) -> None:
        self.count = 0
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)  # a signal may reach another thread, which does not wake this one
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def wait(self, done: Callable[[], bool] = lambda: False) -> None:
        """Block until a signal comes, or `done()`, which is asked when `wake` was called."""
        while not (self.count or done()):
            os.read(self._woken, 64)

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake
            os.write(self._wake, b".")

    def _take(self, number: int, _: object) -> None:
        self.count += 1
        if self.count > 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _registrations(config: ServerConfig) -> Iterator[Registration]:
    any_url = not config.allowed_urls  # those who list a URL here may allow it too
    for model in config.models:
        if isinstance(model, ModelEntry):
            given = {name: getattr(model, name) for name in GivenSettings.__dataclass_fields__}
            source = _source(model.archive, config.model_store)
            yield Registration(source, model.name, model.handler, _name_of(model.archive), model.default, any_url=any_url, **given)
        elif model == "all":
            yield from (Registration(name, fallback_name=_name_of(name)) for name in _stored(config))
        else:
            name, separator, archive = model.partition("=")
            if not separator or "/" in name:  # a path or URL that has the sign somewhere
                name, archive = "", model
            yield Registration(_source(archive, config.model_store), name, fallback_name=_name_of(archive), any_url=any_url)


def _stored(config: ServerConfig) -> list[str]:
    if not config.model_store:
        raise InvalidInput("all: there is no model store; set --model-store to the folder that holds the archives.", field="models")
    return archive_names(config.model_store)


def _source(archive: str, store: Path | None) -> str:
    """Return a name in the model store as it is, else a path that is there in whole."""
    path = Path(archive)
    stored = store is not None and path.name == archive and (store / archive).exists()
    return str(path.resolve()) if path.exists() and not stored else archive


def _name_of(archive: str) -> str:
    """Return the name of a model whose archive has none (TorchServe's rule)."""
    name = archive.rstrip("/").rpartition("/")[2]
    return re.sub(r"\W|^_", "_", name.rpartition(".")[0] if name.endswith((".mar", ".model")) else name)
