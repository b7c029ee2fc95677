"""How long a model's batches take lately, and what follows from it."""

from __future__ import annotations

import math

MAX_CALLS = 16  # batches in one hand-over
HAND_OVER_SECONDS = 0.002  # how long a hand-over of several batches may take: those of quick handlers only
PREFETCH_SECONDS = 0.005  # a worker gets its next batch early when one takes less than this; else it might be stuck behind a slow one


class Pace:
    """The smoothed time of one call of the handler, hand-over included; nothing is known of a new model, and it is taken for slow."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def learn(self, seconds: float, calls: int) -> None:
        """Take in a hand-over of that many calls."""
        self._seconds += (seconds / calls - self._seconds) * (0.1 if self._seconds else 1.0)

    @property
    def calls(self) -> int:
        """How many batches one hand-over may hold: more than one only where handing over costs more than computing."""
        return max(1, min(MAX_CALLS, int(HAND_OVER_SECONDS / self._seconds))) if self._seconds else 1

    @property
    def prefetch(self) -> bool:
        """Whether a busy worker may be given its next batch."""
        return 0 < self._seconds < PREFETCH_SECONDS

    def expected_wait(self, batches: float, workers: int) -> float:
        """Seconds until `workers` workers have taken so many batches; at least 10 ms, to be a delay worth telling a caller."""
        return max(0.01, batches * self._seconds / max(1, workers))


class ServiceTime:
    """What an answer takes at least, from the hand-over: a request that has less time left need not be run.

    It is the time that nine in ten hand-overs stay below, but at most `SPREAD` times what the quickest tenth take: with work of all sizes
    nobody knows. Both follow each hand-over by a step, whatever its time, so that a slow one cannot move them far.
    """

    MIN_HAND_OVERS = 8  # before anything is known: the first ones warm up
    SPREAD = 1.25
    FAR, NEAR = 0.09, 0.01  # steps, whose ratio is that of nine tenths to one
    STALE_SECONDS = 1.0  # when nothing was answered for so long, or ten times an answer, it is to be found out again

    def __init__(self) -> None:
        self.seconds = 0.0  # as of the last hand-over
        self._count = 0
        self._quick = self._slow = math.inf
        self._at = 0.0

    def learn(self, seconds: float, now: float) -> None:
        """Take in a hand-over that was answered now."""
        self._at = now
        self._count += 1
        if self._count <= self.MIN_HAND_OVERS:
            self._quick = self._slow = min(self._quick, seconds)
        else:
            self._quick = _step(self._quick, seconds, self.NEAR, self.FAR)
            self._slow = _step(self._slow, seconds, self.FAR, self.NEAR)
        if self._count >= self.MIN_HAND_OVERS:
            self.seconds = min(self.SPREAD * self._quick, self._slow)

    def known(self, now: float) -> float:
        """Return the seconds, 0 when they are unknown or too old."""
        return self.seconds if now - self._at < max(self.STALE_SECONDS, 10 * self.seconds) else 0.0


def _step(estimate: float, seen: float, up: float, down: float) -> float:
    """Move an estimate of a quantile towards a value, by a share of itself, and not beyond the value."""
    if seen > estimate:
        return min(seen, estimate * (1 + up))
    return max(seen, estimate * (1 - down))
