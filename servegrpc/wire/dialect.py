"""The dialects a request may speak; its number travels with it to the worker, which decodes and encodes accordingly."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Dialect(IntEnum):
    """Whose messages a request and its reply are."""

    NATIVE = 0  # servegrpc.v1


class About(NamedTuple):
    """What a reply tells besides the result."""

    model_name: str
    model_version: str
    request_id: str
    queue_microseconds: int
    handler_nanoseconds: int
    batch_size: int
