"""The hot unary methods of a public grpc.server, served from one thread that polls a completion queue of its own.

    poll ─► call arrives ─► its message arrives ─► route, queue ─► (worker) ─► answer, from any thread

It is several times cheaper per call than grpcio's thread pool (docs/performance.md), and shares the port, its TLS and its limits with
the public server, which serves all other methods. The price is grpcio's private `cygrpc`, used in this file only: `self_test` tries it
with real calls before anything relies on it, and where it fails the public handlers of the same methods serve, with the same results.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, without types

from servegrpc.core.batching import Request
from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry
from servegrpc.errors import Code, InvalidInput, ServeError, ServerError
from servegrpc.frontend.access_log import AccessLog
from servegrpc.frontend.calls import DETAILS_KEY, forwarded_headers, new_request_id
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import Route
from servegrpc.wire.status import encode_status, short

log = structlog.get_logger()

Event: TypeAlias = Any  # of cygrpc

MAX_PENDING = 100_000
PENDING_OPTIONS = (  # by default grpcio drops calls, as CANCELLED, at random when more than 1000 wait to be taken; our queues say why
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
)
SLOTS = 64  # calls asked for ahead, for each method
MAX_DRAIN = 256  # events taken before the batches they filled are handed over
POLL_NOW = 0  # a deadline in the past
NO_FLAGS = 0
NEVER = 2.0**40  # seconds since the epoch


class FastLane:
    """Serves methods of a server that has not been started yet: `start` after the server, `stop` when the server has stopped.

    A handler gets each call with its raw request, and answers the call later, or raises ServeError. What it returns, if anything, is
    called when all events at hand have been taken: so that what has arrived together can be handed on together.
    """

    def __init__(self, server: grpc.Server, methods: Mapping[str, Handler], access_log: AccessLog | None = None) -> None:
        self._server: Any = server._state.server  # type: ignore[attr-defined]
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._methods = dict(methods)
        self.access_log = access_log
        for method in self._methods:
            self._server.register_method(method)
        self._stopping = False
        self._afterwards: set[Callable[[], None]] = set()
        self._outbox: deque[tuple[FastCall, Reply]] = deque()
        self._waking = False  # an answer sent from another thread will wake the lane
        self._thread = threading.Thread(target=self._run, name="fast-lane", daemon=True)

    def start(self) -> None:
        """Take calls from now on."""
        for method in self._methods:
            for _ in range(SLOTS):
                self._ask(_Arrival(self, method))
        self._thread.start()

    def stop(self) -> None:
        """End the thread; call it when the server has stopped and nobody is left who could answer a call."""
        self._stopping = True
        self._queue.shutdown()
        if self._thread.ident:
            self._thread.join()

    def _ask(self, arrival: _Arrival) -> None:
        self._server.request_registered_call(self._queue, self._queue, arrival.method, arrival)

    def _run(self) -> None:
        while True:
            deadline = None
            for _ in range(MAX_DRAIN):
                event = self._queue.poll(deadline)
                deadline = POLL_NOW
                if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                    return
                if event.completion_type == cygrpc.CompletionType.queue_timeout:
                    break
                self._guarded(event.tag, event)
                self._empty_outbox()
            event = None  # an event may hold a call: let it go before waiting
            while self._afterwards:
                self._guarded(self._afterwards.pop())

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
        call = FastCall(self, arrival.method, event)
        event.call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), call.received)
        event.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), call.closed)

    def post(self, call: FastCall, reply: Reply) -> None:
        """Answer a call, from any thread.

        Each operation started on another thread than the lane's makes both contend for the interpreter's lock. So of the replies that
        come together, as those of a batch do, only the first is sent here; its completion wakes the lane, which sends the others.
        """
        self._outbox.append((call, reply))
        while self._outbox and not self._waking:
            self._waking = True
            try:
                first, its_reply = self._outbox.popleft()
            except IndexError:  # the lane was quicker; look again, since others may have counted on us
                self._waking = False
                continue
            if not first.send(its_reply):
                self._waking = False

    def _empty_outbox(self) -> None:
        self._waking = False  # before looking: what is posted later wakes the lane again
        while self._outbox:
            call, reply = self._outbox.popleft()
            call.send(reply)

    def handle(self, call: FastCall, raw: bytes) -> None:
        """Let the method's handler take a call."""
        afterwards = self._methods[call.method](call, raw)
        if afterwards:
            self._afterwards.add(afterwards)


