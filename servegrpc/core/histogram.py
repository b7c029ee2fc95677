"""Counts of observations by bucket, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FRESH = 2048  # values that are kept before they are counted, together: one by one they would cost a microsecond each


class Histogram:
    """Counts observations by bucket; a bucket's bound belongs to it, as in Prometheus. Observing takes no lock: a race may lose one."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._fresh: list[float] = []

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, so many times."""
        if times != 1:
            self._counts[np.searchsorted(self._bounds, value)] += times
            self._sum += value * times
            return
        self._fresh.append(value)
        if len(self._fresh) >= FRESH:
            self._count()

    @property
    def counts(self) -> list[int]:
        """The observations in each bucket; the last is beyond all bounds."""
        self._count()
        return [int(count) for count in self._counts]

    @property
    def sum(self) -> float:
        """The sum of all observations."""
        self._count()
        return self._sum

    def _count(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._counts += np.bincount(np.searchsorted(self._bounds, fresh), minlength=len(self._counts))
            self._sum += float(sum(fresh))
