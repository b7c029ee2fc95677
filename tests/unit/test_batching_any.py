"""The queue's rules hold in any order of calls, with time as an argument."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request
from servegrpc.errors import QueueFull


def request(name, deadline, arrived):
    return Request(b"", 0, str(name), lambda reply: None, deadline, arrived=arrived)


def size_of(requests):
    return sum(one.size for one in requests)


class Queue(RuleBasedStateMachine):
    """Any order of calls, against a list as the model of what waits."""

    waiting = Bundle("waiting")

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.queue = BatchQueue(batch_size=3, max_batch_delay_seconds=0.5, max_queue_size=6)
        self.expected = []
        self.handed_out = set()
        self.in_flight = {}
        self.names = iter(range(10**6))

    @rule(target=waiting, life=st.sampled_from([0.25, 2.0, math.inf]), size=st.sampled_from([1, 1, 2, 3]))
    def put(self, life, size):
        one = request(next(self.names), deadline=self.now + life, arrived=self.now)
        one.size = size
        try:
            self.queue.put(one)
        except QueueFull:
            assert len(self.expected) >= 6
        else:
            assert len(self.expected) < 6
            self.expected.append(one)
        return one

    @rule(one=consumes(waiting))
    def cancel(self, one):
        assert self.queue.cancel(one) == (one in self.expected)
        if one in self.expected:
            self.expected.remove(one)

    @rule()
    def add_worker(self):
        worker = next(self.names)
        self.in_flight[worker] = []
        self.queue.add_worker(worker)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), put_back=st.booleans())
    def remove_worker(self, data, put_back):
        worker = data.draw(st.sampled_from(sorted(self.in_flight)))
        left = self.in_flight.pop(worker)
        assert self.queue.remove_worker(worker) == (not left)
        if put_back and left:
            assert set(self.queue.put_back(left[-1])) == {one for one in left[-1] if one.left}
            self.expected[:0] = [one for one in left[-1] if not one.left]
            self.handed_out -= set(left[-1])

    @precondition(lambda self: any(self.in_flight.values()))
    @rule(data=st.data())
    def release(self, data):
        worker = data.draw(st.sampled_from(sorted(worker for worker, batches in self.in_flight.items() if batches)))
        self.in_flight[worker].pop(0)
        self.queue.release(worker)

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 3.0]))
    def assign(self, seconds):
        self.now += seconds
        assignment = self.queue.assign(self.now)
        taken = {one for _, batch in assignment.batches for one in batch}
        dropped = set(assignment.dropped)
        assert not taken & self.handed_out, "handed out twice"
        self.handed_out |= taken
        assert all(one.deadline <= self.now for one in dropped)
        assert not any(one.deadline <= self.now for one in taken), "an expired one was handed out"
        head, self.expected = self.expected[: len(taken | dropped)], self.expected[len(taken | dropped) :]
        assert [one for one in head if one not in dropped] == [one for _, batch in assignment.batches for one in batch], "not in order"
        behind = [*(batch for _, batch in assignment.batches), self.expected][1:]
        for (worker, batch), next_ones in zip(assignment.batches, behind, strict=True):
            assert 1 <= size_of(batch) <= 3
            full = size_of(batch + next_ones[:1]) > 3 or size_of(batch) == 3
            assert full or dropped or not self.in_flight[worker], "a second batch that is not full"
            self.in_flight[worker].append(batch)
            assert len(self.in_flight[worker]) <= 2
        self.check_work_conserving(assignment.next_at)

    def check_work_conserving(self, next_at):
        idle = [worker for worker, batches in self.in_flight.items() if not batches]
        half_busy = [worker for worker, batches in self.in_flight.items() if len(batches) == 1]
        due = self.expected[0].arrived + 0.5 if self.expected else math.inf
        if size_of(self.expected) >= 3:
            assert not idle
            assert not half_busy
        elif idle and self.expected:
            assert due > self.now
        assert next_at == (due if idle and self.expected else math.inf)

    @invariant()
    def counts(self):
        assert len(self.queue) == len(self.expected)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestQueue.pytestmark = [pytest.mark.slow]
