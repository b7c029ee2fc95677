"""One call of the handler, as the runner sees it: the requests, what has become of them, and the way back to their callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from servegrpc.engine.channel import LEFT, PAUSED, Item
from servegrpc.errors import InvalidHandlerResult
from servegrpc.reply import Reply
from servegrpc.worker.answers import ENDED
from servegrpc.worker.open_call import OpenCall

HOLD_UP_SECONDS = 1.0  # how long, in all, a stream may hold up the others of its batch when its caller does not keep up


class Outlet(Protocol):
    """The way back to the server for the requests of one hand-over, by index."""

    def send(self, replies: Sequence[Reply]) -> None:
        """Send messages and answers now; each has its index."""

    def flags(self, index: int) -> int:
        """Return what the server said last about a caller."""

    def wait(self, index: int, seconds: float) -> None:
        """Block until a caller that is paused can take more or has left, or the time is over."""


class Sent:
    """The outcome of a request whose final reply has been sent already."""


SENT = Sent()


class BatchCall(OpenCall):
    """The requests that one call of the handler gets, by position; `indexes` are theirs in the hand-over.

    `open` are the positions whose stream may go on; `last` are values that wait for the end, for callers that take one answer only;
    `patience` is for how many seconds more each stream may hold up the others.
    """

    def __init__(self, items: Sequence[Item], indexes: Sequence[int], outlet: Outlet, send: Callable[[BatchCall, object], None]) -> None:
        super().__init__(streamed=any(item.streamed for item in items))
        self.items = items
        self.indexes = indexes
        self.outlet = outlet
        self.open = set(range(len(items)))
        self.last: dict[int, object] = {}
        self.patience = [HOLD_UP_SECONDS] * len(items)
        self.sent = False  # something has been sent: the call cannot be made again
        self._send_from_within = send

    def has_left(self, position: int) -> bool:
        """Whether a caller waits no more."""
        return bool(self.outlet.flags(self.indexes[position]) & LEFT)

    def is_paused(self, position: int) -> bool:
        """Whether a caller cannot take more messages now."""
        return bool(self.outlet.flags(self.indexes[position]) & PAUSED)

    def deadline(self, position: int) -> float:
        """Return a request's deadline, in monotonic seconds."""
        return self.items[position].deadline

    def _send(self, results: object) -> None:
        self._send_from_within(self, results)

    def outcomes(self, error: Exception | None) -> list[object]:
        """Return the outcomes when the handler has ended: with an error, or well."""
        return [self.outcome(position, error) if position in self.open else SENT for position in range(len(self.items))]

    def outcome(self, position: int, error: Exception | None) -> object:
        """Return the outcome of a stream that ends: with an error, or well."""
        if error is not None:
            return error
        if self.items[position].streamed:
            return ENDED
        return self.last.get(position) if position in self.last else InvalidHandlerResult("the handler's stream ended without a value")
