"""The loop of a worker whose handler works step by step: continuous batching.

admit what has come ─► step(all that can take a message) ─► one message of replies ─► admit …
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic, monotonic_ns

from servegrpc.engine.channel import LEFT, PAUSED, Batch, Channel, ChannelError, Control, Item, Kind
from servegrpc.errors import InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.handlers.stepping import StepHandler, StepRequest
from servegrpc.handlers.streaming import FINISHED, NOTHING, Last
from servegrpc.reply import Reply
from servegrpc.worker.answers import ENDED, Answers, Took, caller_left, check_count
from servegrpc.worker.batch_loop import CLEAN, SERVER_GONE, PredictionTimes, end_sequence, send_metrics
from servegrpc.worker.context import Callers, Context, RequestProcessor, distinct
from servegrpc.worker.inbox import Inbox, Message, sign_seconds
from servegrpc.worker.loader import Entry
from servegrpc.worker.open_call import OpenCall


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request between its start and its final reply."""

    ticket: int
    index: int
    item: Item
    request: StepRequest
    since: int  # nanoseconds
    flags: int = 0
    reached: bool = False  # the handler has got it
    ended: bool = False
    last: object = NOTHING  # for a caller that takes one answer only


class StepLoop:
    """Drives a StepHandler. Replies gather in `_replies` and leave together. No step, and no start, may take the response timeout."""

    def __init__(
        self, channel: Channel, handler: StepHandler, answers: Answers, context: Context, response_timeout_seconds: float = math.inf
    ) -> None:
        self._channel = channel
        self._handler = handler
        self._answers = answers
        self._context = context
        self._live: list[LiveRequest] = []
        self._replies: list[Reply] = []
        self._sign_seconds = sign_seconds(response_timeout_seconds)
        self._sign_at = 0.0
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._told: dict[tuple[object, object], int] = {}  # flags of requests, by ticket and index, that are not taken in yet
        self.sends = isinstance(handler, CalledSteps)  # whether messages may come in the middle of a step
        self.call = StepCall(self, ())  # the step that runs, or the last one
        self._times = PredictionTimes(context)
        self._stopping = False

    def serve(self) -> int:
        """Serve until the end; returns the exit code. Raises ChannelError."""
        inbox = Inbox(self._channel, self._deliver)
        while True:
            inbox.take()
            ready = self._ready()
            if ready and self._messages.empty():
                self._step(ready)
                self._flush()
                continue
            self._flush()  # those that were dropped because their callers have left
            if self._stopping and not self._live:
                return CLEAN
            message = self._messages.get()
            if message is None:
                return SERVER_GONE
            self._take(message)

    def has_left(self, live: LiveRequest) -> bool:
        """Whether the caller of a request waits no more."""
        return bool((live.flags | self._told.get((live.ticket, live.index), 0)) & LEFT)

    def send(self, active: Sequence[LiveRequest], results: object) -> None:
        """Send each caller of a step that takes a stream a message, now."""
        for live, result in zip(active, check_count(results, len(active)), strict=True):
            if live.item.streamed and not live.ended and not self.has_left(live):
                self._answer(live, result, Took(monotonic_ns() - live.since, len(active)))
        self._flush()

    def _deliver(self, message: Message) -> None:
        """Take a message in, on the thread that receives: what is said about a caller can be asked for while a step runs."""
        if isinstance(message, Control) and message.kind is Kind.FLAG:
            self._told[message.body.get("ticket"), message.body.get("index")] = int(str(message.body.get("flags")))
        self._messages.put(message)

    def _ready(self) -> list[LiveRequest]:
        """Return the live requests that can take a message; those whose callers have left are ended."""
        for live in [live for live in self._live if live.flags & LEFT]:
            self._end(live, caller_left())
        return [live for live in self._live if not live.flags & PAUSED]

    def _take(self, message: Message) -> None:
        if isinstance(message, ChannelError):
            raise message
        if isinstance(message, Batch):
            for index, item in enumerate(message.items):
                self._start(message.ticket, index, item)
                self._flush()
        elif isinstance(message, Control):
            if message.kind is Kind.STOP:
                self._stopping = True
            elif message.kind is Kind.SEQUENCE_ENDED:
                end_sequence(self._handler.handle, message)
            elif message.kind is Kind.FLAG:
                key = message.body.get("ticket"), message.body.get("index")
                self._told.pop(key, None)
                for live in self._live:
                    if (live.ticket, live.index) == key:
                        live.flags = int(str(message.body.get("flags")))

    def _start(self, ticket: int, index: int, item: Item) -> None:
        request_id = distinct(item.request_id, [live.request.request_id for live in self._live])
        request = StepRequest(None, request_id, dict(item.headers), item.deadline, item.streamed)
        live = LiveRequest(ticket, index, item, request, monotonic_ns())
        try:
            live.request.data = self._answers.decode(item)
            live.reached = not isinstance(self._handler, CalledSteps)  # it gets a request with its first step
            self._handler.start(live.request)
        except InvalidInput as error:
            self._end(live, error, started=False)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
            self._end(live, self._answers.handler_error(error, [item]), started=False)
        else:
            self._live.append(live)

    def _step(self, active: Sequence[LiveRequest]) -> None:
        self.call, began = StepCall(self, active), monotonic_ns()
        if isinstance(self._handler, CalledSteps):
            self._handler.callers = self.call
            for live in active:
                live.reached = True
        try:
            entries = check_count(self._handler.step([live.request for live in active]), len(active))
        except Exception as error:  # noqa: BLE001 - as in `_start`
            told = error if isinstance(error, ServeError) else self._answers.handler_error(error, [live.item for live in active])
            entries = [told] * len(active)
        finally:
            self.call.close()  # a thread of the handler's own may send yet
        ended = monotonic_ns()
        self._times.add(began, ended)
        responses = self._context.responses()  # a handler may have set others
        for position, (live, entry) in enumerate(zip(active, entries, strict=True)):
            took = Took(ended - live.since, len(active))
            self._answer(live, entry, took, responses[position] if position < len(responses) else None)

    def _answer(self, live: LiveRequest, entry: object, took: Took, response: RequestProcessor | None = None) -> None:
        if entry is NOTHING or live.ended:
            return
        if isinstance(entry, Exception):
            self._end(live, entry if isinstance(entry, ServeError) else self._answers.handler_error(entry, [live.item]))
        elif isinstance(entry, Last):
            self._end(live, entry.value, response)
        elif entry is FINISHED:
            single = InvalidHandlerResult("the handler's stream ended without a value") if live.last is NOTHING else live.last
            self._end(live, ENDED if live.item.streamed else single, response)
        elif not live.item.streamed:
            live.last = entry
        else:
            try:
                self._reply(live, self._answers.message(live.item, entry, took))
            except ServeError as error:
                self._end(live, error)

    def _end(self, live: LiveRequest, outcome: object, response: RequestProcessor | None = None, *, started: bool = True) -> None:
        reply = self._answers.reply(live.item, outcome, Took(monotonic_ns() - live.since, len(self._live)), response)
        reply.unrun = not live.reached
        self._reply(live, reply)
        live.ended = True
        if not started:
            return
        self._live.remove(live)
        try:
            self._handler.finish(live.request)
        except Exception as error:  # noqa: BLE001 - its caller has the reply
            self._answers.handler_error(error, [live.item])

    def _reply(self, live: LiveRequest, reply: Reply) -> None:
        reply.ticket, reply.index = live.ticket, live.index
        self._replies.append(reply)

    def _flush(self) -> None:
        now = monotonic()
        if self._replies or (self._live and now >= self._sign_at):
            self._channel.send_replies(0, self._replies)
            self._replies, self._sign_at = [], now + self._sign_seconds
        send_metrics(self._channel, self._context)


