"""How many bytes of requests wait in all queues of a server together."""

from __future__ import annotations

import math
import threading

from servegrpc.errors import QueueFull


class WaitingBytes:
    """Counts them for all queues, each of which has a lock of its own; so has this."""

    def __init__(self, most: float = math.inf) -> None:
        self.count = 0
        self._most = most
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Count bytes more. Raises QueueFull, and counts nothing, when it would be too many; but of any size one request may wait."""
        with self._lock:
            if self.count and self.count + count > self._most:
                waiting = f"requests of {self.count} bytes wait already in the whole server"
                raise QueueFull(waiting, server_max_queue_bytes=self._most)
            self.count += count

    def add(self, count: int) -> None:
        """Count bytes more, whatever the limit, or less."""
        with self._lock:
            self.count += count
