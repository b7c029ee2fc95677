"""Reads what routing needs off a raw request, without decoding it: the server never parses a payload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from servegrpc.errors import InvalidInput
from servegrpc.v1 import inference_pb2

MAX_REQUEST_ID_LENGTH = 128
MAX_NAME_LENGTH = 256

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf wire types
NAME_KEY, VERSION_KEY = 1 << 3 | BYTES, 2 << 3 | BYTES


class UnusualMessageError(Exception):
    """The message is malformed, or uses an encoding that no generated code writes."""


class Route(NamedTuple):
    """Where a request goes. Empty texts are those not given."""

    model_name: str
    model_version: str
    request_id: str


def route(raw: bytes) -> Route:
    """Return the route of a `servegrpc.v1` request of Predict, PredictStream or PredictSession.

    Raises InvalidInput when it is no such message or the request id is too long. Payloads are not looked at.
    """
    try:
        found = route_fields(raw, 4)
    except (UnusualMessageError, IndexError, UnicodeDecodeError):
        found = _parse(raw)
    name, version, request_id = found
    if len(name) > MAX_NAME_LENGTH or len(version) > MAX_NAME_LENGTH or len(request_id) > MAX_REQUEST_ID_LENGTH:
        _refuse(found)
    return found


def _refuse(found: Route) -> None:
    """Raise InvalidInput that names the field that is too long."""
    for field, text, most in zip(Route._fields, found, (MAX_NAME_LENGTH, MAX_NAME_LENGTH, MAX_REQUEST_ID_LENGTH), strict=True):
        if len(text) > most:
            raise InvalidInput(f"{field} has {len(text)} characters; at most {most} are allowed.", field=field)


def route_fields(raw: bytes, id_field: int) -> Route:
    """Scan the top-level fields 1 (name), 2 (version) and `id_field`; as in protobuf, the last one of a field counts.

    One loop, since every request comes through here on one thread. Raises UnusualMessageError, IndexError or UnicodeDecodeError for
    anything that generated code would not write, and for fields that these messages have not.
    """
    name = version = request_id = b""
    id_key = id_field << 3 | BYTES
    position, end = 0, len(raw)
    while position < end:
        key, length = raw[position], raw[position + 1]
        if key & 0x87 != BYTES or key < NAME_KEY:
            raise UnusualMessageError  # all fields of these messages are of this kind, and have numbers from 1 to 15
        position += 2
        if length > 0x7F:
            length, position = read_varint(raw, position - 1)
        start, position = position, position + length
        if key == NAME_KEY:
            name = raw[start:position]
        elif key == VERSION_KEY:
            version = raw[start:position]
        elif key == id_key:
            request_id = raw[start:position]
    if position != end:
        raise UnusualMessageError
    return Route(name.decode(), version.decode(), request_id.decode())


def fields(raw: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield each field of a message: its number, where it begins and ends, and its content if it is of the kind BYTES.

    Raises UnusualMessageError or IndexError for what generated code would not write.
    """
    position, end = 0, len(raw)
    while position < end:
        begin = position
        key, position = read_varint(raw, position)
        content = raw[:0]
        if key & 7 == BYTES:
            length, position = read_varint(raw, position)
            content = raw[position : position + length]
            position += length
        elif key & 7 == VARINT:
            _, position = read_varint(raw, position)
        else:
            position += {FIXED64: 8, FIXED32: 4}.get(key & 7, end)
        if position > end:
            raise UnusualMessageError
        yield key >> 3, begin, position, content


def cut(raw: memoryview, number: int) -> tuple[bytes, memoryview]:
    """Take one field of the kind BYTES out of a message: returns the message without it, and its content as a view.

    Raises UnusualMessageError or IndexError when it is not there exactly once.
    """
    found = [field for field in fields(raw) if field[0] == number]
    if len(found) != 1:
        raise UnusualMessageError
    _, begin, end, content = found[0]
    if not content and raw[begin] & 7 != BYTES:
        raise UnusualMessageError
    return bytes(raw[:begin]) + bytes(raw[end:]), content


def read_varint(raw: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number at a position, and where it ends. Raises UnusualMessageError or IndexError when there is none."""
    byte = raw[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = raw[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
        if shift > 63:
            raise UnusualMessageError


def _parse(raw: bytes) -> Route:
    try:
        message = inference_pb2.PredictRequest.FromString(raw)
    except DecodeError:
        raise InvalidInput("The request is not a valid PredictRequest message.") from None
    return Route(message.model_name, message.model_version, message.request_id)
