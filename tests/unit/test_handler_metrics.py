"""The metrics object handlers see."""

import copy
import json

import pytest

from servegrpc.core.handler_metrics import HandlerMetricsTable
from servegrpc.worker.handler_metrics import (
    CachingMetric,
    Dimension,
    HandlerMetrics,
    MetricRecord,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
    process,
)

DEFAULT = (("ModelName", "digits"), ("Level", "Model"))


@pytest.fixture
def metrics() -> HandlerMetrics:
    return HandlerMetrics("digits")


def test_counter_added_twice_is_one_sum(metrics):
    """A counter is added to twice → one record with the sum."""
    metrics.add_counter("Seen", 2)
    metrics.add_counter("Seen", 3)
    assert metrics.drain() == [MetricRecord("Seen", "counter", "Count", 5.0, DEFAULT)]


def test_gauge_keeps_last_value(metrics):
    """A gauge is set twice → the last value."""
    metrics.add_time("HandlerTime", 10)
    metrics.add_time("HandlerTime", 7.5)
    assert metrics.drain() == [MetricRecord("HandlerTime", "gauge", "Milliseconds", 7.5, DEFAULT)]


def test_histogram_keeps_every_observation(metrics):
    """A histogram is observed twice → one record with both."""
    for value in (1, 2):
        metrics.add_metric("Length", value, "tokens", metric_type=MetricTypes.HISTOGRAM)
    assert [(record.type, record.unit, record.value) for record in metrics.drain()] == [
        ("histogram", "tokens", [1.0, 2.0]),
    ]


def test_drain_forgets(metrics):
    """Drained twice → nothing the second time."""
    metrics.add_counter("Seen", 1)
    metrics.drain()
    assert metrics.drain() == []


def test_dimensions_do_not_accumulate(metrics):
    """The same dimensions list is passed twice → it is not changed, and each record has it once."""
    dimensions = [Dimension("Side", "left")]
    metrics.add_percent("Load", 40, None, dimensions)
    metrics.add_percent("Load", 50, None, dimensions)
    assert dimensions == [Dimension("Side", "left")]
    assert [record.dimensions for record in metrics.drain()] == [(("Side", "left"), *DEFAULT)]


def test_error_has_level_error(metrics):
    """add_error → a counter at Level:Error."""
    metrics.add_error("BadPixels", 1)
    assert metrics.drain() == [MetricRecord("BadPixels", "counter", "unit", 1.0, (("ModelName", "digits"), ("Level", "Error")))]


@pytest.mark.parametrize(("method", "unit"), [("add_time", "MB"), ("add_size", "ms")])
def test_wrong_unit_is_refused(metrics, method, unit):
    """A time in MB or a size in ms → ValueError that lists the units."""
    with pytest.raises(ValueError, match="use one of"):
        getattr(metrics, method)("X", 1, None, unit)


@pytest.mark.parametrize(("unit", "name"), [("MB", "Megabytes"), ("kB", "Kilobytes"), ("GB", "Gigabytes"), ("B", "Bytes")])
def test_sizes_have_long_unit_names(metrics, unit, name):
    """A short unit → its long name in the record."""
    metrics.add_size("Used", 3, None, unit)
    assert metrics.drain()[0].unit == name


def test_cached_metric_is_found_and_updated(metrics):
    """A metric is added to the cache → get_metric finds it and updates are recorded with its dimensions."""
    metrics.add_metric_to_cache("Tokens", "count", ["Kind"], MetricTypes.COUNTER)
    metrics.get_metric("Tokens").add_or_update(4, ["prompt"])
    assert metrics.cache_keys() == ["counter:Tokens"]
    assert metrics.drain() == [MetricRecord("Tokens", "counter", "Count", 4.0, (("Kind", "prompt"),))]


def test_cached_metric_update_takes_new_dimensions(metrics):
    """`update` with Dimension objects → they replace the names."""
    metrics.add_metric_to_cache("Tokens", "count").update(1, "request", [Dimension("Kind", "answer")])
    assert metrics.drain()[0].dimensions == (("Kind", "answer"),)


