"""The `servegrpc.v1` dialect inside a worker: a raw request to the handler's row, and its result to a raw reply.

PredictRequest, PredictStreamRequest and PredictSessionRequest share fields and numbers, and so do their replies: one codec serves all.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError

from servegrpc.errors import InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.reply import Reply
from servegrpc.v1 import inference_pb2, value_pb2
from servegrpc.values import BYTES_LIKE, decode_tensor, decode_value, encode_into, encode_tensor, is_array
from servegrpc.wire.dialect import About
from servegrpc.wire.large import LARGE_BYTES, take_large
from servegrpc.wire.scan import UnusualMessageError, cut
from servegrpc.wire.status import encode_status, short
from servegrpc.wire.write import sized, varint

INPUTS, BINARY, TENSOR, TENSOR_DATA = 3, 1, 4, 3  # field numbers

OUTPUT, REQUEST_ID, TIMING = b"\x0a", b"\x22", b"\x2a"  # keys of PredictResponse
BINARY_KEY, TEXT_KEY, TENSOR_KEY = b"\x0a", b"\x12", b"\x22"  # of Value
DATA_TYPE, SHAPE, DATA = b"\x08", b"\x12", b"\x1a"  # of Tensor
QUEUE, HANDLER, BATCH_SIZE = b"\x0a", b"\x12", b"\x18"  # of Timing
SECONDS, NANOS = b"\x08", b"\x10"  # of Duration


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
    name = ""
    try:
        inputs = request.inputs
        for name in inputs:  # its `items` take twice as long
            row[name] = decode_value(inputs[name], tensors="torch", binary=bytearray)
    except ValueError as error:
        raise _wrong(name, error) from None
    return row


def _take_large(payload: memoryview, row: dict[str, object], borrow: bool) -> bytes:
    def large(name: str, value: memoryview) -> object:
        try:
            return _large_value(value, borrow)
        except ValueError as error:
            raise _wrong(name, error) from None

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


def _wrong(name: str, error: ValueError) -> InvalidInput:
    """Return the error that names the input whose value is wrong."""
    return InvalidInput(f'inputs["{name}"]: {error}.', field=f"inputs.{name}")


def encode(result: object, about: About) -> bytes:
    """Return the reply that carries one result. Raises InvalidHandlerResult for an object that cannot be sent."""
    try:
        value = _value(result)
        if not value:
            return _encode_json(result, about)
    except (TypeError, ValueError) as error:
        raise InvalidHandlerResult(f"the handler's result cannot be sent: {error}") from error
    names, queue = about.kept or _keep(about)
    timing = queue + _duration(HANDLER, about.handler_nanoseconds) + BATCH_SIZE + varint(about.batch_size)
    return b"".join((OUTPUT, varint(sum(map(len, value))), *value, names, TIMING, sized(timing)))


def _keep(about: About) -> tuple[bytes, bytes]:
    names = _model(about.model_name, about.model_version) + REQUEST_ID + sized(about.request_id.encode())
    about.kept = names, _duration(QUEUE, about.queue_microseconds * 1000)
    return about.kept


def _value(result: object) -> tuple[bytes, ...]:
    """Return a text, bytes or a tensor as the parts of a Value, and nothing for what goes as JSON or named values."""
    if isinstance(result, str):
        return (TEXT_KEY + sized(result.encode()),)
    if isinstance(result, BYTES_LIKE):
        content = bytes(result)
        return BINARY_KEY, varint(len(content)), content
    if not isinstance(result, dict) and (isinstance(result, np.generic) or is_array(result)):  # is_array takes 0.3 us
        element, shape, data = encode_tensor(result)
        head = DATA_TYPE + varint(element.number) + SHAPE + sized(b"".join(map(varint, shape))) + DATA + varint(len(data))
        return TENSOR_KEY, varint(len(head) + len(data)), head, data
    return ()


@lru_cache(maxsize=16)
def _model(model_name: str, model_version: str) -> bytes:
    return inference_pb2.PredictResponse(model_name=model_name, model_version=model_version).SerializeToString()


def _duration(key: bytes, nanoseconds: int) -> bytes:
    if nanoseconds < 1_000_000_000:
        return key + sized(NANOS + varint(nanoseconds))
    seconds, nanoseconds = divmod(nanoseconds, 1_000_000_000)
    return key + sized(SECONDS + varint(seconds) + NANOS + varint(nanoseconds))


def _encode_json(result: object, about: About) -> bytes:
    """Return the reply as protobuf writes it: many small fields it writes faster. Raises TypeError and ValueError as `encode_into` does."""
    reply = inference_pb2.PredictResponse()
    reply.model_name, reply.model_version, reply.request_id = about.model_name, about.model_version, about.request_id
    encode_into(reply.output, result)
    timing = reply.timing
    timing.batch_size = about.batch_size
    seconds, microseconds = divmod(about.queue_microseconds, 1_000_000)  # `FromMicroseconds` takes three times as long
    timing.queue.nanos = microseconds * 1000
    if seconds:  # each field that is set costs 0.1 us
        timing.queue.seconds = seconds
    seconds, nanoseconds = divmod(about.handler_nanoseconds, 1_000_000_000)
    timing.handler.nanos = nanoseconds
    if seconds:
        timing.handler.seconds = seconds
    return reply.SerializeToString()


def status(error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
    """Return an error's code, its message and its google.rpc.Status."""
    message = short(message or error.message)
    return Reply(encode_status(error, message, metadata), int(error.code), message)
