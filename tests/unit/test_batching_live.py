"""How live workers take requests."""

from queues import assign, begun, put, request, with_workers

from servegrpc.core.sequences import LiveSequence


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
