"""The four envelopes around handlers that know nothing of them."""

import base64
import json

import pytest

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.handlers.envelopes.body import BodyEnvelope
from servegrpc.handlers.envelopes.json import JSONEnvelope
from servegrpc.handlers.envelopes.kserve import KServeEnvelope
from servegrpc.handlers.envelopes.kservev2 import KServev2Envelope
from servegrpc.worker.context import Context


def make_context(headers=({}, {})):
    manifest = {"model": {"modelName": "net", "modelVersion": "1.0"}}
    context = Context(model_name="net", model_dir=".", manifest=manifest, batch_size=2, gpu=None, model_yaml_config={})
    context.begin_batch(["id-0", "id-1"], headers)
    return context


def echo(rows, context):
    return rows


def refuse_last(rows, context):
    raise InvalidInput("no", row=len(rows) - 1)


def wrapped(value):
    return {"data": bytearray(json.dumps(value).encode())}


def test_body_hands_on_the_inputs():
    """Inputs "data" and "body" → the handler's rows, and its results as they are."""
    rows = []
    envelope = BodyEnvelope(lambda data, context: rows.extend(data) or ["a", "b"])
    assert envelope.handle([{"data": b"1"}, {"body": 0}], make_context()) == ["a", "b"]
    assert rows == [b"1", 0]


def test_body_names_a_row_without_input():
    """A request with another input → InvalidInput for it."""
    with pytest.raises(InvalidInput, match='"data"') as refused:
        BodyEnvelope(echo).handle([{"data": b"1"}, {"x": 0}], make_context())
    assert refused.value.row == 1


def test_json_joins_and_deals_out_instances():
    """Requests of two and one instances → one batch of three rows, and predictions for each request as JSON text."""
    envelope = JSONEnvelope(lambda rows, context: [row * 10 for row in rows])
    replies = envelope.handle([wrapped({"instances": [1, 2]}), {"body": {"instances": [3]}}], make_context())
    assert replies == ['{"predictions": [10, 20]}', '{"predictions": [30]}']


def test_json_decodes_base64():
    """{"b64": …} as an instance and as a value of one → bytes."""
    text = base64.b64encode(b"pixels").decode()
    rows = []
    envelope = JSONEnvelope(lambda data, context: rows.extend(data) or [0, 0])
    envelope.handle([wrapped({"instances": [{"b64": text}, {"data": {"b64": text}, "name": "x"}]})], make_context())
    assert rows == [b"pixels", {"data": b"pixels", "name": "x"}]


def test_instances_may_be_the_input_itself():
    """A request whose input is called "instances" → taken as the JSON object."""
    assert KServeEnvelope(echo).handle([{"instances": [1]}], make_context()) == [{"predictions": [1]}]


def test_kserve_answers_predictions_or_explanations():
    """Two requests, the second with the header "explain" → each under its own key."""
    replies = KServeEnvelope(echo).handle(
        [wrapped({"instances": [[1.5], [2]]}), wrapped({"instances": ["x"]})], make_context([{}, {"explain": "True"}])
    )
    assert replies == [{"predictions": [[1.5], [2]]}, {"explanations": ["x"]}]


def test_kservev2_shapes_inputs_and_names_outputs():
    """Inputs of two kinds → rows with data in shape; outputs of their names, flat, with numpy's datatypes."""
    rows = []
    inputs = [
        {"name": "numbers", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "words", "shape": [1], "datatype": "BYTES", "data": ["hello"]},
    ]
    envelope = KServev2Envelope(lambda data, context: rows.extend(data) or [[[1.5, 2.0]], "hi"])
    [reply] = envelope.handle([wrapped({"id": "mine", "inputs": inputs})], make_context())
    assert [row["data"] for row in rows] == [[[1, 2], [3, 4]], "hello"]
    assert reply == {
        "id": "mine",
        "model_name": "net",
        "model_version": "1.0",
        "outputs": [
            {"name": "numbers", "shape": [2], "datatype": "FP64", "data": [1.5, 2.0]},
            {"name": "words", "shape": [1], "datatype": "BYTES", "data": ["hi"]},
        ],
    }
    assert list(reply["outputs"][0]) == ["name", "datatype", "data", "shape"]  # the order that TorchServe's clients see


def test_kservev2_batches_requests():
    """Two requests without ids → each its own outputs, under the ids of the requests."""
    inputs = [{"name": name, "shape": [1], "datatype": "INT64", "data": [3]} for name in "ab"]
    envelope = KServev2Envelope(lambda rows, context: [index for index, _ in enumerate(rows)])
    replies = envelope.handle([wrapped({"inputs": inputs}), wrapped({"inputs": inputs[:1]})], make_context())
    assert [reply["id"] for reply in replies] == ["id-0", "id-1"]
    assert [[output["data"] for output in reply["outputs"]] for reply in replies] == [[[0], [1]], [[2]]]
    assert replies[0]["outputs"][0]["datatype"] == "INT64"


@pytest.mark.parametrize("envelope", [JSONEnvelope, KServeEnvelope, KServev2Envelope])
@pytest.mark.parametrize(
    "request_row",
    [{"data": b"{"}, {"data": b"\xff"}, {"data": b"3"}, {"data": b'{"other": []}'}, {"data": {"instances": [], "inputs": []}}, {"x": 1}],
    ids=["cut", "bytes", "number", "other", "empty", "name"],
)
def test_a_request_of_another_format_is_named(envelope, request_row):
    """The second request is not of the envelope's format → InvalidInput for it."""
    item = {"name": "a", "shape": [1], "datatype": "INT64", "data": [3]}
    good = wrapped({"instances": [1], "inputs": [item]})
    with pytest.raises(InvalidInput) as refused:
        envelope(echo).handle([good, request_row], make_context())
    assert refused.value.row == 1


@pytest.mark.parametrize("change", [{"shape": [3]}, {"data": None}, {"datatype": "BYTES", "data": []}, {"shape": "x"}])
def test_kservev2_names_a_wrong_input(change):
    """An input that does not fit its shape, or lacks a part → InvalidInput."""
    item = {"name": "a", "shape": [1], "datatype": "INT64", "data": [3]} | change
    with pytest.raises(InvalidInput, match="protocol"):
        KServev2Envelope(echo).handle([wrapped({"inputs": [item]})], make_context())


def test_bad_base64_is_named():
    """{"b64": …} that is none → InvalidInput."""
    with pytest.raises(InvalidInput, match="no base64"):
        JSONEnvelope(echo).handle([wrapped({"instances": [{"b64": "%"}]})], make_context())


def test_the_handlers_refusal_names_the_request():
    """The handler refuses the third row, which is the second request's → InvalidInput for request 1."""
    with pytest.raises(InvalidInput) as refused:
        JSONEnvelope(refuse_last).handle([wrapped({"instances": [1, 2]}), wrapped({"instances": [3]})], make_context())
    assert refused.value.row == 1


def test_wrong_number_of_results_is_an_error():
    """Two requests and one result for their three instances → an error that says what to do."""
    with pytest.raises(InvalidHandlerResult, match=r"1 results for the 3 items of 2 requests.*batchSize: 1"):
        KServeEnvelope(lambda rows, context: [0]).handle([wrapped({"instances": [1, 2]}), wrapped({"instances": [3]})], make_context())


def test_a_handler_that_yields_is_an_error():
    """A generator in an envelope → an error that says so."""

    def steps(rows, context):
        yield rows

    with pytest.raises(InvalidHandlerResult, match="yields"):
        BodyEnvelope(steps).handle([{"data": 1}], make_context())
