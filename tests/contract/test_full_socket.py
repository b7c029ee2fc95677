"""A worker, or a fork server, that does not read for now: nobody waits for it, and nothing is lost."""

import os
import signal
import threading
from pathlib import Path

import pytest

from servegrpc.core.engine import HandlerSpec, WorkerSpec
from servegrpc.core.placement import CPU
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.engine.forkserver import Fork, ForkServer
from servegrpc.engine.output import OutputPump
from servegrpc.engine.process import ProcessEngine
from servegrpc.v1 import inference_pb2
from servegrpc.values import encode_value

HANDLERS = Path(__file__).parents[1] / "handlers"
SECONDS = 30  # that a wait may take at most
MANY = 1000  # requests of 15 KB: no socket has room for so many
LARGE = "x" * 15_000  # still inline

pytestmark = pytest.mark.slow


class Events:
    """Records what an engine tells of one worker."""

    def __init__(self):
        self.is_ready, self.has_ended, self.all_answered = threading.Event(), threading.Event(), threading.Event()
        self.answers, self.exit = [], None

    def ready(self, worker_id, handler):
        self.is_ready.set()

    def measured(self, worker_id, records):
        pass

    def answered(self, worker_id, replies):
        self.answers += [reply.ticket for reply in replies if not reply.more]
        if len(self.answers) == MANY:
            self.all_answered.set()

    def exited(self, worker_id, exit_):
        self.exit = exit_
        self.has_ended.set()


@pytest.fixture
def timer():
    timer = Timer()
    yield timer
    timer.close()


@pytest.fixture
def worker(timer):
    """A live worker that has been stopped by a signal, with more requests than its socket takes; and its events."""
    engine, events = ProcessEngine(timer), Events()
    worker = engine.start(WorkerSpec(1, HandlerSpec("m", "1.0", str(HANDLERS), "later", {}, {}, False, "", ()), MANY, CPU, 1), events)
    assert events.is_ready.wait(SECONDS)
    os.kill(worker.pid, signal.SIGSTOP)
    payload = inference_pb2.PredictRequest(inputs={"count": encode_value(1), "more": encode_value(LARGE)}).SerializeToString()

    def send_all():
        for ticket in range(MANY):
            assert worker.send(ticket, [Request(payload, 0, str(ticket), lambda reply: None)])

    in_time(send_all)
    yield worker, events
    worker.kill("the test is over")
    engine.close()


def in_time(action):
    """Do something on a thread, which must not block."""
    done = threading.Event()
    threading.Thread(target=lambda: (action(), done.set()), daemon=True).start()
    assert done.wait(SECONDS), "it blocks"


def test_worker_reads_again(worker):
    """It reads again → it answers all, in order, and ends as it was told meanwhile."""
    process, events = worker
    in_time(lambda: process.set_flags(MANY - 1, 0, paused=True))
    in_time(lambda: process.set_flags(MANY - 1, 0))
    in_time(lambda: process.stop(SECONDS))
    os.kill(process.pid, signal.SIGCONT)
    assert events.all_answered.wait(SECONDS)
    assert events.has_ended.wait(SECONDS)
    assert sorted(events.answers) == list(range(MANY))
    assert events.exit.cause == "exit code 0: it ended by itself"


def test_flags_are_told(worker):
    """Callers leave whose requests wait → the worker is told of each once it reads again."""
    process, events = worker
    for ticket in (0, MANY - 1):
        in_time(lambda ticket=ticket: process.set_flags(ticket, 0, left=True))
    os.kill(process.pid, signal.SIGCONT)
    assert events.all_answered.wait(SECONDS)
    assert process._untold == {}


def test_worker_is_killed(worker):
    """It is killed → what it was not sent counts as not begun."""
    process, events = worker
    process.kill("took too long")
    assert events.has_ended.wait(SECONDS)
    begun = events.exit.started
    assert events.answers == []
    assert 0 < len(begun) < MANY
    assert begun == dict.fromkeys(range(len(begun)), 1)


def test_fork_server(timer):
    """Hundreds of workers are asked for while the fork server does not read → nobody waits, and all ends are told."""
    output, ends = OutputPump(), []
    server = ForkServer(output, timer)
    os.kill(server._process.pid, signal.SIGSTOP)
    with open(os.devnull) as inherited:
        in_time(lambda: [server.fork(number, [inherited.fileno()], Fork(lambda *_: None, ends.append)) for number in range(1000)])
    server._process.kill()
    server.close()
    output.close()
    assert len(ends) == 1000


def test_real_time_signal(timer):
    """A signal without a name ends a worker → its exit says its number."""
    engine, events = ProcessEngine(timer), Events()
    worker = engine.start(WorkerSpec(1, HandlerSpec("m", "1.0", str(HANDLERS), "echo", {}, {}, False, "", ()), 4, CPU, 1), events)
    assert events.is_ready.wait(SECONDS)
    os.kill(worker.pid, signal.SIGRTMIN + 6)
    assert events.has_ended.wait(SECONDS)
    engine.close()
    assert events.exit.cause == f"signal {signal.SIGRTMIN + 6} (SIGRTMIN+6)"