def test_add_metric_fills_the_cache(metrics):
    """A metric recorded directly → get_metric finds it."""
    metrics.add_counter("Seen", 1)
    assert metrics.get_metric("Seen").dimension_names == ["ModelName", "Level"]


def test_unknown_metric_is_an_error(metrics):
    """get_metric of another type than was added → MetricsCacheKeyError."""
    metrics.add_counter("Seen", 1)
    with pytest.raises(MetricsCacheKeyError, match="add_metric_to_cache"):
        metrics.get_metric("Seen", MetricTypes.GAUGE)


def test_negative_counter_is_logged_and_dropped(metrics, caplog):
    """A counter is added a negative value → an error in the log and no record."""
    metrics.add_counter("Seen", -1)
    assert "cannot go down" in caplog.text
    assert metrics.drain() == []


def test_wrong_dimension_count_is_logged_and_dropped(metrics, caplog):
    """Too few dimension values → an error in the log and no record."""
    metrics.add_metric_to_cache("Tokens", "count", ["Kind"]).add_or_update(1)
    assert "takes the dimensions" in caplog.text
    assert metrics.drain() == []


def test_pending_values_are_bounded(caplog):
    """More values than the limit between drains → the rest is dropped with one warning."""
    metrics = HandlerMetrics("digits", max_pending=3)
    for number in range(6):
        metrics.add_metric("Length", number, "tokens", metric_type=MetricTypes.HISTOGRAM)
    assert [record.value for record in metrics.drain()] == [[0.0, 1.0, 2.0]]
    assert len(caplog.records) == 1


def test_cache_is_bounded():
    """More names than the limit → recorded, but not remembered."""
    metrics = HandlerMetrics("digits", max_metrics=1)
    metrics.add_counter("A", 1)
    metrics.add_counter("B", 1)
    assert metrics.cache_keys() == ["counter:A"]
    assert [record.name for record in metrics.drain()] == ["A", "B"]


def test_copies_share_the_records(metrics):
    """A context is copied deeply → its metrics are still the worker's."""
    copy.deepcopy(metrics).add_counter("Seen", 1)
    assert len(metrics.drain()) == 1


def test_request_ids_are_kept(metrics):
    """set_request_ids → readable as request_ids."""
    metrics.set_request_ids({0: "a"})
    assert metrics.request_ids == {0: "a"}


DECLARED = {
    "dimensions": ["ignored"],
    "model_metrics": {
        "counter": [{"name": "Seen", "unit": "ms", "dimensions": ["Kind"]}],
        "gauge": [{"name": "Load", "unit": "percent", "dimensions": ["ModelName", "Level"]}],
    },
}


def test_declared_metric_is_found(metrics):
    """A metrics configuration is declared → its metrics are in the cache, with their units and dimensions."""
    metrics.declare(DECLARED)
    metrics.get_metric("Seen").add_or_update(2, ["cat"])
    assert metrics.cache_keys() == ["counter:Seen", "gauge:Load"]
    assert metrics.drain() == [MetricRecord("Seen", "counter", "Milliseconds", 2.0, (("Kind", "cat"),))]


def test_declared_unit_wins(metrics):
    """A declared metric is recorded with another unit → the declared one, as in TorchServe."""
    metrics.declare(DECLARED)
    metrics.add_metric("Load", 3, "count", metric_type=MetricTypes.GAUGE)
    assert metrics.drain() == [MetricRecord("Load", "gauge", "Percent", 3.0, DEFAULT)]


def test_undeclared_metric_is_kept(metrics):
    """A metric is not declared → it is recorded all the same."""
    metrics.declare(DECLARED)
    metrics.add_counter("Other", 1)
    assert len(metrics.drain()) == 1


