"""One call of the handler, or one step, as the time in which its threads may send messages: what is late reaches nobody."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from servegrpc.errors import InvalidHandlerResult, RequestCancelled

NO_THREADS: frozenset[threading.Thread] = frozenset()


class OpenCall(ABC):
    """The base of what a loop knows of a call that runs. Sends are one after the other, and none is after `close`.

    With `streamed` there are callers to send to. Then a thread that began before the call may be at work for an earlier one still, and must
    say by their ids for which requests its messages are.
    """

    def __init__(self, *, streamed: bool) -> None:
        self.lock = threading.Lock()  # held while something is sent
        self._over = False
        self._earlier = frozenset(threading.enumerate()) - {threading.current_thread()} if streamed else NO_THREADS

    def send(self, results: object, *, named: bool) -> None:
        """Send each caller that takes a stream a message; `named` when the handler has said by ids whose they are.

        Raises RequestCancelled when the call is over, InvalidHandlerResult when it cannot be known that the thread belongs to it.
        """
        if not named and threading.current_thread() in self._earlier:
            raise InvalidHandlerResult(
                "a thread that began before this call must name the requests: send_intermediate(results, request_ids)"
            )
        with self.lock:
            if self._over:
                raise RequestCancelled("the handler sent a message after its call was over; nobody got it")
            self._send(results)

    def close(self) -> None:
        """End it: wait for what is being sent, and send nothing more."""
        self._over = True  # before the wait, which threads that send and send could prolong
        with self.lock:
            pass

    @abstractmethod
    def _send(self, results: object) -> None:
        """Send each caller that takes a stream a message; with the lock held."""
