"""What the handlers of one version counted and measured, gathered from all its workers for Prometheus.

The pool adds the records that a worker sends after a batch; `servegrpc.metrics` takes snapshots. A record comes from a process that runs
a user's code, so nothing about it is certain: what is malformed, or one series too many, is dropped and counted.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

from servegrpc.core.histogram import Histogram

MetricKind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]

KINDS = ("counter", "gauge", "histogram")
OWN_LABELS = ("model_name", "model_version", "unit", "le")  # set by `servegrpc.metrics`; a handler's become "exported_…"
BUCKETS = tuple(digit * 10.0**power for power in range(-3, 5) for digit in (1.0, 2.5, 5.0))  # 0.001 to 50,000, whatever the unit
MAX_LABELS = 20
LONGEST_TEXT = 200  # characters of a name, unit or label


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What tells one series from another; names are as Prometheus allows them."""

    name: str
    kind: MetricKind
    unit: str
    labels: Labels


@dataclass(slots=True)
class Series:
    """A counter's sum, a gauge's last value, or a histogram."""

    key: SeriesKey
    value: float = 0.0
    histogram: Histogram = field(default_factory=lambda: Histogram(BUCKETS))


class HandlerMetricsTable:
    """The series of one model version; several reader threads may add to it."""

    def __init__(self, *, max_series: int = 1_000) -> None:
        self.dropped = 0  # records that were malformed, or of a series too many
        self._max_series = max_series
        self._series: dict[SeriesKey, Series] = {}
        self._lock = threading.Lock()

    def add(self, records: Sequence[object]) -> None:
        """Take a worker's records, `[name, type, unit, value, [[label, value], …]]` each; never raises.

        The value of a histogram may be a list of them.
        """
        for record in records:
            read = _read(record)
            with self._lock:
                if read is None or not self._observe(*read):
                    self.dropped += 1

    def snapshot(self) -> list[Series]:
        """Return all series, in the order they were first seen; values go on changing."""
        with self._lock:
            return list(self._series.values())

    def _observe(self, key: SeriesKey, values: Sequence[float]) -> bool:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= self._max_series:
                return False
            series = self._series[key] = Series(key)
        for value in values:
            if key.kind == "histogram":
                series.histogram.observe(value)
            else:
                series.value = series.value + value if key.kind == "counter" else value
        return True


def _read(record: object) -> tuple[SeriesKey, list[float]] | None:
    """Return the series and the values of a record, None when it is not one."""
    if not isinstance(record, Sequence) or isinstance(record, str) or len(record) != 5:
        return None
    name, kind, unit, value, labels = record
    pairs = _read_labels(labels)
    if not (_is_text(name) and name and kind in KINDS and _is_text(unit)) or pairs is None:
        return None
    numbers = [_read_number(one, kind) for one in (value if kind == "histogram" and isinstance(value, list) else [value])]
    known = [number for number in numbers if number is not None]
    return (SeriesKey(_metric_name(name), cast("MetricKind", kind), unit, pairs), known) if known and len(known) == len(numbers) else None


def _read_number(value: object, kind: str) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    spoils = (kind != "gauge" and not math.isfinite(number)) or (kind == "counter" and number < 0)  # the sum, for good
    return None if spoils else number


def _read_labels(labels: object) -> Labels | None:
    """Return the labels, the last of each name."""
    if not isinstance(labels, Sequence) or isinstance(labels, str) or len(labels) > MAX_LABELS:
        return None
    pairs: dict[str, str] = {}
    for pair in labels:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(_is_text, pair)):
            return None
        pairs[_label_name(pair[0])] = pair[1]
    return tuple(pairs.items())


@lru_cache(maxsize=1024)
def _metric_name(name: str) -> str:
    allowed = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"handler_{allowed}" if allowed[0].isdigit() or allowed.startswith("servegrpc_") else allowed


@lru_cache(maxsize=1024)
def _label_name(name: str) -> str:
    allowed = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"exported_{allowed}" if allowed in OWN_LABELS or not allowed[:1].isalpha() else allowed


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT
