"""The loop of a worker whose handler is asynchronous: each request is a task of its own, on one event loop."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic, monotonic_ns

from servegrpc.engine.channel import LEFT, PAUSED, Batch, Channel, ChannelError, Control, Item, Kind
from servegrpc.errors import InvalidHandlerResult, InvalidInput, RequestCancelled, ResponseTimeout, SlowReader
from servegrpc.handlers.streaming import FINISHED, NOTHING, Last
from servegrpc.reply import Reply
from servegrpc.worker.answers import ENDED, Answers, Took, caller_left, check_count, left_before
from servegrpc.worker.batch_loop import CLEAN, SERVER_GONE, PredictionTimes, end_sequence, send_metrics
from servegrpc.worker.context import Context, RequestProcessor, distinct
from servegrpc.worker.inbox import Inbox, Message, sign_seconds
from servegrpc.worker.loader import Entry

Key = tuple[int, int]  # ticket and index


class AsyncLoop:
    """Runs an `async def handle`, once for each request, with a copy of the context. Replies of one turn of the loop leave together.

    A call that takes one answer may take the response timeout; a stream may be silent for as long as its caller waits. That the loop is not
    blocked the server hears about once a second.
    """

    def __init__(
        self, channel: Channel, entry: Entry, answers: Answers, context: Context, response_timeout_seconds: float = math.inf
    ) -> None:
        self._channel = channel
        self._entry = entry
        self._answers = answers
        self._context = context
        self._calls: dict[Key, AsyncCall] = {}
        self._request_ids: set[str] = set()  # of the requests at work
        self._replies: list[Reply] = []
        self._timeout_seconds = response_timeout_seconds
        self._signing = False
        self._times = PredictionTimes(context)
        self._stopping = False

    def serve(self) -> int:
        """Serve until the end; returns the exit code. Raises ChannelError."""
        return asyncio.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = loop.create_future()

        def deliver(message: Message) -> None:
            loop.call_soon_threadsafe(self._take, message)

        Inbox(self._channel, deliver)
        return await self._end

    def _take(self, message: Message) -> None:
        if self._end.done():
            return
        if isinstance(message, ChannelError):
            self._end.set_exception(message)
        elif message is None:
            self._end.set_result(SERVER_GONE)
        elif isinstance(message, Batch):
            for index, item in enumerate(message.items):
                self._calls[message.ticket, index] = AsyncCall(item, asyncio.create_task(self._run((message.ticket, index), item)))
            if not self._signing:
                self._sign()
        elif isinstance(message, Control):
            self._obey(message)

    def _obey(self, message: Control) -> None:
        if message.kind is Kind.STOP:
            self._stopping = True
            self._stop_if_done()
        elif message.kind is Kind.SEQUENCE_ENDED:
            end_sequence(self._entry, message)
        elif message.kind is Kind.FLAG:
            call = self._calls.get((int(str(message.body.get("ticket"))), int(str(message.body.get("index")))))
            if call:
                call.set_flags(int(str(message.body.get("flags"))))

    def _sign(self) -> None:
        """End what takes too long, and give a sign of life; once a second or so, while there are calls."""
        now = monotonic()
        for key, call in list(self._calls.items()):
            if not call.item.streamed and now >= call.began + self._timeout_seconds:
                self._end_late(key, call)
        self._signing = bool(self._calls)
        if self._signing:
            self._channel.send_replies(0, [])
            asyncio.get_running_loop().call_later(sign_seconds(self._timeout_seconds), self._sign)

    def _end_late(self, key: Key, call: AsyncCall) -> None:
        """Answer a call that takes too long, whatever becomes of its task."""
        timeout = f"{self._timeout_seconds:g}s"
        late = ResponseTimeout(f"the handler took longer than {timeout}, and was cancelled", response_timeout=timeout)
        del self._calls[key]
        call.cancel()
        self._answer(key, call, late, Took())
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._stopping and not self._calls and not self._end.done():
            self._flush()
            self._end.set_result(CLEAN)

    async def _run(self, key: Key, item: Item) -> None:
        started = monotonic_ns()
        call = self._calls[key]
        call.started = True
        context = copy.copy(self._context)
        request_id = distinct(item.request_id, self._request_ids)
        self._request_ids.add(request_id)
        context.begin_batch([request_id], [dict(item.headers)], call)
        call.on_send = lambda value: self._message(key, item, value, started)
        try:
            outcome = call.departure() if call.left else await self._outcome(call, context)
        except (InvalidInput, InvalidHandlerResult, SlowReader) as error:
            outcome = error
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
            outcome = call.departure() if call.left else self._answers.handler_error(error, [item])
        if isinstance(outcome, Exception) and call.left:
            outcome = call.departure()
        elif call.slow:
            outcome = call.slow  # whatever the handler has made of it: there is a gap
        call.on_send = _nobody  # a task of the handler's own may send yet
        responses, ended = context.responses(), monotonic_ns()
        self._times.add(started, ended)
        self._request_ids.remove(request_id)
        if self._calls.pop(key, None):  # else it has taken too long, and was answered
            self._answer(key, call, outcome, Took(ended - started, 1), responses[0] if responses else None)
            self._stop_if_done()

    async def _outcome(self, call: AsyncCall, context: Context) -> object:
        rows = [self._answers.decode(call.item)]
        call.reached = True
        results = self._entry(rows, context)
        if isinstance(results, AsyncIterator):
            return await self._drive(call, results)
        if isinstance(results, Awaitable):
            results = await results
        (result,) = check_count(results, 1)
        return result

    async def _drive(self, call: AsyncCall, steps: AsyncIterator[object]) -> object:
        """Send what a handler yields; a caller that cannot take more holds up nobody else."""
        last: object = NOTHING
        async for entries in steps:
            (entry,) = check_count(entries, 1)
            if isinstance(entry, Exception):
                raise entry
            if isinstance(entry, Last):
                return entry.value
            if entry is FINISHED:
                break
            if entry is not NOTHING and call.item.streamed:
                call.on_send(entry)
            elif entry is not NOTHING:
                last = entry
            await call.can_take.wait()
        if call.item.streamed:
            return ENDED
        return InvalidHandlerResult("the handler's stream ended without a value") if last is NOTHING else last

    def _answer(self, key: Key, call: AsyncCall, outcome: object, took: Took, processor: RequestProcessor | None = None) -> None:
        reply = self._answers.reply(call.item, outcome, took, processor)
        reply.unrun = not call.reached
        self._reply(key, reply)

    def _message(self, key: Key, item: Item, value: object, started: int) -> None:
        self._reply(key, self._answers.message(item, value, Took(monotonic_ns() - started, 1)))

    def _reply(self, key: Key, reply: Reply) -> None:
        reply.ticket, reply.index = key
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)
        self._replies.append(reply)

    def _flush(self) -> None:
        replies, self._replies = self._replies, []
        if replies:
            self._channel.send_replies(0, replies)
        send_metrics(self._channel, self._context)


class AsyncCall:
    """One request of an asynchronous handler, and what is known of its caller."""

    def __init__(self, item: Item, task: asyncio.Task[None]) -> None:
        self.item = item
        self.left = self.started = False
        self.reached = False  # the handler has got the request
        self.began = monotonic()
        self.slow: SlowReader | None = None  # set when a message could not be sent
        self.can_take = asyncio.Event()
        self.can_take.set()
        self.on_send: Callable[[object], None] = _nobody
        self._task = task

    def set_flags(self, flags: int) -> None:
        """Take in what the server says about the caller; the task of one that left is cancelled."""
        if flags & LEFT:
            self.left = True
            if self.started:  # else it would never run, and never answer
                self.cancel()
        (self.can_take.clear if flags & PAUSED else self.can_take.set)()

    def departure(self) -> RequestCancelled:
        """Return what becomes of it when its caller has left."""
        return caller_left() if self.reached else left_before()

    def cancel(self) -> None:
        """Cancel its task."""
        self._task.cancel()

    def has_left(self, position: int) -> bool:  # noqa: ARG002 - the batch has one request
        """Whether the caller waits no more."""
        return self.left

    def deadline(self, position: int) -> float:  # noqa: ARG002
        """Return the request's deadline, in monotonic seconds."""
        return self.item.deadline

    def send(self, results: object, *, named: bool) -> None:  # noqa: ARG002 - the context is this call's alone
        """Send the caller a message, if it takes a stream. It cannot wait: raises SlowReader when the caller has fallen behind.

        Raises RequestCancelled when the caller has left.
        """
        (value,) = check_count(results, 1)
        if not self.item.streamed:
            return
        if self.left:
            raise caller_left()
        if not self.can_take.is_set():
            self.slow = SlowReader("the caller reads too slowly for a handler that sends without waiting")
        if self.slow:
            raise self.slow
        self.on_send(value)


def _nobody(value: object) -> None:
    """Stand in until the call has begun."""
