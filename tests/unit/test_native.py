"""The servegrpc.v1 dialect: requests to rows, results to replies."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.dialect import About
from servegrpc.wire.native import decode, encode

ABOUT = About("digits", "2.0", "id-1", 1500, 2_000_000, 4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False).map(lambda x: x + 0.5) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def request(**inputs):
    message = inference_pb2.PredictRequest(model_name="digits", inputs={name: encode_value(value) for name, value in inputs.items()})
    return memoryview(message.SerializeToString())


def reply_to(result):
    return inference_pb2.PredictResponse.FromString(encode(result, ABOUT))


def test_kinds():
    """A request has one input of each kind → the row has what handlers expect."""
    row = decode(request(picture=b"\x89PNG", name="seven", options={"top": [1, 2.5, None]}, mixed={"a": b"x", "b": 1}))
    assert row == {"picture": bytearray(b"\x89PNG"), "name": "seven", "options": {"top": [1, 2.5, None]}, "mixed": {"a": b"x", "b": 1}}
    assert isinstance(row["picture"], bytearray)


def test_tensor():
    """An input is a tensor → a writable torch tensor with memory of its own."""
    raw = bytearray(request(x=np.arange(6, dtype=np.float32).reshape(2, 3)))
    tensor = decode(memoryview(raw))["x"]
    raw[:] = bytes(len(raw))
    tensor += 1
    assert torch.equal(tensor, torch.arange(1, 7, dtype=torch.float32).reshape(2, 3))


def test_no_inputs():
    """A request has no inputs → InvalidInput naming the field."""
    with pytest.raises(InvalidInput, match="inputs is empty") as refused:
        decode(request())
    assert refused.value.field == "inputs"


def test_bad_input():
    """An input's tensor has the wrong size → InvalidInput naming the input."""
    message = inference_pb2.PredictRequest()
    message.inputs["x"].tensor.data_type = 11
    message.inputs["x"].tensor.shape.append(2)
    with pytest.raises(InvalidInput, match=r'inputs\["x"\]: data has 0 bytes') as refused:
        decode(memoryview(message.SerializeToString()))
    assert refused.value.field == "inputs.x"


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes(raw):
    """Any bytes → a row or InvalidInput."""
    with suppress(InvalidInput):
        assert decode(memoryview(raw))


@settings(deadline=None)
@given(JSON | st.binary(max_size=50))
def test_round_trip(value):
    """A value is sent and comes back as the result → the caller has the same value."""
    row = decode(request(data=value))
    assert decode_value(reply_to(row["data"]).output) == value


def test_reply():
    """A result is encoded → the reply tells model, version, id and timing too."""
    reply = reply_to("seven")
    assert (reply.output.text, reply.model_name, reply.model_version, reply.request_id) == ("seven", "digits", "2.0", "id-1")
    assert (reply.timing.queue.ToMicroseconds(), reply.timing.handler.ToMicroseconds(), reply.timing.batch_size) == (1500, 2000, 4)


ARRAYS = hnp.arrays(st.sampled_from("?bhilBHILefd"), hnp.array_shapes(min_dims=0, min_side=0))
NANOSECONDS = st.integers(0, 2**62)


@settings(deadline=None)
@given(
    JSON | st.text() | st.binary(max_size=300) | ARRAYS | ARRAYS.map(torch.tensor),
    st.text(),
    NANOSECONDS,
    NANOSECONDS,
    st.integers(0, 2**31 - 1),
)
def test_as_protobuf_writes_it(result, name, queued, took, batch_size):
    """A result is encoded by hand, after another one of its request → it reads as the same message made by protobuf."""
    about = About(name, "2.0", name, queued // 1000)
    encode("an earlier message of the stream", about)
    about.handler_nanoseconds, about.batch_size = took, batch_size
    reply = inference_pb2.PredictResponse(output=encode_value(result), model_name=name, model_version="2.0", request_id=name)
    reply.timing.queue.FromMicroseconds(about.queue_microseconds)
    reply.timing.handler.FromNanoseconds(took)
    reply.timing.batch_size = batch_size
    assert inference_pb2.PredictResponse.FromString(encode(result, about)).SerializeToString(deterministic=True) == reply.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("result", [object(), {1, 2}, [b"bytes in JSON"], "\ud800", np.array([1j])])
def test_unsendable(result):
    """A result cannot be sent → InvalidHandlerResult that says why."""
    with pytest.raises(InvalidHandlerResult, match="the handler's result cannot be sent: "):
        encode(result, ABOUT)
