"""The handler under mosec; all settings but its own flags come from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

import mosec
from handler import load


class HandlerWorker(mosec.Worker):
    """Passes raw bodies to the handler."""

    def __init__(self) -> None:
        super().__init__()
        self.run = load(os.environ["HANDLER"])

    def deserialize(self, data: bytes) -> bytes:
        """Keep the body as it is."""
        return bytearray(data)

    def serialize(self, data: bytes) -> bytes:
        """Keep the reply as it is."""
        return data

    def forward(self, data: bytes | Sequence[bytes]) -> bytes | list[bytes]:
        """Run one batch; mosec passes a bare row when the batch size is 1."""
        return self.run([data])[0] if self.max_batch_size == 1 else self.run(data)


if __name__ == "__main__":
    server = mosec.Server()
    batch_size, workers = int(os.environ["BATCH_SIZE"]), int(os.environ["WORKERS"])
    server.append_worker(HandlerWorker, num=workers, max_batch_size=batch_size, max_wait_time=int(os.environ["DELAY_MS"]))
    server.run()
