"""The Open Inference dialect: requests to rows, results to replies."""

import contextlib
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_requests import FP32, MALFORMED, TWO_FLOATS, Request, assert_same_elements, decode, encode, raw_tensors, refused, tensor

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.tensors import parse_declaration
from servegrpc.values import BY_NAME
from servegrpc.wire.open_inference import OpenInferenceCodec, codec_of, route
from servegrpc.wire.open_inference_inputs import CONTENTS


@pytest.mark.parametrize("datatype", BY_NAME)
@settings(max_examples=25)
@given(data=st.data(), borrow=st.booleans())
def test_raw_round_trip(datatype, data, borrow):
    """Raw tensors of a datatype and any shape, among others; NaN, infinities and zero-size dimensions too → the same bytes come back."""
    tensors = [data.draw(raw_tensors(datatype)), *data.draw(st.lists(raw_tensors(), max_size=3))]
    request = Request(raw_input_contents=[data for _, _, data in tensors])
    for index, (name, shape, _) in enumerate(tensors):
        request.inputs.add(name=f"t{index}", datatype=name, shape=shape)
    reply = encode(decode(request, borrow=borrow), request)
    assert [(o.name, o.datatype, list(o.shape)) for o in reply.outputs] == [(i.name, i.datatype, list(i.shape)) for i in request.inputs]
    assert list(reply.raw_output_contents) == list(request.raw_input_contents)


@pytest.mark.parametrize("datatype", CONTENTS)
@settings(max_examples=25)
@given(drawn=st.data())
def test_typed_round_trip(datatype, drawn):
    """Typed tensors of a datatype that has a field for its elements → the same elements come back, raw."""
    _, shape, data = drawn.draw(raw_tensors(datatype))
    request = Request()
    sent = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if datatype == "BYTES":
        sent.contents.bytes_contents.extend(decode_one(datatype, shape, data).ravel())
    else:
        getattr(sent.contents, CONTENTS[datatype]).extend(np.frombuffer(data, BY_NAME[datatype].dtype).tolist())
    assert_same_elements(datatype, encode(decode(request), request).raw_output_contents[0], data)


def decode_one(datatype, shape, data):
    return decode(Request(inputs=[{"name": "x", "datatype": datatype, "shape": shape}], raw_input_contents=[data]))["x"]


def test_kinds_of_values():
    """Numbers → torch tensors of their dtype; BYTES → a numpy array of bytes objects."""
    bf16 = decode_one("BF16", [1], struct.pack("<f", 1.5)[2:])
    assert bf16.dtype == torch.bfloat16
    assert bf16.item() == 1.5
    assert decode_one("FP16", [1, 1], b"\x00\x3e").tolist() == [[1.5]]
    text = decode_one("BYTES", [2], b"\x01\x00\x00\x00a\x00\x00\x00\x00")
    assert text.dtype == object
    assert text.tolist() == [b"a", b""]


def test_borrowed():
    """A large raw tensor, borrowed → a view of the request, without a copy."""
    request = Request(inputs=[tensor(shape=[8192])], raw_input_contents=[b"\0" * 32768])
    payload = memoryview(bytearray(request.SerializeToString()))
    lent = OpenInferenceCodec().decode(payload, borrow=True)["x"]
    payload[-4:] = struct.pack("<f", 7)
    assert lent[-1] == 7
    owned = OpenInferenceCodec().decode(payload)["x"]
    payload[-4:] = struct.pack("<f", 8)
    assert owned[-1] == 7


def test_thousand_inputs():
    """1,000 inputs → 1,000 tensors."""
    request = Request(raw_input_contents=[TWO_FLOATS] * 1000)
    for index in range(1000):
        request.inputs.add(**{**FP32, "name": f"x{index}"})
    assert len(decode(request)) == 1000


def test_unusual_encoding():
    """A message that no generated code writes, with an unknown group in it → decoded as protobuf does."""
    raw = Request(model_name="m", inputs=[FP32], raw_input_contents=[TWO_FLOATS]).SerializeToString() + b"\xa3\x06\xa4\x06"
    assert OpenInferenceCodec().decode(memoryview(raw))["x"].tolist() == [1.5, -2]
    assert route(raw)[0].model_name == "m"


