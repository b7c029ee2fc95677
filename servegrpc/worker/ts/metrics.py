"""TorchServe's older classes of metrics; what they are told is recorded as `context.metrics` does it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from servegrpc.worker.handler_metrics import (
    UNITS,
    CachingMetric,
    Dimension,
    Dimensions,
    HandlerMetrics,
    MetricsCacheTypeError,
    MetricTypes,
    process,
)


class GeneralMetricsCacheError(Exception):
    """A metrics configuration cannot be used."""


class MetricsCacheIOError(OSError):
    """A metrics configuration cannot be read."""


class MetricsCachePyYamlError(yaml.YAMLError):
    """A metrics configuration is not YAML."""


class Units:
    """The long names of units, by their short ones."""

    def __init__(self) -> None:
        self.units: dict[str | None, str] = {None: UNITS[""]}
        self.units.update(UNITS)


MetricUnit = Units()


class Metric:
    """One value with its dimensions, made by a handler and sent with `emit_metrics`, or updated."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self._caching_metric = CachingMetric(name, unit, [dimension.name for dimension in dimensions])
        self.name = name
        self.value = value
        self.unit = self._caching_metric.unit
        self.metric_type = MetricTypes.COUNTER
        self.metric_method = metric_method
        self.dimensions = dimensions
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.dimension_values = [dimension.value for dimension in dimensions]
        self.request_id = request_id

    def update(self, value: float) -> None:
        """Add `value` to the counter of this name."""
        self._caching_metric.add_or_update(value, self.dimension_values)

    def reset(self) -> None:
        """Add nothing: a counter cannot go back, as in TorchServe."""
        self.update(0)

    def __str__(self) -> str:
        dimensions = ",".join(map(str, self.dimensions))
        request = f",{self.request_id}" if self.request_id else ""
        return f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#hostname:{socket.gethostname()},{int(time.time())}{request}"

    def to_dict(self) -> dict[str, object]:
        """Return it under TorchServe's keys."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }


class MetricEncoder(json.JSONEncoder):
    """Writes metrics and dimensions as JSON."""

    def default(self, o: object) -> object:
        """Return what is written in place of the object."""
        return o.to_dict() if isinstance(o, Metric | Dimension) else super().default(o)


class MetricsStore(HandlerMetrics):
    """The metrics object of older handlers and of `MockContext`: it also keeps one `Metric` for each name and dimensions in `store`."""

    def __init__(self, request_ids: object, model_name: str) -> None:
        super().__init__(model_name)
        self.request_ids = request_ids if isinstance(request_ids, Mapping) else {0: str(request_ids)}
        self.store: list[Metric] = []

    def record(self, name: str, metric_type: MetricTypes, unit: str, value: float, dimensions: Dimensions) -> None:
        """Keep a value in `store`: the first one of a metric as it is, further ones added to a counter or in a gauge's place."""
        labels = [Dimension(label, text) for label, text in dimensions]
        for metric in self.store:
            if (metric.name, metric.unit, metric.dimensions) == (name, unit, labels):
                metric.value = metric.value + value if metric_type is MetricTypes.COUNTER else value
                return
        self.store.append(Metric(name, value, unit, labels, ",".join(self.request_ids.values()), metric_type.value))


class MetricsCacheYamlImpl(HandlerMetrics):
    """Metrics declared in a file; `initialize_cache` reads it."""

    def __init__(self, config_file_path: str | Path) -> None:
        super().__init__("")
        self.config_file_path = config_file_path
        self._config = _read(config_file_path)

    def initialize_cache(self) -> None:
        """Declare the metrics of the file; raises MetricsCacheKeyError or MetricsCacheValueError."""
        self.declare(self._config)


def emit_metrics(metrics: Iterable[Metric]) -> None:
    """Record each metric on the worker's metrics, for Prometheus."""
    for metric in metrics or ():
        kind = MetricTypes.COUNTER if metric.metric_method in (None, "counter") else MetricTypes(metric.metric_method)
        labels = tuple((str(dimension.name), str(dimension.value)) for dimension in metric.dimensions)
        process.record(metric.name, kind, metric.unit, metric.value, labels)


def _read(path: str | Path) -> object:
    if not path:
        raise MetricsCacheTypeError("No metrics configuration is named.")
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MetricsCacheIOError(f"{Path(path).name} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise MetricsCachePyYamlError(f"{Path(path).name} is not YAML: {error}") from error
    except ValueError as error:
        raise GeneralMetricsCacheError(f"{Path(path).name} cannot be read: {error}") from error
