"""Handlers that work step by step on all requests at hand, for continuous batching: new requests join between two steps.

    start(request) ─► step([request, …]) ─► step([request, other, …]) ─► … ─► finish(request)

At most `batchSize` requests are live in a worker at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True, eq=False)
class StepRequest:
    """One live request. `state` is the handler's own; `deadline` is in monotonic seconds, inf when the caller set none."""

    data: object  # the row, as `handle` would get it
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline: float = math.inf
    streamed: bool = True  # else its caller takes one answer: the last value
    state: object = None

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline."""
        return self.deadline - monotonic()


class StepHandler(ABC):
    """A handler that the worker drives step by step. All methods run on one thread.

    A request leaves when `step` says that its stream has ended (see `handlers.streaming`), or when its caller has left; then `finish` is
    called once. An exception of `start` fails that request, one of `step` all live ones.
    """

    def initialize(self, context: object) -> None:  # noqa: B027 - most need it, not all
        """Load the model; called once, with the worker's Context."""

    def handle(self, data: object, context: object) -> object:  # noqa: ARG002
        """Refuse: a worker drives the steps itself."""
        raise TypeError(f"{type(self).__name__} works step by step; it has no call for a whole batch")

    @abstractmethod
    def start(self, request: StepRequest) -> None:
        """Take a request in: check its data, compute what it needs before its first step, keep that in `request.state`."""

    @abstractmethod
    def step(self, active: Sequence[StepRequest]) -> Sequence[object]:
        """Do one step for all live requests; return for each, in order: a value, NOTHING, Last(value), FINISHED or an exception."""

    def finish(self, request: StepRequest) -> None:  # noqa: B027 - only handlers that hold something for a request need it
        """Let go of a request that has ended, whatever the way; called once for each that was started."""
