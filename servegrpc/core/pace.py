"""How long a model's batches take lately, and what follows from it."""

from __future__ import annotations

MAX_CALLS = 16  # batches in one hand-over
HAND_OVER_SECONDS = 0.0005  # how long a hand-over of several batches may take: those of quick handlers only
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
