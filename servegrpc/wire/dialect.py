"""The dialects a request may speak; its number travels with it to the worker, which decodes and encodes accordingly."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol

from servegrpc.errors import ServeError
from servegrpc.reply import Reply


class Dialect(IntEnum):
    """Whose messages a request and its reply are."""

    NATIVE = 0  # servegrpc.v1
    TORCHSERVE = 1  # org.pytorch.serve.grpc.inference
    OPEN_INFERENCE = 2  # inference, as KServe and Triton have it


class About(NamedTuple):
    """What a reply tells besides the result."""

    model_name: str
    model_version: str
    request_id: str
    queue_microseconds: int
    handler_nanoseconds: int
    batch_size: int
    request: memoryview = memoryview(b"")  # the raw request, for what it says about its reply


class Codec(Protocol):
    """What the module of a dialect offers. `decode` and `encode` run in the worker, `status` also in the server."""

    def decode(self, payload: memoryview, *, borrow: bool = False) -> object:
        """Return the row that the handler gets. Raises InvalidInput naming what is wrong."""

    def encode(self, result: object, about: About) -> bytes:
        """Return the reply that carries one result. Raises InvalidHandlerResult for an object that cannot be sent."""

    def status(self, error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
        """Return the end of a call that failed. `message`, if any, replaces the error's own; `metadata` is added to it."""
