"""Requests that a queue treats apart: those whose worker was lost, those that come too late, those that are large."""

import math

import pytest

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence
from servegrpc.core.waiting_bytes import WaitingBytes
from servegrpc.errors import QueueFull


def request(name="", deadline=math.inf, payload=b"", message=None, sequence=None):
    return Request(payload, 0, str(name), lambda reply: None, deadline, arrived=0.0, message=message, sequence=sequence)


def with_workers(*workers, batch_size=4, slots=0, **limits):
    queue = BatchQueue(batch_size, 0.0, 100, **limits)
    for worker in workers:
        queue.add_worker(worker, slots)
    return queue


def put(queue, *names):
    for name in names:
        queue.put(request(name))


def batches(queue, **kwargs):
    return [(worker, [one.request_id for one in batch]) for worker, batch in queue.assign(0.0, **kwargs).batches]


# --- alone


def test_alone_and_first():
    """Requests are to run alone while others wait → each gets a worker of its own, and the others go on when these are taken."""
    queue = with_workers("v", "w")
    put(queue, "a", "b")
    queue.put_alone([request("x"), request("y"), request("z")])
    assert batches(queue) == [("w", ["x"]), ("v", ["y"])]
    queue.release("v")
    assert batches(queue) == [("v", ["z"])]
    queue.release("w")
    assert batches(queue) == [("w", ["a", "b"])]


def test_alone_is_not_prefetched():
    """A request is to run alone while its only worker computes → it waits for the end, and a full batch waits behind it."""
    queue = with_workers("w")
    put(queue, "a")
    assert batches(queue) == [("w", ["a"])]
    queue.put_alone([request("x")])
    put(queue, *"bcde")
    assert batches(queue) == []
    queue.release("w")
    assert batches(queue) == [("w", ["x"]), ("w", ["b", "c", "d", "e"])]


@pytest.mark.parametrize("pinned", [False, True])
def test_alone_under_full_load(pinned):
    """A worker has two batches and more wait, for it or for anyone; two requests are to run alone → they follow those that it has."""
    queue = with_workers("w", batch_size=1)
    for name in "abcd":
        queue.put(request(name, sequence=LiveSequence(name, worker="w") if pinned else None))
    assert batches(queue) + batches(queue) == [("w", ["a"]), ("w", ["b"])]
    queue.put_alone([request("x"), request("y")])
    given = []
    for _ in range(3):
        queue.release("w")
        given.append([names for _, names in batches(queue)])
    assert given == [[], [["x"]], [["y"], ["c"]]]


def test_alone_can_be_cancelled():
    """A request that is to run alone is cancelled → it is not handed over, and nothing waits."""
    queue = with_workers("w")
    one = request("x")
    queue.put_alone([one])
    assert queue.cancel(one)
    assert (batches(queue), len(queue)) == ([], 0)


def test_alone_can_expire():
    """The deadline of a request that is to run alone passes → dropped; the next one is handed over."""
    queue = with_workers("w")
    queue.put_alone([request("late", deadline=1.0), request("x")])
    assignment = queue.assign(2.0)
    assert [one.request_id for one in assignment.dropped] == ["late"]
    assert [one.request_id for _, (one,) in assignment.batches] == ["x"]


def test_clear_takes_those_alone():
    """All that waits is taken out → those that are to run alone too."""
    queue = with_workers()
    put(queue, "a")
    queue.put_alone([request("x")])
    assert {one.request_id for one in queue.clear()} == {"a", "x"}
    assert len(queue) == 0


def test_alone_on_a_live_worker():
    """A live worker without work gets a request that is to run alone → nothing else until it has answered."""
    queue = with_workers("w", slots=4)
    queue.put_alone([request("x")])
    put(queue, "a", "b")
    assert batches(queue) == [("w", ["x"])]
    assert batches(queue) == []
    queue.release("w")
    assert batches(queue) == [("w", ["a", "b"])]


