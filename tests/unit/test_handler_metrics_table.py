"""What the server makes of the metrics that workers send."""

import math
import threading

import pytest

from servegrpc.core.handler_metrics import BUCKETS, LONGEST_TEXT, MAX_LABELS, HandlerMetricsTable, SeriesKey


@pytest.fixture
def table():
    return HandlerMetricsTable()


def values(table):
    return {series.key: series.value for series in table.snapshot()}


def test_counter_is_a_sum(table):
    """Two workers count → the sum."""
    table.add([["Seen", "counter", "Count", 2, [["Level", "Model"]]]])
    table.add([["Seen", "counter", "Count", 3.5, [["Level", "Model"]]]])
    assert values(table) == {SeriesKey("Seen", "counter", "Count", (("Level", "Model"),)): 5.5}


def test_gauge_is_the_last_value(table):
    """A gauge is sent twice → the last value."""
    table.add([["Load", "gauge", "Percent", 40, []], ["Load", "gauge", "Percent", 30, []]])
    assert values(table) == {SeriesKey("Load", "gauge", "Percent", ()): 30.0}


def test_histogram_counts_by_bucket(table):
    """Observations of a histogram → counted in their buckets, and summed."""
    table.add([["Time", "histogram", "Milliseconds", value, []] for value in (0.0005, 3, 10**9)])
    histogram = table.snapshot()[0].histogram
    assert (histogram.counts[0], histogram.counts[BUCKETS.index(5.0)], histogram.counts[-1]) == (1, 1, 1)
    assert histogram.sum == 10**9 + 3.0005


def test_observations_in_one_record(table):
    """A record of a histogram has several values → all are counted; one of them bad → none, and the record is dropped."""
    table.add([["Time", "histogram", "", [1, 2.5], []], ["Time", "histogram", "", [1, None], []], ["Time", "histogram", "", [], []]])
    assert (table.snapshot()[0].histogram.sum, table.dropped) == (3.5, 2)


def test_labels_tell_series_apart(table):
    """One name with other labels, types or units → other series."""
    table.add([["X", "counter", "", 1, [["a", "1"]]], ["X", "counter", "", 1, [["a", "2"]]], ["X", "gauge", "", 1, []]])
    assert len(values(table)) == 3


def test_label_given_twice(table):
    """A record has a label twice → the last counts, as Prometheus takes one only."""
    table.add([["X", "gauge", "", 1, [["a", "1"], ["a", "2"]]]])
    assert table.snapshot()[0].key.labels == (("a", "2"),)


@pytest.mark.parametrize(
    "record",
    [
        None,
        "record",
        {},
        [],
        ["X", "gauge", "", 1],
        ["", "gauge", "", 1, []],
        ["X" * (LONGEST_TEXT + 1), "gauge", "", 1, []],
        [1, "gauge", "", 1, []],
        ["X", "summary", "", 1, []],
        ["X", [], "", 1, []],
        ["X", "gauge", None, 1, []],
        ["X", "gauge", "", "1", []],
        ["X", "gauge", "", True, []],
        ["X", "gauge", "", 10**400, []],
        ["X", "counter", "", -1, []],
        ["X", "counter", "", math.nan, []],
        ["X", "histogram", "", math.inf, []],
        ["X", "gauge", "", 1, None],
        ["X", "gauge", "", 1, "ab"],
        ["X", "gauge", "", 1, ["ab", 3]],
        ["X", "gauge", "", 1, [["a"]]],
        ["X", "gauge", "", 1, [["a", 1]]],
        ["X", "gauge", "", 1, [["a", "b"]] * (MAX_LABELS + 1)],
    ],
    ids=lambda record: str(record)[:60],
)
def test_malformed_record(table, record):
    """A worker sends what is no record → dropped and counted, and the next one is taken."""
    table.add([record, ["Good", "gauge", "", 1, []]])
    assert [series.key.name for series in table.snapshot()] == ["Good"]
    assert table.dropped == 1


def test_series_are_bounded():
    """A handler makes ever new series → the first ones go on, further ones are dropped and counted."""
    table = HandlerMetricsTable(max_series=2)
    for index in (0, 1, 2, 0):
        table.add([["X", "counter", "", 1, [["request", str(index)]]]])
    assert list(values(table).values()) == [2, 1]
    assert table.dropped == 1


def test_threads(table):
    """The readers of several workers add at once → nothing is lost."""

    def add():
        for _ in range(1_000):
            table.add([["X", "counter", "", 1, []]])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(values(table).values()) == [4_000]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Zähler/s", "Z_hler_s"), ("2fast", "handler_2fast"), ("servegrpc_requests", "handler_servegrpc_requests"), ("a:b", "a_b")],
)
def test_metric_names(table, name, shown):
    """A name that Prometheus does not take, or that is one of the server's → one that is neither."""
    table.add([[name, "gauge", "", 1, []]])
    assert table.snapshot()[0].key.name == shown


@pytest.mark.parametrize(
    ("label", "shown"), [("Level", "Level"), ("my-label", "my_label"), ("__x", "exported___x"), ("", "exported_"), ("le", "exported_le")]
)
def test_label_names(table, label, shown):
    """A label that Prometheus does not take, or that the server sets itself → another one."""
    table.add([["X", "gauge", "", 1, [[label, "value"]]]])
    assert table.snapshot()[0].key.labels == ((shown, "value"),)


def test_names_that_become_one(table):
    """Two counters differ only in what Prometheus does not take → one sum."""
    table.add([["a-b", "counter", "", 1, []], ["a.b", "counter", "", 2, []]])
    assert [series.value for series in table.snapshot()] == [3]