class _Arrival:
    """The tag of a call that is asked for: one for each slot, used again and again."""

    __slots__ = ("_lane", "method")

    def __init__(self, lane: FastLane, method: str) -> None:
        self._lane = lane
        self.method = method

    def __call__(self, event: Event) -> None:
        self._lane.arrived(self, event)


class FastCall:
    """One call, from its arrival until its status is sent. `on_cancel` is called when its caller leaves; `deadline` is monotonic.

    Whoever knows the model and the request id sets them, for the access log.
    """

    __slots__ = ("_call", "_lane", "_left", "_started", "deadline", "metadata", "method", "model_name", "on_cancel", "request_id")

    def __init__(self, lane: FastLane, method: str, event: Event) -> None:
        self._lane = lane
        self._call = event.call
        self.method = method
        self.metadata: tuple[tuple[str, str | bytes], ...] = event.invocation_metadata
        deadline = event.call_details.deadline  # wall clock; an absurd time when there is none
        self._left = False
        self._started = monotonic()
        self.deadline: float = math.inf if deadline > NEVER else self._started + deadline - time.time()
        self.model_name = self.request_id = ""
        self.on_cancel: Callable[[], object] | None = None

    def received(self, event: Event) -> None:
        """The message is here, or the caller sent none."""
        raw = event.batch_operations[0].message()
        if self._left:
            return
        if raw is None:  # the core has ended a call that was too large, and this changes nothing; one without a message it has not
            self.answer(Reply(error=InvalidInput("The call has no request message; send exactly one.")))
            return
        try:
            self._lane.handle(self, raw)
        except ServeError as error:
            self.answer(Reply(error=error))
        except Exception:
            request_id = new_request_id()
            log.exception("server error", method=self.method, request_id=request_id)
            message = f"The server failed; its log has the trace. Request id: {request_id}."
            self.answer(Reply(error=ServerError(message, request_id=request_id)))

    def closed(self, event: Event) -> None:
        """The call is over, or its caller has left."""
        on_cancel, self.on_cancel = self.on_cancel, None
        if event.batch_operations[0].cancelled():
            self._left = True
            if on_cancel:
                on_cancel()

    def answer(self, reply: Reply) -> None:
        """Answer the call; from any thread."""
        self._lane.post(self, reply)

    def send(self, reply: Reply) -> bool:
        """Send reply and status; returns whether that was begun, and so an event of its end will come."""
        self.on_cancel = None  # it holds the request, and the request this call: a cycle would keep its payload until the next collection
        operations: tuple[Any, ...]
        code = int(reply.error.code) if reply.error else reply.code
        if code == 0:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(reply.body, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation(reply.trailers, cygrpc.StatusCode.ok, b"", NO_FLAGS),
            )
        else:
            message, details = (short(reply.error.message), encode_status(reply.error)) if reply.error else (reply.message, reply.body)
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation(((DETAILS_KEY, details),), code, message.encode(), NO_FLAGS),
            )
        self.note(code)
        try:
            self._call.start_server_batch(operations, self._sent)
        except Exception:  # private parts may raise anything; the other replies must still be sent
            log.exception("reply cannot be sent", request_id=self.request_id)
            return False
        return True

    def note(self, code: int) -> None:
        """Write the call to the access log, if there is one."""
        if self._lane.access_log:
            self._lane.access_log.write(self.method, self.model_name, self.request_id, code, monotonic() - self._started)

    def _sent(self, event: Event) -> None:
        """The status is sent; the tag kept this call alive until now."""


Handler = Callable[[FastCall, bytes], Callable[[], None] | None]


def run_fast(registry: ModelRegistry, dialect: Dialect, route: Route, raw: bytes, call: FastCall) -> Callable[[], None] | None:
    """Send a request through its model's queue; `calls.run_blocking` for the lane.

    Returns the pool's `pump` when it should wait until all that has arrived is queued. Raises ServeError for what the server refuses.
    """
    call.model_name, call.request_id = route.model_name, route.request_id or new_request_id()
    pool = registry.get(route.model_name, route.model_version).pool
    request = Request(raw, dialect, call.request_id, call.answer, call.deadline, forwarded_headers(call.metadata))
    call.on_cancel = partial(_leave, call, pool, request)
    if not pool.put(request):
        return pool.pump
    pool.pump()
    return None


def _leave(call: FastCall, pool: WorkerPool, request: Request) -> None:
    if pool.cancel(request):
        call.note(Code.CANCELLED)  # nobody is there to be answered
