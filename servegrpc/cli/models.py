"""`servegrpc models`: shows and changes what a server serves, through its management port."""

from __future__ import annotations

from collections.abc import Iterable

import click

from servegrpc.cli.connect import Server, json_text, management_options
from servegrpc.cli.progress import busy
from servegrpc.client import Model, ModelEvent, ModelVersion

_PIPE_WIDTH = 200

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_max_workers_option = click.option("--max-workers", type=click.IntRange(1), help="Let their number follow the load, up to this.")
_no_wait_option = click.option("--no-wait", is_flag=True, help="Return at once, without waiting for the workers.")
_version_option = click.option("--version", default="", help="Version of the model.  [default: the default version]")


def _example(text: str) -> str:
    return f"\b\nExample:\n  {text}"


@click.group(epilog=_example("servegrpc models list"))
def models() -> None:
    """List, register, scale and watch the models of a server."""


@models.command("list", epilog=_example("servegrpc models list"))
@_json_option
@management_options
def list_models(*, server: Server, as_json: bool) -> None:
    """List all models with their versions and workers."""
    with server.connect() as client:
        found = client.models()
    if as_json:
        click.echo(json_text(found, indent=2))
    elif found:
        _print_versions(found)
    else:
        click.echo("no models; register one with: servegrpc models register ARCHIVE", err=True)


@models.command(epilog=_example("servegrpc models describe digits"))
@click.argument("model")
@_json_option
@management_options
def describe(*, server: Server, model: str, as_json: bool) -> None:
    """Show one MODEL: its versions, settings and workers."""
    with server.connect() as client:
        found = client.model(model)
    if as_json:
        click.echo(json_text(found, indent=2))
        return
    _print_versions([found])
    for version in found.versions:
        click.echo("\n" + _described(version))
        if version.workers:
            rows = [
                (str(worker.id), worker.state, str(worker.pid), worker.device, f"{worker.resident_memory_bytes / 2**20:.0f} MiB")
                for worker in version.workers
            ]
            _print_table(("WORKER", "STATE", "PID", "DEVICE", "MEMORY"), rows)


@models.command(epilog=_example("servegrpc models register digits.mar --workers 2 --batch-size 8"))
@click.argument("archive")
@click.option("--name", default="", help="Name to serve it under.  [default: the name in the archive]")
@click.option("--handler", default="", metavar="FILE[:FUNCTION]", help="Handler to use instead of the archive's.")
@click.option("--workers", type=click.IntRange(0), help="How many worker processes to start.")
@_max_workers_option
@click.option("--batch-size", type=click.IntRange(1), help="The most requests in one call of the handler.")
@click.option("--max-batch-delay", type=float, metavar="SECONDS", help="How long a request may wait for others to fill its batch.")
@click.option("--response-timeout", type=float, metavar="SECONDS", help="How long the handler may take for a batch.")
@click.option("--startup-timeout", type=float, metavar="SECONDS", help="How long a worker may take to load.")
@click.option("--max-queue-size", type=click.IntRange(1), help="The most requests that may wait.")
@_no_wait_option
@_json_option
@management_options
def register(
    *,
    server: Server,
    archive: str,
    name: str,
    handler: str,
    workers: int | None,
    max_workers: int | None,
    batch_size: int | None,
    max_batch_delay: float | None,
    response_timeout: float | None,
    startup_timeout: float | None,
    max_queue_size: int | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Register ARCHIVE, a file in the server's model store or an absolute path there, and start its workers.

    What is not given comes from the archive's model-config.yaml and the server.
    """
    with server.connect() as client, busy(f"Loading {archive}"):
        model = client.register(
            archive,
            name=name,
            handler=handler,
            workers=workers,
            max_workers=max_workers,
            batch_size=batch_size,
            max_batch_delay=max_batch_delay,
            response_timeout=response_timeout,
            startup_timeout=startup_timeout,
            max_queue_size=max_queue_size,
            wait=not no_wait,
        )
    _print_model(model, as_json)


@models.command(epilog=_example("servegrpc models scale digits 4"))
@click.argument("model")
@click.argument("workers", type=click.IntRange(0))
@_max_workers_option
@_version_option
@_no_wait_option
@_json_option
@management_options
def scale(*, server: Server, model: str, workers: int, max_workers: int | None, version: str, no_wait: bool, as_json: bool) -> None:
    """Give MODEL that many WORKERS; 0 keeps it registered without any."""
    with server.connect() as client, busy(f"Scaling {model}"):
        scaled = client.scale(model, workers, max_workers=max_workers, version=version, wait=not no_wait)
    _print_model(scaled, as_json)


@models.command("set-default", epilog=_example("servegrpc models set-default digits 2.0"))
@click.argument("model")
@click.argument("version")
@_json_option
@management_options
def set_default(*, server: Server, model: str, version: str, as_json: bool) -> None:
    """Make VERSION of MODEL the one that requests without a version get."""
    with server.connect() as client:
        changed = client.set_default(model, version)
    _print_model(changed, as_json)


@models.command(epilog=_example("servegrpc models unregister digits --version 1.0"))
@click.argument("model")
@click.option("--version", default="", help="Version of the model.  [default: all versions]")
@_no_wait_option
@management_options
def unregister(*, server: Server, model: str, version: str, no_wait: bool) -> None:
    """Remove MODEL, or one version of it, after the requests it has accepted."""
    with server.connect() as client, busy(f"Draining {model}"):
        client.unregister(model, version, wait=not no_wait)
    click.echo(f"unregistered {model} {version}".rstrip())


@models.command(epilog=_example("servegrpc models watch digits"))
@click.argument("model", default="")
@_json_option
@management_options
def watch(*, server: Server, model: str, as_json: bool) -> None:
    """Print the state of MODEL, or of all models, and every change of it, until interrupted."""
    with server.connect() as client:
        for event in client.watch(model):
            click.echo(json_text(event) if as_json else _event_line(event))


def _print_model(model: Model, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(model, indent=2))
    else:
        _print_versions([model])


def _print_versions(found: list[Model]) -> None:
    header = ("MODEL", "VERSION", "DEFAULT", "STATE", "WORKERS", "QUEUED", "BATCH", "DEVICE")
    _print_table(header, [_version_row(model, version) for model in found for version in model.versions])


def _version_row(model: Model, version: ModelVersion) -> tuple[str, ...]:
    return (
        model.name,
        version.version,
        "*" if version.version == model.default_version else "",
        version.state,
        f"{version.ready_workers}/{version.target_workers}",
        str(version.queued_requests),
        str(version.settings.batch_size),
        ", ".join(sorted({worker.device for worker in version.workers})),
    )


def _described(version: ModelVersion) -> str:
    settings = version.settings
    lines = [
        f"version {version.version} from {version.archive}",
        f"  batches of up to {settings.batch_size}, filled for {settings.max_batch_delay_seconds:g} s at most",
        f"  {settings.max_queue_size} requests may wait; a batch may take {settings.response_timeout_seconds:g} s",
        f"  a worker may take {settings.startup_timeout_seconds:g} s to load",
    ]
    if version.register_time:
        lines.insert(1, f"  registered {version.register_time:%Y-%m-%d %H:%M:%S} UTC")
    if version.cause:
        lines.append(f"  failed: {version.cause}")
    return "\n".join(lines)


def _event_line(event: ModelEvent) -> str:
    time = f"{event.change_time:%H:%M:%S} " if event.change_time else ""
    cause = f": {event.cause}" if event.cause else ""
    workers = f"{event.ready_workers}/{event.target_workers} workers"
    return f"{time}{event.model_name} {event.model_version} {event.state}, {workers}{cause}"


def _print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
