"""Streams in every style a handler may have. The inputs are "count" and more for some.

The class streams a number for each step, up to `count`, to each request of its batch by itself.
"""

from servegrpc.handlers.streaming import FINISHED, NOTHING, Last


class Counter:
    """Yields; each request ends by itself."""

    def handle(self, data, context):
        step = 0
        while True:
            step += 1
            yield [self._entry(ask, step, position, context) for position, ask in enumerate(data)]

    def _entry(self, ask, step, position, context):
        if step > ask["count"]:
            return FINISHED
        if ask.get("fail_at") == step:
            return ValueError("as asked")
        if ask.get("skip_at") == step:
            return NOTHING
        if ask.get("last"):
            return Last(step) if step == ask["count"] else step
        return "x" * ask["size"] if "size" in ask else step
