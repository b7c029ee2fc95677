"""Requests with a priority: who passes whom in the queue, and for how long."""

import math

from hypothesis import given
from hypothesis import strategies as st

from servegrpc.core.batching import BatchQueue
from servegrpc.core.request import PRIORITY_SECONDS, Request
from servegrpc.core.sequences import LiveSequence


def queue(*requests, batch_size=1, delay=0.0):
    """A queue with these requests, put in the order of their arrival; each is (name, priority, arrival)."""
    waiting = BatchQueue(batch_size, delay, 1000)
    for name, priority, arrived in requests:
        waiting.put(request(name, priority, arrived))
    return waiting


def request(name, priority, arrived, **kwargs):
    return Request(b"", 0, name, lambda reply: None, arrived=arrived, priority=priority, **kwargs)


def order(waiting):
    """The names, as one worker gets them one after the other."""
    waiting.add_worker("w")
    names = []
    while batches := waiting.assign(0.0).batches:
        names += [one.request_id for _, batch in batches for one in batch]
        waiting.release("w")
    return names


def test_passes():
    """Requests with priorities come after others → the highest goes first, then lower ones, then those without."""
    assert order(queue(("none", 0, 0.0), ("second", 2, 1.0), ("first", 1, 2.0), ("third", 3, 3.0))) == ["first", "second", "third", "none"]


def test_same_priority():
    """Requests of one priority → first come, first served."""
    assert order(queue(("a", 1, 0.0), ("b", 1, 1.0), ("c", 1, 2.0))) == ["a", "b", "c"]


def test_waited_long_enough():
    """A request without a priority has waited longer than a priority counts for → it is passed no more."""
    late = PRIORITY_SECONDS + 1
    assert order(queue(("patient", 0, 0.0), ("fresh", 0, late), ("urgent", 1, late))) == ["patient", "urgent", "fresh"]


def test_lower_priority_has_waited():
    """A request of the second priority has waited longer than the difference to the first → it goes first."""
    assert order(queue(("second", 2, 0.0), ("first", 1, PRIORITY_SECONDS / 2 + 1))) == ["second", "first"]


def test_batch():
    """A batch takes fewer than wait → those of high priority are in it."""
    waiting = queue(("a", 0, 0.0), ("b", 0, 0.0), ("c", 1, 1.0), batch_size=2)
    waiting.add_worker("w")
    assert [one.request_id for one in waiting.assign(2.0).batches[0][1]] == ["c", "a"]


def test_delay_counts_from_the_oldest():
    """A request of high priority comes while a batch waits to fill → the delay still counts from the oldest request."""
    waiting = queue(("old", 0, 0.0), ("urgent", 1, 4.0), batch_size=8, delay=5.0)
    waiting.add_worker("w")
    assert waiting.assign(4.5).next_at == 5.0
    assert [one.request_id for one in waiting.assign(5.0).batches[0][1]] == ["urgent", "old"]


def test_nothing_of_a_priority_is_left():
    """Once requests had priorities, and none waits any more → the oldest of those that come then is the first, without a look at all."""
    waiting = queue(("urgent", 1, 0.0))
    assert order(waiting) == ["urgent"]
    waiting.put(request("none", 0, 1.0))
    assert not waiting._ranked


def test_put_back_out_of_order():
    """A batch that a priority has ordered is put back → the delay counts from its oldest request, though that is not the first."""
    waiting = queue(("old", 0, 0.0), ("urgent", 1, 4.0), batch_size=8, delay=5.0)
    waiting.add_worker("lost")
    ((_, batch),) = waiting.assign(5.0).batches
    waiting.forget_worker("lost")
    waiting.put(request("new", 0, 4.0))
    waiting.put_back(batch)
    waiting.add_worker("w")
    assert [one.request_id for one in waiting.assign(5.0).batches[0][1]] == ["urgent", "old", "new"]


def test_cancelled_is_passed():
    """The one in front was cancelled → the order of the others stays."""
    waiting = queue(("none", 0, 0.0))
    gone = request("gone", 1, 1.0)
    waiting.put(gone)
    waiting.put(request("first", 1, 2.0))
    waiting.cancel(gone)
    assert order(waiting) == ["first", "none"]


def test_sequence_keeps_its_order():
    """Requests of one sequence with rising priorities → in the order sent."""
    waiting = BatchQueue(1, 0.0, 100)
    sequence = LiveSequence("s")
    sent = [request(name, priority, 0.0, sequence=sequence) for name, priority in (("a", 0), ("b", 2), ("c", 1))]
    for one in sent:
        waiting.put(one)
    waiting.add_worker("w")
    names = []
    for _ in sent:
        names += [one.request_id for _, batch in waiting.assign(0.0).batches for one in batch]
        waiting.advance(sequence)
        waiting.release("w")
    assert names == ["a", "b", "c"]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=30))
def test_nobody_waits_longer(drawn):
    """Any requests → each goes after those of higher place only, and is never passed by one that came `PRIORITY_SECONDS` after it."""
    drawn = sorted(drawn, key=lambda pair: pair[1])
    names = order(queue(*((str(index), priority, arrived) for index, (priority, arrived) in enumerate(drawn))))
    assert sorted(names, key=int) == [str(index) for index in range(len(drawn))]
    latest = -math.inf
    for name in names:
        arrived = drawn[int(name)][1]
        assert latest - arrived <= PRIORITY_SECONDS + 1e-9
        latest = max(latest, arrived)
