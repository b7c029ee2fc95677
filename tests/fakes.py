"""A fake engine that passes the contract suite of the real one (`contract/test_engine.py`), without processes.

`FakeEngine()` does nothing by itself: the test says when a worker is ready, answers or ends, on the test's own thread.
`FakeEngine(scripts)` gives each worker a thread that plays the script of its handler. `ManualTimer` is a timer without time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from time import monotonic
from typing import Any
from weakref import ref

from servegrpc.core.engine import HandlerSpec, LoadedHandler, WorkerEvents, WorkerExit, WorkerSpec
from servegrpc.core.request import Request
from servegrpc.core.restarts import MAX_FAILURES
from servegrpc.errors import Code
from servegrpc.reply import Reply
from servegrpc.v1 import inference_pb2

SECONDS = 20  # that a wait may take at most
POOL_SPEC = HandlerSpec("digits", "1.0", "/", "echo", {}, {}, False, "", ())


@dataclass(frozen=True)
class Script:
    """What a worker of one handler does: fail to load, print, end instead of answering, or hold each batch until `FakeEngine.release`."""

    load_error: str = ""
    output: tuple[str, ...] = ()
    ends: str = ""  # the cause of its exit
    holds: bool = False


class ManualTimer:
    """Keeps what it is asked to call; `run` calls all of it, due or not. `on_call` runs whenever something is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.on_call: Callable[[], None] = lambda: None

    def call_at(self, when: float, function: Callable[[], None], about: ref[Any] | None = None) -> None:
        """Keep a call."""
        self.calls.append((when, function))
        self.on_call()

    def run(self) -> None:
        """Call what was kept until now."""
        calls, self.calls = self.calls, []
        for _, function in calls:
            function()


