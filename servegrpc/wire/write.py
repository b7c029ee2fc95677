"""Writes messages by hand where they are small and many, or hold large contents, which protobuf's own would copy twice more.

It costs a worker more than the time of a message, too: after every 10,000 of them protobuf for Python gives back to the system all memory
that is free in the process (`upb_trim_allocfunc`), and what the next batch computes in must be mapped again.
"""

from __future__ import annotations

SMALL = tuple(bytes([number]) for number in range(128))


def varint(number: int) -> bytes:
    """Return a number, 0 or more, as protobuf writes it. Without a loop, which takes twice as long."""
    if number < 1 << 7:
        return SMALL[number]
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    if number < 1 << 28:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21))
    return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21 & 127 | 128)) + varint(number >> 28)


def sized(content: bytes) -> bytes:
    """Return a short content with its length before it, as a text or a message is written inside another."""
    return varint(len(content)) + content
