"""What a terminal shows on stderr while something takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOWN_FROM_BYTES = 10_000_000


@contextmanager
def byte_progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that takes the bytes done and in all and draws them, or None when stderr is no terminal.

    Less than 10 MB in all is not worth a bar and draws nothing. The bar is gone afterwards.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, visible=False)

        def draw(done_bytes: int, total_bytes: int) -> None:
            progress.update(task, completed=done_bytes, total=total_bytes, visible=total_bytes > _SHOWN_FROM_BYTES)

        yield draw


@contextmanager
def busy(label: str) -> Iterator[None]:
    """Show on a terminal that a server works, and for how long already; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(label, total=None)
        yield
