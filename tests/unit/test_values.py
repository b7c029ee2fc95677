"""`servegrpc.values`: what goes into a Value comes out of it, and what cannot is refused by name."""

import collections
import enum
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servegrpc.v1 import value_pb2
from servegrpc.values import BY_NAME, ELEMENT_TYPES, MAX_DEPTH, decode_tensor, decode_value, encode_tensor, encode_value

NUMBER_TYPES = [element for element in ELEMENT_TYPES if element.name not in ("BYTES", "BF16")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


def over_the_wire(obj, **kwargs):
    """Return what the other side decodes."""
    return decode_value(value_pb2.Value.FromString(encode_value(obj).SerializeToString()), **kwargs)


def kind(obj):
    return encode_value(obj).WhichOneof("kind")


def tensor(name, shape, data):
    return value_pb2.Value(tensor=value_pb2.Tensor(data_type=f"DATA_TYPE_{name}", shape=shape, data=data))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_numpy_arrays_come_back_equal(data):
    """An array of any number type, shape and byte order → the same array."""
    dtype = data.draw(st.sampled_from([element.dtype for element in NUMBER_TYPES]))
    array = data.draw(hnp.arrays(dtype.newbyteorder(data.draw(st.sampled_from("<>"))), hnp.array_shapes(min_dims=0, min_side=0)))
    back = over_the_wire(array)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_torch_tensors_come_back_equal_and_writable(data):
    """A tensor of any type and shape → the same tensor, with memory of its own."""
    dtype = getattr(torch, data.draw(st.sampled_from([*NUMBER_TYPES, BY_NAME["BF16"]])).torch_name)
    shape = data.draw(hnp.array_shapes(min_dims=0, min_side=0))
    sent = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    back = over_the_wire(sent, tensors="torch")
    assert back.dtype == dtype
    assert torch.equal(back, sent)
    back.fill_(0)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(JSON)
def test_json_comes_back_equal(obj):
    """Any JSON value → the same value, whole numbers as int."""
    assert over_the_wire([obj]) == [obj]


@given(hnp.arrays(object, hnp.array_shapes(min_dims=0, min_side=0), elements=st.binary(max_size=5), fill=st.nothing()))
@settings(max_examples=30, deadline=None)
def test_arrays_of_bytes_come_back_equal(array):
    """An object array of bytes → BYTES, and the same array."""
    back = over_the_wire(array, tensors="torch")
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 20), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.binary(max_size=64), st.sampled_from(["numpy", "torch"])
)
def test_any_tensor_message_decodes_or_is_refused(number, shape, data, tensors):
    """Arbitrary type, shape and data → an array of that shape or ValueError, never anything else."""
    try:
        array = decode_tensor(number, shape, data, tensors=tensors)
    except ValueError:
        return
    assert list(array.shape) == shape


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (b"x", "binary"),
        (bytearray(b"x"), "binary"),
        (memoryview(b"xyz")[::2], "binary"),
        ("x", "text"),
        (np.str_("x"), "text"),
        (np.zeros(2), "tensor"),
        (np.float64(1), "tensor"),
        (torch.tensor(1), "tensor"),
        (1.5, "json"),
        (None, "json"),
        ((1, 2), "json"),
        ({}, "json"),
        ({"a": [np.zeros(2)]}, "json"),
        ({"a": np.float32(1)}, "json"),
        ({"a": np.zeros(2)}, "named"),
        ({"a": b"x", "b": 1}, "named"),
    ],
)
def test_the_kind_fits_the_object(obj, expected):
    """An object → the kind that the protocol has for it."""
    assert kind(obj) == expected


def test_named_values_keep_the_kind_of_each():
    """A dict that mixes everything → every value in its own kind, numpy scalars as plain numbers."""
    back = over_the_wire({"mask": np.eye(2), "png": b"x", "label": "cat", "p": np.float32(0.5), "boxes": [[1, 2]], 7: {"raw": b"y"}})
    np.testing.assert_array_equal(back.pop("mask"), np.eye(2))
    assert back == {"png": b"x", "label": "cat", "p": 0.5, "boxes": [[1, 2]], "7": {"raw": b"y"}}


def test_arrays_deep_in_json_become_lists():
    """Arrays, tensors and numpy scalars below the top of a JSON value → lists and numbers."""
    assert over_the_wire([{"a": np.arange(3), "b": torch.ones(1)}, np.int8(4), np.bool_(True)]) == [{"a": [0, 1, 2], "b": [1]}, 4, True]


def test_subclasses_are_what_they_derive_from():
    """IntEnum, named tuple, OrderedDict → int, list, dict."""
    point = collections.namedtuple("point", "x y")(1, 2)
    color = enum.IntEnum("color", "red")
    assert over_the_wire([color.red, point, collections.OrderedDict(a=1)]) == [1, [1, 2], {"a": 1}]


def test_large_integers_become_decimal_strings():
    """An int that double precision cannot hold → its digits as text; the largest that it can → an int."""
    assert over_the_wire([2**53, 2**53 + 1, -(2**60)]) == [2**53, str(2**53 + 1), str(-(2**60))]


