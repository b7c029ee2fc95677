"""Replies that are on their way: a caller may read slowly, and what was answered before the server stops shall still reach it."""

from __future__ import annotations

import threading


class Sending:
    """The calls that send something now. `begin` and `end` come with every reply, from any thread: without a lock until one `wait`s."""

    def __init__(self) -> None:
        self._calls: set[object] = set()
        self._awaited: set[object] = set()
        self._waiting = False
        self._changed = threading.Condition()

    def begin(self, call: object) -> None:
        """Note that a call has something to send."""
        self._calls.add(call)

    def end(self, call: object) -> None:
        """Note that a call has sent all it had, or that nobody will read it."""
        self._calls.discard(call)
        if self._waiting:
            with self._changed:
                self._awaited.discard(call)
                self._changed.notify_all()

    def wait(self, timeout_seconds: float) -> bool:
        """Block until what is on its way now has been sent, or the time-out; returns whether it has."""
        self._waiting = True
        with self._changed:
            self._awaited = set(self._calls)
            return self._changed.wait_for(lambda: not self._awaited, max(0.0, timeout_seconds))


sending = Sending()  # of this process
