"""The dialect of TorchServe's inference API: where a request goes, its inputs as the handler's row, and a result as its reply.

`ending` says in which words TorchServe ends a call that failed: clients match on them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo

from servegrpc.compat.torchserve.inference_pb2 import PredictionResponse, PredictionsRequest, Status
from servegrpc.errors import InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.reply import Reply
from servegrpc.wire.dialect import About
from servegrpc.wire.large import LARGE_BYTES, take_large
from servegrpc.wire.scan import MAX_NAME_LENGTH, Route, UnusualMessageError, route_fields
from servegrpc.wire.status import encode_status
from servegrpc.wire.torchserve_errors import EmptyName, Ending, ending

INPUT, SEQUENCE_ID = 3, 4  # field numbers of PredictionsRequest


def route(raw: bytes) -> tuple[Route, str]:
    """Return where a PredictionsRequest goes, and its sequence id. Raises InvalidInput when it is no such message or a name is too long."""
    try:
        name, version, sequence_id = route_fields(raw, SEQUENCE_ID)[:3]
    except (UnusualMessageError, IndexError, UnicodeDecodeError):
        request = _parse(raw)
        name, version, sequence_id = request.model_name, request.model_version, request.sequence_id
    for field, text in (("model_name", name), ("model_version", version), ("sequence_id", sequence_id)):
        if len(text) > MAX_NAME_LENGTH:
            raise InvalidInput(f"{field} has {len(text)} characters; at most {MAX_NAME_LENGTH} are allowed.", field=field)
    return Route(name, version, ""), sequence_id


@contextmanager
def asked(where: Route) -> Iterator[None]:
    """Refuse a route without a model, and note on an error what was asked for: one of TorchServe's texts needs to know."""
    try:
        if not where.model_name:
            raise EmptyName("model_name is empty; name a registered model.", field="model_name")
        yield
    except ServeError as error:
        if where.model_name:
            error.about(model_name=where.model_name, asked_version=where.model_version)
        raise


def decode(payload: memoryview, *, borrow: bool = False) -> dict[str, object]:
    """Return the inputs by name, as bytearrays; with `borrow`, large ones are memoryviews of `payload`. Raises InvalidInput."""
    row: dict[str, object] = {}
    if len(payload) < LARGE_BYTES:
        rest = bytes(payload)
    else:
        rest = take_large(payload, INPUT, row, lambda _, value: value if borrow else bytearray(value), _names)
    row.update((name, bytearray(value)) for name, value in _parse(rest).input.items())
    return row


def _names(rest: bytes) -> Mapping[str, bytes]:
    return PredictionsRequest.FromString(rest).input


def _parse(raw: bytes) -> PredictionsRequest:
    try:
        return PredictionsRequest.FromString(raw)
    except DecodeError:
        raise InvalidInput("The request is not a valid PredictionsRequest message.") from None


def encode(result: object, about: About) -> bytes:  # noqa: ARG001 - a codec's signature; this reply tells nothing else
    """Return the reply that carries one result: bytes, text and tensors as they are, anything else as JSON indented by two.

    Raises InvalidHandlerResult for an object that JSON cannot hold (TorchServe `create_predict_response`).
    """
    return PredictionResponse(prediction=_prediction(result)).SerializeToString()


def _prediction(result: object) -> bytes:
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    torch = sys.modules.get("torch")  # where nobody has imported it there is no tensor
    try:
        if isinstance(result, str):
            return result.encode()
        if torch and isinstance(result, torch.Tensor):
            buffer = BytesIO()
            torch.save(result, buffer)
            return buffer.getvalue()
        return json.dumps(result, indent=2).encode()
    except (TypeError, ValueError) as error:
        raise InvalidHandlerResult(f"the handler's result cannot be sent: {error}") from error


def status(error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
    """Return TorchServe's code and text for an error of an inference call; see `ended`."""
    return ended(error, ending(error), message, metadata)


def ended(error: ServeError, end: Ending, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
    """Return the end of a call in TorchServe's words, with our google.rpc.Status beside them: its `cause` is what our own API says."""
    details = {**(metadata or {}), "cause": message or error.message}
    return Reply(encode_status(error, end.text, details, end.code), end.code, end.text)


def stream_status(end: Reply) -> bytes:
    """Return the message by which StreamPredictions2 answers a request that failed: the class is not in its text, but its first detail."""
    text, _, class_name = end.message.partition("\n")
    status = Status(code=end.code, message=text)
    status.details.add().Pack(ErrorInfo(reason=class_name))
    status.details.extend(Status.FromString(end.body).details)  # google.rpc.Status by another name
    return PredictionResponse(status=status).SerializeToString()


def sequence_field(sequence_id: str) -> bytes:
    """Return what is to be added to a reply of StreamPredictions2, to say which sequence it is of, if any."""
    return PredictionResponse(sequence_id=sequence_id).SerializeToString() if sequence_id else b""
