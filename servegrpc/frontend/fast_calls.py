"""The calls of the fast lane, which has the private parts of grpcio to itself together with this file."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, TypeAlias

import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, without types

from servegrpc.core.request import why_left
from servegrpc.errors import InvalidInput, ServeError, ServerError
from servegrpc.frontend.access_log import AccessLog
from servegrpc.frontend.calls import DETAILS_KEY, new_request_id
from servegrpc.frontend.methods import BUFFER_BYTES, Conversation, Metadata, Method, Pump, Session
from servegrpc.frontend.open_calls import open_calls
from servegrpc.frontend.sending import sending
from servegrpc.reply import Reply
from servegrpc.wire.codecs import CODECS

log = structlog.get_logger()

Event: TypeAlias = Any  # of cygrpc

NO_FLAGS = 0
NEVER = 2.0**40  # seconds since the epoch
INITIAL_METADATA = cygrpc.SendInitialMetadataOperation(None, NO_FLAGS)  # these two hold nothing of a call, and serve all of them
OK_STATUS = cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", NO_FLAGS)


class Lane(Protocol):
    """What a call needs of its lane."""

    access_log: AccessLog | None

    def allow(self, path: str, metadata: Metadata) -> None:
        """Raise ServeError for a call that is not allowed."""

    def later(self, pump: Pump | None) -> None:
        """Call a function when all events at hand have been taken."""

    def post(self, call: FastCall | FastStream, reply: Reply | None) -> None:
        """Let a call send its reply, or a stream what waits in it; from any thread."""


def _nothing(event: Event) -> None:
    """The tag of an event that only wakes."""


class _Incoming:
    """What calls and streams have in common: see `methods.Call`."""

    __slots__ = (
        "_call",
        "_lane",
        "_left",
        "_method",
        "_noted",
        "_path",
        "_started",
        "counted",
        "deadline",
        "metadata",
        "model_name",
        "on_cancel",
        "request_id",
    )

    def __init__(self, lane: Lane, path: str, method: Method, event: Event) -> None:
        self._lane = lane
        self._path = path
        self._method = method
        self._call = event.call
        self.metadata: Metadata = event.invocation_metadata
        deadline = event.call_details.deadline  # wall clock; an absurd time when there is none
        self._left = self._noted = False
        self.counted = False  # among the open calls
        self._started = monotonic()
        self.deadline: float = math.inf if deadline > NEVER else self._started + deadline - time.time()
        self.model_name = self.request_id = ""
        self.on_cancel: Callable[[], object] | None = None

    def closed(self, event: Event) -> None:
        """The call is over, or its caller has left."""
        if self.counted:
            open_calls.end()
        on_cancel, self.on_cancel = self.on_cancel, None
        if event.batch_operations[0].cancelled():
            self._left = True
            self._note(why_left(self.deadline))
            if on_cancel:
                on_cancel()

    def wake(self) -> None:
        """Make an event for the lane, which comes at once."""
        self._call.start_server_batch((), _nothing)

    def _note(self, code: int) -> None:
        """Write the call to the access log, if there is one; once."""
        if self._lane.access_log and not self._noted:
            self._noted = True
            self._lane.access_log.write(self._path, self.model_name, self.request_id, code, monotonic() - self._started)

    def _refusal(self, error: Exception) -> Reply:
        """Return the answer to a call that could not be taken in."""
        if isinstance(error, ServeError):
            return Reply(error=error)
        request_id = new_request_id()
        log.exception("server error", method=self._path, request_id=request_id, exc_info=error)
        message = f"The server failed; its log has the trace. Request id: {request_id}."
        return Reply(error=ServerError(message, request_id=request_id))

    def _status(self, reply: Reply) -> Any:  # noqa: ANN401 - an operation of cygrpc
        """Return the operation that sends the status of a final reply."""
        if not (reply.code or reply.trailers):
            return OK_STATUS
        trailers = ((DETAILS_KEY, reply.body), *reply.trailers) if reply.code else reply.trailers
        return cygrpc.SendStatusFromServerOperation(trailers, reply.code, reply.message.encode(), NO_FLAGS)


class FastCall(_Incoming):
    """One call with one answer, from its arrival until its status is sent."""

    __slots__ = ()

    def begin(self) -> None:
        """Ask for the message."""
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def _received(self, event: Event) -> None:
        """The message is here, or the caller sent none."""
        raw = event.batch_operations[0].message()
        if self._left:
            return
        if not event.success:  # the message was too large, or broke off: the core has ended the call, and nothing is known of it
            self._noted = True
            return
        if raw is None:
            self.answer(Reply(error=InvalidInput("The call has no request message; send exactly one.")))
            return
        try:
            self._lane.allow(self._path, self.metadata)
            self._lane.later(self._method.start(self, raw))  # type: ignore[call-arg,arg-type]  # it is Unary
        except Exception as error:  # noqa: BLE001 - nothing may end the lane
            self.answer(self._refusal(error))

    def answer(self, reply: Reply) -> None:
        """Answer the call; from any thread."""
        sending.begin(self)
        self._lane.post(self, reply)

    def send(self, reply: Reply) -> bool:
        """Send reply and status; returns whether that was begun, and so an event of its end will come."""
        self.on_cancel = None  # it holds the request, and the request this call: a cycle would keep its payload until the next collection
        operations: tuple[Any, ...]
        if reply.error:
            reply = CODECS[self._method.dialect].status(reply.error)
        if reply.code == 0:
            operations = (INITIAL_METADATA, cygrpc.SendMessageOperation(reply.body, NO_FLAGS), self._status(reply))
        else:
            operations = (INITIAL_METADATA, self._status(reply))
        self._note(reply.code)
        try:
            self._call.start_server_batch(operations, self._sent)
        except Exception:  # private parts may raise anything; the other replies must still be sent
            log.exception("reply cannot be sent", request_id=self.request_id)
            sending.end(self)
            return False
        return True

    def _sent(self, event: Event) -> None:  # noqa: ARG002
        """The status is sent; the tag kept this call alive until now."""
        sending.end(self)


class FastStream(_Incoming):
    """One call with any number of messages out, and in when it is a session.

    All of its state changes on the lane's thread. One message is sent at a time; the others wait in `_unsent`.
    """

    def __init__(self, lane: Lane, path: str, method: Method, event: Event) -> None:
        super().__init__(lane, path, method, event)
        self.buffer_bytes = BUFFER_BYTES
        self.on_room: Callable[[bool], None] | None = None
        self._talk: Conversation | None = None
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._final: Reply | None = None
        self._opened = self._sending = self._paused = self._want_read = self._over = False

    def begin(self) -> None:
        """Ask for the message, or begin the conversation."""
        try:
            self._lane.allow(self._path, self.metadata)
            if isinstance(self._method, Session):
                self._talk = self._method.start(self)
            else:
                self.read_next()
        except Exception as error:  # noqa: BLE001 - nothing may end the lane
            self.answer(self._refusal(error))

    def message(self, reply: Reply) -> None:
        """Send a message; from any thread."""
        self._lane.post(self, reply)

    def answer(self, reply: Reply) -> None:
        """End the stream when what waits has been sent; from any thread. What comes afterwards is dropped."""
        self._lane.post(self, reply)

    def read_next(self) -> None:
        """Take the caller's next message; from any thread."""
        self._lane.post(self, None)

    def send(self, reply: Reply | None) -> bool:
        """Take a message or the answer in, or begin to read."""
        if self._over or self._final:
            return False
        if reply is None:
            self._want_read = True
            self._read_if_room()
            return False
        if reply.error:
            reply = CODECS[self._method.dialect].status(reply.error)
        if not (reply.empty or reply.code):
            self._unsent.append(reply.body)
            self._unsent_bytes += len(reply.body)
        if not reply.more:
            self._final = reply
        if not self._sending:
            self._send_next()
        elif self._unsent_bytes > self.buffer_bytes and not self._paused and not self._final:
            self._paused = True
            if self.on_room:
                self.on_room(False)
        return False

    def _read_if_room(self) -> None:
        if self._want_read and not self._paused:
            self._want_read = False
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def closed(self, event: Event) -> None:
        """The call is over, or its caller has left."""
        super().closed(event)
        if self._left and not self._over:
            self._unsent.clear()
            self._end(why_left(self.deadline))

    def _received(self, event: Event) -> None:
        """A message is here, or the caller has half-closed."""
        raw = event.batch_operations[0].message()
        if self._left or self._final:
            return
        try:
            if self._talk and raw is None:
                self._talk.half_closed()
            elif self._talk:
                self._lane.later(self._talk.message(raw))
            elif raw is None:
                raise InvalidInput("The call has no request message; send exactly one.")
            else:
                self._lane.later(self._method.start(self, raw))  # type: ignore[call-arg,arg-type]  # it is a ServerStream
        except Exception as error:  # noqa: BLE001 - nothing may end the lane
            self.answer(self._refusal(error))

    def _send_next(self) -> None:
        """Send the next message, and the status with the last one."""
        operations: list[Any] = []
        if not self._opened:
            operations.append(INITIAL_METADATA)
        if self._unsent:
            body = self._unsent.popleft()
            self._unsent_bytes -= len(body)
            operations.append(cygrpc.SendMessageOperation(body, NO_FLAGS))
        if self._final and not self._unsent:
            operations.append(self._status(self._final))
            self._end(self._final.code)
        self._opened = self._sending = True
        sending.begin(self)
        self._call.start_server_batch(tuple(operations), self._sent)

    def _sent(self, event: Event) -> None:  # noqa: ARG002
        """A message is sent."""
        self._sending = False
        if not self._over and (self._unsent or self._final):
            self._send_next()
        else:
            sending.end(self)
        if self._paused and not self._over and self._unsent_bytes <= self.buffer_bytes // 2:
            self._paused = False
            self._read_if_room()
            if self.on_room:
                self.on_room(True)

    def _end(self, code: int) -> None:
        self._over = True
        talk, self._talk = self._talk, None
        self.on_cancel = self.on_room = None  # they hold the request, and the request this stream
        self._note(code)
        if talk:
            talk.over()
