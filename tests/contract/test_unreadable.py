"""A worker that gets a message which it cannot read."""

import threading
from pathlib import Path

import pytest

from servegrpc.core.engine import HandlerSpec, WorkerSpec
from servegrpc.core.placement import CPU
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.engine.process import ProcessEngine

HANDLERS = Path(__file__).parents[1] / "handlers"
SECONDS = 30  # that a wait may take at most


class Events:
    """Notes that the worker was ready, and how it ended."""

    def __init__(self):
        self.is_ready, self.has_ended, self.exit = threading.Event(), threading.Event(), None

    def ready(self, worker_id, handler):
        self.is_ready.set()

    def exited(self, worker_id, exit_):
        self.exit = exit_
        self.has_ended.set()


@pytest.mark.slow
def test_unreadable_message():
    """What a worker is sent cannot be read → it ends, and its hand-overs count as begun: they are not handed over again and again."""
    timer, events = Timer(), Events()
    engine = ProcessEngine(timer)
    worker = engine.start(WorkerSpec(1, HandlerSpec("m", "1.0", str(HANDLERS), "echo", {}, {}, False, "", ()), 4, CPU, 1), events)
    assert events.is_ready.wait(SECONDS)
    worker._channel._socket.send(b"garbage")
    worker.send(7, [Request(b"", 0, name, lambda reply: None) for name in "ab"])
    assert events.has_ended.wait(SECONDS)
    engine.close()
    timer.close()
    assert (events.exit.cause, events.exit.started) == ("exit code 4: it got a message it could not read", {7: 2})
