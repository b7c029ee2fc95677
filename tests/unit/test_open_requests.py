"""The requests of a conversation that are in work."""

import gc
from weakref import ref

from servegrpc.core.request import Request
from servegrpc.frontend.open_requests import OpenRequests


class Stream:
    """A caller that reads, and does not look at what it is sent."""

    def read_next(self):
        pass


def test_nothing_is_kept_of_what_was_answered(serving):
    """A request is answered while its conversation goes on → it is let go at once, not when the next collection comes."""
    pool, _, (worker,) = serving(1)
    requests, answers = OpenRequests(Stream()), []
    request = Request(b"", 0, "a", answers.append)
    gc.disable()
    try:
        requests.start(pool, request)
        pool.pump()
        worker.answer()
        request = ref(request)
        assert (len(answers), request()) == (1, None)
    finally:
        gc.enable()