class FakeEngine:
    """Makes fake workers; `workers` are all of them, in the order of their start."""

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self.workers: list[FakeWorker] = []
        self._scripts = scripts
        self._pids = count(1000)
        self._closed = False
        self._changed = threading.Condition()

    def start(self, spec: WorkerSpec, events: WorkerEvents) -> FakeWorker:
        """Start a worker."""
        worker = FakeWorker(spec, events, next(self._pids))
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self.workers.append(worker)
            self._changed.notify_all()
        if self._scripts is not None:
            worker.play(self._scripts[spec.handler.handler])
        return worker

    def close(self) -> None:
        """End all workers that are left."""
        with self._changed:
            self._closed = True
        for worker in list(self.workers):
            worker.kill("the engine was closed")
            if worker.thread:
                worker.thread.join()
            elif not worker.gone:
                worker.exit()

    def release(self) -> None:
        """Let one held batch of each worker go."""
        for worker in self.workers:
            worker.gate.release()

    def wait_started(self, count: int) -> None:
        """Block until so many workers have been started in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.workers) >= count, SECONDS), "did not happen in time"

    @property
    def live(self) -> list[FakeWorker]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if not worker.gone]


class FakeWorker:
    """One fake worker. `batches` are those sent and not answered; `flags` what it was told of callers, by request."""

    def __init__(self, spec: WorkerSpec, events: WorkerEvents, pid: int) -> None:
        self.spec = spec
        self.pid = pid
        self.started = monotonic()
        self.batches: deque[Sequence[Request]] = deque()
        self.flags: dict[Request, tuple[bool, bool]] = {}
        self.ended_sequences: list[str] = []
        self.slots = 0
        self._places: dict[int, list[int]] = {}  # the places of the requests, by their id()
        self.stopped = False
        self.grace_seconds = 0.0
        self.killed = ""
        self.gone = False
        self.gate = threading.Semaphore(0)
        self.thread: threading.Thread | None = None
        self._events = events
        self._changed = threading.Condition()

    # --- what the pool calls

    def send(self, ticket: int, batch: Sequence[Request]) -> bool:
        """Take a batch; one that comes after `stop` is lost, as in the real one."""
        with self._changed:
            if self.gone:
                return False
            if not self.stopped:
                assert self.slots or len(self.batches) < 2, "a third batch in flight"
                self.batches.append(batch)
                self._places |= {id(request): [ticket, index] for index, request in enumerate(batch)}
            self._changed.notify()
            return True

    def set_flags(self, ticket: int, index: int, *, left: bool = False, paused: bool = False) -> None:
        """Note what is told of a caller."""
        (request,) = [one for batch in self.batches for one in batch if self._places[id(one)] == [ticket, index]]
        self.flags[request] = (left, paused)

    def end_sequence(self, sequence_id: str) -> None:
        """Note that a sequence has ended."""
        self.ended_sequences.append(sequence_id)

    def stop(self, grace_seconds: float) -> None:
        """End after what was sent."""
        with self._changed:
            self.stopped, self.grace_seconds = True, grace_seconds
            self._changed.notify()

    def kill(self, cause: str) -> None:
        """End now."""
        with self._changed:
            self.killed = self.killed or cause
            self._changed.notify()
        self.gate.release()

    # --- what a test calls, or the thread

    def become_ready(self, slots: int = 0, *, yields: bool = False) -> None:
        """Say that the handler is loaded."""
        self.slots = slots
        self._events.ready(self.spec.worker_id, LoadedHandler(slots, yields))

    def refuse(self) -> None:
        """Answer the oldest hand-over with errors: no handler got its requests."""
        with self._changed:
            batch = self.batches.popleft()
        refusals = [replace(self.reply(request), code=Code.INVALID_ARGUMENT, unrun=True) for request in batch]
        self._events.answered(self.spec.worker_id, refusals)

    def answer(self, calls: int | None = None) -> None:
        """Answer the oldest hand-over with each request's id, or only its next calls of the handler."""
        with self._changed:
            batch = self.batches.popleft()
            count = len(batch) if calls is None else calls * self.spec.batch_size
            if count < len(batch):
                self.batches.appendleft(batch[count:])
        self._events.answered(self.spec.worker_id, [self.reply(request) for request in batch[:count]])

    def reply(self, request: Request, *, more: bool = False) -> Reply:
        """Return the reply to a request: its id."""
        ticket, index = self._places[id(request)]
        body = inference_pb2.PredictResponse(request_id=request.request_id).SerializeToString()
        return Reply(body, more=more, ticket=ticket, index=index)

    def send_message(self, request: Request) -> None:
        """Send a message of a request's stream."""
        self._events.answered(self.spec.worker_id, [self.reply(request, more=True)])

    def sign(self) -> None:
        """Say that it works, as a live one."""
        self._events.answered(self.spec.worker_id, [])

    def exit(self, cause: str = "", load_error: str = "", output: Sequence[str] = (), blameless: bool = False) -> None:
        """End: as it was told, or by `cause`. Of what it has, the next call of the handler has begun."""
        with self._changed:
            started = min(self.spec.batch_size, len(self.batches[0])) if self.batches else 0
            tickets = {self._places[id(request)][0]: 0 for batch in self.batches for request in batch}
            if self.batches:
                ticket, index = self._places[id(self.batches[0][0])]
                tickets[ticket] = index + started
            self.gone = True
            self.batches.clear()
        cause = self.killed or cause or "exit code 0: it ended by itself"
        self._events.exited(self.spec.worker_id, WorkerExit(cause, load_error, output, tickets, blameless))

    def wait_for(self, done: Callable[[], object]) -> None:
        """Block until `done()`, checked whenever the pool calls."""
        with self._changed:
            assert self._changed.wait_for(done, SECONDS), "did not happen in time"

    def play(self, script: Script) -> None:
        """Run a script on a thread of its own."""
        self.thread = threading.Thread(target=self._run, args=(script,), name=f"fake-worker-{self.spec.worker_id}")
        self.thread.start()

    def _run(self, script: Script) -> None:
        if script.load_error:
            self.exit("exit code 3", script.load_error, script.output)
            return
        self.become_ready()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.killed or self.batches or self.stopped)
            if script.holds and self.batches:
                self.gate.acquire()
            if self.killed or not self.batches or script.ends:
                self.exit(script.ends if self.batches else "", output=script.output)
                return
            self.answer(calls=1)


class Caller:
    """Submits requests and counts how each was answered."""

    def __init__(self, pool):
        self.pool = pool
        self.answers = {}
        self.errors = {}
        self.requests = {}
        self._changed = threading.Condition()

    def submit(self, *names, deadline=float("inf"), **kwargs):
        for name in names:
            self.answers[name] = []
            self.requests[name] = Request(b"x", 0, name, lambda reply, name=name: self._note(name, reply), deadline, **kwargs)
            self.pool.submit(self.requests[name])

    def _note(self, name, reply):
        with self._changed:
            self.answers[name].append(reply.error.reason if reply.error else Code(reply.code).name)
            self.errors[name] = reply.error
            self._changed.notify_all()

    def wait_for(self, *names):
        with self._changed:
            assert self._changed.wait_for(lambda: all(self.answers[name] for name in names), SECONDS), self.answers

    def __getitem__(self, name):
        return self.answers[name]


def sent(worker):
    return [[request.request_id for request in batch] for batch in worker.batches]


def fail(pool, engine, *, times=MAX_FAILURES, but=None):
    """End worker after worker, without waiting for the time at which the next may start."""
    for _ in range(times):
        pool._crew.restarts.at = 0.0
        pool.reconcile()
        for worker in engine.live:
            if worker is not but:
                worker.exit("signal 11 (SIGSEGV)")
