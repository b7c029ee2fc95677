"""How the requests of one model version wait and are gathered into batches.

The pool calls it; it knows no worker by more than identity and does no I/O. All of its state changes under one lock,
in methods that return at once, so that there is one place that decides.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence
from servegrpc.errors import QueueFull

WorkerT = TypeVar("WorkerT")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[WorkerT]):
    """What `BatchQueue.assign` decided: batches to hand over, requests that come too late, and when to ask again (inf: no need)."""

    batches: Sequence[tuple[WorkerT, list[Request]]]
    dropped: Sequence[Request]
    next_at: float


class BatchQueue(Generic[WorkerT]):
    """A bounded queue that turns waiting requests into batches for idle workers: first come, first served, by `Request.place`.

    Work-conserving: an idle worker takes what waits at once, up to `batch_size` requests. With `max_batch_delay_seconds` a batch that is
    not full waits until its oldest request has waited that long since arrival. A worker holds at most two hand-overs: the second is
    given while it computes the first, and only when full, since a part-filled one loses nothing by waiting for more.
    Worst-case wait of a request with no worker busy: `max_batch_delay_seconds`.

    Live workers take what waits at any time, while they have fewer requests than slots. The requests of a sequence go to the worker
    that got the first one, each when the one before it has been answered: so no batch holds two of them. A worker takes those that wait
    for it, and those that wait for anyone, by `Request.place`: neither kind holds up the other.

    Requests whose worker was lost while it ran them go before all others, each alone to a worker that has nothing else to do.
    """

    MAX_IN_FLIGHT = 2

    def __init__(self, batch_size: int, max_batch_delay_seconds: float, max_queue_size: int, max_queue_bytes: float = math.inf) -> None:
        self.batch_size = batch_size
        self.max_batch_delay_seconds = max_batch_delay_seconds
        self.max_queue_size = max_queue_size
        self.max_queue_bytes = max_queue_bytes
        self.bytes = 0  # of the payloads that wait
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._waiting = 0  # requests in _requests that are still wanted
        self._ranked = False  # some have had a priority: those in _requests need not lie in the order of arrival
        self._pinned: dict[WorkerT, deque[Request]] = {}  # requests of sequences, by the worker that has their state
        self._bound: dict[WorkerT, set[LiveSequence]] = {}
        self._alone: deque[Request] = deque()  # requests whose worker was lost
        self._held = 0  # requests in _pinned or _alone, or behind another of their sequence, that are still wanted
        self._horizon = 0.0  # a request with an earlier deadline is not handed over
        self._lost: list[tuple[LiveSequence, list[Request]]] = []
        self._live = 0  # the slots of a live worker
        self._idle: list[WorkerT] = []  # live ones: those with room
        self._half_busy: list[WorkerT] = []
        self._in_flight: dict[WorkerT, int] = {}
        self._leaving: dict[WorkerT, int] = {}  # batches in flight of workers that were removed

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._waiting + self._held

    @property
    def has_idle_worker(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def put(self, request: Request) -> None:
        """Queue one request, without blocking; call `assign` next.

        Raises QueueFull when `max_queue_size` requests wait already, or with this one more than `max_queue_bytes` would, and LookupError
        when its sequence has ended. Of any size one request may wait.
        """
        with self._lock:
            if self._waiting + self._held >= self.max_queue_size:
                raise QueueFull(f"{len(self)} requests wait already", max_queue_size=self.max_queue_size)
            if self.bytes and self.bytes + len(request.payload) > self.max_queue_bytes:
                raise QueueFull(f"requests of {self.bytes} bytes wait already", max_queue_bytes=self.max_queue_bytes)
            if request.sequence:
                self._put_in_sequence(request, request.sequence)
            else:
                request.waiting = True
                self._append(request)
                self._waiting += 1
            self.bytes += len(request.payload)

    def _append(self, request: Request) -> None:
        """Put a request behind all that go before it; without a priority at the end, whatever is there."""
        if not request.priority:
            self._requests.append(request)
            return
        self._ranked = True
        behind = (index for index, other in enumerate(self._requests) if other.place > request.place)
        self._requests.insert(next(behind, len(self._requests)), request)

    def _put_in_sequence(self, request: Request, sequence: LiveSequence) -> None:
        if sequence.lost:
            raise LookupError(sequence.id)
        request.waiting = True
        behind = sequence.busy or sequence.blocked
        request.held = behind or sequence.worker is not None
        if behind:
            sequence.waiting.append(request)
        else:
            self._queue_head(request, sequence)
        self._held += request.held
        self._waiting += not request.held

    def _queue_head(self, request: Request, sequence: LiveSequence) -> None:
        sequence.head = request
        if sequence.worker is None:
            self._append(request)
        else:
            self._pinned.setdefault(sequence.worker, deque()).append(request)  # type: ignore[arg-type]  # it is a WorkerT

    def advance(self, sequence: LiveSequence) -> None:
        """Let the next request of a sequence wait for its worker: the one before it is answered. Call `assign` next."""
        with self._lock:
            sequence.begun = True
            self._advance(sequence)

    def _advance(self, sequence: LiveSequence) -> None:
        sequence.head = None
        sequence.used = monotonic()
        if sequence.waiting and not sequence.blocked:
            request = sequence.waiting.pop(0)
            request.held = sequence.worker is not None
            self._held -= not request.held
            self._waiting += not request.held
            self._queue_head(request, sequence)

    def close(self, sequence: LiveSequence) -> list[Request]:
        """Forget a sequence; returns what waited of it, for the caller to answer."""
        with self._lock:
            self._bound.get(sequence.worker, set()).discard(sequence)  # type: ignore[arg-type]  # it is a WorkerT
            return self._give_up(sequence)

    def unblock(self, sequence: LiveSequence) -> None:
        """Let a sequence begin: the one of its id before it has ended. Call `assign` next."""
        with self._lock:
            sequence.blocked = False
            self._advance(sequence)

    def _give_up(self, sequence: LiveSequence) -> list[Request]:
        """Take nothing more of a sequence; returns what waits of it."""
        sequence.lost = True
        queued = [sequence.head] if sequence.head and sequence.head.waiting else []
        if queued:
            sequence.head = None
        behind, sequence.waiting = sequence.waiting, []
        return self._withdraw(queued + behind)

    def _withdraw(self, requests: list[Request]) -> list[Request]:
        taken = [request for request in requests if request.waiting]
        for request in taken:
            request.waiting = False
            self.bytes -= len(request.payload)
            self._held -= request.held
            self._waiting -= not request.held
        return taken

    def put_back(self, requests: Sequence[Request]) -> list[Request]:
        """Queue requests that no worker has begun at the head again, in order, whatever the limit: they were accepted before.

        Returns those that are not queued, for the caller to answer: their caller has left, or their sequence has lost its state.
        """
        refused: list[Request] = []
        with self._lock:
            for request in reversed(requests):
                sequence = request.sequence
                if request.left or (sequence and sequence.lost):
                    refused.append(request)
                    if sequence:
                        self._advance(sequence)
                    continue
                request.waiting, request.held = True, False
                self._requests.appendleft(request)
                self.bytes += len(request.payload)
                self._waiting += 1
        return refused

    def put_alone(self, requests: Sequence[Request]) -> None:
        """Queue requests whose worker was lost while it ran them, whatever the limit; each goes to a worker alone."""
        with self._lock:
            for request in requests:
                request.waiting = request.held = True
                self._alone.append(request)
                self.bytes += len(request.payload)
            self._held += len(requests)

    def cancel(self, request: Request) -> bool:
        """Take a request out if it still waits; it then never reaches a handler and the caller of this method answers it.

        Otherwise its `left` is set.
        """
        with self._lock:
            if not request.waiting:
                request.left = True
                return False
            request.waiting = False
            self.bytes -= len(request.payload)
            request.payload = b""  # it may lie in the queue for a while yet
            self._held -= request.held
            self._waiting -= not request.held
            if request.sequence and request.sequence.head is request:
                self._advance(request.sequence)
            elif request.sequence:
                request.sequence.waiting.remove(request)
            if len(self._requests) > 2 * self._waiting + 64:  # cancelled ones are skipped lazily, but must not pile up
                self._requests = deque(r for r in self._requests if r.waiting)
            return True

    def clear(self) -> list[Request]:
        """Take all requests out; the caller answers them."""
        with self._lock:
            heads = [request for one in (self._alone, self._requests, *self._pinned.values()) for request in one if request.waiting]
            sequences = {request.sequence for request in heads if request.sequence}.union(*self._bound.values())
            behind = [request for sequence in sequences for request in self._clear_sequence(sequence)]
            for one in (self._alone, self._requests, self._pinned):
                one.clear()
            return self._withdraw(heads + behind)

    def _clear_sequence(self, sequence: LiveSequence | None) -> list[Request]:
        """Leave nothing that waits in a sequence, or in those it blocks; returns what was there but for its head."""
        behind: list[Request] = []
        while sequence:
            if sequence.head and sequence.head.waiting:
                sequence.head = None
            behind += sequence.waiting
            sequence.waiting.clear()
            sequence = sequence.next
        return behind

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

    def lose(self, sequence: LiveSequence) -> None:
        """Note that the worker is gone that ran a request of a sequence, which `take_lost` tells unless it was ended before."""
        with self._lock:
            sequence.head = None
            if not sequence.lost:
                self._bound.get(sequence.worker, set()).discard(sequence)  # type: ignore[arg-type]  # it is a WorkerT
                self._lose(sequence)

    def _lose(self, sequence: LiveSequence) -> None:
        self._lost.append((sequence, self._give_up(sequence)))

    def has_pinned(self, worker: WorkerT) -> bool:
        """Whether requests wait that only this worker can run."""
        with self._lock:
            behind = (request for sequence in self._bound.get(worker, ()) for request in sequence.waiting)
            return any(request.waiting for request in (*self._pinned.get(worker, ()), *behind))

    def take_lost(self) -> list[tuple[LiveSequence, list[Request]]]:
        """Return the sequences that have lost their worker since the last call, with what waited of them; the caller answers those."""
        with self._lock:
            lost, self._lost = self._lost, []
            return lost

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
            next_at = self._assign_pinned(now, prefetch, batches, dropped) if self._held else math.inf
            if self._live:
                self._assign_live(now, batches, dropped)
                self._idle += spared
                return Assignment(batches, dropped, next_at)
            while self._waiting:
                due = self._oldest_arrival() + self.max_batch_delay_seconds
                full = self._waiting >= self.batch_size
                if not self._idle and not (full and prefetch and self._half_busy):
                    break
                if not full and due > now:
                    next_at = min(next_at, due)
                    break
                batch = self._take(now, self._share(calls, prefetch), dropped)
                self._give(self._idle[-1] if self._idle else self._half_busy[0], batch, batches)
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
            due = min((request.arrived for request in pinned if request.waiting), default=-math.inf) + self.max_batch_delay_seconds
            if not self._live and len(pinned) + self._waiting < room and due > now:
                next_at = min(next_at, due)
                continue
            self._give(worker, self._take_mixed(now, room, dropped, pinned, in_order=not others), batches)
        if prefetch and not self._live:
            for worker in [worker for worker in self._half_busy if worker not in idle and self._pinned.get(worker)]:
                pinned = self._pinned[worker]
                if sum(request.waiting for request in pinned) + self._waiting >= self.batch_size:
                    self._give(worker, self._take_mixed(now, self.batch_size, dropped, pinned, in_order=True), batches)
        return next_at

    def _take_mixed(self, now: float, limit: int, dropped: list[Request], pinned: deque[Request], *, in_order: bool) -> list[Request]:
        """Take pinned requests, when `in_order` not before those that anyone can run and that go before them; then fill up with these."""
        batch: list[Request] = []
        while pinned and len(batch) < limit:
            if not pinned[0].waiting:
                pinned.popleft()
                continue
            first = self._first() if in_order else None
            batch += self._take(now, 1, dropped, self._requests if first and first.place < pinned[0].place else pinned)
        return batch if self._live else batch + self._take(now, limit - len(batch), dropped)

    def _first(self) -> Request | None:
        """Return the first request that anyone can run."""
        while self._requests and not self._requests[0].waiting:
            self._requests.popleft()
        return self._requests[0] if self._requests else None

    def _assign_live(self, now: float, batches: list[tuple[WorkerT, list[Request]]], dropped: list[Request]) -> None:
        """Give what waits to those that have the most room, in equal shares."""
        share = -(-self._waiting // max(1, len(self._idle)))
        while self._waiting and self._idle:
            worker = min(self._idle, key=self._in_flight.__getitem__)
            batch = self._take(now, min(self._live - self._in_flight[worker], share), dropped)
            self._give(worker, batch, batches)

    def _share(self, calls: int, prefetch: bool) -> int:
        """How many requests the next hand-over takes: full batches only, unless there is less than one."""
        workers = len(self._idle) + (len(self._half_busy) if prefetch else 0)
        full_batches = self._waiting // self.batch_size
        return self.batch_size * max(1, min(calls, -(-full_batches // workers)))

    def _oldest_arrival(self) -> float:
        first = self._first()
        if self._ranked or not first:
            return min(request.arrived for request in self._requests if request.waiting)
        return first.arrived

    def _take(self, now: float, limit: int, dropped: list[Request], pinned: deque[Request] | None = None) -> list[Request]:
        source = self._requests if pinned is None else pinned
        batch: list[Request] = []
        while source and len(batch) < limit:
            request = source.popleft()
            if not request.waiting:
                continue
            request.waiting = False
            self.bytes -= len(request.payload)
            if request.held:
                self._held -= 1
            else:
                self._waiting -= 1
            if request.deadline <= self._horizon and (request.deadline <= now or not request.streamed):
                dropped.append(request)
                if request.sequence:
                    self._advance(request.sequence)
            else:
                batch.append(request)
        return batch

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
