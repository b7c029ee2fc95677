"""Takes the large inputs of a raw request out of it, so that they are copied once, or not at all, instead of parsed with it.

For messages that hold their inputs as a map: each entry has a name in field 1 and a value in field 2.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from google.protobuf.message import DecodeError

from servegrpc.wire.scan import UnusualMessageError, cut, fields

LARGE_BYTES = 16 * 1024  # an input of this size is taken out

KEY, VALUE = 1, 2  # field numbers of a map's entry


def take_large(
    payload: memoryview,
    inputs: int,
    row: dict[str, object],
    decode: Callable[[str, memoryview], object],
    names: Callable[[bytes], Container[str]],
) -> bytes:
    """Put the large entries of the map in field `inputs` into the row; returns the rest of the message.

    `decode` makes the row's value of a name and a raw value; `names` parses the rest and returns the names it holds. Of a message that
    generated code would not write so, nothing is taken, and all of it is returned: protobuf knows best.
    """
    parts, position = [], 0
    try:
        for number, begin, end, content in fields(payload):
            if number == inputs and len(content) >= LARGE_BYTES:
                name, value = _entry(content)
                if name in row:
                    raise UnusualMessageError
                row[name] = decode(name, value)
                parts.append(payload[position:begin])
                position = end
        rest = b"".join((*parts, payload[position:]))
        there = names(rest) if row else ()
        if any(name in there for name in row):
            raise UnusualMessageError  # a name twice: the last one counts
    except (UnusualMessageError, IndexError, UnicodeDecodeError, DecodeError):
        row.clear()
        return bytes(payload)
    return rest


def _entry(entry: memoryview) -> tuple[str, memoryview]:
    others, value = cut(entry, VALUE)
    rest, name = cut(memoryview(others), KEY)
    if rest:
        raise UnusualMessageError
    return str(name, "utf-8"), value
