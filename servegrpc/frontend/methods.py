"""What a dialect's service says about a method that runs models, so that the fast lane and grpcio's own threads serve it alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect

BUFFER_BYTES = 4 * 1024 * 1024  # of a stream whose model has not been named yet

Metadata = tuple[tuple[str, str | bytes], ...]
Pump = Callable[[], None]  # to be called when all that has arrived at this moment has been taken in


class Call(Protocol):
    """A call with one answer. `deadline` is monotonic; `on_cancel` is called when the caller leaves.

    Whoever knows the model and the request id sets them, for the access log.
    """

    metadata: Metadata
    deadline: float
    model_name: str
    request_id: str
    on_cancel: Callable[[], object] | None

    def answer(self, reply: Reply) -> None:
        """End the call; once, from any thread."""


class Stream(Call, Protocol):
    """A call with any number of messages before its answer, whose own body, if any, is the last one.

    `on_room` is called with False when more than `buffer_bytes` wait for the caller to read, and with True when half of them are gone;
    meanwhile no message of the caller is taken.
    """

    buffer_bytes: int
    on_room: Callable[[bool], None] | None

    def message(self, reply: Reply) -> None:
        """Send a message; from any thread, without blocking."""

    def read_next(self) -> None:
        """Take the caller's next message, in a call that has several: it comes to the conversation."""


class Conversation(Protocol):
    """What takes the messages of a caller that sends several. What it raises ends the call."""

    def message(self, raw: bytes) -> Pump | None:
        """Take a message; ask for the next one with `read_next` when there is room for it."""

    def half_closed(self) -> None:
        """Note that the caller will send no more."""

    def over(self) -> None:
        """Let go of everything: the call has ended, whatever the way. Called once, from any thread."""


class Unary(NamedTuple):
    """One message in, one out."""

    dialect: Dialect
    start: Callable[[Call, bytes], Pump | None]


class ServerStream(NamedTuple):
    """One message in, any number out."""

    dialect: Dialect
    start: Callable[[Stream, bytes], Pump | None]


class Session(NamedTuple):
    """Any number in, any number out."""

    dialect: Dialect
    start: Callable[[Stream], Conversation]


Method = Unary | ServerStream | Session
