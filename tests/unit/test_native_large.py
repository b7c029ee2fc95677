"""Large inputs of the servegrpc.v1 dialect, which are taken out of the message instead of parsed with it: the row must be the same."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servegrpc.errors import InvalidInput
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.large import LARGE_BYTES
from servegrpc.wire.native import decode

BIG = bytes(range(256)) * (LARGE_BYTES // 256 + 1)
DTYPES = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


def expected(raw):
    """Return the row that protobuf's own parser gives."""
    request = inference_pb2.PredictRequest.FromString(raw)
    return {name: decode_value(value, tensors="torch", binary=bytearray) for name, value in request.inputs.items()}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape and bytes_of(one) == bytes_of(other)
        )
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.shape == other.shape and one.tolist() == other.tolist()
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def bytes_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def request(**inputs):
    message = inference_pb2.PredictRequest(model_name="digits", inputs={name: encode_value(value) for name, value in inputs.items()})
    return message.SerializeToString()


def varint(number, length=1):
    """Encode a number, in more bytes than it needs if `length` says so."""
    encoded = []
    while number >= 0x80 or len(encoded) + 1 < length:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def field(number, content, tag_length=1):
    return varint(number << 3 | 2, tag_length) + varint(len(content)) + content


def entry(name, value):
    return field(3, field(1, name.encode()) + field(2, value))


@pytest.mark.parametrize("size", [LARGE_BYTES - 100, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 1_000_000])
def test_binary(size):
    """A binary input of a size about the limit, or far above → a bytearray of its own."""
    content = (BIG * (size // len(BIG) + 1))[:size]
    raw = bytearray(request(data=content))
    value = decode(memoryview(raw))["data"]
    raw[:] = bytes(len(raw))
    assert type(value) is bytearray
    assert value == content


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensor(dtype):
    """A large tensor of each type → the same tensor, writable, with memory of its own."""
    array = (np.arange(2 * LARGE_BYTES) % 2).astype(dtype).reshape(2, -1)
    raw = bytearray(request(x=array))
    tensor = decode(memoryview(raw))["x"]
    raw[:] = bytes(len(raw))
    assert same(tensor, torch.from_numpy(array))
    tensor[0, 0] = 1
    assert tensor[0, 0] == 1


def test_bfloat16():
    """A large tensor of bfloat16 → the same tensor."""
    tensor = torch.arange(LARGE_BYTES).to(torch.bfloat16)
    assert torch.equal(decode(memoryview(request(x=tensor)))["x"], tensor)


def test_byte_strings():
    """A large tensor of byte strings → a numpy array of bytes objects."""
    array = np.array([b"", b"a" * LARGE_BYTES, b"b"], object)
    assert same(decode(memoryview(request(x=array)))["x"], array)


LARGE = st.sampled_from(
    [BIG, np.arange(LARGE_BYTES, dtype=np.int32), np.zeros((2, LARGE_BYTES), bool), "x" * LARGE_BYTES, [0.5] * LARGE_BYTES]
)
SMALL = st.sampled_from([b"", b"x", "text", 7, None, {"a": [1]}, {"a": b"x"}, np.arange(3.0)])
NAMES = st.sampled_from(["", "a", "b", "c", "ä"])


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(NAMES, LARGE | SMALL, min_size=1))
def test_mixed(inputs):
    """Large and small inputs of all kinds together → protobuf's own result."""
    raw = request(**inputs)
    assert same(decode(memoryview(raw)), expected(raw))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(NAMES, LARGE | SMALL), min_size=1, max_size=5))
@example([("a", BIG), ("a", b"x")])
@example([("a", b"x"), ("a", BIG)])
@example([("a", BIG), ("a", BIG[1:]), ("b", "x")])
def test_names_twice(inputs):
    """Inputs come in any order, some names more than once → protobuf's own result: the last one counts."""
    raw = b"".join(entry(name, encode_value(value).SerializeToString()) for name, value in inputs)
    assert same(decode(memoryview(raw)), expected(raw))