def test_no_live_worker_is_left():
    """The last live worker is gone → what is to run alone waits for another."""
    queue = with_workers("w", slots=4)
    queue.forget_worker("w")
    queue.put_alone([request("x")])
    assert batches(queue) == []
    queue.add_worker("v", 4)
    assert batches(queue) == [("v", ["x"])]


def test_live_worker_is_kept_free():
    """All live workers have work when a request is to run alone → the one with the least gets no more until it has none; others do."""
    queue = with_workers("v", "w", slots=4)
    put(queue, "a", "b", "c")
    assert batches(queue) == [("v", ["a", "b"]), ("w", ["c"])]
    queue.put_alone([request("x")])
    put(queue, "d")
    assert batches(queue) == [("v", ["d"])]
    queue.release("w")
    put(queue, "e")
    assert batches(queue) == [("w", ["x"]), ("v", ["e"])]


# --- too late


def test_hopeless_are_dropped():
    """A request has less time left than answers take → dropped when it would be taken; one that has enough is taken."""
    queue = with_workers("w")
    queue.put(request("hopeless", deadline=0.04))
    queue.put(request("good", deadline=0.06))
    assignment = queue.assign(0.0, service_seconds=0.05)
    assert [one.request_id for one in assignment.dropped] == ["hopeless"]
    assert [one.request_id for _, batch in assignment.batches for one in batch] == ["good"]


def test_streams_are_not_hopeless():
    """A stream has less time left than answers take → taken, since it may send a part in time; not when its deadline has passed."""
    queue = with_workers("w")
    queue.put(request("expired", deadline=0.0, message=lambda reply: None))
    queue.put(request("stream", deadline=0.04, message=lambda reply: None))
    assignment = queue.assign(0.0, service_seconds=0.05)
    assert [one.request_id for one in assignment.dropped] == ["expired"]
    assert [one.request_id for _, batch in assignment.batches for one in batch] == ["stream"]


# --- bytes


def test_bytes_are_bounded():
    """Requests of as many bytes as may wait → another is refused, until one has been taken, cancelled or cleared."""
    queue = with_workers(max_queue_bytes=10)
    waiting = [request(name, payload=b"12345") for name in "ab"]
    for one in waiting:
        queue.put(one)
    with pytest.raises(QueueFull, match="requests of 10 bytes wait already") as refused:
        queue.put(request("c", payload=b"1"))
    assert refused.value.metadata == {"max_queue_bytes": "10"}
    queue.cancel(waiting[0])
    queue.put(request("c", payload=b"12345"))
    queue.add_worker("w")
    ((_, taken),) = queue.assign(0.0).batches
    assert queue.bytes == 0
    queue.put_back(taken)
    queue.put_alone([request("x", payload=b"123")])
    assert queue.bytes == 13
    queue.clear()
    assert queue.bytes == 0


def test_one_large_request():
    """A request is larger than all that may wait → it may, alone."""
    queue = with_workers(max_queue_bytes=10)
    queue.put(request(payload=b"1" * 20))
    with pytest.raises(QueueFull):
        queue.put(request())


def test_bytes_of_a_server():
    """Two queues of one server → together they have no more bytes than may wait; but one request may, and accepted ones go back."""
    server_bytes = WaitingBytes(10)
    one, other = (with_workers(server_bytes=server_bytes) for _ in range(2))
    one.put(request("a", payload=b"123456"))
    with pytest.raises(QueueFull, match="requests of 6 bytes wait already in the whole server") as refused:
        other.put(request("b", payload=b"12345"))
    assert refused.value.metadata == {"server_max_queue_bytes": "10"}
    assert (len(other), other.bytes, server_bytes.count) == (0, 0, 6)
    other.put(request("c", payload=b"1234"))
    one.add_worker("w")
    ((_, taken),) = one.assign(0.0).batches
    assert server_bytes.count == 4
    other.put(request("d", payload=b"123456"))
    one.put_back(taken)
    assert server_bytes.count == 16
    one.clear()
    other.clear()
    assert server_bytes.count == 0
    other.put(request("large", payload=b"1" * 20))
