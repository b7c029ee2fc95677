"""What TorchServe's small modules do: handlers and their tests call them."""

import io
import json
import logging
import os
import sys
from types import ModuleType

import pytest
import yaml

from servegrpc.handlers.streaming import NOTHING
from servegrpc.worker import ts_alias
from servegrpc.worker.context import Context
from servegrpc.worker.handler_metrics import Dimension, HandlerMetrics, MetricRecord, MetricsCacheKeyError, MetricTypes, process
from servegrpc.worker.ts import util
from servegrpc.worker.ts.handler_utils import import_class, send_intermediate_predict_response
from servegrpc.worker.ts.metrics import (
    GeneralMetricsCacheError,
    Metric,
    MetricEncoder,
    MetricsCacheIOError,
    MetricsCachePyYamlError,
    MetricsCacheYamlImpl,
    MetricsStore,
    Units,
    emit_metrics,
)
from servegrpc.worker.ts.mock_context import MockContext
from servegrpc.worker.ts.process_memory import check_process_mem_usage, get_cpu_usage

ts_alias.install()

KIND = [Dimension("Kind", "cat")]


@pytest.fixture
def worker_metrics(monkeypatch):
    metrics = HandlerMetrics("m")
    monkeypatch.setattr(process, "metrics", metrics)
    return metrics


def test_prediction_exception():
    """A handler refuses its batch → message and code can be read from the exception."""
    error = util.PredictionException("no such class", 404)
    assert (error.message, error.error_code, str(error)) == ("no such class", 404, "no such class : 404")
    assert util.PredictionException("x").error_code == 500


def test_classes_of_a_module():
    """A module defines classes and imports others → its own, of a parent class if one is given."""
    module = ModuleType("own")
    exec("from io import BytesIO\nclass A: ...\nclass B(A): ...\nclass C(BytesIO): ...", module.__dict__)
    assert [item.__name__ for item in util.list_classes_from_module(module)] == ["A", "B", "C"]
    assert [item.__name__ for item in util.list_classes_from_module(module, module.A)] == ["A", "B"]


@pytest.mark.parametrize(("backend", "known"), [("inductor", True), (util.PT2Backend.EAGER, True), ("magic", False)])
def test_backends(backend, known, caplog):
    """A backend's name → whether TorchServe knew it, with a warning when not."""
    assert util.check_valid_pt2_backend(backend) is known
    assert bool(caplog.text) is not known


def test_yaml_config(tmp_path):
    """A YAML file → what it holds."""
    (tmp_path / "a.yaml").write_text("a: [1]")
    assert util.get_yaml_config(tmp_path / "a.yaml") == {"a": [1]}


def test_deprecated():
    """A deprecated function is called → a warning, and its result."""

    @util.deprecated("0.9", "other")
    def old():
        return 42

    with pytest.warns(PendingDeprecationWarning, match="old is deprecated since 0.9; use other"):
        assert old() == 42


def test_timeit(caplog):
    """A timed function is called → a line in the log, and its result."""
    with caplog.at_level(logging.INFO):
        assert util.timeit(len)([1]) == 1
    assert "len took 0." in caplog.text


def test_import_class():
    """A class by its name, or its name below a package → the class."""
    assert import_class("collections.OrderedDict") is import_class("OrderedDict", "collections")
    assert import_class("abc.Sized", "collections").__name__ == "Sized"


@pytest.mark.parametrize("name", ["", "OrderedDict", "collections.Nothing", "collections.abc"])
def test_import_no_class(name):
    """A name without a module, or of no class → ImportError naming it."""
    with pytest.raises(ImportError, match="class"):
        import_class(name)


class Callers:
    """The callers of a batch, as far as streams go."""

    def send(self, results, *, named):
        self.sent, self.named = results, named


@pytest.mark.parametrize(
    ("request_ids", "ret", "req_id_map", "sent"),
    [
        (("x", "y"), ("a", "b"), {0: "x", 1: "y"}, ["a", "b"]),
        (("x", "y", "z"), ["c"], {0: "z"}, [NOTHING, NOTHING, "c"]),
        (("x", "y", "z"), ["a", "b", "c"], {2: "z"}, [NOTHING, NOTHING, "c"]),
    ],
    ids=["whole batch", "micro-batch", "one of the batch"],
)
def test_intermediate_messages(request_ids, ret, req_id_map, sent):
    """A handler sends before it returns, to all or some of its batch → the context sends each of these its own message."""
    context, callers = Context("m", "/", {}, 8, None), Callers()
    context.begin_batch(request_ids, [{}] * len(request_ids), callers)
    send_intermediate_predict_response(ret, req_id_map, "Intermediate Prediction success", 200, context)
    assert (callers.sent, callers.named) == (sent, True)


def test_units():
    """Short names of units → long ones."""
    assert (Units().units["ms"], Units().units[None]) == ("Milliseconds", "unit")


def test_metric_as_text_and_json():
    """A metric is printed or encoded → TorchServe's form."""
    metric = Metric("Seen", 2, "count", KIND, "r1")
    assert str(metric).startswith("Seen.Count:2|#Kind:cat|#hostname:")
    assert str(metric).endswith(",r1")
    encoded = json.loads(json.dumps(metric, cls=MetricEncoder))
    assert (encoded["MetricName"], encoded["Dimensions"]) == ("Seen", [{"Name": "Kind", "Value": "cat"}])
    with pytest.raises(TypeError):
        json.dumps(object(), cls=MetricEncoder)


