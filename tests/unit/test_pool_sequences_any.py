"""Sequences through a pool whose workers, callers and sequences come and go in any order."""

import random
from contextlib import suppress

import pytest
from fakes import ManualTimer

from servegrpc.core.request import Request
from servegrpc.core.worker import WorkerState
from servegrpc.errors import ServeError

STEPS = 200


class Story:
    """A pool to which anything happens; notes which worker got which request last, and how each was answered."""

    def __init__(self, make, seed):
        self.random = random.Random(seed)
        self.slots = self.random.choice([0, 0, 3])
        pace = self.random.choice([0.001, 1.0])
        batch_size = self.random.choice([1, 2, 4])
        self.pool, self.engine = make(timer=ManualTimer(), batch_size=batch_size, pace=pace, max_queue_size=12, cool_down_seconds=0)
        self.requests, self.answers, self.cancelled, self.ran = [], {}, set(), {}
        self.pool.scale(2)

    def submit(self):
        """Send a request, mostly one of a sequence."""
        request = Request(b"x", 0, str(len(self.requests)), lambda reply: self.answers.setdefault(request, []).append(reply))
        request.size = 1 if self.slots else self.random.randint(1, self.pool.settings.batch_size)  # live workers join nothing
        with suppress(ServeError):
            if self.random.random() < 0.7:
                request.sequence = self.pool.sequence(self.random.choice("abc"), start=self.random.choice([None, None, True, False]))
                request.ends_sequence = self.random.random() < 0.25
            self.pool.submit(request)
            self.requests.append(request)

    def cancel(self):
        """Let a caller leave."""
        left = [request for request in self.requests if request not in self.answers]
        if left and self.pool.cancel(request := self.random.choice(left)):
            self.cancelled.add(request)

    def close(self):
        """End a sequence."""
        self.pool.sequences.end(self.random.choice("abc"))

    def lose(self):
        """End a worker."""
        if self.engine.live:
            self.random.choice(self.engine.live).exit("boom")

    def scale(self):
        """Ask for some number of workers."""
        self.pool.scale(self.random.choice([0, 1, 2, 3]))

    def work(self):
        """Let a worker do what it has to."""
        if self.engine.live:
            self.let(self.random.choice(self.engine.live))

    def let(self, worker):
        """Let one worker answer, end or load."""
        for request in [request for batch in worker.batches for request in batch]:
            assert request not in self.answers, "it runs after it was answered"
            self.ran[request] = worker
        states = {record.worker: record.state for record in self.pool.records()}
        if worker.batches:
            worker.answer()
        elif worker.stopped:
            worker.exit()
        elif states[worker] is WorkerState.STARTING:
            worker.become_ready(self.slots)

    def finish(self):
        """Let two workers run what is left."""
        self.pool.scale(2)
        for _ in range(STEPS):
            for worker in self.engine.live:
                self.let(worker)
            self.pool._timer.run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_any_order(make, seed):
    """Anything happens → each request is answered once; a sequence is answered by one worker, and none stays busy."""
    story = Story(make, seed)
    weights = {story.submit: 45, story.work: 30, story.cancel: 7, story.lose: 4, story.scale: 4, story.close: 3, story.pool._timer.run: 7}
    for step in story.random.choices([*weights], [*weights.values()], k=STEPS):
        step()
    story.finish()
    assert all(len(story.answers.get(request, ())) == (request not in story.cancelled) for request in story.requests)
    assert (len(story.pool.queue), story.pool.queue.bytes, story.pool.queue._size) == (0, 0, 0)
    by_sequence = {}
    for request, (reply,) in story.answers.items():
        if request.sequence and not reply.error:
            by_sequence.setdefault(request.sequence, set()).add(story.ran[request])
    assert all(len(workers) == 1 for workers in by_sequence.values())
    assert not any(request.sequence.busy for request in story.requests if request.sequence)
