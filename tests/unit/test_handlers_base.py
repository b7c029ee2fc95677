"""BaseHandler's steps, and what its configuration switches on."""

import json
import subprocess
import sys

import pytest
import torch

from servegrpc.handlers import BaseHandler, InvalidInput
from servegrpc.handlers.compiling import compile_model
from servegrpc.worker.context import Context


class Doubler(torch.nn.Module):
    def forward(self, x):
        return x * 2


class DoublingHandler(BaseHandler):
    """A handler as written for TorchServe: it overrides a loading step and answers "describe"."""

    def _load_pickled_model(self, model_dir, model_file, model_pt_path):
        return Doubler()

    def describe_handle(self):
        return {"doubles": True}

    def get_insights(self, tensor, raw, target):
        return [[target, raw]]


def start(config=None, headers=None, folder="."):
    context = Context(
        model_name="doubler",
        model_dir=str(folder),
        manifest={"model": {"modelFile": "m.py"}},
        batch_size=2,
        gpu=None,
        model_yaml_config=config or {},
    )
    handler = DoublingHandler()
    handler.initialize(context)
    context.begin_batch(["a", "b"], [headers or {}, {}])
    return handler, context


def test_tensors_and_lists_are_one_batch():
    """Rows of tensors and lists, under "data" and "body" → one result each, in order."""
    handler, context = start()
    assert handler.handle([{"data": torch.tensor([1.0, 2.0])}, {"body": [3.0, 4.0]}], context) == [[2.0, 4.0], [6.0, 8.0]]


def test_plain_lists_are_a_batch():
    """Rows that are lists themselves, as after an envelope → one result each."""
    handler, context = start()
    assert handler.handle([[1, 2], [3, 4]], context) == [[2, 4], [6, 8]]


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"image": b"", "x": b""}, "inputs", '"data".*inputs sent: "image", "x"'),
        ({}, "inputs", "inputs sent: none"),
        ({"data": bytearray(b"12")}, "inputs.data", "bytearray"),
        ({"body": "text"}, "inputs.body", "str"),
        ({"data": [[1.0], [2.0, 3.0]]}, "inputs.data", "does not make a tensor"),
    ],
    ids=["other names", "nothing", "bytes", "text", "ragged"],
)
def test_a_bad_row_is_named(row, field, message):
    """One row of the batch is no tensor → InvalidInput with its index, field and kind."""
    handler, context = start()
    with pytest.raises(InvalidInput, match=message) as refused:
        handler.handle([{"data": [1.0]}, row], context)
    assert (refused.value.row, refused.value.field) == (1, field)


def test_the_odd_shape_is_refused():
    """One row's shape is unlike the others' → InvalidInput for that row."""
    handler, context = start()
    rows = [{"data": [1.0]}, {"data": [1.0, 2.0]}, {"data": [1.0]}]
    with pytest.raises(InvalidInput, match=r"\(2,\).*\(1,\)") as refused:
        handler.handle(rows, context)
    assert refused.value.row == 1


def test_handler_time_is_recorded():
    """A batch is handled → the gauge HandlerTime."""
    handler, context = start()
    handler.handle([[1.0]], context)
    assert [(record.name, record.unit) for record in context.metrics.drain()] == [("HandlerTime", "Milliseconds")]


def test_profile_setting_times_each_step():
    """handler.profile is true → a time per step too."""
    handler, context = start({"handler": {"profile": True}})
    handler.handle([[1.0]], context)
    names = {record.name for record in context.metrics.drain()}
    assert names == {"HandlerTime", "ts_handler_preprocess", "ts_handler_inference", "ts_handler_postprocess"}


def test_describe_header_describes():
    """The header "describe" → describe_handle's answer alone."""
    handler, context = start(headers={"describe": "True"})
    assert handler.handle([{}], context) == [{"doubles": True}]


def test_explain_header_explains():
    """The header "explain" → get_insights of the raw input and the target class."""
    handler, context = start(headers={"explain": "True"})
    assert handler.handle([{"data": [1.0], "target": bytearray(b"3")}], context) == [[3, [1.0]]]


