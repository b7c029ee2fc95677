"""The loop of a worker that runs one batch at a time: most do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from time import monotonic, monotonic_ns, process_time_ns
from typing import cast

from servegrpc.engine.channel import LEFT, PAUSED, Batch, Channel, Control, Item, Kind, Replies
from servegrpc.reply import Reply
from servegrpc.wire.rows import count_rows
from servegrpc.worker.answers import log_trace
from servegrpc.worker.context import Context
from servegrpc.worker.held import HOLD_SECONDS, HeldReplies
from servegrpc.worker.joining import Joined
from servegrpc.worker.loader import Entry
from servegrpc.worker.orphans import Orphans
from servegrpc.worker.runner import Runner

HOLD_NANOSECONDS = round(HOLD_SECONDS * 1e9)
SLOW_TIMES = 10  # no reply is kept for so many times what a slow call took: the next may be slow too, and keep the interpreter's lock
TIMED_NANOSECONDS = 1_000_000_000  # from one PredictionTime to the next

CLEAN, SERVER_GONE = 0, 5  # exit codes


class BatchLoop:
    """Runs what is handed over, `batch_size` requests at a time, until it is told to stop."""

    def __init__(self, channel: Channel, runner: Runner, batch_size: int) -> None:
        self.channel = channel
        self.joins = isinstance(runner.entry, Joined)
        self._waiting = threading.Lock()
        self._held = HeldReplies()
        self._holds_at = 0  # from when on replies may be kept, in monotonic nanoseconds
        self.sending = threading.Lock()  # a handler may have threads of its own that send
        self._runner = runner
        self._batch_size = batch_size
        self._times = PredictionTimes(runner.context)
        self._received: deque[Batch | Replies | Control] = deque()  # while a handler waited for a slow reader

    def serve(self) -> int:
        """Serve until the end; returns the exit code. Raises ChannelError."""
        while message := self._received.popleft() if self._received else self.channel.receive():
            if isinstance(message, Batch):
                self._run(message)
            elif isinstance(message, Control):
                if message.kind is Kind.STOP:
                    return CLEAN
                if message.kind is Kind.SEQUENCE_ENDED:
                    end_sequence(self._runner.entry, message)
        return SERVER_GONE

    def _run(self, batch: Batch) -> None:
        """Run the handler on what was handed over, and answer as it goes; the replies of quick calls together."""
        outlet = LaneOutlet(self, batch)
        try:
            self._run_calls(batch, outlet)
        except BaseException:  # the handler ends the process; who has been answered keeps that
            with suppress(OSError):
                self._held.flush((), outlet.send)
            raise
        send_metrics(self.channel, self._runner.context)

    def _run_calls(self, batch: Batch, outlet: LaneOutlet) -> None:
        sent = now = monotonic_ns()
        worked = process_time_ns()
        for start, end in pairwise(self._bounds(batch.items)):
            self.channel.mark_started(batch.lane, end)
            began = now
            replies = self._runner.run(batch.items[start:end], outlet, start)
            now = monotonic_ns()
            self._times.add(began, now)
            if now - sent > HOLD_NANOSECONDS or now < self._holds_at or end == len(batch.items):
                self._held.flush(replies, outlet.send)
                sent, before, worked = now, worked, process_time_ns()
                if now - began > HOLD_NANOSECONDS and worked - before > 2 * HOLD_NANOSECONDS:  # else it waited, or another process ran
                    self._holds_at = now + SLOW_TIMES * (now - began)
            elif replies:
                self._held.keep(replies, outlet.send)

    def _bounds(self, items: Sequence[Item]) -> list[int]:
        """Return at which index each call of the handler begins, and the end; requests that are joined count as they do in the queue."""
        if not self.joins:
            return [*range(0, len(items), self._batch_size), len(items)]
        bounds, room = list[int](), 0
        for index, item in enumerate(items):
            size = min(max(1, count_rows(item.dialect, item.payload)), self._batch_size)
            if size > room:
                bounds.append(index)
                room = self._batch_size
            room -= size
        return [*bounds, len(items)]

    def wait(self, batch: Batch, index: int, seconds: float) -> None:
        """Block until a caller of a batch that is paused can take more or has left, or the time is over.

        Raises ConnectionError when the server is gone.
        """
        deadline = monotonic() + seconds
        with self._waiting:
            while self.channel.flags(batch.lane, index) & (PAUSED | LEFT) == PAUSED and self.channel.wait_readable(deadline - monotonic()):
                self.channel.renew_buffer()  # this batch lies in the old one
                message = self.channel.receive()
                if message is None:
                    raise ConnectionError
                self._received.append(message)


class LaneOutlet:
    """The way back for the requests of one hand-over."""

    def __init__(self, loop: BatchLoop, batch: Batch) -> None:
        self._loop = loop
        self._batch = batch

    def send(self, replies: Sequence[Reply]) -> None:
        """Send messages and answers now."""
        for reply in replies:
            reply.ticket = self._batch.ticket
        with self._loop.sending:
            self._loop.channel.send_replies(self._batch.lane, replies)

    def flags(self, index: int) -> int:
        """Return what the server said last about a caller."""
        return self._loop.channel.flags(self._batch.lane, index)

    def wait(self, index: int, seconds: float) -> None:
        """Block until a caller that is paused can take more or has left, or the time is over."""
        self._loop.wait(self._batch, index, seconds)


def end_sequence(entry: Entry, message: Control) -> None:
    """Call the handler's `end_sequence(sequence_id)`, if it has one: no more requests of that sequence will come."""
    forget = getattr(getattr(entry, "__self__", None), "end_sequence", None)
    if callable(forget):
        for sequence_id in cast("list[str]", message.body["sequence_ids"]):
            try:
                forget(sequence_id)
            except Exception as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
                log_trace(error, "end_sequence failed", [])


class PredictionTimes:
    """TorchServe's gauge PredictionTime: how long a call of the handler took. Not of each, since a record costs a message to the server.

    Orphans are looked for then as well: it comes between two calls in every loop, and not often.
    """

    def __init__(self, context: Context) -> None:
        self._metrics = context.metrics
        self._orphans = Orphans()
        self._next = 0

    def add(self, began: int, ended: int) -> None:
        """Record a call by its times in monotonic nanoseconds, unless there was one within the last second."""
        if ended >= self._next:
            self._next = ended + TIMED_NANOSECONDS
            self._metrics.add_time("PredictionTime", round((ended - began) / 1e6, 2))
            self._orphans.reap(ended)


def send_metrics(channel: Channel, context: Context) -> None:
    """Send what the handler has recorded since the last time, if anything."""
    if records := context.metrics.drain():
        channel.send(Kind.METRICS, {"records": records})
