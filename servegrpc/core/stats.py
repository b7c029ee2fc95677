"""What a pool counts: plain numbers, cheap enough to update for every request; `servegrpc.metrics` shows them."""

from __future__ import annotations

from collections import Counter

from servegrpc.core.handler_metrics import HandlerMetricsTable
from servegrpc.core.histogram import Histogram
from servegrpc.errors import Code

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class PoolStats:
    """Totals since the version was registered; times are seconds."""

    def __init__(self) -> None:
        self.accepted = 0  # requests; each will be among the replies
        self.replies: Counter[int] = Counter(dict.fromkeys(Code, 0))  # by status code; all there, so that adding one is one step
        self.refused: Counter[str] = Counter()  # by reason; these were not accepted
        self.expired = 0  # requests whose deadline passed, or could not be met any more, while they waited
        self.request_seconds = Histogram(SECONDS_BUCKETS)  # from arrival to reply
        self.rows = 0  # of requests that were answered well; each counts with its size
        self.failed_seconds = 0.0  # of these, those of requests that failed
        self.queue_seconds = Histogram(SECONDS_BUCKETS)  # from arrival to hand-over
        self.batch_size = Histogram(SIZE_BUCKETS)
        self.batches: dict[int, tuple[int, float]] = {}  # by exact size: how many, and their seconds in all
        self.last_hand_over: float | None = None  # time.monotonic
        self.losses = 0  # workers that ended unasked
        self.wasted_batches = 0  # run to the end while no caller waited any more
        self.handler_metrics = HandlerMetricsTable()

    def answered(self, code: int, seconds: float, rows: int) -> None:
        """Count a request by its status code, the time since it arrived, and its rows."""
        self.replies[code] += 1
        self.request_seconds.observe(seconds)
        if code:
            self.failed_seconds += seconds
        else:
            self.rows += rows

    def executed(self, rows: int, batch_size: int, seconds: float) -> int:
        """Count the batches, full ones and a rest, in which requests of so many rows were run one after the other; returns how many."""
        full, rest = divmod(rows, batch_size)
        batches = full + bool(rest)
        for size, times in ((batch_size, full), (rest, int(bool(rest)))):
            if times:
                self.batch_size.observe(size, times)
                count, took = self.batches.get(size, (0, 0.0))
                self.batches[size] = count + times, took + seconds * times / batches
        return batches

    def requests(self) -> tuple[int, int, dict[int, int]]:
        """Return the requests accepted, those not answered yet, and those answered by code: the first is always the sum of the others."""
        replies = {code: number for code, number in self.replies.copy().items() if number}
        accepted = self.accepted  # after the copy: what is answered was accepted before
        return accepted, accepted - sum(replies.values()), replies
