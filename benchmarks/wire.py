"""The few protobuf messages that the benchmark sends, written field by field, so that it needs no generated code of any peer."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

Field = int | bytes | str | Sequence[int]


def message(*fields: tuple[int, Field]) -> bytes:
    """Return a message of (number, value) pairs: whole numbers, bytes or messages, text, packed whole numbers."""
    return b"".join(_field(number, value) for number, value in fields)


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message that has only varints and length-delimited ones."""
    position = 0
    while position < len(raw):
        key, position = _read_varint(raw, position)
        value, position = _read_varint(raw, position)
        if key & 7 == 2:
            yield key >> 3, raw[position : position + value]
            position += value
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise ValueError(f"Field {key >> 3} has wire type {key & 7}; expected 0 or 2.")


def field(raw: bytes, *path: int) -> bytes:
    """Return the bytes found by following field numbers through nested messages; empty when there are none."""
    for number in path:
        raw = next((value for found, value in fields(raw) if found == number and isinstance(value, bytes)), b"")
    return raw


def frame(raw: bytes) -> bytes:
    """Return a message as gRPC puts it on the wire."""
    return struct.pack(">BI", 0, len(raw)) + raw


def _field(number: int, value: Field) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        value = b"".join(_varint(item) for item in value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
