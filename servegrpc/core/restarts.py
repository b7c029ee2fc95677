"""When a lost worker is replaced, and when enough of them were lost: pure numbers, changed under the pool's lock."""

from __future__ import annotations

import random

MAX_FAILURES = 5  # losses in a row, without a request answered, after which the version has failed
FIRST_WAIT_SECONDS = 0.5  # before the second one in a row is replaced; each further wait is twice as long
MAX_WAIT_SECONDS = 30.0
JITTER = 0.2  # waits differ by so much, so that models that failed together do not start together


class Restarts:
    """Losses in a row: none of the workers started after the last lost one has answered yet. `at` is when the next may start.

    Workers that were there together count once, however many of them are lost: only replacements that end too make a row.
    """

    def __init__(self, max_seconds: float | None) -> None:
        """With `max_seconds`, losses in a row are enough when they have gone on for so long, whatever their number."""
        self.failures = 0
        self.last_lost = 0
        self.at = 0.0
        self._newest = 0  # the newest worker there was when a loss was last counted
        self._max_seconds = max_seconds
        self._first_at = 0.0

    def note_loss(self, worker_id: int, newest: int, now: float, *, blameless: bool) -> None:
        """Count the loss of a worker, when `newest` was the newest there was; a blameless one is replaced at once."""
        self.last_lost = max(self.last_lost, worker_id)
        if blameless or worker_id <= self._newest:
            return
        self._newest = newest
        self.failures += 1
        if self.failures == 1:
            self._first_at = now
            return
        wait = min(FIRST_WAIT_SECONDS * 2 ** min(self.failures - 2, 10), MAX_WAIT_SECONDS)
        self.at = now + wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret

    def enough(self, now: float) -> bool:
        """Whether no further worker should be started."""
        if self._max_seconds is None:
            return self.failures >= MAX_FAILURES
        return self.failures > 0 and now - self._first_at >= self._max_seconds

    def reset(self, *, one_more: bool = False) -> None:
        """Forget the losses; with `one_more` but for the next, which is enough again."""
        self.failures, self.at = (MAX_FAILURES - 1 if one_more else 0), 0.0
        if not one_more:
            self._first_at = 0.0
