"""Requests of the Open Inference Protocol: arbitrary tensors for property tests, everything that cannot be right, and the codec."""

import math
import struct

import numpy as np
import pytest
from hypothesis import strategies as st

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidInput
from servegrpc.values import BY_NAME, ELEMENT_TYPES
from servegrpc.wire.dialect import About
from servegrpc.wire.open_inference import OpenInferenceCodec

Request, Reply = infer_pb2.ModelInferRequest, infer_pb2.ModelInferResponse

FP32 = {"name": "x", "datatype": "FP32", "shape": [2]}
TWO_FLOATS = struct.pack("<2f", 1.5, -2)

MALFORMED = {
    "size does not match shape": (
        {"inputs": [FP32], "raw_input_contents": [b"1234"]},
        "input 'x': data has 4 bytes, shape [2] of FP32 needs 8",
    ),
    "both contents": (
        {"model_name": "m", "inputs": [{**FP32, "contents": {"fp32_contents": [1, 2]}}], "raw_input_contents": [TWO_FLOATS]},
        "contents field must not be specified when using raw_input_contents for 'x' for model 'm'",
    ),
    "unknown datatype": (
        {"inputs": [{**FP32, "datatype": "FLOAT"}], "raw_input_contents": [TWO_FLOATS]},
        "input 'x' has the datatype 'FLOAT'",
    ),
    "no data": ({"model_name": "m", "inputs": [FP32]}, "unable to find data for input tensor 'x' for model 'm' in request"),
    "too few raw contents": (
        {"inputs": [FP32, {**FP32, "name": "y"}], "raw_input_contents": [TWO_FLOATS]},
        "1 entries for 2 inputs of model ''; see input 'y'",
    ),
    "too many raw contents": (
        {"inputs": [FP32], "raw_input_contents": [TWO_FLOATS, b""]},
        "2 entries for 1 inputs of model ''; see input 'x'",
    ),
    "negative shape": (
        {"inputs": [{**FP32, "shape": [-1, 2]}], "raw_input_contents": [TWO_FLOATS]},
        "input 'x': shape [-1, 2] has a negative dimension",
    ),
    "negative shape, typed": (
        {"inputs": [{**FP32, "shape": [-2, -1], "contents": {"fp32_contents": [1, 2]}}]},
        "input 'x': shape [-2, -1] has a neg",
    ),
    "overflow of the shape": ({"inputs": [{**FP32, "shape": [2**40, 2**40]}], "raw_input_contents": [TWO_FLOATS]}, "input 'x': shape"),
    "overflow beside a zero": ({"inputs": [{**FP32, "shape": [0, 2**40, 2**40]}], "raw_input_contents": [b""]}, "input 'x': shape"),
    "overflow, typed": ({"inputs": [{**FP32, "shape": [2**62, 4], "contents": {"fp32_contents": [1]}}]}, "input 'x': shape"),
    "BYTES beyond the buffer": (
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}], "raw_input_contents": [b"\x09\0\0\0a"]},
        "input 'x': element 0 of the BYTES data ends beyond its 5 bytes",
    ),
    "bytes left over": (
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}], "raw_input_contents": [b"\0\0\0\0a"]},
        "input 'x': data has 5 bytes",
    ),
    "a byte that is no BOOL": (
        {"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1]}], "raw_input_contents": [b"\2"]},
        "input 'x': BOOL data",
    ),
    "wrong contents field": (
        {"inputs": [{**FP32, "contents": {"int_contents": [1, 2]}}]},
        "unexpected explicit tensor data for input tensor 'x'",
    ),
    "two contents fields": (
        {"inputs": [{**FP32, "contents": {"fp32_contents": [1, 2], "int_contents": [1]}}]},
        "unexpected explicit tensor data",
    ),
    "wrong count of elements": (
        {"inputs": [{**FP32, "contents": {"fp32_contents": [1]}}]},
        "input 'x': fp32_contents has 1 elements, shape [2] needs 2",
    ),
    "an element out of range": (
        {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [128]}}]},
        "input 'x': int_contents has",
    ),
    "FP16 typed": (
        {"inputs": [{"name": "x", "datatype": "FP16", "shape": [1], "contents": {"fp32_contents": [1]}}]},
        "input 'x': FP16 has no contents",
    ),
    "no name": ({"inputs": [{**FP32, "name": ""}], "raw_input_contents": [TWO_FLOATS]}, "has no name"),
    "a name twice": ({"inputs": [FP32, FP32], "raw_input_contents": [TWO_FLOATS] * 2}, "input 'x' is given twice"),
    "no inputs": ({"model_name": "m"}, "model 'm' has no inputs"),
    "too many dimensions": (
        {"inputs": [{**FP32, "shape": [1] * 33}], "raw_input_contents": [b"1234"]},
        "input 'x': shape has 33 dimensions",
    ),
    "an unknown region": (
        {
            "inputs": [
                {**FP32, "parameters": {"shared_memory_region": {"string_param": "r"}, "shared_memory_byte_size": {"int64_param": 8}}}
            ]
        },
        "Unable to find shared memory region: 'r'",
    ),
}

shapes = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def raw_tensors(draw, datatype=None):
    """A datatype, any or the one given, a shape, and the bytes of a tensor of these."""
    element = BY_NAME[datatype] if datatype else draw(st.sampled_from(ELEMENT_TYPES))
    shape = draw(shapes)
    count = math.prod(shape)
    if element.name == "BYTES":
        data = b"".join(
            struct.pack("<I", len(item)) + item for item in draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        )
    elif element.name == "BOOL":
        data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    else:
        data = draw(st.binary(min_size=count * element.size, max_size=count * element.size))
    return element.name, shape, data


def assert_same_elements(datatype, returned, sent):
    """Bytes of a tensor are those of another, but that a NaN, which has many patterns of bits, is any NaN: Python changes them."""
    dtype = BY_NAME[datatype].dtype
    if dtype.kind != "f":
        assert returned == sent
        return
    there, expected = np.frombuffer(returned, dtype), np.frombuffer(sent, dtype)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(there), nan)
    assert there[~nan].tobytes() == expected[~nan].tobytes()


def decode(request, codec=None, **kwargs):
    return (codec or OpenInferenceCodec()).decode(memoryview(bytearray(request.SerializeToString())), **kwargs)


def encode(result, request=None, codec=None):
    raw = (request or Request()).SerializeToString()
    return Reply.FromString((codec or OpenInferenceCodec()).encode(result, About("m", "1", "id", 0, 0, 1, memoryview(raw))))


def tensor(**fields):
    return Request.InferInputTensor(**{**FP32, **fields})


def refused(request, *told, codec=None):
    with pytest.raises(InvalidInput) as raised:
        decode(request, codec)
    for text in told:
        assert text in raised.value.message