@pytest.mark.parametrize(("fields", "told"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(fields, told):
    """A request that cannot be right → INVALID_ARGUMENT naming the tensor."""
    refused(Request(**fields), told)


def test_no_message():
    """Bytes that are no message → INVALID_ARGUMENT, where it is routed and where it is decoded."""
    with pytest.raises(InvalidInput):
        route(b"\xff\xff")
    with pytest.raises(InvalidInput):
        OpenInferenceCodec().decode(memoryview(b"\xff\xff"))


@given(st.binary(max_size=60))
def test_any_bytes(raw):
    """Any bytes at all → routed and decoded, or refused; never another error."""
    for take in (route, lambda raw: OpenInferenceCodec().decode(memoryview(raw))):
        with contextlib.suppress(InvalidInput):
            take(raw)


DECLARED = OpenInferenceCodec(
    parse_declaration(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1]},
                {"name": "y", "datatype": "BYTES", "shape": [1], "optional": True},
            ],
            "outputs": [{"name": "a", "datatype": "INT32", "shape": [-1]}, {"name": "b", "datatype": "BYTES", "shape": [1, 1]}],
        }
    )
)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"inputs": [{**FP32, "name": "z"}]}, "input 'z' is none of the model's: x, y"),
        ({"inputs": [{**FP32, "datatype": "INT32"}]}, "input 'x' has the datatype 'INT32'; the model takes 'FP32'"),
        ({"inputs": [{**FP32, "shape": [1, 2]}]}, "input 'x' has the shape [1, 2]; the model takes [-1]"),
        ({"inputs": [FP32], "outputs": [{"name": "c"}]}, "unexpected inference output 'c' for model ''; outputs: a, b"),
        ({}, "expected input 'x'"),
    ],
)
def test_not_as_declared(fields, told):
    """A request unlike the declaration → INVALID_ARGUMENT naming the tensor."""
    contents = [TWO_FLOATS] if fields.get("inputs") else []
    refused(Request(**fields, raw_input_contents=contents), told, codec=DECLARED)


def test_too_many_rows():
    """A request of more rows than the batch size → INVALID_ARGUMENT naming the input, whatever the handler is."""
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1], "batchable": True}]
    codec = codec_of({"inputs": tensors}, 1)
    refused(Request(inputs=[FP32], raw_input_contents=[TWO_FLOATS]), "input 'x' has 2 rows; the model takes at most 1", codec=codec)
    assert len(decode(Request(inputs=[FP32], raw_input_contents=[TWO_FLOATS]), codec_of({"inputs": tensors}, 2))["x"]) == 2


def test_as_declared():
    """A request without an optional input → its row."""
    assert decode(Request(inputs=[FP32], raw_input_contents=[TWO_FLOATS]), DECLARED)["x"].tolist() == [1.5, -2]


def shown(reply):
    """What a reply has, as numpy arrays by name."""
    return {output.name: (output.datatype, decode_one(output.datatype, output.shape, data).tolist()) for output, data in pairs(reply)}


def pairs(reply):
    return zip(reply.outputs, reply.raw_output_contents, strict=True)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (torch.tensor([[1, 2]]), {"output": ("INT64", [[1, 2]])}),
        (np.float32(2), {"output": ("FP32", [2.0])}),
        ([0.5, 1], {"output": ("FP64", [0.5, 1.0])}),
        (["a", "é"], {"output": ("BYTES", [b"a", "é".encode()])}),
        ([b"a", b"\0"], {"output": ("BYTES", [b"a", b"\0"])}),
        ([["a", b"b"], ("c", b"")], {"output": ("BYTES", [[b"a", b"b"], [b"c", b""]])}),
        ([["a"], ["b", "c"]], {"output": ("BYTES", [b'[["a"], ["b", "c"]]'])}),
        (
            {"digit": 7, "name": "seven", "p": 0.5, "sure": True},
            {"digit": ("INT64", [7]), "name": ("BYTES", [b"seven"]), "p": ("FP64", [0.5]), "sure": ("BOOL", [True])},
        ),
        (b"\0\xff", {"output": ("BYTES", [b"\0\xff"])}),
        ({"boxes": [{"x": 1}]}, {"boxes": ("BYTES", [b'[{"x": 1}]'])}),
        ([[1], [2, 3]], {"output": ("BYTES", [b"[[1], [2, 3]]"])}),
        (None, {"output": ("BYTES", [b"null"])}),
        ({}, {"output": ("BYTES", [b"{}"])}),
    ],
)
def test_result_of_undeclared(result, expected):
    """What a handler that declares nothing returns → tensors as they are, numbers and texts as one element, the rest as JSON."""
    assert shown(encode(result)) == expected


