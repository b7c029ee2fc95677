"""What a live worker receives, with the server's end of the channel in the test."""

import os
import threading
from queue import SimpleQueue

import pytest

from servegrpc.engine.channel import Channel, Kind
from servegrpc.worker.inbox import Inbox

SECONDS = 20  # that a message may take at most


@pytest.fixture
def server():
    """The server's end, with the worker's as `server.worker`."""
    server, descriptors = Channel.pair(8)
    server.worker = Channel.from_descriptors([descriptors[0], *map(os.dup, descriptors[1:])])
    yield server
    server.hang_up()
    for thread in threading.enumerate():
        if thread.name == "inbox":
            thread.join(SECONDS)
    server.worker.close()
    server.close()


def test_end(server):
    """The server hangs up → None comes once, after all that came before, also to one who takes."""
    delivered = SimpleQueue()
    inbox = Inbox(server.worker, delivered.put)
    for _ in range(3):
        server.send(Kind.STOP)
    server.hang_up()
    assert [getattr(delivered.get(timeout=SECONDS), "kind", None) for _ in range(4)] == [Kind.STOP] * 3 + [None]
    inbox.take()
    assert delivered.empty()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_cannot_receive(server, monkeypatch):
    """There is no memory for a message → the worker hears that nothing more will come, once."""

    def receive(*, wait):
        raise MemoryError

    monkeypatch.setattr(server.worker, "receive", receive)
    delivered = SimpleQueue()
    inbox = Inbox(server.worker, delivered.put)
    server.send(Kind.STOP)
    assert delivered.get(timeout=SECONDS) is None
    inbox.take()
    assert delivered.empty()