def test_metric_update_and_emit(worker_metrics):
    """A handler updates a metric of its own, or emits some → recorded on the worker's metrics."""
    Metric("Seen", 2, "count", KIND).update(3)
    emit_metrics([Metric("Load", 4, "percent", KIND, metric_method="gauge"), Metric("Seen", 2, "count", KIND)])
    labels = (("Kind", "cat"),)
    assert worker_metrics.drain() == [
        MetricRecord("Seen", "counter", "Count", 5.0, labels),
        MetricRecord("Load", "gauge", "Percent", 4.0, labels),
    ]


def test_metrics_store_keeps_metrics():
    """A handler is tested with a MetricsStore → one metric for each name and dimensions, counters added up."""
    store = MetricsStore({0: "r1"}, "m")
    store.add_counter("Seen", 1, 0)
    store.add_counter("Seen", 2, 0)
    store.add_time("HandlerTime", 5)
    store.add_time("HandlerTime", 4)
    assert [(metric.name, metric.value, metric.unit) for metric in store.store] == [
        ("Seen", 3, "Count"),
        ("HandlerTime", 4, "Milliseconds"),
    ]
    assert store.store[0].request_id == "r1"


def test_emitted_store(worker_metrics):
    """A handler of the older kind fills a store and emits it → recorded."""
    store = MetricsStore({0: "r1"}, "m")
    store.add_size("Used", 7)
    emit_metrics(store.store)
    assert worker_metrics.drain() == [MetricRecord("Used", "gauge", "Megabytes", 7.0, (("ModelName", "m"), ("Level", "Model")))]


def test_declared_in_a_file(tmp_path):
    """Metrics are declared in a file → in the cache after initialize_cache."""
    file = tmp_path / "metrics.yaml"
    file.write_text("model_metrics: {gauge: [{name: Load, unit: percent, dimensions: []}]}")
    metrics = MetricsCacheYamlImpl(str(file))
    metrics.initialize_cache()
    assert metrics.get_metric("Load", MetricTypes.GAUGE).unit == "Percent"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, MetricsCacheIOError),
        (b"a: [", MetricsCachePyYamlError),
        (b"\xff", GeneralMetricsCacheError),
        (b"a: 1", MetricsCacheKeyError),
    ],
)
def test_bad_file(tmp_path, content, error):
    """The file is missing, no YAML, no text or without metrics → TorchServe's error for that."""
    file = tmp_path / "metrics.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error):
        MetricsCacheYamlImpl(file).initialize_cache()


def test_no_file_named():
    """No file is named → a TypeError, as in TorchServe."""
    with pytest.raises(TypeError):
        MetricsCacheYamlImpl("")


def test_process_memory(caplog):
    """Process ids → their memory, 0 for one that is gone."""
    assert get_cpu_usage(os.getpid()) > 10_000_000
    with caplog.at_level(logging.INFO):
        check_process_mem_usage(io.StringIO(f"{os.getpid()},{2**22 + 1}\n"))
    assert [line for line in caplog.messages if line.startswith(f"{os.getpid()}:")]
    assert f"{2**22 + 1}:0" in caplog.messages


def test_mock_context(tmp_path):
    """A user's test makes a context for a folder → what a handler asks of it is there."""
    (tmp_path / "model-config.yaml").write_text(yaml.safe_dump({"handler": {"size": 3}}))
    context = MockContext("m.pt", tmp_path, None, model_name="digits", model_yaml_config_file="model-config.yaml")
    assert isinstance(context, Context)
    assert context.manifest == {"model": {"serializedFile": "m.pt"}}
    assert context.system_properties["model_dir"] == str(tmp_path)
    assert context.model_yaml_config == {"handler": {"size": 3}}
    assert context.get_request_id(0)
    assert (context.get_request_header(0, "x"), context.get_request_header(5, "x")) == (None, None)


def test_mock_context_explains():
    """A user's test asks for explanations → the handler sees the header that asks for them."""
    context = MockContext()
    assert context.get_request_header(0, "explain") is None
    context.explain = True
    assert context.get_request_header(0, "explain") == "True"


def test_copy_files(tmp_path):
    """Files are copied to other names → there they are."""
    from ts.torch_handler.unit_tests.test_utils.model_dir import copy_files

    (tmp_path / "a").write_text("x")
    copy_files(tmp_path, tmp_path, {"a": "b"})
    assert (tmp_path / "b").read_text() == "x"


def test_download_model(tmp_path):
    """A model is downloaded → model.pt in the folder."""
    from ts.torch_handler.unit_tests.test_utils.model_dir import download_model

    (tmp_path / "there").write_bytes(b"weights")
    download_model((tmp_path / "there").as_uri(), tmp_path)
    assert (tmp_path / "model.pt").read_bytes() == b"weights"


def test_download_from_the_hub(monkeypatch):
    """A model of the Hugging Face hub is asked for → the hub's client is asked for PyTorch files only."""
    asked = {}
    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = lambda **kwargs: asked.update(kwargs) or "folder"
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    from ts.utils.hf_utils import download_model

    assert download_model("org/model", model_path="cache") == "folder"
    assert (asked["repo_id"], asked["cache_dir"]) == ("org/model", "cache")
    assert "*.safetensors" in asked["allow_patterns"]


def test_load_a_folder(tmp_path, monkeypatch):
    """A build script loads a model's folder → its handler answers, with its configuration."""
    from ts.model_loader import ModelLoaderFactory

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(process, "metrics", None)
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"configFile": "c.yaml"}}')
    (tmp_path / "c.yaml").write_text("end: '!'")
    (tmp_path / "loaded_handler.py").write_text(
        "class H:\n    def handle(self, data, context): return [row + context.model_yaml_config['end'] for row in data]"
    )
    service = ModelLoaderFactory.get_model_loader().load("m", tmp_path, "loaded_handler.py", None, 2)
    assert service.handle(["a", "b"]) == ["a!", "b!"]
    assert service.context.system_properties["batch_size"] == 2