def test_only_declared(metrics, caplog):
    """Only declared metrics are wanted → others are dropped, with one warning each."""
    metrics.declare(DECLARED)
    metrics.only_declared = True
    for _ in range(2):
        metrics.add_counter("Other", 1)
        metrics.add_counter("Seen", 1)
    assert [record.name for record in metrics.drain()] == ["Seen"]
    assert caplog.text.count('metric "Other" is not in metrics.yaml') == 1


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        (None, MetricsCacheKeyError, "has no model_metrics"),
        ({"ts_metrics": {}}, MetricsCacheKeyError, "has no model_metrics"),
        ({"model_metrics": None}, MetricsCacheValueError, "nothing under model_metrics"),
        ({"model_metrics": {"summary": []}}, MetricsCacheKeyError, 'has "summary"'),
        ({"model_metrics": {"gauge": [{"name": "X"}]}}, MetricsCacheKeyError, "has no dimensions, unit"),
        ({"model_metrics": {"gauge": [{"name": 1, "unit": "", "dimensions": []}]}}, MetricsCacheTypeError, "are text, not 1"),
    ],
    ids=["none", "no model_metrics", "empty", "unknown type", "missing keys", "name is a number"],
)
def test_bad_declaration(metrics, config, error, text):
    """A metrics configuration is wrong → TorchServe's error, with what is wrong."""
    with pytest.raises(error, match=text):
        metrics.declare(config)


def test_no_metric_type(metrics):
    """A metric is added with a type that is none → MetricsCacheTypeError."""
    with pytest.raises(MetricsCacheTypeError, match="is a MetricTypes, not 'counter'"):
        metrics.add_metric_to_cache("X", "count", [], "counter")


def test_dimension_as_dict():
    """A dimension is asked for its dict → TorchServe's keys."""
    assert Dimension("Kind", "cat").to_dict() == {"Name": "Kind", "Value": "cat"}


def test_own_dimension_named_as_a_default(metrics):
    """A handler gives the dimension Level itself → its own value, once."""
    metrics.add_counter("Seen", 1, None, [Dimension("Level", "Host")])
    assert metrics.drain()[0].dimensions == (("Level", "Host"), ("ModelName", "digits"))


def test_metric_made_alone_reaches_the_worker(metrics, monkeypatch):
    """A handler makes a CachingMetric itself → it is recorded on the worker's metrics."""
    monkeypatch.setattr(process, "metrics", metrics)
    CachingMetric("Tokens", "count", ["Kind"]).add_or_update(3, ["prompt"])
    assert metrics.drain() == [MetricRecord("Tokens", "counter", "Count", 3.0, (("Kind", "prompt"),))]


def test_metric_made_outside_a_worker(monkeypatch, caplog):
    """The same in a user's own tests, where there is no worker → logged."""
    monkeypatch.setattr(process, "metrics", None)
    with caplog.at_level("INFO"):
        CachingMetric("Tokens", "count").add_or_update(3)
    assert "metric Tokens {} (Count): 3" in caplog.text


def test_records_are_json_lists(metrics):
    """What is drained is written as JSON → the lists that the server's table takes."""
    metrics.add_counter("Seen", 2)
    sent = json.loads(json.dumps(metrics.drain()))
    assert sent == [["Seen", "counter", "Count", 2.0, [["ModelName", "digits"], ["Level", "Model"]]]]
    table = HandlerMetricsTable()
    table.add(sent)
    assert [(series.key.name, series.value) for series in table.snapshot()] == [("Seen", 2.0)]


def test_names_are_bounded(metrics, caplog):
    """A handler makes ever new series in one call → what does not fit in a message is dropped, and the next call has room."""
    for number in range(10_000):
        metrics.add_counter("Seen", 1, None, [Dimension("Request", str(number))])
    metrics.add_metric("Big", 1.23456789012345e-300, "x" * 200_000)
    for number in range(20_000):
        metrics.add_metric("Length", 1 / (number + 3), "tokens", metric_type=MetricTypes.HISTOGRAM)
    assert len(json.dumps({"records": metrics.drain()})) < 512 * 1024
    assert caplog.text.count("too many metrics") == 1
    metrics.add_counter("Seen", 1)
    assert len(metrics.drain()) == 1


def test_no_number(metrics, caplog):
    """A handler records what is no number → an error in the log, and the handler goes on."""
    metrics.add_error("Failed", "because")
    assert "metric \"Failed\" takes numbers: 'because' was not recorded" in caplog.text
    assert metrics.drain() == []
