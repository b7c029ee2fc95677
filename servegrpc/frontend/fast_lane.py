"""The methods of a public grpc.server that run models, served from one thread that polls a completion queue of its own.

    poll ─► call arrives ─► its message arrives ─► route, queue ─► (worker) ─► answer, from any thread

It is several times cheaper per call than grpcio's thread pool (docs/performance.md), and shares the port, its TLS and its limits with
the public server, which serves all other methods. The price is grpcio's private `cygrpc`, used here and in `fast_calls` only:
`self_test` tries it with real calls before anything relies on it, and where it fails `public` serves the same methods, with the same
results.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from time import monotonic
from typing import Any

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, without types

from servegrpc.errors import TooManyCalls
from servegrpc.frontend.access_log import AccessLog
from servegrpc.frontend.fast_calls import NO_FLAGS, Event, FastCall, FastStream
from servegrpc.frontend.methods import Metadata, Method, Pump, Unary
from servegrpc.frontend.open_calls import open_calls
from servegrpc.reply import Reply

log = structlog.get_logger()

MAX_PENDING = 100_000
PENDING_OPTIONS = (  # by default grpcio drops calls, as CANCELLED, at random when more than 1000 wait to be taken; our queues say why
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
)
SLOTS = 64  # calls asked for ahead, for each method
QUEUE_SHUTDOWN, QUEUE_TIMEOUT = cygrpc.CompletionType.queue_shutdown, cygrpc.CompletionType.queue_timeout
MAX_FAILURES = 10  # of the queue within a second; then the server ends
MAX_DRAIN = 256  # events taken before the batches they filled are handed over
POLL_NOW = 0  # a deadline in the past
POLL_SECONDS = 0.05  # the longest that an answer waits behind one whose caller does not read (grpcio itself looks up five times a second)
END_SECONDS = 2.0  # for the events that are left; those of a caller who does not read never come
LATE_SECONDS = 0.001  # how soon the end of a sending comes, when its caller reads


class LaneState(Enum):
    """What the lane knows of answers that other threads have for it."""

    IDLE = "idle"
    SENT = "sent"  # one was sent by another thread; more may come with it
    WOKEN = "woken"  # the lane will look into its outbox


class FastLane:
    """Serves methods of a server that has not been started yet: `start` after the server, `stop` when the server has stopped.

    A method gets each call with its raw request, and answers the call later, or raises ServeError. What it returns, if anything, is
    called when all events at hand have been taken: so that what has arrived together can be handed on together. `check` is called first,
    with method and metadata, and raises ServeError for a call that is not allowed.
    """

    def __init__(
        self,
        server: grpc.Server,
        methods: Mapping[str, Method],
        access_log: AccessLog | None = None,
        check: Callable[[str, Metadata], None] | None = None,
    ) -> None:
        self._server: Any = server._state.server  # type: ignore[attr-defined]
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._methods = dict(methods)
        self.access_log = access_log
        for method in self._methods:
            self._server.register_method(method)
        self._stopping = False
        self._afterwards: set[Callable[[], None]] = set()
        self._check = check
        self._outbox: deque[tuple[FastCall | FastStream, Reply | None]] = deque()
        self._state = LaneState.IDLE
        self._sent_at = 0.0  # when another thread sent last
        self._thread = threading.Thread(target=self._run, name="fast-lane", daemon=True)

    def start(self) -> None:
        """Take calls from now on."""
        for path, method in self._methods.items():
            for _ in range(SLOTS):
                self._ask(_Arrival(self, path, method))
        self._thread.start()

    def stop(self) -> None:
        """End the thread; call it when the server has stopped and nobody is left who could answer a call."""
        self._stopping = True
        self._queue.shutdown()
        if self._thread.ident:
            self._thread.join(END_SECONDS)

    def _ask(self, arrival: _Arrival) -> None:
        self._server.request_registered_call(self._queue, self._queue, arrival.path, arrival)

    def _run(self) -> None:
        failures: deque[float] = deque(maxlen=MAX_FAILURES)
        while True:
            try:
                return self._serve()
            except Exception:  # of the queue itself; whatever it was, calls must be taken on
                log.exception("fast lane failed; it goes on")
            failures.append(monotonic())
            if len(failures) == MAX_FAILURES and failures[-1] - failures[0] < 1:
                log.critical("fast lane cannot go on; the server ends", failures=MAX_FAILURES)
                signal.raise_signal(signal.SIGTERM)
                return None

    def _serve(self) -> None:
        """Take events until the queue is shut down."""
        while True:
            deadline = time.time() + POLL_SECONDS
            for _ in range(MAX_DRAIN):
                event = self._queue.poll(deadline)
                deadline = POLL_NOW
                if event.completion_type == QUEUE_SHUTDOWN:
                    return
                if event.completion_type == QUEUE_TIMEOUT:
                    break
                try:  # here and not in `_guarded`: it is done for each event
                    event.tag(event)
                except Exception:
                    log.exception("fast lane event failed")
                if self._outbox or self._state is not LaneState.IDLE:
                    self._empty_outbox()
            event = None  # an event may hold a call: let it go before waiting
            while self._afterwards:
                self._guarded(self._afterwards.pop())
            self._empty_outbox()

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:  # one bad event must not end the lane for everyone
            log.exception("fast lane event failed")

    def arrived(self, arrival: _Arrival, event: Event) -> None:
        """A call has come in: ask for its message, for its end, and for the next call."""
        if not event.success:
            return  # the server stops
        if not self._stopping:
            self._ask(arrival)
        call = arrival.kind(self, arrival.path, arrival.method, event)
        event.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), call.closed)
        try:
            call.counted = open_calls.begin()
        except TooManyCalls as error:
            call.answer(Reply(error=error))
        else:
            call.begin()

    def post(self, call: FastCall | FastStream, reply: Reply | None) -> None:
        """Let a call send its reply; let a stream send a message or its answer, or read (None). From any thread.

        Each operation started on another thread than the lane's makes both contend for the interpreter's lock. So of the answers that
        come together, as those of a batch do, only the first is sent here; the end of its sending wakes the lane, which sends the others.
        When that end does not come at once, because its caller does not read, the next answer or the lane's own clock wakes it. Streams
        are always sent by the lane: in order, and without locks.
        """
        unary = isinstance(call, FastCall)
        if unary and reply and self._state is LaneState.IDLE:
            self._state, self._sent_at = LaneState.SENT, monotonic()
            if not call.send(reply):
                self._state = LaneState.IDLE
            return
        self._outbox.append((call, reply))
        if self._state is LaneState.WOKEN or threading.get_ident() == self._thread.ident:
            return
        if not unary or self._state is LaneState.IDLE or monotonic() - self._sent_at > LATE_SECONDS:
            self._state = LaneState.WOKEN
            call.wake()

    def _empty_outbox(self) -> None:
        self._state = LaneState.IDLE  # before looking: what is posted later wakes the lane again
        while self._outbox:
            call, reply = self._outbox.popleft()
            self._guarded(call.send, reply)

    def allow(self, path: str, metadata: Metadata) -> None:
        """Raise ServeError for a call that is not allowed."""
        if self._check:
            self._check(path, metadata)

    def later(self, pump: Pump | None) -> None:
        """Call a function when all events at hand have been taken."""
        if pump:
            self._afterwards.add(pump)


class _Arrival:
    """The tag of a call that is asked for: one for each slot, used again and again."""

    __slots__ = ("_lane", "kind", "method", "path")

    def __init__(self, lane: FastLane, path: str, method: Method) -> None:
        self._lane = lane
        self.path = path
        self.method = method
        self.kind = FastCall if isinstance(method, Unary) else FastStream

    def __call__(self, event: Event) -> None:
        self._lane.arrived(self, event)
