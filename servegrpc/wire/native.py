"""The `servegrpc.v1` dialect inside a worker: a raw request to the handler's row, and its result to a raw reply.

PredictRequest, PredictStreamRequest and PredictSessionRequest share fields and numbers, and so do their replies: one codec serves all.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

from google.protobuf.message import DecodeError

from servegrpc.errors import InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.reply import Reply
from servegrpc.v1 import inference_pb2, value_pb2
from servegrpc.values import decode_tensor, decode_value, encode_into
from servegrpc.wire.dialect import About
from servegrpc.wire.large import LARGE_BYTES, take_large
from servegrpc.wire.scan import UnusualMessageError, cut
from servegrpc.wire.status import encode_status, short

INPUTS, BINARY, TENSOR, TENSOR_DATA = 3, 1, 4, 3  # field numbers


def decode(payload: memoryview, *, borrow: bool = False) -> dict[str, object]:
    """Return the inputs by name: binary as bytearray, text as str, JSON as Python objects, tensors as torch tensors of their own memory.

    With `borrow`, large binary inputs are memoryviews and large tensors views of `payload`, without a copy.
    Raises InvalidInput naming the input that is wrong.
    """
    row: dict[str, object] = {}
    rest = bytes(payload) if len(payload) < LARGE_BYTES else _take_large(payload, row, borrow)
    try:
        request = inference_pb2.PredictRequest.FromString(rest)
    except DecodeError:
        raise InvalidInput("The request is not a valid PredictRequest message.") from None
    if not request.inputs and not row:
        raise InvalidInput('inputs is empty; give at least one, as in {"data": …}.', field="inputs")
    for name, value in request.inputs.items():
        with _naming(name):
            row[name] = decode_value(value, tensors="torch", binary=bytearray)
    return row


def _take_large(payload: memoryview, row: dict[str, object], borrow: bool) -> bytes:
    def large(name: str, value: memoryview) -> object:
        with _naming(name):
            return _large_value(value, borrow)

    return take_large(payload, INPUTS, row, large, _names)


def _names(rest: bytes) -> Container[str]:
    return inference_pb2.PredictRequest.FromString(rest).inputs


def _large_value(value: memoryview, borrow: bool) -> object:
    number = value[0] >> 3
    if number not in (BINARY, TENSOR):
        raise UnusualMessageError
    others, content = cut(value, number)
    if others:
        raise UnusualMessageError
    if number == BINARY:
        return content if borrow else bytearray(content)
    header, data = cut(content, TENSOR_DATA)
    tensor = value_pb2.Tensor.FromString(header)
    return decode_tensor(tensor.data_type, tensor.shape, data, tensors="torch", copy=not borrow)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn what is wrong with an input's value into an error that names the input."""
    try:
        yield
    except ValueError as error:
        raise InvalidInput(f'inputs["{name}"]: {error}.', field=f"inputs.{name}") from None


def encode(result: object, about: About) -> bytes:
    """Return the reply that carries one result. Raises InvalidHandlerResult for an object that cannot be sent."""
    reply = inference_pb2.PredictResponse(model_name=about.model_name, model_version=about.model_version, request_id=about.request_id)
    try:
        encode_into(reply.output, result)
    except (TypeError, ValueError) as error:
        raise InvalidHandlerResult(f"the handler's result cannot be sent: {error}") from error
    reply.timing.queue.FromMicroseconds(about.queue_microseconds)
    reply.timing.handler.FromNanoseconds(about.handler_nanoseconds)
    reply.timing.batch_size = about.batch_size
    return reply.SerializeToString()


def status(error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
    """Return an error's code, its message and its google.rpc.Status."""
    message = short(message or error.message)
    return Reply(encode_status(error, message, metadata), int(error.code), message)
