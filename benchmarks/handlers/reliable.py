"""Works for as long as each request says, and notes in a journal what it was given and when; what the reliability runs serve.

A request is a head (number, deadline on the monotonic clock, milliseconds of work, what to do) and any bytes; the reply is the request.
The journal is the file that the variable RELIABLE_JOURNAL names; its lines are 16 bytes: a number and a time.
"""

from __future__ import annotations

import os
import struct
import threading
import time

HEAD = struct.Struct("<QdHH")  # number, deadline, milliseconds, deed
LINE = struct.Struct("<Qd")
ANSWER, EXIT = 0, 1
WORKER = 2**63  # added to a process id, which is noted when a worker is ready


class ReliableHandler:
    """A TorchServe handler."""

    def initialize(self, _context: object) -> None:
        """Open the journal and note the process."""
        path = os.environ.get("RELIABLE_JOURNAL", os.devnull)
        self._journal = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(self._journal, LINE.pack(WORKER + os.getpid(), time.monotonic()))

    def handle(self, data: list[dict], _context: object) -> list[bytes]:
        """Note all requests of the batch, work as long as the longest asks for, return them."""
        rows = [bytes(row["data"]) for row in data]
        heads = [HEAD.unpack_from(row) for row in rows if len(row) >= HEAD.size]
        now = time.monotonic()
        os.write(self._journal, b"".join(LINE.pack(number, now) for number, _, _, _ in heads))
        if any(deed == EXIT for _, _, _, deed in heads):
            os._exit(1)
        threading.Event().wait(max((milliseconds for _, _, milliseconds, _ in heads), default=0) / 1000)
        return rows
