"""Streams as many messages as a request asks for, each with proof of whose it is and which."""

import json

from deeds import NEVER, Journal, expanded

from servegrpc.handlers.streaming import FINISHED


def part(ask, step):
    """Return one message, with proof of whose it is."""
    head = json.dumps({"id": ask["id"], "step": step})
    return head.encode() + b"\n" + expanded(f"part {step} of {ask['id']}", ask["reply_size"])


class Parts(Journal):
    """One list of messages per step."""

    def handle(self, data, context):
        asks = self.taken(data, context)
        for step in range(1, max(ask["count"] for ask in asks) + 1):
            yield [part(ask, step) if step <= ask["count"] else FINISHED for ask in asks]
            NEVER.wait(max(ask["milliseconds"] for ask in asks) / 1000)
