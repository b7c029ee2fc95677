"""The metrics a handler records, with the methods TorchServe's handlers call on `context.metrics`.

A handler records, and the worker sends what `drain` takes out to the server. Between two drains counters are added up, gauges keep
their last value and histograms keep every observation, within what goes into one message.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

log = logging.getLogger(__name__)

MetricType = Literal["counter", "gauge", "histogram"]
Dimensions = tuple[tuple[str, str], ...]

LARGEST_TEXT_BYTES = 128 * 1024  # of names and labels in one message; `engine.channel` takes 512 KiB

UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
}


class MetricTypes(Enum):
    """TorchServe's names for the three kinds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One label of a metric: a name and a value."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, str]:
        """Return it under TorchServe's keys."""
        return {"Name": self.name, "Value": self.value}


class MetricRecord(NamedTuple):
    """What goes to the server, as a JSON list: a counter's increment, a gauge's value, or the observations of a histogram."""

    name: str
    type: MetricType
    unit: str
    value: float | list[float]
    dimensions: Dimensions


class MetricsCacheTypeError(TypeError):
    """A name, unit or type of a metric is none."""


class MetricsCacheValueError(ValueError):
    """There is nothing under model_metrics."""


class MetricsCacheKeyError(KeyError):
    """No metric of that name and type was added to the cache, or a key is missing where metrics are declared."""


SeriesKey = tuple[str, "MetricTypes", str, Dimensions]
Recorder = Callable[[str, "MetricTypes", str, float, Dimensions], None]


@dataclass(slots=True)
class _Process:
    """The metrics of this process's handler: a worker has one. Classes of TorchServe that are made without any record there."""

    metrics: HandlerMetrics | None = None

    def record(self, name: str, metric_type: MetricTypes, unit: str, value: float, dimensions: Dimensions) -> None:
        """Record a value, or log it when no worker is around, as in a handler's unit tests."""
        if self.metrics is None:
            log.info("metric %s %s (%s): %s", name, dict(dimensions), unit, value)
        else:
            self.metrics.record(name, metric_type, unit, value, dimensions)


process = _Process()


class CachingMetric:
    """A metric with fixed dimension names, kept by the handler and updated per request."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        *,
        recorder: Recorder = process.record,
    ) -> None:
        self.metric_name = metric_name
        self.unit = unit_name(unit)
        self.dimension_names = list(dimension_names or ())
        self.metric_type = metric_type
        self._recorder = recorder

    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:  # noqa: ARG002 - TorchServe's signature
        """Record `value`. Wrong dimensions or a negative counter are logged and not recorded, as in TorchServe."""
        if len(dimension_values) != len(self.dimension_names):
            log.error('metric "%s" takes the dimensions %s, not %s', self.metric_name, self.dimension_names, list(dimension_values))
            return
        dimensions = tuple((str(name), str(text)) for name, text in zip(self.dimension_names, dimension_values, strict=True))
        self._recorder(self.metric_name, self.metric_type, self.unit, value, dimensions)

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record `value` with other dimensions than before (TorchServe's older form)."""
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.add_or_update(value, [dimension.value for dimension in dimensions], request_id)


