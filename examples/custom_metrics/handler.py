"""Counts words, and tells Prometheus about it, with TorchServe's metrics."""

from time import perf_counter

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


class WordCounter:
    """Answers each text with its number of words."""

    def initialize(self, context):
        """Take the metrics that metrics.yaml declares, and make one more."""
        self.words = context.metrics.get_metric("WordsCounted", MetricTypes.COUNTER)
        self.longest = context.metrics.get_metric("LongestText", MetricTypes.GAUGE)
        self.lengths = context.metrics.add_metric_to_cache("TextLength", "Count", ["Language"], MetricTypes.HISTOGRAM)
        self.record = 0

    def handle(self, data, context):
        """Count, and record what was counted: a counter, a gauge, a histogram, a time and a percentage."""
        started = perf_counter()
        texts = [row["data"] if isinstance(row["data"], str) else row["data"].decode() for row in data]
        counts = [len(text.split()) for text in texts]
        self.words.add_or_update(sum(counts), ["en"])
        self.record = max(self.record, *counts)
        self.longest.add_or_update(self.record, ["en"])
        for count in counts:
            self.lengths.add_or_update(count, ["en"])
        metrics = context.metrics
        metrics.add_time("CountingTime", (perf_counter() - started) * 1000, unit="ms")
        metrics.add_percent("EmptyTexts", 100 * counts.count(0) / len(counts), dimensions=[Dimension("Language", "en")])
        return counts
