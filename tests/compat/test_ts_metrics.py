"""What a handler records with TorchServe's metrics is on the metrics port of a real server."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import until

pytestmark = pytest.mark.slow

RECORDS = """
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

def handle(data, context):
    if data is None:
        context.metrics.add_counter("Loads", 1)
        return None
    context.metrics.add_counter("Pictures", len(data))
    context.metrics.add_percent("Load", 40, None, [Dimension("Side", "left")])
    context.metrics.add_metric("Bytes", len(data[0]["data"]), "B", metric_type=MetricTypes.HISTOGRAM)
    return ["ok"] * len(data)
"""
DECLARED = """
metricsConfig:
  model_metrics:
    counter:
      - {name: Tokens, unit: count, dimensions: [Kind]}
declaredMetricsOnly: true
"""
USES_DECLARED = """
def handle(data, context):
    if data is not None:
        context.metrics.get_metric("Tokens").add_or_update(3, ["prompt"])
        context.metrics.add_counter("Others", 1)
    return data and ["ok"] * len(data)
"""


@pytest.fixture
def samples_of(server):
    """Read the samples of a model that handlers recorded: {name: value}, with the labels of the last one."""

    def samples_of(model):
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.labels.get("model_name") == model]
        return {sample.name: sample for sample in samples if not sample.name.startswith("servegrpc_")}

    return samples_of


def test_recorded(client, register, samples_of):
    """A handler counts, measures and observes → all is shown, added up over calls, with its labels."""
    model = register(code=RECORDS)
    for _ in range(3):
        client.predict(model, b"seven!!")
    samples = until(lambda: (found := samples_of(model)).get("Bytes_count", (0, 0, 0))[2] == 3 and found)
    assert (samples["Pictures_total"].value, samples["Load"].value, samples["Bytes_sum"].value) == (3, 40, 21)
    assert samples["Loads_total"].value == 1
    dimensions = {"Side": "left", "ModelName": model, "Level": "Model"}
    assert samples["Load"].labels == dimensions | {"model_name": model, "model_version": "1.0", "unit": "Percent"}


def test_declared(client, register, samples_of):
    """Metrics are declared, and others are not wanted → the declared ones alone."""
    model = register(code=USES_DECLARED, config=DECLARED)
    client.predict(model, "x")
    samples = until(lambda: samples_of(model))
    assert {name: (sample.value, sample.labels["Kind"]) for name, sample in samples.items()} == {"Tokens_total": (3, "prompt")}
