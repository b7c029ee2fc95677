"""Requests as bytes on the wire: any tensor, all that cannot be right, parameters, and TorchServe's envelope."""

import json
import struct
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oip import InferenceServerException, accepted, deserialize_bytes_tensor, outputs, service_pb2, tensor
from oip_requests import FP32, MALFORMED, TWO_FLOATS, assert_same_elements, raw_tensors
from servers import until

from servegrpc.values import BY_NAME
from servegrpc.wire.open_inference_inputs import CONTENTS

SECONDS = 20
Request = service_pb2.ModelInferRequest


@pytest.fixture(scope="module")
def infer(triton):
    """ModelInfer with messages."""
    return lambda **fields: triton._client_stub.ModelInfer(Request(**fields), timeout=SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("datatype", BY_NAME)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_raw_tensors(infer, datatype, data):
    """Raw tensors of a datatype and any shape, among others, through identity → the same bytes."""
    tensors = [data.draw(raw_tensors(datatype)), *data.draw(st.lists(raw_tensors(), max_size=4))]
    inputs = [{"name": f"t{index}", "datatype": name, "shape": shape} for index, (name, shape, _) in enumerate(tensors)]
    reply = infer(model_name="same", inputs=inputs, raw_input_contents=[data for _, _, data in tensors])
    assert [(o.name, o.datatype, list(o.shape)) for o in reply.outputs] == [(i["name"], i["datatype"], i["shape"]) for i in inputs]
    assert list(reply.raw_output_contents) == [data for _, _, data in tensors]


def elements(datatype, data):
    """Return the elements of a raw tensor, as Triton's client reads those of BYTES."""
    if datatype == "BYTES":
        return deserialize_bytes_tensor(data).tolist()
    return np.frombuffer(data, BY_NAME[datatype].dtype).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("datatype", CONTENTS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_typed_tensor(infer, datatype, drawn):
    """Typed tensors of a datatype and any shape through identity → the same elements, raw."""
    _, shape, data = drawn.draw(raw_tensors(datatype))
    contents = {CONTENTS[datatype]: elements(datatype, data)}
    reply = infer(model_name="same", inputs=[{"name": "x", "datatype": datatype, "shape": shape, "contents": contents}])
    assert_same_elements(datatype, reply.raw_output_contents[0], data)
    assert list(reply.outputs[0].shape) == shape


@pytest.mark.parametrize(("fields", "told"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(infer, fields, told):
    """A request that cannot be right → INVALID_ARGUMENT naming the tensor, with the field in its details."""
    with pytest.raises(grpc.RpcError) as raised:
        infer(**{**fields, "model_name": "same"})
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told.replace("model ''", "model 'same'").replace("model 'm'", "model 'same'") in raised.value.details()
    details = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = status_pb2.Status.FromString(details)
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(violation)
    assert info.reason == "INVALID_INPUT"
    assert violation.field_violations[0].field


def test_thousand_inputs(infer):
    """1,000 inputs → 1,000 outputs."""
    inputs = [{"name": f"t{index}", "datatype": "UINT16", "shape": [1]} for index in range(1000)]
    data = [struct.pack("<H", index) for index in range(1000)]
    assert list(infer(model_name="same", inputs=inputs, raw_input_contents=data).raw_output_contents) == data


def test_by_the_name_of_torchserve(triton_server):
    """The service under the name that TorchServe has for it → the same answers."""
    method = "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer"
    request = Request(model_name="same", inputs=[FP32], raw_input_contents=[TWO_FLOATS])
    with grpc.insecure_channel(triton_server.inference) as channel:
        infer = channel.unary_unary(method, Request.SerializeToString, service_pb2.ModelInferResponse.FromString)
        assert list(infer(request, timeout=SECONDS).raw_output_contents) == [TWO_FLOATS]


def test_parameters(triton):
    """Parameters that mean nothing to the server, and metadata → the handler's request headers."""
    result = triton.infer("told", [tensor("x", np.zeros(1, np.float32))], parameters={"Temperature": 0.5, "flag": True}, headers={"a": "b"})
    headers = json.loads(result.as_numpy("headers")[0])
    assert {key: headers[key] for key in ("temperature", "flag", "a")} == {"temperature": "0.5", "flag": "true", "a": "b"}


@pytest.mark.parametrize("parameters", [{"triton_unheard_of": True}, {"servegrpc_region/r": "0 8 /r"}])
def test_reserved_parameters(triton, parameters):
    """Parameters with reserved names → INVALID_ARGUMENT naming them."""
    request = Request(model_name="same", inputs=[{"name": "x", "datatype": "UINT8", "shape": [1]}], raw_input_contents=[b"1"])
    for key, value in parameters.items():
        setattr(request.parameters[key], "bool_param" if value is True else "string_param", value)
    with pytest.raises(grpc.RpcError) as raised:
        triton._client_stub.ModelInfer(request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(parameters)) in raised.value.details()


def test_timeout(triton):
    """A time-out that passes before a worker has the request → DEADLINE_EXCEEDED, and it is not run."""
    runs = triton.get_inference_statistics("same").model_stats[0].execution_count
    with pytest.raises(InferenceServerException, match="it was not run") as raised:
        triton.infer("same", [tensor("x", np.zeros(1, np.float32))], timeout=1)  # a microsecond
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert triton.get_inference_statistics("same").model_stats[0].execution_count == runs


def test_priority(triton_server, triton, gate):
    """A worker is busy and a request of high priority comes last → it is run before others that came before it."""
    before, done = accepted(triton_server, "hold"), SimpleQueue()
    paths = {"busy": (gate.path, 0), **{f"none {number}": ("/dev/null", 0) for number in range(4)}, "first": ("/dev/null", 1)}
    for count, (name, (path, priority)) in enumerate(paths.items(), start=1):
        text = tensor("PATH", np.array([path], dtype=object))
        triton.async_infer("hold", [text], lambda result, error, name=name: done.put((name, result)), priority=priority)
        until(lambda count=count: accepted(triton_server, "hold") == before + count)
    gate.wait_entered()
    gate.open()
    numbers = {name: result.as_numpy("NUMBER")[0] for name, result in (done.get(timeout=SECONDS) for _ in paths)}
    assert numbers["busy"] < numbers["first"] < numbers["none 1"] < numbers["none 2"]  # "none 0" may have been handed over before


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (outputs("y"), "unexpected inference output 'y'; outputs: x"),
        (outputs("x", class_count=3), "classification of output 'x' needs a number of at least 1 and numbers to sort"),
    ],
    ids=["not there", "no numbers to classify"],
)
def test_output_that_cannot_be_given(triton, wanted, told):
    """An output asked for that an undeclared handler does not give, or not so → INVALID_ARGUMENT."""
    with pytest.raises(InferenceServerException, match=told) as raised:
        triton.infer("same", [tensor("x", np.array(["text"], dtype=object))], outputs=wanted)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_envelope(infer):
    """A TorchServe archive behind the kservev2 envelope → gets the protocol's JSON, its reply is made tensors."""
    inputs = [{"name": "a", "datatype": "FP32", "shape": [1, 2]}, {"name": "b", "datatype": "INT64", "shape": [1]}]
    reply = infer(model_name="enveloped", id="7", inputs=inputs, raw_input_contents=[struct.pack("<2f", 1, 2), struct.pack("<q", 5)])
    assert [(o.name, o.datatype, list(o.shape)) for o in reply.outputs] == [("a", "FP64", [2]), ("b", "INT64", [1])]
    assert list(reply.raw_output_contents) == [struct.pack("<2d", 2, 4), struct.pack("<q", 10)]
    assert reply.id == "7"
