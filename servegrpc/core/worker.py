"""What a pool knows of one worker: its state, and the requests it has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic

from servegrpc.core.engine import UnknownRequestError, Worker, WorkerExit
from servegrpc.core.placement import Device
from servegrpc.core.request import Request
from servegrpc.reply import Reply


class WorkerState(IntEnum):
    """Numbers are those of `servegrpc.v1.WorkerState`."""

    STARTING = 1
    READY = 2
    STOPPING = 3


@dataclass(slots=True)
class HandOver:
    """Requests that a worker has, sent together; those answered are None. `since` is when it last had a sign of life to give.

    `left` of them are not answered; the callers of those at `callers_left` did not wait.
    """

    requests: list[Request | None]
    sent: float
    since: float
    left: int
    callers_left: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False, weakref_slot=True)
class WorkerRecord:
    """One worker. What it has in flight changes under `_sending`, so that order and loss are certain."""

    id: int
    device: Device
    start_time: float = field(default_factory=time.time)  # seconds since the epoch
    started: float = field(default_factory=monotonic)
    state: WorkerState = WorkerState.STARTING
    live: bool = False
    worker: Worker | None = None
    in_flight: dict[int, HandOver] = field(default_factory=dict)  # by ticket, oldest first
    gone: bool = False
    timed_out: bool = False
    watched: bool = False  # a check of its response time is due
    _last_ticket: int = 0
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, requests: list[Request], now: float) -> bool:
        """Hand requests over; returns False when the worker has just gone, and nothing was done."""
        with self._sending:
            self._last_ticket = ticket = (self._last_ticket + 1) & 0xFFFFFFFF
            if self.gone or self.worker is None or not self.worker.send(ticket, requests):
                return False
            self.in_flight[ticket] = HandOver([*requests], now, now, len(requests))  # `take` waits for the lock: it finds it
            return True

    def take(self, replies: Sequence[Reply], now: float) -> tuple[list[tuple[Request, Reply]], list[HandOver]]:
        """Match replies with the requests in flight; returns the pairs, and the hand-overs that are thereby finished.

        Raises UnknownRequestError when there is no such request.
        """
        pairs: list[tuple[Request, Reply]] = []
        finished: list[HandOver] = []
        with self._sending:
            for reply in replies:
                hand_over = self.in_flight.get(reply.ticket)
                if hand_over is None or reply.index >= len(hand_over.requests):
                    raise UnknownRequestError(f"it answered request {reply.index} of hand-over {reply.ticket}, which it does not have")
                request = hand_over.requests[reply.index]
                if request is None and reply.more:
                    continue  # a thread of the handler's own was late
                if request is None:
                    raise UnknownRequestError(f"it answered request {reply.index} of hand-over {reply.ticket} twice")
                pairs.append((request, reply))
                if reply.more:
                    hand_over.since = now if hand_over.since < now else hand_over.since  # not while it is paused
                    continue
                hand_over.requests[reply.index] = None
                hand_over.left -= 1
                hand_over.since = now if hand_over.since < now else hand_over.since
                if not hand_over.left:
                    finished.append(self.in_flight.pop(reply.ticket))
                    if self.in_flight and not self.live:
                        following = next(iter(self.in_flight.values()))
                        following.sent = following.since = now  # it starts only now
        return pairs, finished

    def set_flags(self, request: Request, *, left: bool = False, paused: bool = False) -> bool:
        """Tell the worker about a request's caller, if it has that request."""
        with self._sending:
            for ticket, hand_over in self.in_flight.items():
                if request in hand_over.requests and self.worker:
                    index = hand_over.requests.index(request)
                    if left:
                        hand_over.callers_left.add(index)
                    hand_over.since = math.inf if paused else monotonic()  # a pause is no fault of the handler
                    self.worker.set_flags(ticket, index, left=left, paused=paused)
                    return True
        return False

    @property
    def running(self) -> int:
        """How many requests it has."""
        return sum(hand_over.left for hand_over in list(self.in_flight.values()))

    def end(self, exit_: WorkerExit) -> tuple[list[Request], list[Request]]:
        """Note that it is gone; returns the requests that were running, and those that never reached the handler."""
        running: list[Request] = []
        untouched: list[Request] = []
        with self._sending:
            self.gone = True
            for ticket, hand_over in self.in_flight.items():
                started = exit_.started.get(ticket, 0)
                running += [request for request in hand_over.requests[:started] if request]
                untouched += [request for request in hand_over.requests[started:] if request]
            self.in_flight.clear()
        return running, untouched

    def overdue_at(self, timeout_seconds: float) -> float | None:
        """Return when the worker will have been silent for too long; None when it has nothing to do, and no check is due any more."""
        with self._sending:
            if self.gone or not self.in_flight:
                self.watched = False
                return None
            hand_overs = list(self.in_flight.values())
            return min(hand_over.since for hand_over in (hand_overs if self.live else hand_overs[:1])) + timeout_seconds