@pytest.mark.parametrize(
    "result",
    [
        {"a": [1, 2], "b": "t"},
        {"a": [1.0, 2.0], "b": [[b"t"]]},
        ([1, 2], "t"),
        {"a": torch.tensor([1, 2], dtype=torch.int32), "b": np.array([["t"]]), "c": 1},
    ],
)
def test_result_of_declared(result):
    """Declared outputs, by name or by position → in the declared types, and no others."""
    reply = encode(result, codec=DECLARED)
    assert shown(reply) == {"a": ("INT32", [1, 2]), "b": ("BYTES", [[b"t"]])}


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"a": [1]}, "lacks the declared output 'b'"),
        ({"a": torch.tensor([1.0]), "b": "t"}, "output 'a' cannot be sent: it is FP32, and INT32 is declared"),
        ({"a": [[1]], "b": "t"}, "output 'a' cannot be sent: its shape is [1, 1]"),
        ({"a": ["x"], "b": "t"}, "output 'a' cannot be sent"),
        ({"a": [1.7, 2], "b": "t"}, "output 'a' cannot be sent: INT32 is declared, and it has other values"),
        ({"a": ["1"], "b": "t"}, "output 'a' cannot be sent: INT32 is declared, and it has other values"),
        ({"a": [2**31], "b": "t"}, "output 'a' cannot be sent"),
        (3, "must be a dict of the declared outputs: a, b"),
    ],
)
def test_result_unlike_declared(result, told):
    """A result unlike the declaration → an error of the handler that names the output."""
    with pytest.raises(InvalidHandlerResult) as raised:
        encode(result, codec=DECLARED)
    assert told in raised.value.message


def test_result_that_cannot_be_sent():
    """An array of complex numbers → an error of the handler."""
    with pytest.raises(InvalidHandlerResult):
        encode({"z": np.array([1j])})


def test_requested_outputs():
    """Outputs that are asked for → those, in that order."""
    reply = encode({"a": 1, "b": 2, "c": 3}, Request(outputs=[{"name": "c"}, {"name": "a"}]))
    assert list(shown(reply)) == ["c", "a"]


def test_output_that_is_not_there():
    """An output that an undeclared handler does not return → INVALID_ARGUMENT."""
    with pytest.raises(InvalidInput):
        encode({"a": 1}, Request(outputs=[{"name": "b"}]))


def test_classification():
    """A classification of two → the two largest of each row, with their indexes."""
    wanted = Request(outputs=[{"name": "output", "parameters": {"classification": {"int64_param": 2}}}])
    reply = encode(torch.tensor([[0.5, 2, 1], [3, 2, 4]]), wanted)
    assert shown(reply) == {"output": ("BYTES", [[b"2.000000:1", b"1.000000:2"], [b"4.000000:2", b"3.000000:0"]])}


@pytest.mark.parametrize(("shape", "found"), [((2, 0), (2, 0)), ((0, 3), (0, 2))])
def test_classification_without_elements(shape, found):
    """A classification of a tensor that is empty → is empty."""
    wanted = Request(outputs=[{"name": "output", "parameters": {"classification": {"int64_param": 2}}}])
    (output,) = encode(torch.zeros(shape), wanted).outputs
    assert (output.datatype, tuple(output.shape)) == ("BYTES", found)


@pytest.mark.parametrize("count", [0, -1])
def test_classification_of_nothing(count):
    """A classification of none → INVALID_ARGUMENT."""
    with pytest.raises(InvalidInput):
        encode(torch.tensor([1.0]), Request(outputs=[{"name": "output", "parameters": {"classification": {"int64_param": count}}}]))