TENSOR = field(3, BIG) + varint(1 << 3) + varint(2) + varint(2 << 3) + varint(len(BIG))  # data first, shape unpacked, UINT8
UNUSUAL = {
    "value before name": field(3, field(2, field(1, BIG)) + field(1, b"a")),
    "no name": field(3, field(2, field(1, BIG))),
    "name twice in an entry": field(3, field(1, b"a") + field(1, b"b") + field(2, field(1, BIG))),
    "value twice in an entry": field(3, field(1, b"a") + field(2, field(1, BIG)) + field(2, field(1, b"x"))),
    "kind twice": entry("a", field(1, BIG) + field(1, b"x")),
    "two kinds, text last": entry("a", field(1, BIG) + field(2, b"text")),
    "two kinds, binary last": entry("a", field(2, b"text") + field(1, BIG)),
    "unknown field in the value": entry("a", field(1, BIG) + field(99, b"x")),
    "unknown field in the entry": field(3, field(1, b"a") + field(2, field(1, BIG)) + field(99, b"x")) + entry("b", field(2, b"text")),
    "unknown field in the request": field(99, BIG) + entry("a", field(1, BIG)) + varint(98 << 3) + b"\1" + varint(97 << 3 | 5) + b"1234",
    "fields in another order": entry("a", field(1, BIG)) + field(1, b"model") + entry("b", field(2, b"text")) + field(4, b"id"),
    "tensor": entry("a", field(4, TENSOR)),
    "tensor twice": entry("a", field(4, TENSOR) + field(4, field(3, BIG[::-1]))),
    "data twice": entry("a", field(4, field(3, b"x") + TENSOR)),
    "unknown field in the tensor": entry("a", field(4, TENSOR + field(99, b"x"))),
    "tag of two bytes": field(3, field(1, b"a") + field(2, field(1, BIG, tag_length=2)), tag_length=2),
    "tag of three bytes in the tensor": entry("a", field(4, TENSOR + field(99, b"x", tag_length=3), tag_length=2)),
    "large name": entry("n" * LARGE_BYTES, field(2, b"text")),
    "large text": entry("a", field(2, BIG[:128] * 200)),
    "large named values": entry("a", field(5, entry("b", field(1, BIG))[:0] + field(1, field(1, b"b") + field(2, field(1, BIG))))),
}


@pytest.mark.parametrize("raw", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("borrow", [False, True], ids=["copy", "borrow"])
def test_unusual_encoding(raw, borrow):
    """A message is encoded as no generated code would write it → protobuf's own result."""
    row = decode(memoryview(bytearray(raw)), borrow=borrow)
    row = {name: bytearray(value) if isinstance(value, memoryview) else value for name, value in row.items()}
    assert same(row, expected(raw))


BROKEN = {
    "cut off": request(data=BIG)[:-1],
    "more than said": request(data=BIG) + b"\x0a\x05ab",
    "group": entry("a", field(1, BIG)) + b"\x0b",
    "field 0": entry("a", field(1, BIG)) + b"\x02\x00",
    "name is no text": field(3, field(1, b"\xff") + field(2, field(1, BIG))),
    "model name is no text": entry("a", field(1, BIG)) + field(1, b"\xff"),
    "text is no text": entry("a", field(2, BIG)),
    "entry ends early": varint(3 << 3 | 2) + varint(LARGE_BYTES) + varint(2 << 3 | 2) + varint(10**6) + bytes(LARGE_BYTES),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_broken(raw):
    """A large message is damaged → InvalidInput that says it is no message."""
    with pytest.raises(InvalidInput, match="not a valid PredictRequest"):
        decode(memoryview(raw))


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (TENSOR + varint(2 << 3) + varint(2), "needs"),
        (field(3, BIG), "data type 0 is not known"),
        (varint(1 << 3) + varint(1) + varint(2 << 3) + varint(len(BIG)) + field(3, BIG), "BOOL data holds a byte other than 0 and 1"),
    ],
    ids=["size", "type", "bool"],
)
@pytest.mark.parametrize("borrow", [False, True], ids=["copy", "borrow"])
def test_bad_tensor(tensor, problem, borrow):
    """A large tensor contradicts itself → InvalidInput naming the input."""
    with pytest.raises(InvalidInput, match=rf'inputs\["a"\]: .*{problem}') as refused:
        decode(memoryview(bytearray(entry("a", field(4, tensor)))), borrow=borrow)
    assert refused.value.field == "inputs.a"


INTACT = UNUSUAL | {"usual": request(a=BIG, b="x", c=np.zeros(LARGE_BYTES))}


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(INTACT)), st.integers(-40, 39), st.integers(0, 255))
def test_damaged_anywhere(name, place, byte):
    """A byte of the message's structure is another → protobuf's own result, or InvalidInput where it has none."""
    damaged = bytearray(INTACT[name])
    damaged[place] = byte
    try:
        row = decode(memoryview(damaged))
    except InvalidInput:
        row = None
    try:
        proper = expected(bytes(damaged)) or None
    except Exception:
        proper = None
    assert (row is None) == (proper is None)
    assert row is None or same(row, proper)


def test_borrowed():
    """A handler borrows its inputs → the large ones are views of the message, the small ones are not."""
    raw = bytearray(request(picture=BIG, thumb=b"x", x=np.zeros(LARGE_BYTES, np.uint8), y=np.zeros(2, np.uint8)))
    row = decode(memoryview(raw), borrow=True)
    assert {name: type(value) for name, value in row.items()} == {
        "picture": memoryview,
        "thumb": bytearray,
        "x": torch.Tensor,
        "y": torch.Tensor,
    }
    assert row["picture"] == BIG
    raw[:] = b"\1" * len(raw)
    assert row["picture"] == b"\1" * len(BIG)
    assert (row["x"] == 1).all()
    assert (row["thumb"], row["y"].tolist()) == (b"x", [0, 0])
