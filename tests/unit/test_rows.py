"""How many rows a request has, read off its raw message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oip_requests import FP32, TWO_FLOATS

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.v1 import inference_pb2
from servegrpc.values import encode_value
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.rows import count_rows


@pytest.mark.parametrize("shape", [[1, 2], [7, 2, 1], [300], [0, 4]])
def test_rows(shape):
    """A tensor in a request of either dialect → its first dimension."""
    tensor = {**FP32, "shape": shape}
    parameters = {"sequence_id": {"int64_param": 1}}
    request = infer_pb2.ModelInferRequest(model_name="m", parameters=parameters, inputs=[tensor, FP32], raw_input_contents=[b"\x2a\x02"])
    assert count_rows(Dialect.OPEN_INFERENCE, request.SerializeToString()) == shape[0]
    native = inference_pb2.PredictRequest(model_name="m", inputs={"x": encode_value(np.zeros(shape, np.float32))})
    assert count_rows(Dialect.NATIVE, native.SerializeToString()) == shape[0]


@pytest.mark.parametrize(
    ("dialect", "raw"),
    [
        (Dialect.NATIVE, inference_pb2.PredictRequest(inputs={"x": encode_value("text")}).SerializeToString()),
        (Dialect.NATIVE, b""),
        (Dialect.OPEN_INFERENCE, infer_pb2.ModelInferRequest(inputs=[{**FP32, "shape": []}]).SerializeToString()),
        (Dialect.OPEN_INFERENCE, infer_pb2.ModelInferRequest(raw_input_contents=[TWO_FLOATS]).SerializeToString()),
        (Dialect.TORCHSERVE, b"\x2a\x04\x1a\x02\x07\x02"),
    ],
)
def test_no_rows(dialect, raw):
    """A request without a tensor that has a first dimension → counts as one."""
    assert count_rows(dialect, raw) == 1


@given(st.sampled_from(Dialect), st.binary(max_size=40))
def test_any_bytes(dialect, raw):
    """Any bytes at all → a number."""
    assert count_rows(dialect, raw) >= 0
