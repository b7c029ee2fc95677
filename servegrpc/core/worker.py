"""What a pool knows of one worker: its state, and the requests it has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from time import monotonic
from weakref import ref

from servegrpc.core.engine import UnknownRequestError, Worker, WorkerExit
from servegrpc.core.placement import Device
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.reply import Reply


class WorkerState(IntEnum):
    """Numbers are those of `servegrpc.v1.WorkerState`."""

    STARTING = 1
    READY = 2
    STOPPING = 3


@dataclass(slots=True)
class HandOver:
    """Requests that a worker has, sent together; those answered are None.

    `rows` is how much of a batch they take in all. `left` of them are not answered, those at `paused` among them: their callers cannot take
    more messages now. The callers of those at `callers_left` did not wait.
    """

    requests: list[Request | None]
    sent: float
    rows: int
    left: int
    callers_left: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)


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
    heard: float = 0.0  # when it gave its last sign of life, or when it got work to do
    watched: bool = False  # a check of its response time is due
    _last_ticket: int = 0
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, requests: list[Request], now: float) -> bool:
        """Hand requests over; returns False when the worker has just gone, and nothing was done."""
        with self._sending:
            self._last_ticket = ticket = (self._last_ticket + 1) & 0xFFFFFFFF
            if self.gone or self.worker is None or not self.worker.send(ticket, requests):
                return False
            if not self._works():
                self.heard = now
            rows = sum(request.size for request in requests)
            self.in_flight[ticket] = HandOver([*requests], now, rows, len(requests))  # `take` waits for the lock: it finds it
            return True

    def _works(self) -> bool:
        """Whether it has to do with something else than with readers that it may wait for: a live one with all it has."""
        hand_overs = self.in_flight.values()
        return any(hand_over.left > len(hand_over.paused) for hand_over in (hand_overs if self.live else [*hand_overs][:1]))

    def take(self, replies: Sequence[Reply], now: float) -> tuple[list[tuple[Request, Reply]], list[HandOver]]:
        """Match replies with the requests in flight; returns the pairs, and the hand-overs that are thereby finished.

        A live worker that has no replies says thereby that it works.

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
                    continue
                hand_over.requests[reply.index] = None
                hand_over.left -= 1
                hand_over.paused.discard(reply.index)
                if not hand_over.left:
                    finished.append(self.in_flight.pop(reply.ticket))
                    if self.in_flight and not self.live:
                        next(iter(self.in_flight.values())).sent = now  # it starts only now
            if pairs or self.live:
                self.heard = now
        return pairs, finished

    def set_flags(self, request: Request, *, left: bool = False, paused: bool = False) -> bool:
        """Tell the worker about a request's caller, if it has that request."""
        with self._sending:
            for ticket, hand_over in self.in_flight.items():
                if request in hand_over.requests and self.worker:
                    index = hand_over.requests.index(request)
                    if left:
                        hand_over.callers_left.add(index)
                    if paused:
                        hand_over.paused.add(index)
                    elif index in hand_over.paused:
                        hand_over.paused.remove(index)
                        self.heard = monotonic()  # a pause is no fault of the handler
                    self.worker.set_flags(ticket, index, left=index in hand_over.callers_left, paused=paused)
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
        """Return when the worker will have been silent for too long, inf while it may wait for slow readers.

        None when it has nothing to do, and no check is due any more.
        """
        with self._sending:
            if self.gone or not self.in_flight:
                self.watched = False
                return None
            return self.heard + timeout_seconds if self._works() else math.inf


def watch(of: ref[WorkerRecord], timeout_seconds: float, timer: Timer) -> None:
    """Kill a worker that is silent for too long, now or later; runs when that can be, and once per time-out at most."""
    record = of()  # none: it is long gone
    due = record.overdue_at(timeout_seconds) if record else None
    if record is None or due is None:
        return
    record.watched, now = True, monotonic()
    if due > now:  # never, while it waits for slow readers
        timer.call_at(min(due, now + timeout_seconds), partial(watch, of, timeout_seconds, timer))
    elif record.worker:
        record.timed_out = True
        record.worker.kill(f"took longer than the response timeout of {timeout_seconds:g} s")
