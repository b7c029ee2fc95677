"""How requests that are batches themselves wait, with time as an argument."""

import pytest

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence
from servegrpc.errors import QueueFull


def request(size, name="", sequence=None):
    return Request(b"", 0, name or str(size), lambda reply: None, arrived=0.0, sequence=sequence, size=size)


def queued(*sizes, workers="w", delay=2.0, batch_size=8, most=100):
    queue = BatchQueue(batch_size, delay, most)
    for worker in workers:
        queue.add_worker(worker)
    for size in sizes:
        queue.put(request(size))
    return queue


def sizes(queue, **kwargs):
    return [[one.size for one in batch] for _, batch in queue.assign(0.0, **kwargs).batches]


def test_full_by_itself():
    """A request that is a full batch → does not wait for others."""
    assert sizes(queued(8)) == [[8]]


def test_full_together():
    """Requests that fill a batch by their sizes → go at once; with less, they wait."""
    queue = queued(3, 3)
    assert sizes(queue) == []
    queue.put(request(2))
    assert sizes(queue) == [[3, 3, 2]]


def test_not_torn_apart():
    """A request that does not fit into what is left of a batch → goes with the next one, before those behind it."""
    queue = queued(5, 5, 2, workers="vw")
    assert sizes(queue) == [[5]]  # with the next one it would be more than full; those behind may wait for others
    assert sizes(queued(5, 5, 2, workers="vw", delay=0.0)) == [[5], [5, 2]]


def test_shared_among_workers():
    """Full requests wait and several workers are idle → each gets one, the others wait for the first that is done."""
    queue = queued(8, 8, 8, workers="vw")
    assert sizes(queue, prefetch=False) == [[8], [8]]


def test_several_batches_in_a_hand_over():
    """A hand-over of several batches → as many requests as are so many batches."""
    assert sizes(queued(8, 4, 4, 8), calls=2) == [[8, 4, 4], [8]]


def test_limit_counts_requests():
    """The most that may wait → is a number of requests, whatever their sizes."""
    queue = queued(8, 8, workers="", most=2)
    with pytest.raises(QueueFull):
        queue.put(request(1))


def test_cancelled():
    """A full request is cancelled → the others wait as if it had never been there."""
    queue = queued(workers="")
    gone = request(8)
    queue.put(gone)
    queue.put(request(1))
    assert queue.cancel(gone)
    queue.add_worker("w")
    assert sizes(queue) == []


def test_put_back():
    """What a lost worker had not begun → counts again with its size."""
    queue = queued(8)
    ((worker, batch),) = queue.assign(0.0).batches
    queue.forget_worker(worker)
    assert queue.put_back(batch) == []
    queue.add_worker("w")
    assert sizes(queue) == [[8]]


def test_in_sequences():
    """Requests of sequences and others, more than fit → none is torn apart, in order."""
    queue = queued(delay=0.0)
    sequence = LiveSequence("s")
    queue.put(request(1, sequence=sequence))
    ((worker, _),) = queue.assign(0.0).batches
    queue.advance(sequence)
    for one in (request(5, sequence=sequence), request(2), request(2)):
        queue.put(one)
    queue.release(worker)
    assert sizes(queue) == [[5, 2]]


def test_full_in_sequence():
    """A request of a sequence that is a full batch → its worker does not wait for others."""
    queue = queued(1, delay=0.0)
    sequence = LiveSequence("s")
    queue.put(request(1, sequence=sequence))
    ((worker, _),) = queue.assign(0.0).batches
    queue.advance(sequence)
    queue.release(worker)
    queue.max_batch_delay_seconds = 2.0
    queue.put(request(7, sequence=sequence))
    assert sizes(queue) == []
    queue.put(request(1))
    assert sizes(queue) == [[7, 1]]
