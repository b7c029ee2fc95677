"""A step-wise handler: each live request counts up to its input "count"; the number is sent with how many were live."""

from servegrpc.errors import InvalidInput
from servegrpc.handlers.stepping import StepHandler
from servegrpc.handlers.streaming import Last


class Steps(StepHandler):
    """Counts for all; `finished` are the requests that have left, sent to whoever asks."""

    def initialize(self, context):
        self.finished = []

    def start(self, request):
        if "count" not in request.data:
            raise InvalidInput("count is missing", field="inputs.count")
        request.state = 0

    def step(self, active):
        return [self._one(request, len(active)) for request in active]

    def _one(self, request, live):
        ask = request.data
        request.state += 1
        if ask.get("fail_at") == request.state:
            return ValueError("as asked")
        value = self.finished if ask.get("finished") else [request.state, live]
        if request.state >= ask["count"]:
            return Last(value)
        if ask.get("gate"):
            with open(ask["gate"]) as gate:
                gate.read()
        return value

    def finish(self, request):
        self.finished.append(request.request_id)
