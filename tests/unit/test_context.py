"""The handler's Context, as TorchServe's handlers use it."""

import pytest

from servegrpc.worker.context import Context, RequestProcessor


@pytest.fixture
def context() -> Context:
    context = Context(
        model_name="digits",
        model_dir="m",
        manifest={"model": {}},
        batch_size=4,
        gpu=None,
        model_yaml_config={"handler": {"profile": True}},
    )
    context.begin_batch(["id-a", "id-b"], [{"trace": "1"}, {"ts_request_sequence_id": "s7"}])
    return context


def test_system_properties_have_torchserve_keys(context):
    """system_properties → the six keys handlers read, with TorchServe's server name."""
    assert context.system_properties == {
        "model_dir": "m",
        "gpu_id": None,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": True,
    }


def test_private_names_that_handlers_read(context):
    """A handler reads what TorchServe keeps under private names → it is there."""
    assert (context._limit_max_image_pixels, context._metrics) == (True, context.metrics)


def test_request_ids_by_position(context):
    """A batch of two → ids by position, None beyond it."""
    assert context.request_ids == {0: "id-a", 1: "id-b"}
    assert (context.get_request_id(), context.get_request_id(1), context.get_request_id(2)) == ("id-a", "id-b", None)
    assert context.metrics.request_ids == {0: "id-a", 1: "id-b"}


def test_no_request_ids_before_the_first_batch():
    """During initialize → request_ids is None and so is each id."""
    context = Context(model_name="m", model_dir=".", manifest={}, batch_size=1, gpu=0, model_yaml_config={})
    assert context.request_ids is None
    assert context.get_request_id() is None


def test_request_headers(context):
    """Headers are asked for → per position, None when absent."""
    assert context.get_request_header(0, "trace") == "1"
    assert context.get_request_header(1, "trace") is None
    assert context.get_all_request_header(1) == {"ts_request_sequence_id": "s7"}
    assert context.request_processor[0].get_request_property("trace") == "1"


def test_sequence_id(context):
    """A request of a sequence → its id; another request → None."""
    assert (context.get_sequence_id(0), context.get_sequence_id(1)) == (None, "s7")


def test_untouched_batch_has_no_responses(context):
    """The handler only reads → no response objects are made."""
    context.get_request_header(0, "trace")
    assert context.responses() == []


def test_response_status_of_one_request(context):
    """A status is set on one request → only that one has it."""
    context.set_response_status(code=404, phrase="no such digit", idx=1)
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_status(1) == (404, "no such digit")
    assert [response.get_response_status_code() for response in context.responses()] == [200, 404]


def test_response_status_of_all_requests(context):
    """A status is set on the batch → every request has it."""
    context.set_all_response_status(507, "full")
    assert [context.get_response_status(index) for index in range(2)] == [(507, "full")] * 2


def test_response_headers_and_content_type(context):
    """Headers are set → readable by position and by name."""
    context.set_response_content_type(0, "image/png")
    context.set_response_header(0, "x-cache", "hit")
    assert context.get_response_content_type(0) == "image/png"
    assert context.get_response_headers(0) == {"content-type": "image/png", "x-cache": "hit"}
    assert context.request_processor[0].get_response_header("x-cache") == "hit"
    assert context.get_response_content_type(1) is None


def test_next_batch_starts_clean(context):
    """A new batch begins → nothing of the old one's responses is left, attributes of the handler are."""
    context.cache = {"step": 3}
    context.set_all_response_status(500)
    context.begin_batch(["id-c"], [{}])
    assert context.responses() == []
    assert context.get_response_status(0) == (200, None)
    assert context.cache == {"step": 3}


def test_request_processor_can_be_replaced(context):
    """A handler sets its own processors → they are used."""
    context.request_processor = [RequestProcessor({"describe": "True"})]
    assert context.get_request_header(0, "describe") == "True"
    assert context.request_processor[0].get_request_properties() == {"describe": "True"}


def test_equality(context):
    """Two contexts → equal only to themselves or to one with the same attributes."""
    assert context == context  # noqa: PLR0124 - equality is what is tested
    assert context != Context(model_name="x", model_dir="m", manifest={}, batch_size=1, gpu=None, model_yaml_config={})
