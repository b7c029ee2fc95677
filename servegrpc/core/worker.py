"""What a pool knows of one worker: its state, and the requests it has."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic

from servegrpc.core.batching import Request
from servegrpc.core.engine import Worker
from servegrpc.core.placement import Device
from servegrpc.reply import Reply


class WorkerState(IntEnum):
    """Numbers are those of `servegrpc.v1.WorkerState`."""

    STARTING = 1
    READY = 2
    STOPPING = 3


@dataclass(slots=True)
class HandOver:
    """Requests that a worker has, sent together; `sent` is when it can have begun with them."""

    requests: list[Request]
    sent: float
    answered: int = 0


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """One worker. What it has in flight changes under `_sending`, so that order and loss are certain."""

    id: int
    device: Device
    start_time: float = field(default_factory=time.time)  # seconds since the epoch
    started: float = field(default_factory=monotonic)
    state: WorkerState = WorkerState.STARTING
    worker: Worker | None = None
    in_flight: deque[HandOver] = field(default_factory=deque)
    gone: bool = False
    timed_out: bool = False
    watched: bool = False  # a check of its response time is due
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, requests: list[Request], now: float) -> bool:
        """Hand requests over; returns False when the worker has just gone, and nothing was done."""
        with self._sending:
            if self.gone or self.worker is None or not self.worker.send(requests):
                return False
            self.in_flight.append(HandOver(requests, now))  # `take` waits for the lock, so that a quick answer finds it
            return True

    def take(self, replies: Sequence[Reply], now: float) -> tuple[list[tuple[Request, Reply]], list[HandOver]]:
        """Match replies with the next requests in flight; returns the pairs, and the hand-overs that are thereby finished."""
        pairs: list[tuple[Request, Reply]] = []
        finished: list[HandOver] = []
        with self._sending:
            for reply in replies:
                hand_over = self.in_flight[0]
                pairs.append((hand_over.requests[hand_over.answered], reply))
                hand_over.answered += 1
                if hand_over.answered == len(hand_over.requests):
                    finished.append(self.in_flight.popleft())
                    if self.in_flight:
                        self.in_flight[0].sent = now  # it starts only now
        return pairs, finished

    def end(self, untouched: int) -> tuple[list[Request], list[Request]]:
        """Note that it is gone; returns the requests that were running, and the last `untouched` ones, which never reached the handler."""
        with self._sending:
            self.gone = True
            left = [request for hand_over in self.in_flight for request in hand_over.requests[hand_over.answered :]]
            self.in_flight.clear()
        return left[: len(left) - untouched], left[len(left) - untouched :]

    def overdue_at(self, timeout_seconds: float) -> float | None:
        """Return when the oldest hand-over will have taken too long; None when there is none, and no check is due any more."""
        with self._sending:
            if self.gone or not self.in_flight:
                self.watched = False
                return None
            return self.in_flight[0].sent + timeout_seconds