def test_about():
    """A reply → model, version and id."""
    reply = encode(1)
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "1", "id")


# --- parameters


def options(**parameters):
    request = Request(model_name="m", id="7", parameters=parameters, inputs=[FP32], raw_input_contents=[TWO_FLOATS])
    where, found = route(request.SerializeToString())
    assert where == ("m", "", "7")
    return found


def test_options():
    """Parameters → sequence, priority, timeout in seconds, and all others as headers for the handler."""
    found = options(
        sequence_id={"int64_param": 5},
        sequence_start={"bool_param": True},
        priority={"uint64_param": 2},
        timeout={"int64_param": 1500},
        Temperature={"double_param": 0.5},
        flag={"bool_param": True},
    )
    assert found.timeout_seconds == 0.0015
    assert (found.sequence_id, found.sequence_start, found.sequence_end, found.priority) == ("5", True, False, 2)
    assert dict(found.headers) == {"temperature": "0.5", "flag": "true"}


def test_no_options():
    """Parameters of zero → nothing asked for."""
    found = options(sequence_id={"int64_param": 0}, timeout={"int64_param": 0}, priority={"int64_param": 0})
    assert found.timeout_seconds == math.inf
    assert found.sequence_id == ""


@pytest.mark.parametrize(
    "parameters",
    [
        {"timeout": {"string_param": "1"}},
        {"timeout": {"int64_param": -1}},
        {"priority": {"int64_param": -1}},
        {"sequence_start": {"int64_param": 1}},
        {"sequence_id": {"bool_param": True}},
        {"sequence_id": {"string_param": ""}, "sequence_start": {"bool_param": True}},
        {"sequence_id": {"int64_param": 0}, "sequence_end": {"bool_param": True}},
        {"triton_unheard_of": {"bool_param": True}},
        {"servegrpc_region/r": {"string_param": "0 8 /r"}},
    ],
)
def test_bad_options(parameters):
    """A parameter that cannot be → INVALID_ARGUMENT naming it."""
    with pytest.raises(InvalidInput) as raised:
        options(**parameters)
    assert next(iter(parameters)) in raised.value.message


def test_names_too_long():
    """A name or id that is too long → INVALID_ARGUMENT."""
    for name, length in (("model_name", 257), ("model_version", 257), ("id", 129)):
        with pytest.raises(InvalidInput):
            route(Request(**{name: "x" * length}).SerializeToString())


# --- JSON, as TorchServe's kservev2 envelope has it

JSON = codec_of({"serviceEnvelope": "kservev2"})


def test_json_row():
    """A model behind the kservev2 envelope → its row is the request in JSON under "body", BYTES as base64."""
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2]}, {"name": "y", "datatype": "BYTES", "shape": [2]}]
    request = Request(id="7", model_name="m", inputs=inputs, raw_input_contents=[TWO_FLOATS, b"\x01\0\0\0a\x01\0\0\0\xff"])
    assert decode(request, JSON) == {
        "body": {
            "id": "7",
            "model_name": "m",
            "inputs": [
                {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, -2.0]},
                {"name": "y", "shape": [2], "datatype": "BYTES", "data": ["YQ==", "/w=="]},
            ],
        }
    }


def test_json_result():
    """A result in the protocol's JSON → its outputs."""
    outputs = [
        {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["t"]},
    ]
    assert shown(encode({"id": "7", "outputs": outputs}, codec=JSON)) == {"a": ("FP32", [[1.0, 2.0]]), "b": ("BYTES", [b"t"])}


@pytest.mark.parametrize("wrong", [{"datatype": "BF16"}, {"shape": [3]}, {"data": ["x", "y"]}, {"shape": 2}])
def test_json_result_that_is_no_tensor(wrong):
    """An output in JSON that makes no tensor → an error of the handler that names it."""
    with pytest.raises(InvalidHandlerResult, match="output 'a'"):
        encode({"outputs": [{"name": "a", "datatype": "FP32", "shape": [2], "data": [1, 2], **wrong}]}, codec=JSON)
