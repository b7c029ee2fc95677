"""How the requests of one model version wait and are gathered into batches.

The pool calls it; it knows no worker by more than identity and does no I/O. All of its state changes under one lock,
in methods that return at once, so that there is one place that decides.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from servegrpc.errors import QueueFull
from servegrpc.reply import Reply

WorkerT = TypeVar("WorkerT")


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way. `payload` is the raw message as received; nobody copies it before it goes to a worker.

    `answer` is called exactly once, from any thread, and must not block. `deadline` is in monotonic seconds.
    """

    payload: bytes
    dialect: int
    request_id: str
    answer: Callable[[Reply], None]
    deadline: float = math.inf
    headers: tuple[tuple[str, str], ...] = ()
    arrived: float = field(default_factory=monotonic)
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Assignment(Generic[WorkerT]):
    """What `BatchQueue.assign` decided: batches to hand over, requests whose deadline passed, and when to ask again (inf: no need)."""

    batches: Sequence[tuple[WorkerT, list[Request]]]
    dropped: Sequence[Request]
    next_at: float


class BatchQueue(Generic[WorkerT]):
    """A bounded first-come first-served queue that turns waiting requests into batches for idle workers.

    Work-conserving: an idle worker takes what waits at once, up to `batch_size` requests. With `max_batch_delay_seconds` a batch that is
    not full waits until its oldest request has waited that long since arrival. A worker holds at most two hand-overs: the second is
    given while it computes the first, and only when full, since a part-filled one loses nothing by waiting for more.
    Worst-case wait of a request with no worker busy: `max_batch_delay_seconds`.
    """

    MAX_IN_FLIGHT = 2

    def __init__(self, batch_size: int, max_batch_delay_seconds: float, max_queue_size: int) -> None:
        self.batch_size = batch_size
        self.max_batch_delay_seconds = max_batch_delay_seconds
        self.max_queue_size = max_queue_size
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._waiting = 0  # requests in _requests that are still wanted
        self._idle: list[WorkerT] = []
        self._half_busy: list[WorkerT] = []
        self._in_flight: dict[WorkerT, int] = {}
        self._leaving: dict[WorkerT, int] = {}  # batches in flight of workers that were removed

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._waiting

    @property
    def has_idle_worker(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def put(self, request: Request) -> None:
        """Queue one request, without blocking; call `assign` next.

        Raises QueueFull when `max_queue_size` requests wait already.
        """
        with self._lock:
            if self._waiting >= self.max_queue_size:
                raise QueueFull(f"{self._waiting} requests wait already", max_queue_size=self.max_queue_size)
            request.waiting = True
            self._requests.append(request)
            self._waiting += 1

    def put_back(self, requests: Sequence[Request]) -> None:
        """Queue requests at the head again, in order, whatever the limit: they were accepted before."""
        with self._lock:
            for request in reversed(requests):
                request.waiting = True
                self._requests.appendleft(request)
            self._waiting += len(requests)

    def cancel(self, request: Request) -> bool:
        """Take a request out if it still waits; it then never reaches a handler and the caller of this method answers it."""
        with self._lock:
            if not request.waiting:
                return False
            request.waiting = False
            request.payload = b""  # it may lie in the queue for a while yet
            self._waiting -= 1
            if len(self._requests) > 2 * self._waiting + 64:  # cancelled ones are skipped lazily, but must not pile up
                self._requests = deque(r for r in self._requests if r.waiting)
            return True

    def clear(self) -> list[Request]:
        """Take all requests out; the caller answers them."""
        with self._lock:
            taken = [request for request in self._requests if request.waiting]
            for request in taken:
                request.waiting = False
            self._requests.clear()
            self._waiting = 0
            return taken

    def add_worker(self, worker: WorkerT) -> None:
        """Let a worker take batches; call `assign` next."""
        with self._lock:
            self._in_flight[worker] = 0
            self._idle.append(worker)

    def remove_worker(self, worker: WorkerT) -> bool:
        """Give a worker no more batches. Returns whether it has none in flight; if not, `release` says when the last one is answered."""
        with self._lock:
            for free in (self._idle, self._half_busy):
                if worker in free:
                    free.remove(worker)
            left = self._in_flight.pop(worker, 0)
            if left:
                self._leaving[worker] = left
            return left == 0

    def forget_worker(self, worker: WorkerT) -> None:
        """Give a worker no more batches, and expect no answers from it: it is gone."""
        self.remove_worker(worker)
        with self._lock:
            self._leaving.pop(worker, None)

    def release(self, worker: WorkerT) -> bool:
        """Note that a worker has answered one batch; call `assign` next. Returns True for the last batch of one that was removed."""
        with self._lock:
            if worker not in self._in_flight:
                self._leaving[worker] -= 1
                if self._leaving[worker]:
                    return False
                del self._leaving[worker]
                return True
            self._in_flight[worker] -= 1
            if self._in_flight[worker]:
                self._half_busy.append(worker)
            else:
                if worker in self._half_busy:
                    self._half_busy.remove(worker)
                self._idle.append(worker)
            return False

    def assign(self, now: float, *, calls: int = 1, prefetch: bool = True) -> Assignment[WorkerT]:
        """Decide which requests go to which workers now. The caller hands them over, answers the dropped and calls again at `next_at`.

        A hand-over holds up to `calls` full batches, when as many wait and the others are not left idle: for handlers so quick that the
        hand-over costs more than the call. Without `prefetch` no worker gets a second batch while it computes.
        """
        with self._lock:
            batches: list[tuple[WorkerT, list[Request]]] = []
            dropped: list[Request] = []
            next_at = math.inf
            while self._waiting:
                due = self._oldest().arrived + self.max_batch_delay_seconds
                full = self._waiting >= self.batch_size
                if not self._idle and not (full and prefetch and self._half_busy):
                    break
                if not full and due > now:
                    next_at = due
                    break
                batch = self._take(now, self._share(calls, prefetch), dropped)
                if batch:
                    batches.append((self._take_worker(), batch))
            return Assignment(batches, dropped, next_at)

    def _share(self, calls: int, prefetch: bool) -> int:
        """How many requests the next hand-over takes: full batches only, unless there is less than one."""
        workers = len(self._idle) + (len(self._half_busy) if prefetch else 0)
        full_batches = self._waiting // self.batch_size
        return self.batch_size * max(1, min(calls, -(-full_batches // workers)))

    def _oldest(self) -> Request:
        while not self._requests[0].waiting:
            self._requests.popleft()
        return self._requests[0]

    def _take(self, now: float, limit: int, dropped: list[Request]) -> list[Request]:
        batch: list[Request] = []
        while self._waiting and len(batch) < limit:
            request = self._requests.popleft()
            if not request.waiting:
                continue
            request.waiting = False
            self._waiting -= 1
            if request.deadline <= now:
                dropped.append(request)
            else:
                batch.append(request)
        return batch

    def _take_worker(self) -> WorkerT:
        if self._idle:
            worker = self._idle.pop()
            self._half_busy.append(worker)
        else:
            worker = self._half_busy.pop(0)
        self._in_flight[worker] += 1
        return worker
