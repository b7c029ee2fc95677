"""How the requests of sequences wait, and how live workers take requests, with time as an argument."""

import math

import pytest

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence


def request(name, sequence=None, deadline=math.inf):
    return Request(b"", 0, name, lambda reply: None, deadline, arrived=0.0, sequence=sequence)


def put(queue, *requests):
    for one in requests:
        queue.put(one)
    return requests


def assign(queue, now=0.0):
    assignment = queue.assign(now)
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


def test_sticks_to_its_worker():
    """A sequence began on a worker → its next requests go there, whoever else is idle."""
    queue = with_workers("v", "w")
    sequence = LiveSequence("s")
    worker = begun(queue, sequence)
    for name in "abc":
        put(queue, request(name, sequence))
        assert assign(queue) == [(worker, [name])]
        queue.advance(sequence)
        queue.release(worker)


def test_waits_for_its_worker():
    """The worker of a sequence is busy and another is idle → the request waits."""
    queue = with_workers("v", "w", batch_size=1)
    sequence = LiveSequence("s")
    worker = begun(queue, sequence)
    put(queue, request("x"), request("y"))
    assign(queue)
    put(queue, request("a", sequence))
    other = "v" if worker == "w" else "w"
    queue.release(other)
    assert assign(queue) == []
    queue.release(worker)
    assert assign(queue) == [(worker, ["a"])]


def test_one_at_a_time_in_order():
    """Several requests of a sequence wait → one is handed over at a time, in order."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    put(queue, *(request(name, sequence) for name in "abc"))
    for name in "abc":
        assert assign(queue) == [("w", [name])]
        queue.advance(sequence)
        queue.release("w")
    assert len(queue) == 0


def test_batch_of_different_sequences():
    """Requests of several sequences and of none wait → a batch holds one of each, filled up with the others."""
    queue = with_workers("w", batch_size=4)
    first, second = LiveSequence("1"), LiveSequence("2")
    put(queue, request("a", first), request("b", second), request("c"))
    assert assign(queue) == [("w", ["a", "b", "c"])]
    queue.advance(first)
    queue.advance(second)
    queue.release("w")
    put(queue, request("d"), request("e", first), request("f", second), request("g", first))
    assert assign(queue) == [("w", ["e", "f", "d"])]


def test_delay_counts_for_sequences():
    """A model waits to fill its batches → so does a request of a sequence, no longer than the delay."""
    queue = with_workers("w", batch_size=2, delay=1.0)
    sequence = LiveSequence("s")
    put(queue, request("first", sequence))
    assert assign(queue, 1.0) == [("w", ["first"])]
    queue.advance(sequence)
    queue.release("w")
    put(queue, request("a", sequence))
    assert queue.assign(0.5).next_at == 1.0
    assert assign(queue, 1.0) == [("w", ["a"])]


def test_cancelled_head():
    """The waiting request of a sequence is cancelled → the one behind it takes its place."""
    queue = with_workers()
    sequence = LiveSequence("s")
    first, _ = put(queue, request("a", sequence), request("b", sequence))
    assert queue.cancel(first)
    queue.add_worker("w")
    assert assign(queue) == [("w", ["b"])]


def test_cancelled_behind():
    """A request behind another of its sequence is cancelled → it is skipped, and counts no more."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    _, second, _ = put(queue, *(request(name, sequence) for name in "abc"))
    assign(queue)
    assert queue.cancel(second)
    assert len(queue) == 1
    queue.advance(sequence)
    queue.release("w")
    assert assign(queue) == [("w", ["c"])]


def test_expired_head():
    """The deadline of a sequence's request passes → it is dropped, and the next one is handed over."""
    queue = with_workers()
    sequence = LiveSequence("s")
    put(queue, request("a", sequence, deadline=1.0), request("b", sequence))
    queue.add_worker("w")
    assignment = queue.assign(2.0)
    assert [one.request_id for one in assignment.dropped] == ["a"]
    assert [[one.request_id for one in batch] for _, batch in assignment.batches] + [names for _, names in assign(queue, 2.0)] == [["b"]]


def test_worker_is_forgotten():
    """The worker of a begun sequence is gone → what waits of it is given back, and nothing more can be queued for it."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    begun(queue, sequence)
    waiting = put(queue, request("a", sequence), request("b", sequence))
    queue.forget_worker("w")
    assert queue.take_lost() == [(sequence, list(waiting))]
    assert len(queue) == 0
    with pytest.raises(LookupError):
        queue.put(request("c", sequence))


def test_worker_is_forgotten_before_it_began():
    """The worker of a sequence is gone before it answered anything → the sequence begins on another."""
    queue = with_workers("v")
    sequence = LiveSequence("s")
    (first,) = put(queue, request("a", sequence))
    assign(queue)
    queue.forget_worker("v")
    queue.put_back([first])
    queue.add_worker("w")
    assert queue.take_lost() == []
    assert assign(queue) == [("w", ["a"])]


def test_close():
    """A sequence is closed while one of its requests runs → those behind are given back."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    _, second = put(queue, request("a", sequence), request("b", sequence))
    assign(queue)
    assert queue.close(sequence) == [second]
    assert len(queue) == 0


def test_clear():
    """Everything is given up → also what waits in sequences, wherever it waits."""
    queue = with_workers("w")
    running, waiting = LiveSequence("1"), LiveSequence("2")
    put(queue, request("a", running))
    assign(queue)
    put(queue, request("b", running), request("c", waiting), request("d", waiting), request("e"))
    assert sorted(one.request_id for one in queue.clear()) == ["b", "c", "d", "e"]
    assert len(queue) == 0


def test_has_pinned():
    """Only one worker can run what waits → it is known, until that is taken."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    begun(queue, sequence)
    assert not queue.has_pinned("w")
    put(queue, request("a", sequence))
    assert queue.has_pinned("w")
    assign(queue)
    assert not queue.has_pinned("w")


# --- live workers


def test_live_worker_takes_more_while_it_works():
    """A live worker has requests and room → it takes what comes, up to its slots."""
    queue = with_workers("w", slots=3)
    put(queue, request("a"), request("b"))
    assert assign(queue) == [("w", ["a", "b"])]
    put(queue, request("c"), request("d"))
    assert assign(queue) == [("w", ["c"])]
    assert assign(queue) == []
    queue.release("w")
    assert assign(queue) == [("w", ["d"])]


def test_live_workers_share():
    """Several live workers have room → what waits is shared out equally, to the least busy first."""
    queue = with_workers("v", "w", slots=4)
    put(queue, *(request(name) for name in "abcd"))
    assert sorted(len(names) for _, names in assign(queue)) == [2, 2]
    queue.release("v")
    put(queue, request("e"))
    assert assign(queue) == [("v", ["e"])]


def test_live_worker_and_sequences():
    """A sequence is on a live worker that has no room → its request waits for that worker."""
    queue = with_workers("v", "w", slots=1)
    sequence = LiveSequence("s")
    worker = begun(queue, sequence)
    put(queue, request("x"), request("y"))
    assert len(assign(queue)) == 2
    put(queue, request("a", sequence))
    queue.release("v" if worker == "w" else "w")
    assert assign(queue) == []
    queue.release(worker)
    assert assign(queue) == [(worker, ["a"])]


def test_removed_live_worker():
    """A live worker is removed while it has requests → the last one answered is told."""
    queue = with_workers("w", slots=4)
    put(queue, request("a"), request("b"))
    assign(queue)
    assert not queue.remove_worker("w")
    assert [queue.release("w"), queue.release("w")] == [False, True]
