"""The dialects a request may speak; its number travels with it to the worker, which decodes and encodes accordingly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from servegrpc.errors import ServeError
from servegrpc.reply import Reply

NO_REQUEST = memoryview(b"")


class Dialect(IntEnum):
    """Whose messages a request and its reply are."""

    NATIVE = 0  # servegrpc.v1
    TORCHSERVE = 1  # org.pytorch.serve.grpc.inference
    OPEN_INFERENCE = 2  # inference, as KServe and Triton have it


@dataclass(slots=True, eq=False)
class About:
    """What a reply tells besides the result; the messages of a stream have the same one, with other times."""

    model_name: str
    model_version: str
    request_id: str
    queue_microseconds: int
    handler_nanoseconds: int = 0
    batch_size: int = 0
    request: memoryview = NO_REQUEST  # the raw request, for what it says about its reply
    kept: tuple[bytes, bytes] | None = None  # the codec's own: what it has encoded that is the same in each message


class Codec(Protocol):
    """What the module of a dialect offers. `decode` and `encode` run in the worker, `status` also in the server."""

    def decode(self, payload: memoryview, *, borrow: bool = False) -> object:
        """Return the row that the handler gets. Raises InvalidInput naming what is wrong."""

    def encode(self, result: object, about: About) -> bytes:
        """Return the reply that carries one result. Raises InvalidHandlerResult for an object that cannot be sent."""

    def status(self, error: ServeError, message: str = "", metadata: Mapping[str, str] | None = None) -> Reply:
        """Return the end of a call that failed. `message`, if any, replaces the error's own; `metadata` is added to it."""
