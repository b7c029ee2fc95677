"""What the pool relies on in an engine: one suite for the real one and the fake."""

import math
import threading
from itertools import count
from pathlib import Path
from time import monotonic

import pytest
from fakes import FakeEngine, Script
from servers import Gate

from servegrpc.core.crew import worker_ids
from servegrpc.core.engine import HandlerSpec, WorkerSpec
from servegrpc.core.placement import CPU
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.engine.process import ProcessEngine
from servegrpc.v1 import inference_pb2
from servegrpc.values import encode_value

HANDLERS = Path(__file__).parents[1] / "handlers"
SECONDS = 30  # that a wait may take at most
tickets = count(1)


class Events:
    """Records what an engine tells of one worker."""

    def __init__(self):
        self.names = []
        self.threads = set()
        self.request_ids = []
        self.exit = None
        self._changed = threading.Condition()

    def ready(self, worker_id, handler):
        self._note("ready")

    def measured(self, worker_id, records):
        pass

    def answered(self, worker_id, replies):
        self.request_ids += [inference_pb2.PredictResponse.FromString(reply.body).request_id for reply in replies]
        self._note("answered")

    def exited(self, worker_id, exit_):
        self.exit = exit_
        self._note("exited")

    def _note(self, name):
        with self._changed:
            self.names.append(name)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()

    def wait_for(self, done):
        with self._changed:
            assert self._changed.wait_for(done, SECONDS), f"only {self.names}"

    def wait_ready(self):
        self.wait_for(lambda: "ready" in self.names)

    def wait_answers(self, count):
        self.wait_for(lambda: len(self.request_ids) >= count)

    def wait_exit(self):
        self.wait_for(lambda: "exited" in self.names)
        return self.exit


class Real:
    """The process engine, with the handlers of tests/handlers."""

    def __init__(self):
        self.timer = Timer()
        self.engine = ProcessEngine(self.timer)

    def close(self):
        self.engine.close()
        self.timer.close()

    def gate(self, folder):
        return Gate(folder)


class FakeGate:
    """Holds a fake worker; it is inside at once."""

    path = "gate"

    def __init__(self, engine):
        self.open = engine.release

    def wait_entered(self):
        pass


class Fake:
    """The fake engine, with a script for each of those handlers."""

    def __init__(self):
        self.engine = FakeEngine(
            {
                "echo": Script(),
                "gate": Script(holds=True),
                "fail_load": Script(load_error="fail_load.py, line 6: RuntimeError: the weights are damaged"),
                "misbehave": Script(ends="signal 11 (SIGSEGV)"),
                "noisy": Script(output=("out hello",)),
            }
        )

    def close(self):
        self.engine.close()

    def gate(self, folder):
        return FakeGate(self.engine)


@pytest.fixture(scope="module", params=[Fake, pytest.param(Real, marks=pytest.mark.slow)])
def subject(request):
    subject = request.param()
    yield subject
    subject.close()


@pytest.fixture
def gates(subject, tmp_path):
    """Two gates: each holds the call of the handler "gate" that gets its path."""
    return subject.gate(tmp_path), subject.gate(tmp_path)


@pytest.fixture
def start(subject):
    """Start a worker; those left are killed after the test."""
    started = []

    def start(handler):
        events = Events()
        spec = HandlerSpec(handler, "1.0", str(HANDLERS), handler, {}, {}, False, "", ())
        worker = subject.engine.start(WorkerSpec(next(worker_ids), spec, 4, CPU, 1), events)
        started.append((worker, events))
        return worker, events

    yield start
    for worker, _ in started:
        worker.kill("the test is over")
    for _, events in started:
        events.wait_exit()


@pytest.fixture
def start_ready(start):
    def start_ready(handler):
        worker, events = start(handler)
        events.wait_ready()
        return worker, events

    return start_ready


def batch(*request_ids, data="x"):
    payload = inference_pb2.PredictRequest(model_name="m", inputs={"data": encode_value(data)}).SerializeToString()
    return [Request(payload, 0, request_id, lambda reply: None, math.inf) for request_id in request_ids]


def test_ready(start):
    """A worker is started → ready comes first, and its pid is known, and since when it runs."""
    worker, events = start("echo")
    events.wait_ready()
    assert events.names == ["ready"]
    assert worker.pid > 0
    assert worker.started <= monotonic()


def test_answers_in_order(start_ready):
    """Two batches are sent one after the other → all their requests are answered in the order sent."""
    worker, events = start_ready("echo")
    worker.send(next(tickets), batch("a", "b", "c"))
    worker.send(next(tickets), batch("d", "e"))
    events.wait_answers(5)
    assert events.request_ids == ["a", "b", "c", "d", "e"]


def test_many_batches(start_ready):
    """A batch is sent whenever one is answered → every one is answered."""
    worker, events = start_ready("echo")
    for number in range(50):
        worker.send(next(tickets), batch(str(number)))
        events.wait_answers(number + 1)
    assert events.request_ids == [str(number) for number in range(50)]


def test_two_in_flight(start_ready, gates):
    """A second batch is sent while the first is computed → it waits its turn, and both are answered."""
    worker, events = start_ready("gate")
    first, second = gates
    worker.send(next(tickets), batch("a", data=first.path))
    worker.send(next(tickets), batch("b", data=second.path))
    assert events.request_ids == []
    first.wait_entered()
    first.open()
    events.wait_answers(1)
    assert events.request_ids == ["a"]
    second.wait_entered()
    second.open()
    events.wait_answers(2)
    assert events.request_ids == ["a", "b"]


def test_stop_idle(start_ready):
    """A worker without work is told to stop → it ends by itself."""
    worker, events = start_ready("echo")
    worker.stop(SECONDS)
    assert events.wait_exit().cause == "exit code 0: it ended by itself"
    assert events.names == ["ready", "exited"]