def test_each_request_of_a_batch_gets_what_it_asks_for():
    """One request describes, two explain, one predicts → four answers in order, each with its own target class."""
    handler, context = start()
    context.begin_batch(list("abcd"), [{"explain": "True"}, {}, {"describe": "True"}, {"explain": "True"}])
    rows = [{"data": [1.0], "target": "1"}, {"data": [2.0]}, {}, {"data": [3.0, 4.0]}]
    assert handler.handle(rows, context) == [[1, [1.0]], [4.0], {"doubles": True}, [0, [3.0, 4.0]]]


@pytest.mark.parametrize(
    ("row", "message"),
    [({"data": [1.0], "target": "cat"}, "no class number"), ({"other": 1}, "missing")],
    ids=["target", "input"],
)
def test_a_bad_row_among_requests_of_other_kinds_is_named(row, message):
    """A request that asks for an explanation is wrong → InvalidInput with its place in the whole batch."""
    handler, context = start()
    context.begin_batch(["a", "b"], [{}, {"explain": "True"}])
    with pytest.raises(InvalidInput, match=message) as refused:
        handler.handle([{"data": [1.0]}, row], context)
    assert refused.value.row == 1


def test_a_handler_without_explanations_says_so():
    """The header "explain" and no get_insights → InvalidInput."""
    context = Context(model_name="m", model_dir=".", manifest={}, batch_size=1, gpu=None, model_yaml_config={})
    context.begin_batch(["a"], [{"explain": "True"}])
    handler = BaseHandler()
    with pytest.raises(InvalidInput, match="no method get_insights"):
        handler.handle([{"data": [1.0]}], context)


def test_labels_are_loaded(tmp_path):
    """The archive has index_to_name.json → mapping."""
    (tmp_path / "index_to_name.json").write_text(json.dumps({"0": "zero"}))
    handler, _ = start(folder=tmp_path)
    assert handler.mapping == {"0": "zero"}
    assert handler.initialized


@pytest.mark.slow
def test_profiler_switch_writes_a_trace(monkeypatch, tmp_path):
    """ENABLE_TORCH_PROFILER is set → the same result, and a trace of the batch."""
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    handler, context = start()
    assert handler.handle([[1, 2]], context) == [[2, 4]]
    assert list((tmp_path / "pytorch_profiler" / "doubler").glob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "pt2", ["eager", {"backend": "eager"}, {"compile": {"enable": True, "backend": "eager"}}], ids=["name", "arguments", "compile"]
)
def test_pt2_compiles(pt2):
    """Each form of pt2 that asks for it → a compiled model with the same results."""
    model = Doubler()
    compiled = compile_model(model, pt2)
    assert compiled is not model
    assert compiled(torch.ones(1)).tolist() == [2.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "pt2",
    ["no_such_backend", {"compile": {"enable": False, "backend": "eager"}}, {"export": {"aot_compile": True}}],
    ids=["unknown", "off", "export"],
)
def test_pt2_leaves_the_model(pt2):
    """An unknown backend, or compile off → the model itself."""
    model = Doubler()
    assert compile_model(model, pt2) is model


def test_pt2_with_wrong_arguments_leaves_the_model(caplog):
    """Arguments that torch.compile does not take → the model itself, and a warning that names them."""
    model = Doubler()
    assert compile_model(model, {"backend": "eager", "speed": "most"}) is model
    assert "speed" in caplog.text


def test_pt2_of_another_kind_is_an_error():
    """pt2 is a number → ValueError naming the key."""
    with pytest.raises(ValueError, match="pt2"):
        compile_model(Doubler(), 2)


@pytest.mark.slow
def test_import_is_lean():
    """Importing servegrpc.handlers → no grpc, no server, nothing optional."""
    unwanted = "{'grpc', 'servegrpc.core', 'servegrpc.frontend', 'captum', 'onnxruntime', 'torchvision', 'pydantic'}"
    code = f"import sys, servegrpc.handlers; sys.exit(', '.join({unwanted} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