class HandlerMetrics:
    """The object at `context.metrics`. May be used from several threads of a handler.

    Between two drains `max_pending` values are kept, and as many names as fit in LARGEST_TEXT_BYTES; more are dropped, with one warning.
    `cache` keeps `max_metrics` names; a further metric is still recorded, but not remembered. With `only_declared`, metrics that `declare`
    was not told of are dropped.
    """

    def __init__(self, model_name: str, *, max_pending: int = 10_000, max_metrics: int = 1_000) -> None:
        self.model_name = model_name
        self.only_declared = False
        self.request_ids: Mapping[int, str] = {}
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {}
        self._declared: set[str] = set()
        self._refused: set[str] = set()
        self._max_pending = max_pending
        self._max_metrics = max_metrics
        self._pending: dict[SeriesKey, list[float]] = {}
        self._room_values = max_pending
        self._room_bytes = LARGEST_TEXT_BYTES
        self._overflowed = False
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> HandlerMetrics:
        return self  # copies of a context, one per request, share the worker's metrics

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,  # noqa: ARG002 - TorchServe's signature; values are not kept per request
        dimensions: Iterable[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record `value` with the dimensions ModelName and Level added."""
        self._add(name, value, unit, metric_type, self._labels(dimensions, "Model"))

    def add_counter(self, name: str, value: float, idx: int | None = None, dimensions: Iterable[Dimension] = ()) -> None:
        """Add `value` to a counter."""
        self.add_metric(name, value, "count", idx, dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Iterable[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a time in "ms" or "s"; ValueError for another unit."""
        self.add_metric(name, value, _one_of(name, unit, ("ms", "s")), idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Iterable[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a size in "MB", "kB", "GB" or "B"; ValueError for another unit."""
        self.add_metric(name, value, _one_of(name, unit, ("MB", "kB", "GB", "B")), idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Iterable[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a percentage, 0 to 100."""
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float = 1, dimensions: Iterable[Dimension] = ()) -> None:
        """Count an error, at Level:Error."""
        self._add(name, value, "", MetricTypes.COUNTER, self._labels(dimensions, "Error"))

    def add_metric_to_cache(
        self, metric_name: str, unit: str, dimension_names: Sequence[str] = (), metric_type: MetricTypes = MetricTypes.COUNTER
    ) -> CachingMetric:
        """Return a new metric to update later; it replaces one of the same name and type. No dimensions are added to it."""
        for text in (metric_name, unit, *dimension_names):
            if not isinstance(text, str):
                raise MetricsCacheTypeError(f"The names and the unit of a metric are text, not {text!r}.")
        if not isinstance(metric_type, MetricTypes):
            raise MetricsCacheTypeError(f'The type of metric "{metric_name}" is a MetricTypes, not {metric_type!r}.')
        metric = CachingMetric(metric_name, unit, dimension_names, metric_type, recorder=self.record)
        if sum(map(len, self.cache.values())) < self._max_metrics:
            self.cache.setdefault(metric_type, {})[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """Return the metric of that name and type, or raise MetricsCacheKeyError."""
        metric = self.cache.get(metric_type, {}).get(metric_name)
        if metric is None:
            raise MetricsCacheKeyError(f'There is no {metric_type.value} "{metric_name}"; create it with add_metric_to_cache.')
        return metric

    def declare(self, config: object) -> None:
        """Add what a metrics configuration (TorchServe's metrics.yaml) has under `model_metrics` to the cache.

        Raises MetricsCacheKeyError or MetricsCacheValueError naming the key at fault.
        """
        if not isinstance(config, Mapping) or "model_metrics" not in config:
            raise MetricsCacheKeyError("metrics.yaml has no model_metrics; write model_metrics: {counter: [{name, unit, dimensions}]}.")
        if not isinstance(config["model_metrics"], Mapping) or not config["model_metrics"]:
            raise MetricsCacheValueError("metrics.yaml has nothing under model_metrics; list metrics under counter, gauge or histogram.")
        for kind, metrics in config["model_metrics"].items():
            if kind not in {one.value for one in MetricTypes}:
                raise MetricsCacheKeyError(f'model_metrics in metrics.yaml has "{kind}"; it takes counter, gauge and histogram.')
            for metric in metrics or ():
                missing = {"name", "unit", "dimensions"} - set(metric)
                if missing:
                    raise MetricsCacheKeyError(f"A {kind} in metrics.yaml has no {', '.join(sorted(missing))}: {metric!r}.")
                self.add_metric_to_cache(metric["name"], metric["unit"], metric["dimensions"] or (), MetricTypes(kind))
                self._declared.add(metric["name"])

    def cache_keys(self) -> list[str]:
        """Return "type:name" of each metric in the cache."""
        return [f"{metric_type.value}:{name}" for metric_type, metrics in self.cache.items() for name in metrics]

    def set_request_ids(self, request_ids: Mapping[int, str]) -> None:
        """Take the ids of the batch's requests, by position."""
        self.request_ids = request_ids

    def drain(self) -> list[MetricRecord]:
        """Return what was recorded since the last call, and forget it."""
        if not self._pending:
            return []
        with self._lock:
            pending, self._pending = self._pending, {}
            self._room_values, self._room_bytes, self._overflowed = self._max_pending, LARGEST_TEXT_BYTES, False
        return [
            MetricRecord(name, kind.value, unit, values if kind is MetricTypes.HISTOGRAM else values[0], dimensions)
            for (name, kind, unit, dimensions), values in pending.items()
            if values
        ]

    def record(self, name: str, metric_type: MetricTypes, unit: str, value: float, dimensions: Dimensions) -> None:
        """Keep a value for the next `drain`."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            log.error('metric "%s" takes numbers: %.100r was not recorded', name, value)
            return
        if metric_type is MetricTypes.COUNTER and number < 0:
            log.error('counter "%s" cannot go down: %s was not added', name, value)
            return
        if self.only_declared and name not in self._declared:
            if name not in self._refused and len(self._refused) < self._max_metrics:
                self._refused.add(name)
                log.warning('metric "%s" is not in metrics.yaml and is dropped', name)
            return
        with self._lock:
            self._keep((name, metric_type, unit, dimensions), number)

    def _labels(self, dimensions: Iterable[Dimension], level: str) -> Dimensions:
        given = {str(dimension.name): str(dimension.value) for dimension in dimensions}
        return tuple({**given, "ModelName": self.model_name, "Level": level, **given}.items())

    def _add(self, name: str, value: float, unit: str, metric_type: MetricTypes, labels: Dimensions) -> None:
        known = self.cache.get(metric_type, {}).get(name)
        if known is None:
            known = self.add_metric_to_cache(name, unit or "", [label for label, _ in labels], metric_type)
        self.record(name, metric_type, known.unit, value, labels)

    def _keep(self, key: SeriesKey, value: float) -> None:
        values = self._pending.get(key)
        if values is None:
            size = _size_bytes(key)
            if self._room_bytes < size:
                self._warn_dropped(key)
                return
            self._room_bytes -= size
            values = self._pending[key] = []
        if values and key[1] is not MetricTypes.HISTOGRAM:
            values[0] = values[0] + value if key[1] is MetricTypes.COUNTER else value
        elif self._room_values > 0:
            self._room_values -= 1
            values.append(value)
        else:
            self._warn_dropped(key)

    def _warn_dropped(self, key: SeriesKey) -> None:
        if not self._overflowed:
            self._overflowed = True
            log.warning('too many metrics in one call of the handler: "%s" and what follows is dropped', key[0])


@functools.lru_cache(maxsize=1024)
def _size_bytes(key: SeriesKey) -> int:
    """Return what a series takes in a message, without its values."""
    name, metric_type, unit, dimensions = key
    return len(json.dumps([name, metric_type.value, unit, dimensions]))


def unit_name(unit: str | None) -> str:
    """Return TorchServe's long name of a unit; a unit it does not know is its own name."""
    return UNITS.get(unit or "", unit or "")


def _one_of(name: str, unit: str, allowed: tuple[str, ...]) -> str:
    if unit not in allowed:
        raise ValueError(f'The unit of metric "{name}" is "{unit}"; use one of {", ".join(allowed)}.')
    return unit
