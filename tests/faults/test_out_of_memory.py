"""Workers that are killed for want of memory: SIGKILL, and a file in place of the kernel's counter, since a cgroup takes rights."""

import os
import signal
import threading
from pathlib import Path

import pytest

from servegrpc.core.engine import HandlerSpec, WorkerSpec
from servegrpc.core.placement import CPU
from servegrpc.core.timer import Timer
from servegrpc.engine.oom import OomKills
from servegrpc.engine.process import ProcessEngine

pytestmark = pytest.mark.slow

HANDLERS = Path(__file__).parents[1] / "handlers"
SECONDS = 30  # that a wait may take at most


class Events:
    """Notes how one worker ends."""

    def __init__(self):
        self.is_ready, self.is_gone = threading.Event(), threading.Event()
        self.cause = ""

    def ready(self, worker_id, slots):
        self.is_ready.set()

    def exited(self, worker_id, exit_):
        self.cause = exit_.cause
        self.is_gone.set()


@pytest.fixture
def kill(tmp_path):
    """Start a worker, let the counter stand at a number, kill the worker; returns the cause that is told."""
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    timer = Timer()
    engine = ProcessEngine(timer, OomKills(counter))

    def kill(worker_id, count, number=signal.SIGKILL):
        events = Events()
        handler = HandlerSpec("echo", "1.0", str(HANDLERS), "echo", {}, {}, False, "", ())
        worker = engine.start(WorkerSpec(worker_id, handler, 1, CPU, 1), events)
        assert events.is_ready.wait(SECONDS)
        counter.write_text(f"oom_kill {count}\n")
        os.kill(worker.pid, number)
        assert events.is_gone.wait(SECONDS)
        return events.cause

    yield kill
    engine.close()
    timer.close()


def test_out_of_memory(kill):
    """Workers are killed, and the counter goes up for one of them, or for another process → only the right one is told so."""
    assert kill(1, 0) == "signal 9 (SIGKILL)"
    assert kill(2, 1) == "signal 9 (SIGKILL): out of memory, by the kernel's count of such kills"
    assert kill(3, 1) == "signal 9 (SIGKILL)"
    assert kill(4, 2, signal.SIGTERM) == "signal 15 (SIGTERM)"
    assert kill(5, 2) == "signal 9 (SIGKILL)"
