"""How the metrics of handlers look to Prometheus."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from servegrpc.core.batching import BatchQueue
from servegrpc.core.stats import PoolStats
from servegrpc.metrics import ModelMetrics


@pytest.fixture
def page():
    """Return the types and samples (name and label values, by label) that handlers of these records show: one version for each list."""

    def page(*records_of_versions):
        versions = [version(f"m{index}", records) for index, records in enumerate(records_of_versions)]
        collectors = CollectorRegistry()
        collectors.register(ModelMetrics(SimpleNamespace(versions=lambda: versions)))
        families = list(text_string_to_metric_families(generate_latest(collectors).decode()))
        own = [family for family in families if not family.name.startswith("servegrpc_")]
        samples = {(sample.name, *sample.labels.values()): sample.value for family in own for sample in family.samples}
        return {family.name: family.type for family in own}, samples

    return page


def version(name, records):
    """What the page needs of a version without workers."""
    stats = PoolStats()
    stats.handler_metrics.add(records)
    pool = SimpleNamespace(stats=stats, queue=BatchQueue(1, 0.0, 1), target=0, state=None, records=list)
    return SimpleNamespace(name=name, version="1.0", pool=pool, autoscaler=SimpleNamespace(max_workers=0))


def test_counter_and_gauge(page):
    """A handler counts and measures → under its own names, with model, version, unit and dimensions as labels."""
    types, samples = page([["Seen", "counter", "Count", 2, [["Level", "Model"]]], ["Load", "gauge", "Percent", 40, []]])
    assert types == {"Seen": "counter", "Load": "gauge"}
    assert samples == {("Seen_total", "Model", "m0", "1.0", "Count"): 2, ("Load", "m0", "1.0", "Percent"): 40}


def test_counter_called_total(page):
    """A counter's name ends in _total → it does so once."""
    assert page([["seen_total", "counter", "Count", 2, []]])[1] == {("seen_total", "m0", "1.0", "Count"): 2}


def test_histogram(page):
    """A handler observes → buckets that add up, count and sum."""
    types, samples = page([["Time", "histogram", "ms", value, []] for value in (0.3, 7, 10**6)])
    assert types == {"Time": "histogram"}
    names = ("m0", "1.0", "ms")
    assert [samples["Time_bucket", bound, *names] for bound in ("0.25", "0.5", "10.0", "+Inf")] == [0, 1, 2, 3]
    assert (samples["Time_count", *names], samples["Time_sum", *names]) == (3, 10**6 + 7.3)


def test_two_models(page):
    """Two models record one metric → one family, a series for each."""
    types, samples = page([["Load", "gauge", "", 1, []]], [["Load", "gauge", "", 2, []]])
    assert types == {"Load": "gauge"}
    assert list(samples.values()) == [1, 2]


def test_one_name_of_two_types(page):
    """Two models mean different types by one name → the second type is added to its name."""
    types, samples = page([["X", "gauge", "", 1, []]], [["X", "counter", "", 2, []]])
    assert types == {"X": "gauge", "X_counter": "counter"}
    assert list(samples.values()) == [1, 2]


def test_dropped(page):
    """A worker sends what is no metric → counted."""
    collectors = CollectorRegistry()
    collectors.register(ModelMetrics(SimpleNamespace(versions=lambda: [version("m", [None])])))
    labels = {"model_name": "m", "model_version": "1.0"}
    assert collectors.get_sample_value("servegrpc_handler_metrics_dropped_total", labels) == 1