class StepCall(OpenCall):
    """One step, for a handler that asks for the callers of its requests, by position, and sends to them."""

    def __init__(self, loop: StepLoop, active: Sequence[LiveRequest]) -> None:
        super().__init__(streamed=loop.sends and any(live.item.streamed for live in active))
        self._loop = loop
        self._active = active

    def has_left(self, position: int) -> bool:
        """Whether a caller waits no more."""
        return self._loop.has_left(self._active[position])

    def deadline(self, position: int) -> float:
        """Return a request's deadline, in monotonic seconds."""
        return self._active[position].item.deadline

    def _send(self, results: object) -> None:
        self._loop.send(self._active, results)


class CalledSteps(StepHandler):
    """TorchServe's contract of continuous batching: `handle` is called for each step with all live requests.

    `context.stopping_criteria` then says by position which streams end: a callable of the result returns True; without one, or when it
    returns None, this was the only message. What the handler sets on a response counts in the step that ends its stream.
    """

    def __init__(self, entry: Entry, context: Context) -> None:
        self.handle = entry  # type: ignore[assignment]  # any callable
        self._context = context
        self.callers: Callers | None = None  # of the requests of a step

    def start(self, request: StepRequest) -> None:
        """Do nothing: the handler sees that it is new."""

    def step(self, active: Sequence[StepRequest]) -> Sequence[object]:
        """Call the handler."""
        self._context.begin_batch([request.request_id for request in active], [request.headers for request in active], self.callers)
        results = check_count(self.handle([request.data for request in active], self._context), len(active))
        return [self._entry(position, result) for position, result in enumerate(results)]

    def _entry(self, position: int, result: object) -> object:
        criteria = self._context.stopping_criteria
        criterion = criteria[position] if criteria else None  # type: ignore[index]  # a list, or a dict by position
        stop = criterion(result) if criterion else None
        return result if stop is not None and not stop else Last(result)
