"""Keeps the number of a version's workers between two bounds, by how long its requests wait.

    check, every half second:   requests waited too long, or in vain, 4 times in a row → one worker more
                                a worker was idle in 9 of 10 checks of a minute → one worker less

The two rules are far apart on purpose, so that the number does not swing. It looks at a pool from outside, and changes it by `scale` only.
"""

from __future__ import annotations

import math
import threading
from functools import partial
from time import monotonic

import structlog

from servegrpc.core.model import State
from servegrpc.core.pool import WorkerPool
from servegrpc.core.timer import Timer
from servegrpc.errors import Draining, QueueFull

log = structlog.get_logger()

CHECK_SECONDS = 0.5
LONG_WAIT_SECONDS = 0.1  # in the queue, beyond the delay that the model asks for
CHECKS_TO_GROW = 4
CHECKS_TO_SHRINK = 120
IDLE_SHARE_TO_SHRINK = 0.9


class Autoscaler:
    """The bounds of one version's workers; `bound` sets them. Equal bounds, or none at all, leave the number alone.

    A version of 0 workers is left at 0: its requests are refused, so nothing would tell that it is missed.
    """

    def __init__(self, pool: WorkerPool, timer: Timer) -> None:
        self.min_workers = self.max_workers = 0
        self._pool = pool
        self._timer = timer
        self._lock = threading.Lock()
        self._round = 0  # a check of an earlier one does nothing
        self._handed_over = 0
        self._waited = 0.0
        self._in_vain = 0
        self._restart_count()

    def bound(self, min_workers: int, max_workers: int) -> None:
        """Ask for `min_workers` now, and for up to `max_workers` when requests wait. Raises Draining."""
        with self._lock:
            self._pool.scale(min_workers)
            self.min_workers, self.max_workers = min_workers, max_workers
            self._round += 1
            self._restart_count()
            if max_workers > min_workers:
                self._ask_check()

    def _ask_check(self) -> None:
        self._timer.call_at(monotonic() + CHECK_SECONDS, partial(self._check, self._round))

    def _check(self, number: int) -> None:
        with self._lock:
            if number != self._round or self._pool.state in (State.DRAINING, State.UNLOADED):
                return
            self._ask_check()
            waited = self._queue_seconds()
            if self._pool.state is not State.ACTIVE or not self._pool.target or not self._pool.settled():
                self._restart_count()  # it was changed just now, or lost a worker: wait for what comes of it
                return
            self._count(waited)
            if self._long_waits >= CHECKS_TO_GROW and not self._pool.cause:  # it could not keep as many before: that would go on and on
                self._scale(self._pool.target + 1, queue_seconds=None if math.isinf(waited) else round(waited, 3))
            elif self._checks >= CHECKS_TO_SHRINK:
                if self._idle >= IDLE_SHARE_TO_SHRINK * self._checks and not len(self._pool.sequences):  # a worker may have their state
                    self._scale(self._pool.target - 1, idle_checks=self._idle)
                self._restart_count()

    def _restart_count(self) -> None:
        self._checks = self._idle = self._long_waits = 0

    def _count(self, waited: float) -> None:
        self._checks += 1
        self._idle += self._pool.queue.has_idle_worker
        limit = LONG_WAIT_SECONDS + self._pool.settings.max_batch_delay_seconds
        self._long_waits = self._long_waits + 1 if waited > limit else 0

    def _queue_seconds(self) -> float:
        """How long the requests handed over since the last check had waited, on average.

        Infinite when some were refused by a full queue or waited until it was too late, or when none were handed over but some wait.
        """
        seen = self._pool.stats.queue_seconds
        count, total = sum(seen.counts), seen.sum
        handed_over, waited = count - self._handed_over, total - self._waited
        self._handed_over, self._waited = count, total
        before, self._in_vain = self._in_vain, self._pool.stats.refused[QueueFull.reason] + self._pool.stats.expired
        if self._in_vain > before:
            return math.inf
        if handed_over:
            return waited / handed_over
        return math.inf if len(self._pool.queue) and not self._pool.queue.has_idle_worker else 0.0

    def _scale(self, target: int, **why: object) -> None:
        self._restart_count()
        before = self._pool.target
        target = max(self.min_workers, 1, min(target, self.max_workers))
        if target == before:
            return
        try:
            self._pool.scale(target)
        except Draining:
            return
        spec = self._pool.spec
        log.info("workers scaled", model=spec.model_name, version=spec.model_version, target=target, before=before, **why)
