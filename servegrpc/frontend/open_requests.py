"""The requests of one stream that are in work at once: each is read when there is room, and the stream ends with the last answer.

message ─► start ─► queue ─► (worker) ─► request.message*, request.answer
"""

from __future__ import annotations

import threading

from servegrpc.core.pool import WorkerPool
from servegrpc.core.request import Request
from servegrpc.errors import ServeError
from servegrpc.frontend.calls import mind_reader, put
from servegrpc.frontend.methods import Pump, Stream
from servegrpc.reply import Reply

MOST = 64  # of one stream


class OpenRequests:
    """What is in work for a stream. Calls may come from any thread; `taken` and `half_closed` come one after the other.

    Once it has `ended`, nothing may be sent.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._open: dict[Request, WorkerPool] = {}
        self._reading = True
        self._half_closed = False
        self.ended = False
        stream.on_cancel = self._leave
        stream.on_room = self._mind_reader
        stream.read_next()

    def start(self, pool: WorkerPool, request: Request) -> Pump | None:
        """Queue a request, which is open until it is answered. Raises ServeError, and then it is not."""
        answer = request.answer

        def answered(reply: Reply) -> None:
            request.answer = answer  # this function holds the request: a cycle would keep it until the next collection
            answer(reply)
            self._done(request)

        request.answer = answered
        with self._lock:
            self._open[request] = pool
        try:
            return put(pool, request)
        except ServeError:
            with self._lock:
                del self._open[request]
            raise

    def taken(self) -> None:
        """Read the caller's next message, now or when there is room for it: this one has been started or refused."""
        with self._lock:
            reading = self._reading = len(self._open) < MOST and not self.ended
        if reading:
            self._stream.read_next()

    def half_closed(self) -> None:
        """End the stream when all requests have been answered."""
        with self._lock:
            self._half_closed = True
            done = not self._open
        if done:
            self.end(Reply(empty=True))

    def end(self, status: Reply) -> None:
        """End the stream, if it has not ended; what is still in work is answered to nobody."""
        with self._lock:
            first, self.ended = not self.ended, True
        if first:
            self._stream.answer(status)
            self._leave()

    def over(self) -> None:
        """Let go of what is still in work: the stream has ended."""
        with self._lock:
            self.ended = True
        self._leave()

    def _done(self, request: Request) -> None:
        with self._lock:
            del self._open[request]
            last, read = self._half_closed and not self._open, not self._reading and not self.ended
            self._reading = True
        if last:
            self.end(Reply(empty=True))
        elif read:
            self._stream.read_next()

    def _leave(self) -> None:
        for request, pool in self._in_work():
            pool.cancel(request)

    def _mind_reader(self, room: bool) -> None:
        for request, pool in self._in_work():
            mind_reader(self._stream, pool, request, room)

    def _in_work(self) -> list[tuple[Request, WorkerPool]]:
        with self._lock:
            return list(self._open.items())
