"""Does what each request asks for, notes it in the journal, and answers with proof of whose answer it is."""

import ctypes
import hashlib
import json
import os
import threading
from time import monotonic

from servegrpc.errors import InvalidInput

NEVER = threading.Event()

DEEDS = {
    "answer": lambda: None,
    "exit": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "hang": NEVER.wait,
}


def expanded(text, size):
    """Bytes that nothing but this text gives."""
    return hashlib.shake_128(text.encode()).digest(size)


def read(data):
    """Return what a request asks for; raises ValueError when any byte of it is not what its caller sent."""
    raw = bytes(data.item() if hasattr(data, "item") else data)
    head, _, filler = raw.partition(b"\n")
    ask = json.loads(head)
    if filler != expanded(ask["id"], ask["size"]):
        raise ValueError("the request is torn")
    return ask


class Journal:
    """A file with a line for each request that reaches a handler: id, time, seconds left until its deadline."""

    def initialize(self, context):
        self.version = context.manifest["model"]["modelVersion"]
        self._file = os.open(context.model_yaml_config["journal"], os.O_WRONLY | os.O_APPEND)

    def taken(self, data, context):
        """Return what the requests of a batch ask for, noted."""
        return self.noted(data, [context.time_remaining(index) for index in range(len(data))])

    def noted(self, rows, left):
        """Return what requests ask for, noted."""
        at = monotonic()
        asks = [read(row["data"]) for row in rows]
        lines = [json.dumps([ask["id"], at, min(seconds, 1e9)]) for ask, seconds in zip(asks, left, strict=True)]
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())
        return asks


class Deeds(Journal):
    """One answer each."""

    def handle(self, data, context):
        asks = self.taken(data, context)
        for index, ask in enumerate(asks):
            if ask["deed"] == "refuse":
                raise InvalidInput("as asked", row=index)
            DEEDS[ask["deed"]]()
        NEVER.wait(max(ask["milliseconds"] for ask in asks) / 1000)
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask):
        head = json.dumps({"id": ask["id"], "version": self.version})
        return head.encode() + b"\n" + expanded(f"reply to {ask['id']}", ask["reply_size"])
