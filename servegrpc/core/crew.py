"""The workers of one version: how many there are and should be, the state that follows, and what their losses mean.

The pool calls it, and asks it for the next step whenever something has changed; requests are the pool's business. All of its state changes
under one lock, in methods that return at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from time import monotonic
from typing import Protocol
from weakref import ref

import structlog

from servegrpc.core.batching import BatchQueue
from servegrpc.core.engine import Engine, HandlerSpec, WorkerEvents, WorkerExit, WorkerSpec
from servegrpc.core.model import TRANSITIONS, ModelSettings, State
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.restarts import Restarts
from servegrpc.core.timer import Timer
from servegrpc.core.worker import WorkerRecord, WorkerState

log = structlog.get_logger()

STOP_GRACE_SECONDS = 10.0

worker_ids = count(1)  # unique within the server, as in its API and logs


class Pool(WorkerEvents, Protocol):
    """What a crew needs of its pool, which hears of its workers."""

    queue: BatchQueue[WorkerRecord]

    def reconcile(self) -> None:
        """Take the next step: it is time for one."""


class Crew:
    """The workers of one version, and the state that follows from them."""

    def __init__(self, spec: HandlerSpec, settings: ModelSettings, engine: Engine, slots: DeviceSlots, timer: Timer, pool: Pool) -> None:
        self.spec = spec
        self.settings = settings
        self.state = State.LOADING
        self.target = 0
        self.cause = ""
        self.records: dict[int, WorkerRecord] = {}
        self.restarts = Restarts(settings.max_retry_timeout_seconds)
        self._retry_at: float | None = None  # when it asks again for the workers that were given up
        self._loaded = False  # it has had all its workers once
        self._ever_ready = False
        self._finishes = True  # what waits is finished when it drains
        self._engine = engine
        self._slots = slots
        self._timer = timer
        self._pool = pool
        self._changed = threading.Condition()
        self._log = log.bind(model=spec.model_name, version=spec.model_version)

    def scale(self, target: int) -> bool:
        """Ask for so many workers; returns False when the version goes, and nothing is changed."""
        with self._changed:
            if self.state in (State.DRAINING, State.UNLOADED):
                return False
            self.target, self.cause, self._retry_at = target, "", None
            self.restarts.reset()
            self._settle()
            return True

    def drain(self, *, finish: bool = True) -> None:
        """Ask for no workers, for good; unless `finish`, not even for what waits."""
        with self._changed:
            if self.state not in (State.DRAINING, State.UNLOADED):
                self._move_to(State.DRAINING)  # first: whoever sees that no workers are asked for shall see why
            self.target, self._retry_at, self._finishes = 0, None, finish

    def wait(self, done: Callable[[], bool], timeout_seconds: float | None) -> bool:
        """Block until `done()`, checked after every change, or the time-out; returns whether it is done."""
        with self._changed:
            return self._changed.wait_for(done, timeout_seconds)

    def settled(self) -> bool:
        """Whether there are exactly as many ready workers as asked for, or the version has failed, or is unloaded."""
        if self.state in (State.FAILED, State.UNLOADED):
            return True
        if self.state is State.DRAINING:
            return False  # also without workers: one may be due for what waits
        records = list(self.records.values())
        return len(records) == self.target and all(record.state is WorkerState.READY for record in records)

    @property
    def serving(self) -> bool:
        """Whether it takes requests: for workers it has, or that load."""
        return self.target > 0 and self.state in (State.LOADING, State.ACTIVE)

    @property
    def hopeless(self) -> bool:
        """Whether nothing will ever take what waits."""
        return self.state in (State.FAILED, State.UNLOADED) or not (self.target or self.records or self._may_finish)

    @property
    def _may_finish(self) -> bool:
        """Whether a worker may be started for nothing but what waits."""
        return self._finishes and self._ever_ready and not self.restarts.enough(monotonic())

    @property
    def abandoned(self) -> bool:
        """Whether it failed without ever having been ready, and its last worker is gone: it is not tried again."""
        return self.state is State.FAILED and not self._ever_ready and not self.records

    def count_ready(self) -> int:
        """How many workers have their handler loaded."""
        return sum(record.state is WorkerState.READY for record in list(self.records.values()))

    def retry_after(self) -> float | None:
        """Seconds until workers that were given up are asked for again; None when they are not."""
        return None if self._retry_at is None else max(0.0, self._retry_at - monotonic())

    # --- what happens to workers

    def note_ready(self, worker_id: int, slots: int) -> None:
        """A worker has loaded its handler: it may take batches."""
        with self._changed:
            record = self.records[worker_id]
            if record.state is WorkerState.STARTING:
                record.state = WorkerState.READY
                record.live = slots > 0
                self._ever_ready = True
                self._pool.queue.add_worker(record, slots)
            self._log.info("worker ready", worker=worker_id, device=str(record.device), seconds=round(monotonic() - record.started, 3))
            self._settle()

    def note_end(self, record: WorkerRecord, exit_: WorkerExit, running: Sequence[str], run_again: int, *, by_request: bool) -> None:
        """A worker is gone, which ran the requests of these ids, so many of which are run again; `by_request`: one of them is why."""
        with self._changed:
            del self.records[record.id]
            self._slots.give_back(record.device)
            if record.state is WorkerState.STOPPING and not running:
                self._log.info("worker stopped", worker=record.id)
            else:
                self.restarts.note_loss(record.id, max([record.id, *self.records]), monotonic(), blameless=exit_.blameless or by_request)
                self._note_loss(record, exit_, running, run_again)
            self._settle()

    def _note_loss(self, record: WorkerRecord, exit_: WorkerExit, running: Sequence[str], run_again: int) -> None:
        cause = exit_.load_error or f"worker {record.id} ended: {exit_.cause}."
        about: dict[str, object] = {"worker": record.id, "cause": cause, "output": exit_.output}
        if running:
            self._log.error("worker lost", requests=running, run_again=run_again, **about)
        else:
            self._log.warning("worker lost", **about)
        if self.state in (State.DRAINING, State.UNLOADED, State.FAILED):
            return
        if self.restarts.enough(monotonic()) or not (self._ever_ready or exit_.blameless):
            self._give_up(cause, self.count_ready())

    def _give_up(self, cause: str, left: int) -> None:
        """Ask for no more workers than are left, for a while; without any, the version has failed. Needs the lock."""
        before, stays = self.target, self.state not in (State.DRAINING, State.UNLOADED)
        if left:
            self._log.error("workers given up", target=left, before=before, cause=cause)
            self.target, self.cause = left, cause
        else:
            self._fail(cause)
        if stays and self._ever_ready and self.settings.cool_down_seconds:
            self._retry_at = monotonic() + self.settings.cool_down_seconds
            self._timer.call_at(self._retry_at, partial(self._try_again, self._retry_at, before))

    def _try_again(self, at: float, target: int) -> None:
        """Ask for as many workers as before some were given up, unless someone has changed their number meanwhile."""
        with self._changed:
            if self._retry_at != at:
                return
            self._retry_at = None
            self.restarts.reset(one_more=True)
            self.target, self.cause = target, ""
            if self.state is State.FAILED:
                self._move_to(State.LOADING)
        self._pool.reconcile()

    # --- numbers and states

    def reconcile(self) -> list[tuple[WorkerRecord, float]]:
        """Start workers so that there will be as many as wanted, and take the others out: the one place where workers come and go.

        Returns those to stop now, and how many seconds each has; the others follow when they have answered what they have.
        """
        stops: list[tuple[WorkerRecord, float]] = []
        queue = self._pool.queue
        with self._changed:
            live = [record for record in self.records.values() if record.state is not WorkerState.STOPPING]
            wanted = 0 if self.state in (State.FAILED, State.UNLOADED) else self.target
            if not self.target and len(queue) and not self.hopeless:
                wanted = 1 if live or self._may_finish else 0  # someone must finish what waits
            if len(live) < wanted:
                self._start_some(wanted - len(live))
            spared_last = sorted(live, key=lambda r: (r.state is WorkerState.READY, queue.has_sequences(r), -r.id))
            for record in spared_last[: max(0, len(live) - wanted)]:
                if not self.target and queue.has_pinned(record):
                    continue  # it has what only it can finish; it follows when that is taken
                grace = STOP_GRACE_SECONDS if record.state is WorkerState.READY else 0.0  # nobody waits for what it loads
                record.state = WorkerState.STOPPING
                if queue.remove_worker(record):
                    stops.append((record, grace))
            self._settle()
        return stops

    def _start_some(self, number: int) -> None:
        if self.restarts.at > monotonic():
            self._timer.call_at(self.restarts.at, self._pool.reconcile)
            return
        for _ in range(number):
            if not self._start():
                break

    def _start(self) -> bool:
        record = WorkerRecord(next(worker_ids), self._slots.take(self.spec.device_type, self.spec.device_ids))
        threads = self._slots.threads(self.target)
        self.records[record.id] = record
        try:
            spec = WorkerSpec(
                record.id, self.spec, self.settings.batch_size, record.device, threads, self.settings.response_timeout_seconds
            )
            record.worker = self._engine.start(spec, self._pool)
        except Exception as error:  # noqa: BLE001 - out of descriptors, or a configuration that cannot be sent: no worker will tell
            self._log.exception("worker cannot be started", worker=record.id)
            del self.records[record.id]
            self._slots.give_back(record.device)
            self._give_up(f"a worker cannot be started: {error}.", len(self.records))
            return False
        seconds = self.settings.startup_timeout_seconds
        self._timer.call_at(record.started + seconds, partial(self._check_start, ref(record), seconds))
        return True

    def _check_start(self, of: ref[WorkerRecord], seconds: float) -> None:
        record = of()  # none: it is long gone, with all it held
        if not (record and record.state is WorkerState.STARTING and not record.gone and record.worker):
            return
        now = monotonic()
        due = min(record.worker.started, now) + seconds  # it may have waited for the fork server to get up
        if due > now:
            self._timer.call_at(due, partial(self._check_start, of, seconds))
        else:
            record.worker.kill(f"took longer than the startup timeout of {seconds:g} s to load its handler")

    def _settle(self) -> None:
        """Move to the state that the numbers say, and wake those who wait; needs the lock."""
        ready = self.count_ready()
        if ready >= self.target:
            self._loaded = True
        if self.state is State.DRAINING and not self.records and not (len(self._pool.queue) and self._may_finish):
            self._move_to(State.UNLOADED)
        elif self.state is State.LOADING and self._loaded and (ready or not self.target):
            self._move_to(State.ACTIVE)
        elif self.state is State.ACTIVE and self.target and not ready:
            self._move_to(State.LOADING)
        self._changed.notify_all()

    def _fail(self, cause: str) -> None:
        self.cause = cause
        self._move_to(State.FAILED)

    def _move_to(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"{self.spec.model_name} cannot go from {self.state.name} to {state.name}")
        level = self._log.error if state is State.FAILED else self._log.info
        level("model state", state=state.name, before=self.state.name, **({"cause": self.cause} if self.cause else {}))
        self.state = state
