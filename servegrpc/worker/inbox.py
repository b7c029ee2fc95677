"""What a live worker receives, on a thread of its own, so that requests are taken in while the handler works on others."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from servegrpc.engine.channel import Batch, Channel, ChannelError, Control, Kind, Replies

SIGN_SECONDS = 1.0  # from one sign of life to the next

Message = Batch | Replies | Control | ChannelError | None  # None: the server is gone


def sign_seconds(response_timeout_seconds: float) -> float:
    """Return how often a live worker says that it works, by an empty message of replies when it has none to send."""
    return min(SIGN_SECONDS, response_timeout_seconds / 10)


class Inbox:
    """Delivers each message of a channel, from a thread of its own; payloads are the worker's own memory by then.

    A thread that works can come late to the interpreter; `take` is for a loop that wants, between two steps, all that has come.
    """

    def __init__(self, channel: Channel, deliver: Callable[[Message], None]) -> None:
        self._channel = channel
        self._deliver = deliver
        self._lock = threading.Lock()  # of whoever receives, until it has delivered
        self._open = True
        threading.Thread(target=self._run, name="inbox", daemon=True).start()

    def take(self) -> None:
        """Deliver all that has come, now and from this thread."""
        while self._take_one():
            pass

    def _run(self) -> None:
        try:
            while self._open:
                self._channel.wait_readable(math.inf)
                self._take_one()
        finally:
            with self._lock:
                if self._open:  # it could not receive, for want of memory say: the worker, which hears nothing more, must end
                    self._open = False
                    self._deliver(None)

    def _take_one(self) -> bool:
        """Deliver a message, if there is one; returns whether there was."""
        with self._lock:
            if not self._open:
                return False
            try:
                message = self._receive()
            except BlockingIOError:
                return False
            except ChannelError as error:
                message = error
            except ConnectionError:
                message = None
            self._open = isinstance(message, Batch | Replies | Control)
            self._deliver(message)
            return True

    def _receive(self) -> Message:
        message = self._channel.receive(wait=False)
        if isinstance(message, Batch):
            for item in message.items:
                item.payload = memoryview(bytes(item.payload))
            if not message.inline:
                self._channel.send(Kind.TAKEN, {"lane": message.lane})
        return message
