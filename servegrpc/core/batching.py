"""How the requests that wait for one model version are gathered into batches, and which workers get them.

The pool calls it; it knows no worker by more than identity and does no I/O. All of its state changes under one lock,
in methods that return at once, so that there is one place that decides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from servegrpc.core.backlog import Backlog
from servegrpc.core.request import Request
from servegrpc.core.waiting_bytes import WaitingBytes
from servegrpc.errors import QueueFull

WorkerT = TypeVar("WorkerT")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[WorkerT]):
    """What `BatchQueue.assign` decided: batches to hand over, requests that come too late, and when to ask again (inf: no need)."""

    batches: Sequence[tuple[WorkerT, list[Request]]]
    dropped: Sequence[Request]
    next_at: float


class BatchQueue(Backlog[WorkerT]):
    """A bounded queue that turns waiting requests into batches for idle workers: first come, first served, by `Request.place`.

    Work-conserving: an idle worker takes what waits at once, up to `batch_size` requests; a request counts with its size, and is never
    torn apart. With `max_batch_delay_seconds` a batch that is not full waits until its oldest request has waited that long since arrival.
    A worker holds at most two hand-overs: the second is given while it computes the first, and only when full, since a part-filled one
    loses nothing by waiting for more.
    Worst-case wait of a request with no worker busy: `max_batch_delay_seconds`.

    Live workers take what waits at any time, while they have fewer requests than slots. The requests of a sequence go to the worker
    that got the first one, each when the one before it has been answered: so no batch holds two of them. The first one goes to the free
    worker with the fewest sequences. A worker takes those that wait for it, and those that wait for anyone, by `Request.place`: neither
    kind holds up the other.

    Requests whose worker was lost while it ran them go before all others, each alone to a worker that has nothing else to do. While some
    of them wait, no worker is given a second hand-over: each will soon have nothing else to do.
    """

    MAX_IN_FLIGHT = 2

    def __init__(
        self,
        batch_size: int,
        max_batch_delay_seconds: float,
        max_queue_size: int,
        max_queue_bytes: float = math.inf,
        *,
        server_bytes: WaitingBytes | None = None,
        only_idle: bool = False,
    ) -> None:
        """With `only_idle` no request is queued but for an idle worker, one for each (TorchServe's job tickets)."""
        super().__init__(max_queue_size, max_queue_bytes, server_bytes)
        self.batch_size = batch_size
        self._only_idle = only_idle
        self.max_batch_delay_seconds = max_batch_delay_seconds
        self._live = 0  # the slots of a live worker
        self._idle: list[WorkerT] = []  # live ones: those with room
        self._half_busy: list[WorkerT] = []
        self._in_flight: dict[WorkerT, int] = {}
        self._leaving: dict[WorkerT, int] = {}  # batches in flight of workers that were removed

    @property
    def has_idle_worker(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def _check_room(self) -> None:
        if self._only_idle and len(self) >= len(self._idle):
            raise QueueFull("no worker is idle, and with useJobTicket none waits", idle_workers=len(self._idle))
        super()._check_room()

    def add_worker(self, worker: WorkerT, slots: int = 0) -> None:
        """Let a worker take batches; call `assign` next. With `slots`, as all have then or none, it is live."""
        with self._lock:
            self._live = slots
            self._in_flight[worker] = 0
            self._idle.append(worker)

    def remove_worker(self, worker: WorkerT) -> bool:
        """Give a worker no more batches; its sequences end. Returns whether it has none in flight; if not, `release` tells when so."""
        with self._lock:
            left = self._remove(worker, may_have_begun=True)
            if left:
                self._leaving[worker] = left
            return left == 0

    def forget_worker(self, worker: WorkerT) -> None:
        """Give a worker no more batches, and expect no answers from it: it is gone. Sequences that did not begin may begin on another."""
        with self._lock:
            self._remove(worker, may_have_begun=False)
            self._leaving.pop(worker, None)

    def _remove(self, worker: WorkerT, *, may_have_begun: bool) -> int:
        for free in (self._idle, self._half_busy):
            if worker in free:
                free.remove(worker)
        for sequence in self._bound.pop(worker, set()):
            if sequence.begun or may_have_begun:
                self._lose(sequence)
            sequence.worker = None
        self._pinned.pop(worker, None)
        return self._in_flight.pop(worker, 0)

    def release(self, worker: WorkerT) -> bool:
        """Note that a worker has answered one batch, a live one one request; call `assign` next.

        Returns True for the last one of a worker that was removed.
        """
        with self._lock:
            if worker not in self._in_flight:
                self._leaving[worker] -= 1
                if self._leaving[worker]:
                    return False
                del self._leaving[worker]
                return True
            self._in_flight[worker] -= 1
            if self._live:
                if worker not in self._idle:
                    self._idle.append(worker)
            elif self._in_flight[worker]:
                self._half_busy.append(worker)
            else:
                if worker in self._half_busy:
                    self._half_busy.remove(worker)
                self._idle.append(worker)
            return False

    def assign(self, now: float, *, calls: int = 1, prefetch: bool = True, service_seconds: float = 0.0) -> Assignment[WorkerT]:
        """Decide which requests go to which workers now. The caller hands them over, answers the dropped and calls again at `next_at`.

        Dropped are those whose deadline has passed, or comes within `service_seconds`, but for streams, which may send a part in time.

        A hand-over holds up to `calls` full batches, when as many wait and the others are not left idle: for handlers so quick that the
        hand-over costs more than the call. Without `prefetch` no worker gets a second batch while it computes.
        """
        with self._lock:
            batches: list[tuple[WorkerT, list[Request]]] = []
            dropped: list[Request] = []
            self._horizon = now + service_seconds
            spared = self._assign_alone(now, batches, dropped) if self._alone else []
            prefetch = prefetch and not self._alone
            next_at = self._assign_pinned(now, prefetch, batches, dropped) if self._held else math.inf
            if self._live:
                self._assign_live(now, batches, dropped)
                self._idle += spared
                return Assignment(batches, dropped, next_at)
            while self._waiting:
                full = self._size >= self.batch_size
                if not self._idle and not (full and prefetch and self._half_busy):
                    break
                if not full and self.max_batch_delay_seconds:
                    due = self._oldest_arrival() + self.max_batch_delay_seconds
                    if due > now:
                        next_at = min(next_at, due)
                        break
                batch = self._take(now, self._share(calls, prefetch), dropped)
                free, first = (self._idle, self._idle[-1]) if self._idle else (self._half_busy, self._half_busy[0])
                begins = self._bound and any(request.sequence and request.sequence.worker is None for request in batch)
                self._give(min(reversed(free), key=self._count_bound) if begins else first, batch, batches)
            return Assignment(batches, dropped, next_at)

    def _assign_alone(self, now: float, batches: list[tuple[WorkerT, list[Request]]], dropped: list[Request]) -> list[WorkerT]:
        """Give what must run alone to workers that have nothing; returns a live one that gets no more until that is so, if need be."""
        free = [worker for worker in self._idle if not self._in_flight[worker]]
        while self._alone and free:
            batch = self._take(now, 1, dropped, self._alone)
            self._give(free[-1], batch, batches)
            if batch and free.pop() in self._idle:  # a live one: it gets nothing else before it has answered
                self._idle.remove(batches[-1][0])
        spared = min(self._in_flight, key=self._in_flight.__getitem__, default=None) if self._live and self._alone else None
        if spared is None or spared not in self._idle:
            return []
        self._idle.remove(spared)
        return [spared]

    def _assign_pinned(self, now: float, prefetch: bool, batches: list[tuple[WorkerT, list[Request]]], dropped: list[Request]) -> float:
        """Give workers what only they can run and what anyone can, the oldest first; returns when to look again."""
        next_at = math.inf
        idle = [worker for worker in self._idle if self._pinned.get(worker)]
        others = len(idle) < len(self._idle)  # who take what anyone can
        for worker in idle:
            pinned = self._pinned[worker]
            room = self._live - self._in_flight[worker] if self._live else self.batch_size
            if self.max_batch_delay_seconds and not self._live and _size(pinned) + self._size < room:
                due = min((request.arrived for request in pinned if request.waiting), default=-math.inf) + self.max_batch_delay_seconds
                if due > now:
                    next_at = min(next_at, due)
                    continue
            self._give(worker, self._take_mixed(now, room, dropped, pinned, in_order=not others), batches)
        if prefetch and not self._live:
            for worker in [worker for worker in self._half_busy if worker not in idle and self._pinned.get(worker)]:
                pinned = self._pinned[worker]
                if _size(pinned) + self._size >= self.batch_size:
                    self._give(worker, self._take_mixed(now, self.batch_size, dropped, pinned, in_order=True), batches)
        return next_at

    def _take_mixed(self, now: float, limit: int, dropped: list[Request], pinned: deque[Request], *, in_order: bool) -> list[Request]:
        """Take pinned requests, when `in_order` not before those that anyone can run and that go before them; then fill up with these."""
        batch: list[Request] = []
        while pinned and limit > 0:
            if not pinned[0].waiting:
                pinned.popleft()
                continue
            first = self._first() if in_order else None
            source = self._requests if first and first.place < pinned[0].place else pinned
            if batch and source[0].size > limit:
                return batch
            for request in self._take(now, 1, dropped, source):
                batch.append(request)
                limit -= request.size
        if self._live or limit <= 0 or (batch and (first := self._first()) and first.size > limit):
            return batch
        return batch + self._take(now, limit, dropped)

    def _assign_live(self, now: float, batches: list[tuple[WorkerT, list[Request]]], dropped: list[Request]) -> None:
        """Give what waits to those that have the most room, in equal shares."""
        share = -(-self._waiting // max(1, len(self._idle)))
        while self._waiting and self._idle:
            worker = min(self._idle, key=self._load if self._bound else self._in_flight.__getitem__)
            batch = self._take(now, min(self._live - self._in_flight[worker], share), dropped)
            self._give(worker, batch, batches)

    def _count_bound(self, worker: WorkerT) -> int:
        """How many sequences a worker has."""
        return len(self._bound.get(worker, ()))

    def _load(self, worker: WorkerT) -> tuple[int, int]:
        """How many requests a live worker has, then how many sequences."""
        return self._in_flight[worker], self._count_bound(worker)

    def _share(self, calls: int, prefetch: bool) -> int:
        """How many requests the next hand-over takes: full batches only, unless there is less than one."""
        workers = len(self._idle) + (len(self._half_busy) if prefetch else 0)
        full_batches = self._size // self.batch_size
        return self.batch_size * max(1, min(calls, -(-full_batches // workers)))

    def _give(self, worker: WorkerT, batch: list[Request], batches: list[tuple[WorkerT, list[Request]]]) -> None:
        """Give a worker, idle or half busy, a batch, and the sequences that begin with it."""
        if not batch:
            return
        batches.append((worker, batch))
        if self._live:
            self._in_flight[worker] += len(batch)
            if self._in_flight[worker] >= self._live:
                self._idle.remove(worker)
        else:
            if worker in self._idle:
                self._idle.remove(worker)
                self._half_busy.append(worker)
            else:
                self._half_busy.remove(worker)
            self._in_flight[worker] += 1
        for request in batch:
            if request.sequence and request.sequence.worker is None:
                request.sequence.worker = worker
                self._bound.setdefault(worker, set()).add(request.sequence)


def _size(pinned: Iterable[Request]) -> int:
    """Return how much of a batch those take that wait."""
    return sum(request.size for request in pinned if request.waiting)
