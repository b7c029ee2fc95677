"""One thread that calls functions at their time: batch delays, time-outs, restarts. Nothing else in the server sleeps."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import ref

import structlog

log = structlog.get_logger()

FEW_CALLS = 100  # that are kept whatever they are about


class Timer:
    """Calls functions at monotonic times, on its own thread; they must not block. `close` drops those that are not due."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None], ref[Any] | None]] = []
        self._most = FEW_CALLS  # before those about what is gone are dropped
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
        self._thread.start()

    def call_at(self, when: float, function: Callable[[], None], about: ref[Any] | None = None) -> None:
        """Call `function` once at `when`; calls at the same time run in the order given.

        One whose subject, what it is `about`, is gone by then may be dropped: such calls never outnumber the others by much.
        """
        with self._changed:
            heapq.heappush(self._calls, (when, next(self._order), function, about))
            if self._calls[0][2] is function:
                self._changed.notify()
            if len(self._calls) > self._most:
                self._calls = [call for call in self._calls if call[3] is None or call[3]() is not None]
                heapq.heapify(self._calls)
                self._most = 2 * len(self._calls) + FEW_CALLS

    def close(self) -> None:
        """Stop; returns when a call that runs now has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._call_next()
            except Exception:
                log.exception("timer call failed")

    def _call_next(self) -> None:
        """Wait for the next call that is due, and make it; returns without one when it is closed."""
        with self._changed:
            while not self._closed and (not self._calls or self._calls[0][0] > monotonic()):
                self._changed.wait(min(self._calls[0][0] - monotonic(), threading.TIMEOUT_MAX) if self._calls else None)
            if self._closed:
                return
            _, _, function, _ = heapq.heappop(self._calls)
        function()
