"""The `servegrpc.v1` dialect inside a worker: a raw request to the handler's row, and its result to a raw reply.

PredictRequest, PredictStreamRequest and PredictSessionRequest share fields and numbers, and so do their replies: one codec serves all.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_into
from servegrpc.wire.dialect import About


def decode(payload: memoryview) -> dict[str, object]:
    """Return the inputs by name: binary as bytearray, text as str, JSON as Python objects, tensors as torch tensors of their own memory.

    Raises InvalidInput naming the input that is wrong.
    """
    try:
        request = inference_pb2.PredictRequest.FromString(bytes(payload))
    except DecodeError:
        raise InvalidInput("The request is not a valid PredictRequest message.") from None
    if not request.inputs:
        raise InvalidInput('inputs is empty; give at least one, as in {"data": …}.', field="inputs")
    row: dict[str, object] = {}
    for name, value in request.inputs.items():
        try:
            row[name] = decode_value(value, tensors="torch", binary=bytearray)
        except ValueError as error:
            raise InvalidInput(f'inputs["{name}"]: {error}.', field=f"inputs.{name}") from None
    return row


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
