"""The example `charlm`, which tells a request that says when it was sent how many steps it waited for, and how many ran with it."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from handler import CharLMHandler  # type: ignore[import-not-found]  # it lies in the same archive

from servegrpc.handlers.stepping import StepRequest
from servegrpc.handlers.streaming import Last


class Joins(CharLMHandler):  # type: ignore[misc]  # as above
    """Times are monotonic seconds, which client and worker share."""

    def initialize(self, context: object) -> None:
        """Load the model."""
        super().initialize(context)
        self.begun: list[float] = []
        self.waited: dict[StepRequest, int] = {}

    def start(self, request: StepRequest) -> None:
        """Note for how many steps a request has waited."""
        if "sent-at" in request.headers:
            sent = float(request.headers["sent-at"])
            self.waited[request] = sum(began > sent for began in self.begun)
        super().start(request)

    def step(self, active: Sequence[StepRequest]) -> Sequence[object]:
        """Give those requests the two numbers, and the others their token."""
        self.begun.append(monotonic())
        entries: Sequence[object] = super().step(active)
        return [
            Last(f"{self.waited.pop(one)} {len(active)}") if one in self.waited else entry
            for one, entry in zip(active, entries, strict=True)
        ]