def test_stop_finishes(start_ready, gates):
    """A worker is told to stop while two batches are in flight → it answers both and then ends."""
    worker, events = start_ready("gate")
    first, second = gates
    worker.send(next(tickets), batch("a", data=first.path))
    worker.send(next(tickets), batch("b", data=second.path))
    worker.stop(SECONDS)
    first.wait_entered()
    first.open()
    events.wait_answers(1)
    second.wait_entered()
    second.open()
    events.wait_exit()
    assert events.request_ids == ["a", "b"]
    assert events.names[-1] == "exited"


def test_stop_while_loading(start):
    """A worker is told to stop right after its start → it becomes ready, and ends by itself."""
    worker, events = start("echo")
    worker.stop(SECONDS)
    assert events.wait_exit().cause == "exit code 0: it ended by itself"
    assert events.names == ["ready", "exited"]


def test_kill(start_ready, gates):
    """A worker is killed while it computes → its exit reports the cause given, and nothing is answered."""
    worker, events = start_ready("gate")
    held, _ = gates
    worker.send(next(tickets), batch("a", data=held.path))
    held.wait_entered()
    worker.kill("took too long")
    assert events.wait_exit().cause == "took too long"
    held.open()
    assert events.names == ["ready", "exited"]


def test_untouched(start_ready, gates):
    """A worker is killed in the first of two calls of one hand-over, with another behind it → the requests not begun are counted."""
    worker, events = start_ready("gate")
    held, _ = gates
    worker.send(next(tickets), batch("a", data=held.path) + batch("b", "c", "d", "e", data=""))
    worker.send(next(tickets), batch("f", data=""))
    held.wait_entered()
    worker.kill("enough")
    assert list(events.wait_exit().started.values()) == [4, 0]
    held.open()


def test_untouched_after_answers(start_ready, gates):
    """The first call of a hand-over is answered and the worker is killed in the second → nothing is untouched."""
    worker, events = start_ready("gate")
    first, second = gates
    worker.send(next(tickets), batch("a", data=first.path) + batch("b", "c", "d", data="") + batch("e", data=second.path))
    first.wait_entered()
    first.open()
    events.wait_answers(4)
    second.wait_entered()
    worker.kill("enough")
    assert (list(events.wait_exit().started.values()), events.request_ids) == ([5], ["a", "b", "c", "d"])
    second.open()


def test_quick_call_before_a_slow_one(start_ready, gates):
    """A call of a hand-over is done at once and the next one is held → the first is answered meanwhile, however quick it was."""
    worker, events = start_ready("gate")
    quick, slow = gates
    worker.send(next(tickets), batch("a", "b", "c", "d", data="") + batch("e", data=slow.path))
    quick.open()  # nobody is held there but in the fake, where each call is
    slow.wait_entered()
    events.wait_answers(4)
    assert events.request_ids == ["a", "b", "c", "d"]
    slow.open()
    events.wait_answers(5)


def test_more_than_one_call(start_ready):
    """A hand-over holds more requests than a batch → all are answered in order."""
    worker, events = start_ready("echo")
    worker.send(next(tickets), batch(*map(str, range(11))))
    events.wait_answers(11)
    assert events.request_ids == [str(number) for number in range(11)]


def test_kill_twice(start_ready):
    """A worker is killed twice → the first cause counts, and exited comes once."""
    worker, events = start_ready("echo")
    worker.kill("first")
    worker.kill("second")
    assert events.wait_exit().cause == "first"
    worker.kill("third")
    assert events.names == ["ready", "exited"]


def test_sending_after_the_end(start_ready):
    """A batch is sent to a worker that has ended, and it is stopped → nothing happens."""
    worker, events = start_ready("echo")
    worker.kill("enough")
    events.wait_exit()
    worker.send(next(tickets), batch("a", data="x" * 100_000))
    worker.stop(SECONDS)
    assert events.names == ["ready", "exited"]


def test_kill_at_once(start):
    """A worker is killed right after its start → its exit reports the cause."""
    worker, events = start("echo")
    worker.kill("not wanted")
    assert events.wait_exit().cause == "not wanted"


def test_load_failure(start):
    """The handler raises while it loads → the exit tells what it raised and where; ready never comes."""
    _, events = start("fail_load")
    assert events.wait_exit().load_error == "fail_load.py, line 6: RuntimeError: the weights are damaged"
    assert events.names == ["exited"]


def test_crash(start_ready):
    """The process crashes instead of answering → the exit names the signal, and is no load error."""
    worker, events = start_ready("misbehave")
    worker.send(next(tickets), batch("a", data="segfault"))
    exit_ = events.wait_exit()
    assert (exit_.cause, exit_.load_error) == ("signal 11 (SIGSEGV)", "")
    assert events.names == ["ready", "exited"]


def test_output(start_ready):
    """A handler prints → the exit has the lines."""
    worker, events = start_ready("noisy")
    worker.send(next(tickets), batch("a", data="hello"))
    events.wait_answers(1)
    worker.stop(SECONDS)
    assert "out hello" in events.wait_exit().output


def test_one_thread(start_ready):
    """A worker lives and ends → all its events come from one thread."""
    worker, events = start_ready("echo")
    worker.send(next(tickets), batch("a"))
    events.wait_answers(1)
    worker.kill("enough")
    events.wait_exit()
    assert len(events.threads) == 1


def test_start_after_the_end(subject):
    """The engine was closed → it starts no worker."""
    closed, spec = type(subject)(), HandlerSpec("echo", "1.0", str(HANDLERS), "echo", {}, {}, False, "", ())
    closed.close()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        closed.engine.start(WorkerSpec(next(worker_ids), spec, 4, CPU, 1), Events())
