"""Streams as `parts` does, step by step: requests join and leave while others are live."""

from deeds import NEVER, Journal
from parts import part

from servegrpc.handlers.stepping import StepHandler
from servegrpc.handlers.streaming import Last


class Tokens(Journal, StepHandler):
    """One message per step for each live request."""

    def start(self, request):
        (ask,) = self.noted([request.data], [request.time_remaining()])
        request.state = [ask, 0]

    def step(self, active):
        NEVER.wait(max(request.state[0]["milliseconds"] for request in active) / 1000)
        return [self._next(request.state) for request in active]

    def _next(self, state):
        state[1] += 1
        ask, step = state
        return Last(part(ask, step)) if step == ask["count"] else part(ask, step)
