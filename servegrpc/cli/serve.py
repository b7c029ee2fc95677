"""`servegrpc serve`: run the server in the foreground until it is told to stop."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from pathlib import Path

import click

from servegrpc.config import load_config
from servegrpc.core.registration import Registration
from servegrpc.frontend.server import Server
from servegrpc.logs import configure_logs
from servegrpc.memory import keep_freed_blocks

EXAMPLE = """
\b
Examples:
  servegrpc serve digits.mar
  servegrpc serve --model-store models numbers=digits.mar resnet.mar --workers 2
"""


@click.command(epilog=EXAMPLE)
@click.argument("models", nargs=-1, metavar="[[NAME=]ARCHIVE]...")
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), help="A TOML file with these settings.")
@click.option("--model-store", type=click.Path(file_okay=False, path_type=Path), help="Folder where archives are looked up by name.")
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
@click.option("--certificate-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM certificate chain; turns TLS on.")
@click.option("--private-key-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM private key of the certificate.")
@click.option(
    "--client-ca-file", type=click.Path(dir_okay=False, path_type=Path), help="PEM authorities; clients must then show a certificate."
)
@click.option("--access-log", metavar="FILE", help="Append a line per call to FILE; - is standard error.  [default: none]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level logged.  [default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How log lines look.  [default: text]")
def serve(models: tuple[str, ...], config_file: Path | None, **options: object) -> None:
    """Serve models until Ctrl-C or SIGTERM.

    Each ARCHIVE is a path, or a name in the model store. When all are loaded, a line on standard output says which ports
    are served; a second Ctrl-C ends at once, without waiting for running calls.
    """
    config = load_config(config_file, {**options, "models": models or None})
    configure_logs(config.log_level, config.log_format)
    keep_freed_blocks()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each worker takes eight descriptors
    stop = _StopRequests()
    server = Server(config)
    finished = True
    try:
        server.start()
        versions = server.load([_registration(model) for model in config.models])
        names = ",".join(f"{version.name}:{version.version}" for version in versions)
        ports = f"inference={server.inference_address} management={server.management_address} metrics={server.metrics_address}"
        gc.freeze()  # what is there now stays: later collections need not look at it
        click.echo(f"ready {ports} models={names}")
        stop.wait()
        click.echo("draining; Ctrl-C again ends at once", err=True)
    finally:
        finished = server.drain(config.drain_seconds if stop.count < 2 else 0.0)
    sys.exit(0 if finished else 1)


class _StopRequests:
    """Counts SIGINT and SIGTERM; the second one ends the process at once, and its workers with it."""

    def __init__(self) -> None:
        self.count = 0
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # a signal may reach another thread, which does not wake this one
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def wait(self) -> None:
        while not self.count:
            os.read(self._woken, 64)

    def _take(self, number: int, _: object) -> None:
        self.count += 1
        if self.count > 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _registration(model: str) -> Registration:
    name, separator, archive = model.partition("=")
    if not separator:
        name, archive = "", model
    path = Path(archive)
    return Registration(str(path.resolve()) if path.exists() else archive, model_name=name)
