"""Reads what workers print, line by line: one thread for all of them."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from dataclasses import dataclass

MAX_LINE_BYTES = 16 * 1024


@dataclass(slots=True)
class Source:
    """One pipe and the part of a line that has come so far."""

    on_line: Callable[[str], None]
    rest: bytes = b""


class OutputPump:
    """Calls a function with each line that arrives on a pipe, until its writers are gone; then closes the pipe."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._wake_end = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="worker-output", daemon=True)
        self._thread.start()

    def add(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        """Read a pipe from now on; the pump owns the descriptor."""
        self._selector.register(descriptor, selectors.EVENT_READ, Source(on_line))
        os.write(self._wake_end, b".")

    def close(self) -> None:
        """Stop; what is still in a pipe whose writers live is dropped."""
        self._closing = True
        os.write(self._wake_end, b".")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._wake_end)

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                chunk = os.read(key.fd, 65536)
                if isinstance(key.data, Source):
                    self._take(key.fd, key.data, chunk)

    def _take(self, descriptor: int, source: Source, chunk: bytes) -> None:
        *lines, source.rest = (source.rest + chunk).split(b"\n")
        if len(source.rest) > MAX_LINE_BYTES or (not chunk and source.rest):
            lines, source.rest = [*lines, source.rest], b""
        for line in lines:
            source.on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if not chunk:
            self._selector.unregister(descriptor)
            os.close(descriptor)
