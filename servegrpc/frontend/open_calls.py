"""The calls that run models, counted when there may be only so many at once: the memory and the sockets of a server are not without end."""

from __future__ import annotations

import threading

from servegrpc.errors import TooManyCalls

RETRY_SECONDS = 1.0


class OpenCalls:
    """Counts the calls of all methods, streams and sessions too, from their arrival to their end. `most` is None: any number, uncounted."""

    def __init__(self) -> None:
        self.most: int | None = None
        self.count = 0
        self.refused = 0
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Return whether the call is counted, and `end` has to be called; raises TooManyCalls when there are as many as may be."""
        if self.most is None:
            return False
        with self._lock:
            if self.count >= self.most:
                self.refused += 1
                message = f"{self.count} calls run, as many as this server takes (max_concurrent_calls); try again when some have ended."
                raise TooManyCalls(message, retry_after_seconds=RETRY_SECONDS, max_concurrent_calls=self.most)
            self.count += 1
        return True

    def end(self) -> None:
        """Note that a call is over."""
        with self._lock:
            self.count -= 1


open_calls = OpenCalls()  # of this process
