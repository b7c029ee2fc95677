"""What a notebook shows: models as a table, and a line while a large request is on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from servegrpc.client.results import Model

LARGE_BYTES = 1024 * 1024
"""Smaller requests are sent before a line about them could be read."""

_HEADINGS = ("model", "version", "state", "workers", "waiting", "batch", "devices", "cause")


def table(models: Iterable[Model]) -> str:
    """Return an HTML table of models, one row for each version; the default versions are bold."""
    rows = [_row(cells) for model in models for cells in _cells(model)]
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cells(model: Model) -> Iterable[Sequence[str]]:
    for version in model.versions:
        devices = ", ".join(sorted({worker.device for worker in version.workers}))
        name = escape(version.version)
        yield (
            escape(model.name),
            f"<b>{name}</b>" if version.version == model.default_version else name,
            escape(version.state),
            f"{version.ready_workers} of {version.target_workers}",
            str(version.queued_requests),
            str(version.settings.batch_size),
            escape(devices),
            escape(version.cause),
        )


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def on_its_way(request: Message, *, shown: bool, model: str = "") -> AbstractContextManager[object]:
    """Show, on standard error or in the notebook, how large a request is and how long it has been running, while the context lasts.

    gRPC does not tell how much of a message has been sent. Nothing is shown for small requests, without a terminal, or if not `shown`.
    `model` is for requests that do not name theirs. In a notebook, rich needs ipywidgets for it.
    """
    size_bytes = request.ByteSize() if shown else 0
    if size_bytes < LARGE_BYTES:
        return nullcontext()
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):  # rich would end with an empty line
        return nullcontext()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    progress.add_task(f"{model or getattr(request, 'model_name', '')}: {size_bytes / 2**20:.1f} MiB")
    return progress
