"""Routing by a field scan: whatever protobuf's own parser says, the scan says too."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire_fields import TEXTS, fields, messages

from servegrpc.errors import InvalidInput
from servegrpc.v1 import inference_pb2
from servegrpc.wire.native import decode
from servegrpc.wire.scan import MAX_REQUEST_ID_LENGTH, Route, UnusualMessageError, route, route_fields

INPUTS = st.sampled_from([b"", b"\n\x01k", b"\n\x01k\x12\x04\x12\x02hi"])
UTF8 = TEXTS.map(str.encode)
CONTENTS = {1: UTF8, 2: UTF8, 3: INPUTS, 4: UTF8, 5: st.binary(max_size=20)}


def parse(raw):
    """Return protobuf's answer, None when it refuses."""
    try:
        message = inference_pb2.PredictRequest.FromString(raw)
    except DecodeError:
        return None
    return Route(message.model_name, message.model_version, message.request_id)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, st.binary(max_size=300), max_size=3))
def test_written_by_protobuf(name, version, request_id, inputs):
    """A message that generated code wrote → its name, version and id, by the scan alone."""
    message = inference_pb2.PredictRequest(model_name=name, model_version=version, request_id=request_id)
    for key, data in inputs.items():
        message.inputs[key].binary = data
    assert route_fields(message.SerializeToString(), 4) == Route(name, version, request_id)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(messages(CONTENTS))
def test_any_valid_message(raw):
    """Fields in any order, repeated, unknown, of other types or oddly encoded → as protobuf parses them."""
    assert parse(raw) is not None
    assert route(raw) == parse(raw)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.lists(st.one_of(fields(CONTENTS), st.binary(max_size=4)), max_size=5).map(b"".join)),
    st.integers(0, 60),
)
@example(b"\x02\x00", 60)  # field number 0
@example(b"\x8a\x80\x80\x80\x80\x00\x01a", 60)  # a key of six bytes
@example(b"\x0a\x02\xc3\x28", 60)  # no UTF-8
@example(b"\x1a\x02\xff\xff", 60)  # a payload that is no message
def test_any_bytes(raw, length):
    """Any bytes → as protobuf parses them; what it refuses is refused here, or by the worker, which looks at all of it."""
    raw = raw[:length]
    expected = parse(raw)
    try:
        found = route(raw)
    except InvalidInput:
        assert expected is None
        return
    if expected is None:
        with pytest.raises(InvalidInput):
            decode(memoryview(raw))
    else:
        assert found == expected


def test_last_one_counts():
    """A field comes twice → the last one counts."""
    assert route(b"\n\x01a\n\x01b").model_name == "b"


def test_empty():
    """An empty message → empty texts."""
    assert route(b"") == Route("", "", "")


def test_not_a_message():
    """Bytes that are no message → InvalidInput that says so."""
    with pytest.raises(InvalidInput, match="not a valid PredictRequest message"):
        route(b"\xff\xff\xff")


def test_unusual_encoding_is_left_to_protobuf():
    """An old group → the scan declines, and protobuf's parser decides."""
    raw = b"\x2b\x08\x01\x2c\n\x01a"
    with pytest.raises(UnusualMessageError):
        route_fields(raw, 4)
    assert route(raw).model_name == "a"


def test_other_id_field():
    """Another dialect has its id in another field → that one is read."""
    assert route_fields(b"\n\x01m\x1a\x02id", 3) == Route("m", "", "id")


def test_long_request_id():
    """A request id at the limit → taken; longer → InvalidInput naming the field."""
    message = inference_pb2.PredictRequest(request_id="é" * MAX_REQUEST_ID_LENGTH)
    assert route(message.SerializeToString()).request_id == message.request_id
    message.request_id += "x"
    with pytest.raises(InvalidInput, match="has 129 characters; at most 128") as refused:
        route(message.SerializeToString())
    assert refused.value.field == "request_id"
