"""Replies of quick calls, kept for a moment so that those of several calls wake the server once: waking it costs more than such a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic

from servegrpc.reply import Reply

HOLD_SECONDS = 0.0005  # that replies wait for those of the next calls
LOOK_SECONDS = 0.002  # from one look of the thread to the next
AWAKE_SECONDS = 0.05  # that the thread looks by itself after something was kept

Send = Callable[[Sequence[Reply]], None]


class HeldReplies:
    """Replies that wait for those of the next call, `HOLD_SECONDS` and `LOOK_SECONDS` at most: a thread sends what is due while it runs.

    Only a call that keeps the interpreter's lock for longer, in native code that does not release it, holds them up: the loop keeps no
    replies when a recent call has computed for long.
    The thread is started when replies are first kept. While more are kept again and again it looks by itself, so that keeping them
    wakes nobody; when nothing is, it sleeps.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the rest
        self._replies: list[Reply] = []
        self._send: Send | None = None
        self._since = 0.0  # when the first of them, or the last that there were, was kept
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._error: Exception | None = None  # why the thread could not send

    def keep(self, replies: Sequence[Reply], send: Send) -> None:
        """Keep replies of a hand-over until `flush`, or until they are due; `send` is called from either thread."""
        with self._changed:
            if not self._replies:
                self._since, self._send = monotonic(), send
            self._replies += replies
            if self._asleep:
                self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="held-replies", daemon=True)
            self._thread.start()

    def flush(self, replies: Sequence[Reply], send: Send) -> None:
        """Send these replies now, behind those that are kept of the same hand-over. Raises what sending has raised, on either thread."""
        with self._changed:
            if self._error:
                raise self._error
            kept, self._replies = self._replies, []
            if kept or replies:
                send([*kept, *replies])

    def _run(self) -> None:
        with self._changed:
            while not self._error:
                self._asleep = not self._replies and monotonic() - self._since > AWAKE_SECONDS
                self._changed.wait(None if self._asleep else LOOK_SECONDS)
                if self._replies and self._send and monotonic() - self._since >= HOLD_SECONDS:
                    replies, self._replies = self._replies, []
                    try:
                        self._send(replies)
                    except Exception as error:  # noqa: BLE001 - the loop raises it, and the worker ends as if it had sent itself
                        self._error = error
