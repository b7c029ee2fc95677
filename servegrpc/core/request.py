"""One request, as the core has it from its arrival to its answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from servegrpc.core.sequences import LiveSequence
from servegrpc.errors import Code
from servegrpc.reply import Reply

PRIORITY_SECONDS = 10.0  # how much earlier a request of the highest priority counts as having arrived: nobody waits longer for those
CLOCK_SECONDS = 0.05  # a caller gives up at its deadline by its own clock, this much before ours at most


def why_left(deadline: float) -> Code:
    """Return the code of a call whose caller leaves now: of its own, or for its deadline."""
    return Code.DEADLINE_EXCEEDED if deadline <= monotonic() + CLOCK_SECONDS else Code.CANCELLED


class Loss(NamedTuple):
    """How a worker ended while it ran a request; `blameless` when what it was forked from ended."""

    worker_id: int
    cause: str
    blameless: bool


@dataclass(slots=True, eq=False, weakref_slot=True)
class Request:
    """One request on its way. `payload` is the raw message as received; nobody copies it before it goes to a worker.

    `answer` is called exactly once, from any thread, and must not block; before it, `message`, if given, for each message of a stream.
    `deadline` is in monotonic seconds. `priority` is 0 for none, else 1 is the highest. `size` is how much of a batch it takes: its rows,
    where requests are joined along them.
    """

    payload: bytes
    dialect: int
    request_id: str
    answer: Callable[[Reply], None]
    deadline: float = math.inf
    headers: tuple[tuple[str, str], ...] = ()
    arrived: float = field(default_factory=monotonic)
    message: Callable[[Reply], None] | None = None
    sequence: LiveSequence | None = None
    ends_sequence: bool = False  # it is the last one
    priority: int = 0
    size: int = 1
    expires: bool = False  # the deadline is the request's own: its call goes on, and only we can end it
    waiting: bool = False
    held: bool = False  # it waits for one worker, or for another request of its sequence
    left: bool = False  # its caller left while it was run
    left_code: Code = Code.OK  # why its caller left, once it has
    begun: bool = False  # a message of its stream has been sent
    lost: Loss | None = None  # how it lost the worker that ran it: it is run once more, alone

    @property
    def streamed(self) -> bool:
        """Whether its caller takes more than one message."""
        return self.message is not None

    @property
    def place(self) -> float:
        """When it counts as having arrived: one with a priority `PRIORITY_SECONDS / priority` before it has."""
        return self.arrived - (PRIORITY_SECONDS / self.priority if self.priority else 0.0)
