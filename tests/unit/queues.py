"""Fills a BatchQueue and asks it for hand-overs, with time as an argument."""

import math

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request


def request(name, sequence=None, deadline=math.inf):
    return Request(b"", 0, name, lambda reply: None, deadline, arrived=0.0, sequence=sequence)


def put(queue, *requests):
    for one in requests:
        queue.put(one)
    return requests


def assign(queue, now=0.0, **kwargs):
    assignment = queue.assign(now, **kwargs)
    return [(worker, [one.request_id for one in batch]) for worker, batch in assignment.batches]


def with_workers(*workers, batch_size=4, slots=0, delay=0.0):
    queue = BatchQueue(batch_size, delay, 100)
    for worker in workers:
        queue.add_worker(worker, slots)
    return queue


def begun(queue, sequence):
    """Run a first request of a sequence; returns the worker that got it."""
    put(queue, request("first", sequence))
    ((there, _),) = assign(queue)
    queue.advance(sequence)
    queue.release(there)
    return there
