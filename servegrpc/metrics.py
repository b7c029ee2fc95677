"""The server's numbers for Prometheus, read from the pools when they are scraped: nothing is counted twice or on the way of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from servegrpc.core.handler_metrics import MetricKind, Series
from servegrpc.core.histogram import Histogram
from servegrpc.core.model import State
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.worker import WorkerState
from servegrpc.errors import Code

MODEL = ("model_name", "model_version")
SUFFIXES: Mapping[MetricKind, Sequence[str]] = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


class ModelMetrics(Collector):
    """Collects the metrics of all registered versions."""

    def __init__(self, registry: ModelRegistry, refused_calls: Callable[[], int] = int) -> None:
        self._registry = registry
        self._refused_calls = refused_calls

    def collect(self) -> Iterator[Metric]:
        """Yield each family with one sample set per version."""
        versions = self._registry.versions()
        accepted = CounterMetricFamily("servegrpc_accepted_requests", "Requests taken in.", labels=MODEL)
        in_flight = GaugeMetricFamily("servegrpc_in_flight_requests", "Requests taken in and not answered yet.", labels=MODEL)
        replies = CounterMetricFamily("servegrpc_requests", "Requests answered, by gRPC status code.", labels=(*MODEL, "code"))
        refused = CounterMetricFamily("servegrpc_refused_requests", "Requests not taken in, by reason.", labels=(*MODEL, "reason"))
        calls = CounterMetricFamily("servegrpc_refused_calls", "Calls not taken in, since as many ran as may, whatever the model.")
        calls.add_metric([], self._refused_calls())
        wasted = CounterMetricFamily("servegrpc_wasted_batches", "Batches run though no caller waited any more.", labels=MODEL)
        losses = CounterMetricFamily("servegrpc_worker_losses", "Workers that ended unasked.", labels=MODEL)
        running = GaugeMetricFamily("servegrpc_running_requests", "Requests that workers have.", labels=MODEL)
        queued = GaugeMetricFamily("servegrpc_queued_requests", "Requests waiting for a worker.", labels=MODEL)
        queued_bytes = GaugeMetricFamily("servegrpc_queued_bytes", "Bytes of the requests that wait for a worker.", labels=MODEL)
        workers = GaugeMetricFamily("servegrpc_workers", "Worker processes, by state.", labels=(*MODEL, "state"))
        target = GaugeMetricFamily("servegrpc_target_workers", "Workers asked for.", labels=MODEL)
        most = GaugeMetricFamily("servegrpc_max_workers", "Workers that may be asked for when the load grows.", labels=MODEL)
        state = GaugeMetricFamily("servegrpc_model_state", "1 for the state a version is in.", labels=(*MODEL, "state"))
        dropped = CounterMetricFamily("servegrpc_handler_metrics_dropped", "Metrics of handlers that were not kept.", labels=MODEL)
        for version in versions:
            names, pool = [version.name, version.version], version.pool
            taken, unanswered, answered = pool.stats.requests()
            accepted.add_metric(names, taken)
            in_flight.add_metric(names, unanswered)
            for code, count in sorted(answered.items()):
                replies.add_metric([*names, Code(code).name], count)
            for reason, count in sorted(pool.stats.refused.copy().items()):
                refused.add_metric([*names, reason], count)
            wasted.add_metric(names, pool.stats.wasted_batches)
            losses.add_metric(names, pool.stats.losses)
            dropped.add_metric(names, pool.stats.handler_metrics.dropped)
            queued.add_metric(names, len(pool.queue))
            queued_bytes.add_metric(names, pool.queue.bytes)
            running.add_metric(names, sum(record.running for record in pool.records()))
            target.add_metric(names, pool.target)
            most.add_metric(names, version.autoscaler.max_workers)
            states = [record.state for record in pool.records()]
            for worker_state in WorkerState:
                workers.add_metric([*names, worker_state.name], states.count(worker_state))
            for one in State:
                state.add_metric([*names, one.name], float(pool.state is one))
        yield from (accepted, in_flight, replies, refused, wasted, losses, queued, queued_bytes, running)
        yield from (workers, target, most, state, dropped, calls)
        yield _histogram(
            "servegrpc_request_seconds", "From a request's arrival to its reply.", [(v, v.pool.stats.request_seconds) for v in versions]
        )
        yield _histogram(
            "servegrpc_queue_seconds", "From a request's arrival to its hand-over.", [(v, v.pool.stats.queue_seconds) for v in versions]
        )
        yield _histogram(
            "servegrpc_batch_size",
            "Requests in one call of the handler; rows, where requests are joined.",
            [(v, v.pool.stats.batch_size) for v in versions],
        )
        yield from _handler_metrics(versions)


class MetricsServer:
    """Serves the metrics over HTTP at /metrics, in Prometheus's text format."""

    def __init__(self, registry: ModelRegistry, address: str, refused_calls: Callable[[], int]) -> None:
        host, _, port = address.rpartition(":")
        collectors = CollectorRegistry()
        collectors.register(ModelMetrics(registry, refused_calls))
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


def _handler_metrics(versions: Sequence[ModelVersion]) -> Iterator[Metric]:
    """Yield what handlers recorded: a family for each name and type, under the handler's own name as in TorchServe."""
    groups: dict[tuple[str, MetricKind], list[tuple[ModelVersion, Series]]] = {}
    for version in versions:
        for series in version.pool.stats.handler_metrics.snapshot():
            groups.setdefault((series.key.name, series.key.kind), []).append((version, series))
    taken: set[str] = set()
    for (name, kind), members in groups.items():
        base = name.removesuffix("_total") if kind == "counter" else name
        if not taken.isdisjoint(_sample_names(base, kind)):
            base = f"{base}_{kind}"  # two handlers mean different things by one name
        if not taken.isdisjoint(_sample_names(base, kind)):
            continue
        taken |= _sample_names(base, kind)
        family = Metric(base, "Recorded by handlers.", kind)
        for version, series in members:
            labels = {**dict(zip(MODEL, (version.name, version.version), strict=True)), "unit": series.key.unit, **dict(series.key.labels)}
            for suffix, extra, value in _samples(series):
                family.add_sample(base + suffix, labels | extra, value)
        yield family


def _sample_names(base: str, kind: MetricKind) -> set[str]:
    return {base} | {base + suffix for suffix in SUFFIXES[kind]}


def _samples(series: Series) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the suffix, the further label and the value of each sample of a series."""
    if series.key.kind != "histogram":
        yield SUFFIXES[series.key.kind][0], {}, series.value
        return
    bounds = [*map(str, series.histogram.bounds), "+Inf"]
    counts = list(accumulate(series.histogram.counts))
    for bound, count in zip(bounds, counts, strict=True):
        yield "_bucket", {"le": bound}, count
    yield "_count", {}, counts[-1]
    yield "_sum", {}, series.histogram.sum
