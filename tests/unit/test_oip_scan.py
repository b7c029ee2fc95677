"""Routing ModelInfer by a field scan: whatever protobuf's own parser says, the scan says too."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire_fields import TEXTS, fields, messages

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidInput
from servegrpc.wire.open_inference import NO_OPTIONS, OpenInferenceCodec, read_options, request_id_of, route
from servegrpc.wire.scan import Route

Request = infer_pb2.ModelInferRequest
REFUSED = "refused"
UTF8 = TEXTS.map(str.encode)
PARAMETER = st.builds(
    lambda key, value: Request(parameters={key: value}).SerializeToString()[2:],
    st.sampled_from(["k", "K", "priority", "sequence_id", "sequence_end", "timeout", "triton_x"]),
    st.sampled_from([{}, {"bool_param": True}, {"int64_param": 7}, {"int64_param": -7}, {"string_param": "v"}, {"double_param": 0.5}]),
)
INPUT = st.sampled_from([b"", b"\n\x01n\x12\x04FP32\x1a\x01\x01"])
OUTPUT = st.sampled_from([b"", b"\n\x01n"])
CONTENTS = {1: UTF8, 2: UTF8, 3: UTF8, 4: st.one_of(PARAMETER, st.just(b"")), 5: INPUT, 6: OUTPUT, 7: st.binary(max_size=20)}


def comparable(where, options):
    """Return a route with its options, whose headers are in no order: those of a map."""
    return where, options._replace(headers=sorted(options.headers))


def parse(raw):
    """Return the route and options by protobuf; REFUSED for parameters that cannot be, None when it is no message."""
    try:
        message = Request.FromString(raw)
    except DecodeError:
        return None
    try:
        options = read_options(message.parameters) if message.parameters else NO_OPTIONS
    except InvalidInput:
        return REFUSED
    return comparable(Route(message.model_name, message.model_version, message.id), options)


def found(raw):
    """Return the same by the scan; REFUSED when it is no message, too."""
    try:
        return comparable(*route(raw))
    except InvalidInput:
        return REFUSED


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(messages(CONTENTS))
def test_any_valid_message(raw):
    """Fields in any order, repeated, unknown, of other types or oddly encoded → as protobuf parses them."""
    assert parse(raw) is not None
    assert found(raw) == parse(raw)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.lists(st.one_of(fields(CONTENTS), st.binary(max_size=4)), max_size=5).map(b"".join)),
    st.integers(0, 60),
)
@example(b"\x02\x00", 60)  # field number 0
@example(b"\x8a\x80\x80\x80\x80\x00\x01a", 60)  # a key of six bytes
@example(b"\x0a\x02\xc3\x28", 60)  # no UTF-8
@example(b"\x10\x05\n\x03abc", 60)  # a number that could be a length
@example(b"\x22\x02\xff\xff", 60)  # a parameter that is no message
@example(b"\x2a\x02\xff\xff", 60)  # an input that is no message
def test_any_bytes(raw, length):
    """Any bytes → as protobuf parses them; what it refuses is refused here, or by the worker, which looks at all of it."""
    raw = raw[:length]
    if parse(raw) is not None:
        assert found(raw) == parse(raw)
    elif found(raw) != REFUSED:
        with pytest.raises(InvalidInput):
            OpenInferenceCodec().decode(memoryview(bytearray(raw)))


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_id_alone(name, version, request_id):
    """A message that generated code wrote → its id, as the stream asks for it; cut short → none."""
    raw = Request(model_name=name, model_version=version, id=request_id).SerializeToString()
    assert request_id_of(raw) == request_id
    assert not request_id_of(raw[:-1])
