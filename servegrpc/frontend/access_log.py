"""One line per call, written in bulk by a thread of its own: a call costs the formatting of its line and no system call."""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import TextIO

import structlog

from servegrpc.errors import Code

log = structlog.get_logger()

FLUSH_SECONDS = 0.25
CODE_NAMES = [code.name for code in Code]


class AccessLog:
    """Appends to a file, or to standard error for "-". Lines appear within `FLUSH_SECONDS`, and all of them before `close` returns."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = sys.stderr if path == "-" else open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._lines: deque[str] = deque()
        self._written = threading.Event()
        self._closing = threading.Event()
        self._failed = False
        self._millisecond, self._stamp = 0, ""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, method: str, model: str, request_id: str, code: int, seconds: float) -> None:
        """Note one finished call; from any thread."""
        now = int(time() * 1000)
        if now != self._millisecond:  # many calls end within one
            self._millisecond, self._stamp = now, f"{_second(now // 1000)}.{now % 1000:03d}Z"
        if not (model + request_id).isprintable():  # it is the caller's text: a line must stay a line
            model, request_id = json.dumps(model), json.dumps(request_id)
        name, milliseconds = CODE_NAMES[code], seconds * 1000
        self._lines.append(f"{self._stamp} {method} model={model} code={name} ms={milliseconds:.2f} request_id={request_id}\n")
        if not self._written.is_set():
            self._written.set()

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._written.set()
        self._thread.join()
        if self._file is not sys.stderr:
            with suppress(OSError):  # a full disk, which has been told
                self._file.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._written.wait()
            self._closing.wait(FLUSH_SECONDS)  # more lines come: write them together
            self._written.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            self._file.write("".join(lines))
            self._file.flush()
        except OSError as error:
            if not self._failed:
                log.warning("access log cannot be written; lines are dropped", reason=str(error))
            self._failed = True
        else:
            self._failed = False


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")
