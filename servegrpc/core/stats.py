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
        self.request_seconds = Histogram(SECONDS_BUCKETS)  # from arrival to reply
        self.queue_seconds = Histogram(SECONDS_BUCKETS)  # from arrival to hand-over
        self.batch_size = Histogram(SIZE_BUCKETS)
        self.losses = 0  # workers that ended unasked
        self.wasted_batches = 0  # run to the end while no caller waited any more
        self.handler_metrics = HandlerMetricsTable()
