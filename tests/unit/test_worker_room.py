"""What waits for room in a worker's socket, with a worker that makes room without a word: it is tried again."""

import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from servers import until

from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.engine.channel import LEFT, Batch, Channel, Kind
from servegrpc.engine.process import ProcessWorker
from servegrpc.reply import Reply

SECONDS = 30  # that a wait may take at most
ENOUGH = 10_000  # messages: no socket has room for so many


class Told:
    """The events of a worker, and its other end, which is played by a thread: it does nothing until `go`, and answers all in the end."""

    def __init__(self, timer):
        self.answered_tickets, self.flags, self.ended, self.stopped = [], [], [], threading.Event()
        self.has_batch, self.go = threading.Event(), threading.Event()
        self._ready = threading.Event()
        spec = SimpleNamespace(batch_size=2, worker_id=1, handler=SimpleNamespace(model_name="m", model_version="1.0"))
        self.worker = ProcessWorker(spec, self, timer, SimpleNamespace(take=lambda _: False), lambda _: None)
        self.worker._known.set()
        self._channel = Channel.from_descriptors(self.worker._inherited)
        self._channel.send(Kind.LOADED, {"slots": 0})
        self.worker._thread.start()
        assert self._ready.wait(SECONDS)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while message := self._channel.receive():
            if isinstance(message, Batch):
                self.has_batch.set()
                self.go.wait()
                with suppress(BrokenPipeError):  # the test is over
                    self._channel.send_replies(message.lane, [Reply(ticket=message.ticket, index=n) for n in range(len(message.items))])
            elif message.kind is Kind.SEQUENCE_ENDED:
                self.ended += message.body["sequence_ids"]
            elif message.kind is Kind.FLAG:
                self.flags.append(message.body["flags"])
            else:
                self.stopped.set()

    def ready(self, worker_id, handler):
        self._ready.set()

    def answered(self, worker_id, replies):
        self.answered_tickets += [reply.ticket for reply in replies]

    def exited(self, worker_id, exit_):
        pass

    def close(self):
        self.go.set()
        self.worker._process_ended(0)
        self.worker.join()
        self._thread.join()
        self._channel._socket.close()


@pytest.fixture
def told():
    timer = Timer()
    told = Told(timer)
    yield told
    told.close()
    timer.close()


def request():
    return Request(b"", 0, "r", print)


def fill(told):
    """Give a worker a batch of two, and pause and resume the first of it, again and again, until it is not told."""
    told.worker.send(1, [request(), request()])
    assert told.has_batch.wait(SECONDS)
    for _ in range(ENOUGH):
        told.worker.set_flags(1, 0, paused=True)
        told.worker.set_flags(1, 0)
        if told.worker._untold:
            return
    pytest.fail("the socket has room for everything")


def test_batch_and_stop(told):
    """A batch, ends of sequences and a stop meet a full socket → they come when the worker has read what was there, in this order."""
    fill(told)
    assert told.worker.send(2, [request()])
    assert told.worker._unsent
    told.worker.end_sequence("s")
    told.worker.stop(SECONDS)
    told.go.set()
    assert told.stopped.wait(SECONDS)
    until(lambda: told.answered_tickets == [1, 1, 2])
    assert told.ended == ["s"]
    assert told.flags[-1] == 0


def test_ends_of_sequences(told):
    """More sequences end than an idle worker can be told of at once → it is told of all, without saying a word itself."""
    names = [str(number) for number in range(ENOUGH)]
    for name in names:
        told.worker.end_sequence(name)
    until(lambda: told.ended == names)


def test_board(told):
    """One caller's flag must wait for room → another's, for which no message is needed, is on the board at once."""
    fill(told)
    told.worker.set_flags(1, 1, left=True)
    assert told._channel.flags(told.worker._sent[1].lane, 1) == LEFT