def test_nan_and_infinity_survive():
    """NaN and infinity in JSON → the same."""
    nan, inf = over_the_wire([math.nan, -math.inf])
    assert math.isnan(nan)
    assert inf == -math.inf


def test_dict_keys_are_converted_as_json_does():
    """Keys that are numbers, booleans or None → the text `json.dumps` writes."""
    assert over_the_wire({2: 1, 1.5: 2, True: 3, None: 4}) == {"2": 1, "1.5": 2, "true": 3, "null": 4}


@pytest.mark.parametrize(
    ("sent", "like"),
    [
        (torch.ones(2, 3, requires_grad=True), torch.ones(2, 3)),
        (torch.arange(6).reshape(2, 3).t(), torch.arange(6).reshape(2, 3).t()),
        (torch.tensor([1 + 2j]).conj().imag, torch.tensor([-2.0])),
    ],
    ids=["requires grad", "not contiguous", "negative bit"],
)
def test_tensors_that_are_not_plain_memory(sent, like):
    """A tensor that is a view or has a gradient → its values."""
    assert torch.equal(over_the_wire(sent, tensors="torch"), like)


def test_bfloat16_is_widened_for_numpy():
    """BF16 decoded to numpy → float32 of the same values."""
    back = over_the_wire(torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    assert back.dtype == np.float32
    assert back.tolist() == [1.5, -2.0]


def test_text_arrays_are_sent_as_bytes():
    """An array of str → BYTES in UTF-8."""
    element, shape, data = encode_tensor(np.array(["é", "b"]))
    assert (element.name, shape, data) == ("BYTES", (2,), b"\x02\0\0\0\xc3\xa9\x01\0\0\0b")


def test_binary_can_be_a_bytearray():
    """`binary=bytearray`, as handlers want it → a bytearray, also inside named values."""
    back = over_the_wire({"a": b"x"}, binary=bytearray)
    assert type(back["a"]) is bytearray


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (object(), "cannot send a value of type object; use"),
        ({1, 2}, "type set"),
        ([b"x"], "type bytes inside JSON"),
        (1j, "type complex"),
        (np.array([1j]), "array of complex128"),
        ([np.array([1j])], "type numpy.ndarray"),
        (np.array([{}], object), "holds a dict"),
        ({(1, 2): 3}, "key of type tuple"),
        ({(1, 2): b"x"}, "key of type tuple"),
    ],
)
def test_unsendable_objects_are_named(obj, message):
    """An object without a kind → TypeError that names its type."""
    with pytest.raises(TypeError, match=message):
        encode_value(obj)


def nested(levels):
    obj = {}
    for _ in range(levels - 1):
        obj = {"a": obj}
    return obj


def test_deep_nesting_is_refused_before_it_is_sent():
    """The deepest value allowed → readable by the other side inside a request; one level more → ValueError."""
    deepest = nested(MAX_DEPTH)
    assert over_the_wire(deepest) == deepest
    with pytest.raises(ValueError, match="nested deeper than 30"):
        encode_value(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor("FP32", [2, 2], b"\0" * 12), r"data has 12 bytes, shape \[2, 2\] of FP32 needs 16"),
        (tensor("FP32", [-1], b""), "negative"),
        (tensor("FP32", [2**62, 2**62], b""), "too large"),
        (tensor("FP32", [0, 2**62, 2**62], b""), "too large"),
        (tensor("FP32", [1] * 33, b"\0" * 4), "33 dimensions"),
        (tensor("UNSPECIFIED", [], b""), "data type 0 is not known"),
        (tensor("BOOL", [2], b"\0\2"), "other than 0 and 1"),
        (tensor("BYTES", [2], b"\0" * 7), "at least 8"),
        (tensor("BYTES", [1], b"\5\0\0\0abc"), "element 0 of the BYTES data ends beyond its 7 bytes"),
        (tensor("BYTES", [2], b"\2\0\0\0ab\0\0"), "element 1"),
        (tensor("BYTES", [1], b"\1\0\0\0abc"), "take 5"),
        (value_pb2.Value(), "no kind is set"),
        (value_pb2.Value(json={}), "JSON value without a kind"),
        (value_pb2.Value(named={"values": {"a": value_pb2.Value()}}), "'a': no kind is set"),
    ],
)
def test_wrong_values_are_refused(value, message):
    """A value that contradicts itself → ValueError that says how."""
    with pytest.raises(ValueError, match=message):
        decode_value(value)


def test_unknown_data_type_is_refused():
    """A data type of a later protocol → ValueError with its number."""
    with pytest.raises(ValueError, match="data type 99 is not known"):
        decode_tensor(99, [], b"")


@pytest.mark.slow
def test_torch_is_not_loaded():
    """A process without torch that sends and receives arrays → torch stays unloaded."""
    code = (
        "import sys, numpy as np; from servegrpc.values import *\n"
        "assert decode_value(encode_value({'a': np.ones(2), 'b': [1]}))['b'] == [1]\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_cuda_tensors_are_sent_from_the_device():
    """A CUDA tensor → its values, on the CPU."""
    assert over_the_wire(torch.ones(2, device="cuda")).tolist() == [1, 1]
