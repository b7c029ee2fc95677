"""The Open Inference dialect: where a ModelInfer request goes, its inputs as the handler's row, and a result as its reply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import DecodeError

from servegrpc.compat.open_inference import infer_pb2, tensors_pb2
from servegrpc.errors import InvalidInput, ModelNotFound, ServeError, VersionNotFound
from servegrpc.reply import Reply
from servegrpc.tensors import Declaration, declaration_or_none
from servegrpc.wire import native
from servegrpc.wire.dialect import About
from servegrpc.wire.open_inference_inputs import REGION_PREFIX, Request, decode_inputs, parse
from servegrpc.wire.open_inference_json import from_json, to_json
from servegrpc.wire.open_inference_outputs import asked, check_wanted, encode_outputs
from servegrpc.wire.scan import MAX_NAME_LENGTH, MAX_REQUEST_ID_LENGTH, Route, UnusualMessageError, read_varint
from servegrpc.wire.write import varint

BYTES_KIND = 2  # protobuf's wire type
FIRST_KEY, PARAMETERS_KEY, LAST_KEY = (number << 3 | BYTES_KIND for number in (1, 4, 7))  # model_name, parameters, raw_input_contents
OWN_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "triton_enable_empty_final_response")


class Options(NamedTuple):
    """What the parameters of a request ask of the server. `headers` are all others, as texts, for the handler."""

    headers: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = math.inf
    priority: int = 0
    sequence_id: str = ""
    sequence_start: bool = False
    sequence_end: bool = False
    empty_final_response: bool = False


NO_OPTIONS = Options()
INFER_RESPONSE = b"\x12"  # begins the field of that name of a ModelStreamInferResponse
RAW_OUTPUT_CONTENTS = b"\x32"  # begins the field of that name of a ModelInferResponse
ENVELOPE = "kservev2"  # the envelope whose handlers take the protocol's JSON


def route(raw: bytes) -> tuple[Route, Options]:
    """Return where a ModelInferRequest goes and what its parameters ask for; tensors are not looked at.

    Raises InvalidInput when it is no such message, for a parameter that cannot be, and for a name or id that is too long.
    """
    try:
        texts, parameters = _scan(raw)
    except (UnusualMessageError, IndexError, UnicodeDecodeError, DecodeError):
        try:
            request = Request.FromString(raw)
        except DecodeError:
            raise InvalidInput("The request is not a valid ModelInferRequest message.") from None
        texts, parameters = (request.model_name, request.model_version, request.id), request.parameters
    names = ("model_name", "model_version", "id")
    for name, text, most in zip(names, texts, (MAX_NAME_LENGTH, MAX_NAME_LENGTH, MAX_REQUEST_ID_LENGTH), strict=True):
        if len(text) > most:
            raise InvalidInput(f"{name} has {len(text)} characters; at most {most} are allowed.", field=name)
    return Route(*texts), read_options(parameters) if parameters else NO_OPTIONS


def checked_route(raw: bytes) -> tuple[Route, Options]:
    """Do as `route`; raises InvalidInput also when no model is named."""
    where, options = route(raw)
    if not where.model_name:
        raise InvalidInput("model_name is empty; name a registered model.", field="model_name")
    return where, options


def request_id_of(raw: bytes) -> str:
    """Return the id that a request's caller gave it; empty when there is none, or it is no message."""
    try:
        return _scan(raw)[0][2]
    except (UnusualMessageError, IndexError, UnicodeDecodeError, DecodeError):
        return ""


def stream_reply(body: bytes, *, final: bool) -> bytes:
    """Return the message of a stream that carries an encoded reply, and says whether it is the request's last one."""
    said = infer_pb2.ModelInferResponse()
    said.parameters["triton_final_response"].bool_param = final
    body += said.SerializeToString()  # fields of two messages, one after the other, are those of both
    return INFER_RESPONSE + varint(len(body)) + body


def _scan(raw: bytes) -> tuple[tuple[str, str, str], Mapping[str, tensors_pb2.InferParameter]]:
    """Return model, version and id, and the parameters; one loop, since every request comes through here on one thread."""
    texts, parameters = [b"", b"", b"", b""], b""
    position, end = 0, len(raw)
    while position < end:
        begin, key = position, raw[position]
        if key & 7 != BYTES_KIND or not FIRST_KEY <= key <= LAST_KEY:
            raise UnusualMessageError  # all fields of the message are of this kind, and have numbers below 16
        length = raw[position + 1]
        position += 2
        if length > 0x7F:
            length, position = read_varint(raw, position - 1)
        content, position = position, position + length
        if key < PARAMETERS_KEY:
            texts[key >> 3] = raw[content:position]
        elif key == PARAMETERS_KEY:
            parameters += raw[begin:position]
    if position != end:
        raise UnusualMessageError
    _, name, version, request_id = [text.decode() for text in texts]
    return (name, version, request_id), Request.FromString(parameters).parameters if parameters else {}


