"""How many rows a request has, read off the raw message: for models whose requests are joined along them."""

from __future__ import annotations

from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import BYTES, VARINT, UnusualMessageError, read_varint

SHAPE_AT: dict[int, tuple[int, ...]] = {
    Dialect.NATIVE: (3, 2, 4, 2),  # PredictRequest.inputs, a Value of the map, its Tensor, its shape
    Dialect.OPEN_INFERENCE: (5, 3),  # ModelInferRequest.inputs, its shape
}


def count_rows(dialect: int, raw: bytes | memoryview) -> int:
    """Return the first dimension of the first input; 1 when there is none, which the worker finds out."""
    position, end = 0, len(raw)
    try:
        for number in SHAPE_AT[dialect]:
            position, end = _content(raw, number, position, end)
        return read_varint(raw, position)[0] if position < end else 1
    except (KeyError, IndexError, UnusualMessageError):
        return 1


def _content(raw: bytes | memoryview, number: int, position: int, end: int) -> tuple[int, int]:
    """Return where the first field of that number begins and ends; one loop, since requests come through here on one thread.

    Raises UnusualMessageError or IndexError when it is not there.
    """
    while position < end:
        key = raw[position]
        if key & 7 == BYTES:
            length = raw[position + 1]
            position += 2
            if length > 0x7F:
                length, position = read_varint(raw, position - 1)
            if key >> 3 == number:
                return position, position + length
            position += length
        elif key & 7 == VARINT:
            _, position = read_varint(raw, position + 1)
        else:
            break
    raise UnusualMessageError
