"""How requests wait and become batches: every rule of the queue, with time as an argument."""

import math

import pytest

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import Request
from servegrpc.errors import QueueFull


def request(name="", deadline=math.inf, arrived=0.0):
    return Request(b"", 0, str(name), lambda reply: None, deadline, arrived=arrived)


def filled(queue, count, **kwargs):
    """Queue `count` requests; returns them."""
    requests = [request(number, **kwargs) for number in range(count)]
    for one in requests:
        queue.put(one)
    return requests


def with_workers(*workers, batch_size=1, delay=0.0, max_queue_size=100):
    queue = BatchQueue(batch_size, delay, max_queue_size)
    for worker in workers:
        queue.add_worker(worker)
    return queue


def batches(queue, now=0.0):
    return [(worker, [one.request_id for one in batch]) for worker, batch in queue.assign(now).batches]


def test_only_for_idle_workers():
    """None shall wait for a busy worker → each idle one lets one request in, until it is idle again; without one none is let in."""
    queue = BatchQueue(4, 0.0, 100, only_idle=True)
    with pytest.raises(QueueFull, match="no worker is idle"):
        queue.put(request("early"))
    queue.add_worker("v")
    queue.add_worker("w")
    filled(queue, 2)
    with pytest.raises(QueueFull):
        queue.put(request("third"))
    assert batches(queue) == [("w", ["0", "1"])]
    filled(queue, 1)
    assert batches(queue) == [("v", ["0"])]
    with pytest.raises(QueueFull):
        queue.put(request("fourth"))
    queue.release("v")
    filled(queue, 1)


def test_idle_worker_takes_at_once():
    """A worker is idle and fewer requests wait than fit → it takes them at once."""
    queue = with_workers("w", batch_size=8)
    filled(queue, 3)
    assert batches(queue) == [("w", ["0", "1", "2"])]


def test_batch_size():
    """More requests wait than fit in a batch → the worker takes a full batch, first come first served."""
    queue = with_workers("w", batch_size=2)
    filled(queue, 3)
    assert batches(queue) == [("w", ["0", "1"])]
    assert len(queue) == 1


def test_all_idle_workers():
    """Several workers are idle → each takes a batch."""
    queue = with_workers("v", "w", batch_size=2)
    filled(queue, 4)
    assert sorted(batches(queue)) == [("v", ["2", "3"]), ("w", ["0", "1"])]


def test_no_worker():
    """No worker is there → requests wait, and nobody needs to ask again."""
    queue = with_workers()
    filled(queue, 2)
    assignment = queue.assign(0)
    assert (list(assignment.batches), assignment.next_at, len(queue)) == ([], math.inf, 2)


def test_second_batch_when_full():
    """A worker computes one batch and a full one waits → it gets that too, but never a third."""
    queue = with_workers("w", batch_size=2)
    filled(queue, 6)
    assert batches(queue) == [("w", ["0", "1"]), ("w", ["2", "3"])]
    assert batches(queue) == []


def test_no_second_batch_when_part_filled():
    """A worker computes one batch and a part-filled one waits → it stays until the worker is idle."""
    queue = with_workers("w", batch_size=2)
    filled(queue, 3)
    assert batches(queue) == [("w", ["0", "1"])]
    queue.release("w")
    assert batches(queue) == [("w", ["2"])]


def test_idle_before_busy():
    """One worker is idle and another computes → a full batch goes to the idle one."""
    queue = with_workers("v", "w", batch_size=1)
    filled(queue, 1)
    ((busy, _),) = batches(queue)
    filled(queue, 1)
    ((other, _),) = batches(queue)
    assert {busy, other} == {"v", "w"}


def test_release_makes_room():
    """A worker with two batches answers one → it takes the next full batch."""
    queue = with_workers("w")
    filled(queue, 3)
    assert len(batches(queue)) == 2
    queue.release("w")
    assert batches(queue) == [("w", ["2"])]


def test_delay_waits_for_more():
    """A delay is set and the batch is not full → it waits until the oldest request has waited that long since arrival."""
    queue = with_workers("w", batch_size=4, delay=0.5)
    queue.put(request("old", arrived=10.0))
    queue.put(request("new", arrived=10.4))
    assignment = queue.assign(10.45)
    assert (list(assignment.batches), assignment.next_at) == ([], 10.5)
    assert batches(queue, 10.5) == [("w", ["old", "new"])]


def test_delay_ends_when_full():
    """A delay is set and the batch becomes full → it goes at once."""
    queue = with_workers("w", batch_size=2, delay=60)
    filled(queue, 2)
    assert batches(queue, 0.0) == [("w", ["0", "1"])]


def test_delay_counts_from_arrival():
    """A request waited longer than the delay for a worker → an idle worker takes it at once."""
    queue = with_workers(batch_size=4, delay=0.5)
    filled(queue, 1)
    queue.assign(0.0)
    queue.add_worker("w")
    assert batches(queue, 2.0) == [("w", ["0"])]