def read_options(parameters: Mapping[str, tensors_pb2.InferParameter]) -> Options:
    """Return what parameters ask for. Raises InvalidInput for one that cannot be."""
    headers = []
    for key, parameter in parameters.items():
        if key.startswith(REGION_PREFIX) or (key.startswith("triton_") and key not in OWN_PARAMETERS):
            raise InvalidInput(f"parameter '{key}' is not known, and names that begin so are reserved", field=f"parameters.{key}")
        if key not in OWN_PARAMETERS:
            headers.append((key.lower(), _text(parameter)))
    given = {key: _value(parameters[key]) for key in OWN_PARAMETERS if key in parameters}
    timeout, sequence = _whole(given, "timeout"), given.get("sequence_id", "")
    if isinstance(sequence, float | bool):
        raise InvalidInput("parameter 'sequence_id' must be a whole number or a text", field="parameters.sequence_id")
    start, end = _flag(given, "sequence_start"), _flag(given, "sequence_end")
    if sequence in (0, "") and (start or end):
        text = f"parameter 'sequence_id' is missing beside '{'sequence_start' if start else 'sequence_end'}'"
        raise InvalidInput(text, field="parameters.sequence_id")
    return Options(
        tuple(headers),
        timeout / 1e6 if timeout else math.inf,
        _whole(given, "priority"),
        "" if sequence in (0, "") else str(sequence),
        start,
        end,
        _flag(given, "triton_enable_empty_final_response"),
    )


def _value(parameter: tensors_pb2.InferParameter) -> bool | int | float | str:
    kind = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str = getattr(parameter, kind) if kind else ""
    return value


def _text(parameter: tensors_pb2.InferParameter) -> str:
    value = _value(parameter)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _whole(given: Mapping[str, bool | int | float | str], key: str) -> int:
    value = given.get(key, 0)
    if type(value) is not int or value < 0:
        raise InvalidInput(f"parameter '{key}' must be a whole number of at least 0", field=f"parameters.{key}")
    return value


def _flag(given: Mapping[str, bool | int | float | str], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"parameter '{key}' must be a bool_param", field=f"parameters.{key}")
    return value


@dataclass(frozen=True, slots=True)
class OpenInferenceCodec:
    """The codec of one model, which knows its declared tensors. With `as_json`, the handler's row is the request in the protocol's JSON.

    Batchable tensors have `most_rows` at most.
    """

    declared: Declaration = field(default_factory=Declaration)
    as_json: bool = False
    most_rows: float = math.inf

    def decode(self, payload: memoryview, *, borrow: bool = False) -> dict[str, object]:
        """Return the inputs by name: torch tensors of their own memory, numpy arrays of bytes objects for BYTES.

        With `as_json` they are one input, "body". With `borrow`, large tensors are views of `payload`.
        Raises InvalidInput naming the tensor that is wrong.
        """
        request, raw = parse(payload)
        check_wanted(request, self.declared)
        row = decode_inputs(request, raw, self.declared, self.most_rows, borrow=borrow)
        return {"body": to_json(request, row)} if self.as_json else row

    def encode(self, result: object, about: About) -> bytes:
        """Return the reply that carries one result: the wanted outputs, always raw.

        Raises InvalidHandlerResult for a result that cannot be sent, InvalidInput for an output that is asked for and not there.
        """
        reply = infer_pb2.ModelInferResponse(model_name=about.model_name, model_version=about.model_version, id=about.request_id)
        parts = [b""]
        for data in encode_outputs(from_json(result), asked(about.request), self.declared, reply):
            parts += [RAW_OUTPUT_CONTENTS, varint(len(data)), data]  # by hand: the message would copy all of it twice more
        parts[0] = reply.SerializeToString()
        return b"".join(parts)

    def status(self, error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
        """Return an error's code, its message and its google.rpc.Status."""
        return native.status(in_triton_words(error), message, metadata)


def in_triton_words(error: ServeError) -> ServeError:
    """Return an error that says of a model or version which is not there what Triton's clients look for; any other error as it is."""
    about = error.metadata
    match error:
        case ModelNotFound():
            text = f"Request for unknown model: '{about['model_name']}' is not found; models: {about['models'] or 'none'}."
        case VersionNotFound():
            text = f"Request for unknown model: '{about['model_name']}' version {about['model_version']} is not found; "
            text += f"versions: {about['versions']}."
        case _:
            return error
    return type(error)(text).about(**about)


def codec_of(model_config: Mapping[str, object], batch_size: float = math.inf) -> OpenInferenceCodec:
    """Return the codec of a model by its model-config.yaml and batch size."""
    return OpenInferenceCodec(declaration_or_none(model_config), model_config.get("serviceEnvelope") == ENVELOPE, batch_size)
