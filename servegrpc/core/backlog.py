"""What waits for the workers of one model version: in which order, for whom, and what becomes of it when it does not run.

`BatchQueue` hands it out. All of its state changes under one lock, in methods that return at once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Generic, TypeVar

from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence
from servegrpc.core.waiting_bytes import WaitingBytes
from servegrpc.errors import QueueFull

WorkerT = TypeVar("WorkerT")


class Backlog(Generic[WorkerT]):
    """Requests that wait: for any worker, for the one that has the state of their sequence, or to run alone."""

    def __init__(self, max_queue_size: int, max_queue_bytes: float = math.inf, server_bytes: WaitingBytes | None = None) -> None:
        self.max_queue_size = max_queue_size
        self.max_queue_bytes = max_queue_bytes
        self.bytes = 0  # of the payloads that wait
        self._server_bytes = server_bytes or WaitingBytes()
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._waiting = 0  # requests in _requests that are still wanted
        self._size = 0  # how much of batches these take
        self._ranked = False  # some have had a priority: those in _requests need not lie in the order of arrival
        self._pinned: dict[WorkerT, deque[Request]] = {}  # requests of sequences, by the worker that has their state
        self._bound: dict[WorkerT, set[LiveSequence]] = {}
        self._alone: deque[Request] = deque()  # requests whose worker was lost
        self._held = 0  # requests in _pinned or _alone, or behind another of their sequence, that are still wanted
        self._horizon = 0.0  # a request with an earlier deadline is not handed over
        self._lost: list[tuple[LiveSequence, list[Request]]] = []
        self._unbegun: list[Request] = []  # that waited behind the first request of their sequence, which is not run

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._waiting + self._held

    def _check_room(self) -> None:
        """Raise QueueFull when no request more may wait; needs the lock."""
        if len(self) >= self.max_queue_size:
            raise QueueFull(f"{len(self)} requests wait already", max_queue_size=self.max_queue_size)

    def put(self, request: Request) -> None:
        """Queue one request, without blocking; call `assign` next.

        Raises QueueFull when `max_queue_size` requests wait already, or with this one more bytes would than may, here or in the whole
        server, and LookupError of its sequence when that has ended. Of any size one request may wait.
        """
        size = len(request.payload)
        with self._lock:
            self._check_room()
            if request.sequence and request.sequence.over:
                raise LookupError(request.sequence)
            if self.bytes and self.bytes + size > self.max_queue_bytes:
                raise QueueFull(f"requests of {self.bytes} bytes wait already", max_queue_bytes=self.max_queue_bytes)
            self._server_bytes.take(size)
            self.bytes += size
            if request.sequence:
                self._put_in_sequence(request, request.sequence)
            else:
                request.waiting = True
                self._append(request)
                self._waiting += 1
                self._size += request.size

    def _weigh(self, count: int) -> None:
        """Count bytes that wait, whatever the limit, or no longer do."""
        self.bytes += count
        self._server_bytes.add(count)

    def _append(self, request: Request) -> None:
        """Put a request behind all that go before it; without a priority at the end, whatever is there."""
        self._ranked = self._ranked and bool(self._requests)
        if not request.priority:
            self._requests.append(request)
            return
        self._ranked = True
        behind = (index for index, other in enumerate(self._requests) if other.place > request.place)
        self._requests.insert(next(behind, len(self._requests)), request)

    def _put_in_sequence(self, request: Request, sequence: LiveSequence) -> None:
        request.waiting = True
        behind = sequence.busy or sequence.blocked
        request.held = behind or sequence.worker is not None
        if behind:
            sequence.waiting.append(request)
        else:
            self._queue_head(request, sequence)
        self._count(request, 1)

    def _count(self, request: Request, sign: int) -> None:
        """Count a request where it waits: for anyone, or not."""
        if request.held:
            self._held += sign
        else:
            self._waiting += sign
            self._size += sign * request.size

    def _queue_head(self, request: Request, sequence: LiveSequence) -> None:
        sequence.head = request
        if sequence.worker is None:
            self._append(request)
        else:
            self._pinned.setdefault(sequence.worker, deque()).append(request)  # type: ignore[arg-type]  # it is a WorkerT

    def advance(self, sequence: LiveSequence, *, ran: bool = True) -> None:
        """Let the next request of a sequence wait for its worker: the one before it is answered. Call `assign` next.

        When no handler `ran` that one, call `take_unbegun` too: it may be the first.
        """
        with self._lock:
            sequence.begun = sequence.begun or ran
            if sequence.head:
                self._pass_over(sequence, sequence.head)

    def _advance(self, sequence: LiveSequence) -> None:
        sequence.head = None
        sequence.used = monotonic()
        if sequence.waiting and not sequence.blocked:
            request = sequence.waiting.pop(0)
            self._count(request, -1)
            request.held = sequence.worker is not None
            self._count(request, 1)
            self._queue_head(request, sequence)

    def _pass_over(self, sequence: LiveSequence, request: Request) -> None:
        """Go on without a request that is not run; a sequence that was announced to begin with it never begins."""
        first = request is sequence.head or (sequence.head is None and sequence.waiting[:1] == [request])
        if first and sequence.announced and not sequence.begun:
            sequence.head = None
            self._unbegun += self._give_up(sequence)
        elif request is sequence.head:
            if not sequence.begun:  # its worker has nothing of it
                self._bound.get(sequence.worker, set()).discard(sequence)  # type: ignore[arg-type]  # it is a WorkerT
                sequence.worker = None
            self._advance(sequence)
        else:
            sequence.waiting.remove(request)

    def take_unbegun(self) -> list[Request]:
        """Return what waited in sequences that never begin, since the last call; the caller answers it."""
        with self._lock:
            unbegun, self._unbegun = self._unbegun, []
            return unbegun

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
        sequence.over = True
        queued = [sequence.head] if sequence.head and sequence.head.waiting else []
        if queued:
            sequence.head = None
        behind, sequence.waiting = sequence.waiting, []
        return self._withdraw(queued + behind)

    def _withdraw(self, requests: list[Request]) -> list[Request]:
        taken = [request for request in requests if request.waiting]
        for request in taken:
            request.waiting = False
            self._weigh(-len(request.payload))
            self._count(request, -1)
        return taken

    def put_back(self, requests: Sequence[Request]) -> list[Request]:
        """Queue requests that no worker has begun at the head again, in order, whatever the limit: they were accepted before.

        Returns those that are not queued, for the caller to answer: their caller has left, or their sequence has lost its state.
        """
        refused: list[Request] = []
        with self._lock:
            for request in reversed(requests):
                sequence = request.sequence
                if request.left or (sequence and sequence.over):
                    refused.append(request)
                    if sequence and sequence.over:
                        self._advance(sequence)
                    elif sequence:
                        self._pass_over(sequence, request)
                    continue
                request.waiting, request.held = True, False
                self._requests.appendleft(request)
                self._ranked = self._ranked or request.priority > 0
                self._weigh(len(request.payload))
                self._count(request, 1)
        return refused

    def put_alone(self, requests: Sequence[Request]) -> None:
        """Queue requests whose worker was lost while it ran them, whatever the limit; each goes to a worker alone."""
        with self._lock:
            for request in requests:
                request.waiting = request.held = True
                self._alone.append(request)
                self._weigh(len(request.payload))
            self._held += len(requests)

    def cancel(self, request: Request, *, left: bool = True) -> bool:
        """Take a request out if it still waits; it then never reaches a handler and the caller of this method answers it.

        Otherwise its `left` is set, unless its caller has not `left`.
        """
        with self._lock:
            if not request.waiting:
                request.left = request.left or left
                return False
            request.waiting = False
            self._weigh(-len(request.payload))
            request.payload = b""  # it may lie in the queue for a while yet
            self._count(request, -1)
            if request.sequence:
                self._pass_over(request.sequence, request)
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

    def has_sequences(self, worker: WorkerT) -> bool:
        """Whether a worker has the state of open sequences."""
        return bool(self._bound.get(worker))

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

    def lose(self, sequence: LiveSequence) -> None:
        """Note that the worker is gone that ran a request of a sequence, which `take_lost` tells unless it was ended before."""
        with self._lock:
            sequence.head = None
            if not sequence.over:
                self._bound.get(sequence.worker, set()).discard(sequence)  # type: ignore[arg-type]  # it is a WorkerT
                self._lose(sequence)

    def _lose(self, sequence: LiveSequence) -> None:
        sequence.lost = True
        self._lost.append((sequence, self._give_up(sequence)))

    def _first(self) -> Request | None:
        """Return the first request that anyone can run."""
        while self._requests and not self._requests[0].waiting:
            self._requests.popleft()
        return self._requests[0] if self._requests else None

    def _oldest_arrival(self) -> float:
        first = self._first()
        if self._ranked or not first:
            return min(request.arrived for request in self._requests if request.waiting)
        return first.arrived

    def _take(self, now: float, limit: int, dropped: list[Request], pinned: deque[Request] | None = None) -> list[Request]:
        """Take what fits: requests of the size `limit` in all, but always one, whatever its size."""
        source = self._requests if pinned is None else pinned
        batch: list[Request] = []
        taken = 0  # bytes
        while source and limit > 0:
            request = source.popleft()
            if not request.waiting:
                continue
            if request.size > limit and batch:
                source.appendleft(request)  # it goes with the next
                break
            request.waiting = False
            taken += len(request.payload)
            if request.held:
                self._held -= 1
            else:
                self._waiting -= 1
                self._size -= request.size
            if request.deadline <= self._horizon and (request.deadline <= now or not request.streamed):
                dropped.append(request)
                if request.sequence:
                    self._pass_over(request.sequence, request)
            else:
                batch.append(request)
                limit -= request.size
        self._weigh(-taken)
        return batch
