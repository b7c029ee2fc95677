"""What a live worker receives, on a thread of its own, so that requests are taken in while the handler works on others."""

from __future__ import annotations

import threading
from collections.abc import Callable

from servegrpc.engine.channel import Batch, Channel, ChannelError, Control, Kind, Replies

SIGN_SECONDS = 1.0  # from one sign of life to the next

Message = Batch | Replies | Control | ChannelError | None  # None: the server is gone


def sign_seconds(response_timeout_seconds: float) -> float:
    """Return how often a live worker says that it works, by an empty message of replies when it has none to send."""
    return min(SIGN_SECONDS, response_timeout_seconds / 10)


class Inbox:
    """Receives on a channel and delivers each message, from the thread; payloads are the worker's own memory by then."""

    def __init__(self, channel: Channel, deliver: Callable[[Message], None]) -> None:
        self._channel = channel
        self._deliver = deliver
        threading.Thread(target=self._run, name="inbox", daemon=True).start()

    def _run(self) -> None:
        try:
            while message := self._channel.receive():
                if isinstance(message, Batch):
                    for item in message.items:
                        item.payload = memoryview(bytes(item.payload))
                    if not message.inline:
                        self._channel.send(Kind.TAKEN, {"lane": message.lane})
                self._deliver(message)
        except ChannelError as error:
            self._deliver(error)
        except ConnectionError:
            pass
        finally:
            self._deliver(None)