def test_delay_after_cancel():
    """The oldest request is cancelled → the delay counts from the next one's arrival."""
    queue = with_workers("w", batch_size=4, delay=0.5)
    first = request("first", arrived=1.0)
    queue.put(first)
    queue.put(request("second", arrived=1.25))
    queue.cancel(first)
    assert queue.assign(1.3).next_at == 1.75


def test_full():
    """As many requests wait as may → one more is refused and not queued."""
    queue = with_workers(max_queue_size=2)
    filled(queue, 2)
    with pytest.raises(QueueFull, match="2 requests wait already"):
        queue.put(request())
    assert len(queue) == 2


def test_cancelled_make_room():
    """The queue is full and a request is cancelled → another fits."""
    queue = with_workers(max_queue_size=1)
    (first,) = filled(queue, 1)
    queue.cancel(first)
    queue.put(request("second"))
    assert len(queue) == 1


def test_cancelled_never_run():
    """A request is cancelled while it waits → no worker gets it."""
    queue = with_workers(batch_size=4)
    requests = filled(queue, 3)
    assert queue.cancel(requests[1])
    queue.add_worker("w")
    assert batches(queue) == [("w", ["0", "2"])]


def test_cancel_too_late():
    """A request is cancelled after a worker took it, or again → False."""
    queue = with_workers("w")
    (taken,) = filled(queue, 1)
    queue.assign(0)
    assert not queue.cancel(taken)
    queue.remove_worker("w")
    (waiting,) = filled(queue, 1)
    assert queue.cancel(waiting)
    assert not queue.cancel(waiting)


def test_expired_are_dropped():
    """A deadline passed while the request waited → it is dropped and others fill its place."""
    queue = with_workers(batch_size=2)
    queue.put(request("late", deadline=5.0))
    queue.put(request("a"))
    queue.put(request("b"))
    queue.add_worker("w")
    assignment = queue.assign(5.0)
    assert [one.request_id for one in assignment.dropped] == ["late"]
    assert [one.request_id for one in assignment.batches[0][1]] == ["a", "b"]


def test_all_expired():
    """All that wait have expired → they are dropped and no worker is taken for them."""
    queue = with_workers("w")
    filled(queue, 3, deadline=1.0)
    assignment = queue.assign(2.0)
    assert (len(assignment.dropped), list(assignment.batches)) == (3, [])
    filled(queue, 1)
    assert len(batches(queue)) == 1


def test_put_back_goes_first():
    """A lost batch is put back → its requests go first, in order, whatever the limit."""
    queue = with_workers("lost", batch_size=2, max_queue_size=2)
    filled(queue, 2)
    ((_, batch),) = queue.assign(0).batches
    queue.remove_worker("lost")
    queue.put(request("next"))
    queue.put(request("last"))
    queue.put_back(batch)
    queue.add_worker("w")
    assert batches(queue) == [("w", ["0", "1"]), ("w", ["next", "last"])]


def test_put_back_can_be_cancelled():
    """A request was put back → it can be cancelled as before."""
    queue = with_workers("w")
    (one,) = filled(queue, 1)
    queue.assign(0)
    queue.put_back([one])
    assert queue.cancel(one)
    assert len(queue) == 0


def test_clear():
    """All requests are taken out → they are returned without the cancelled ones, and none waits."""
    queue = with_workers()
    requests = filled(queue, 3)
    queue.cancel(requests[0])
    assert queue.clear() == requests[1:]
    assert len(queue) == 0
    assert not queue.cancel(requests[1])


def test_removed_worker():
    """A worker is removed → it gets no more batches, also after its last answer, and its batches in flight are told."""
    queue = with_workers("idle", "busy")
    filled(queue, 1)
    ((busy, _),) = batches(queue)
    idle = "busy" if busy == "idle" else "idle"
    assert queue.remove_worker(idle)
    assert not queue.remove_worker(busy)
    queue.release(busy)
    filled(queue, 1)
    assert batches(queue) == []


def test_release_of_a_removed_worker():
    """A removed worker answers its batches → True for the last one alone, when it may be told to stop."""
    queue = with_workers("a")
    filled(queue, 2)
    assert len(batches(queue)) == 2
    assert not queue.remove_worker("a")
    assert [queue.release("a"), queue.release("a")] == [False, True]


def test_release_of_a_worker_that_stays():
    """A worker answers its last batch → False: it may take more."""
    queue = with_workers("a")
    filled(queue, 1)
    batches(queue)
    assert not queue.release("a")


def test_forgotten_worker():
    """A worker is gone with batches in flight, removed before or not → nothing more is given to it, and nothing is left of it."""
    queue = with_workers("removed", "there")
    filled(queue, 2)
    assert len(batches(queue)) == 2
    queue.remove_worker("removed")
    for worker in ("removed", "there", "never there"):
        queue.forget_worker(worker)
    filled(queue, 1)
    assert batches(queue) == []
    assert queue._leaving == queue._in_flight == {}


def test_cancelled_do_not_pile_up():
    """Many requests come and are cancelled while no worker is free → the queue keeps few of them."""
    queue = with_workers(max_queue_size=10)
    for _ in range(1000):
        one = request()
        queue.put(one)
        queue.cancel(one)
    assert len(queue._requests) < 100
