"""The server's numbers for Prometheus, read from the pools when they are scraped: nothing is counted twice or on the way of a request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from servegrpc.core.model import State
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.stats import Histogram
from servegrpc.core.worker import WorkerState
from servegrpc.errors import Code

MODEL = ("model_name", "model_version")


class ModelMetrics(Collector):
    """Collects the metrics of all registered versions."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield each family with one sample set per version."""
        versions = self._registry.versions()
        replies = CounterMetricFamily("servegrpc_requests", "Requests answered, by gRPC status code.", labels=(*MODEL, "code"))
        losses = CounterMetricFamily("servegrpc_worker_losses", "Workers that ended unasked.", labels=MODEL)
        queued = GaugeMetricFamily("servegrpc_queued_requests", "Requests waiting for a worker.", labels=MODEL)
        workers = GaugeMetricFamily("servegrpc_workers", "Worker processes, by state.", labels=(*MODEL, "state"))
        target = GaugeMetricFamily("servegrpc_target_workers", "Workers asked for.", labels=MODEL)
        state = GaugeMetricFamily("servegrpc_model_state", "1 for the state a version is in.", labels=(*MODEL, "state"))
        for version in versions:
            names, pool = [version.name, version.version], version.pool
            for code, count in sorted(pool.stats.replies.items()):
                replies.add_metric([*names, Code(code).name], count)
            losses.add_metric(names, pool.stats.losses)
            queued.add_metric(names, len(pool.queue))
            target.add_metric(names, pool.target)
            states = [record.state for record in pool.records()]
            for worker_state in WorkerState:
                workers.add_metric([*names, worker_state.name], states.count(worker_state))
            for one in State:
                state.add_metric([*names, one.name], float(pool.state is one))
        yield from (replies, losses, queued, workers, target, state)
        yield _histogram(
            "servegrpc_request_seconds", "From a request's arrival to its reply.", [(v, v.pool.stats.request_seconds) for v in versions]
        )
        yield _histogram(
            "servegrpc_queue_seconds", "From a request's arrival to its hand-over.", [(v, v.pool.stats.queue_seconds) for v in versions]
        )
        yield _histogram("servegrpc_batch_size", "Requests in one call of the handler.", [(v, v.pool.stats.batch_size) for v in versions])


class MetricsServer:
    """Serves the metrics over HTTP at /metrics, in Prometheus's text format."""

    def __init__(self, registry: ModelRegistry, address: str) -> None:
        host, _, port = address.rpartition(":")
        collectors = CollectorRegistry()
        collectors.register(ModelMetrics(registry))
        self._server, self._thread = start_http_server(int(port), host, collectors)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _histogram(name: str, text: str, values: list[tuple[ModelVersion, Histogram]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=MODEL)
    for version, histogram in values:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric([version.name, version.version], list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)
    return family
