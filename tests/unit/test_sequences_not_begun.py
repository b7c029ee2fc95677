"""Sequences whose first request is not run: refused, dropped or cancelled."""

from time import monotonic

import pytest
from fakes import Caller, ManualTimer, sent

from servegrpc.errors import QueueFull, SequenceUnknown


@pytest.fixture
def busy(serving):
    """A pool whose only worker has all it can hold, with room for two that wait; the worker, and callers."""
    pool, _, (worker,) = serving(1, max_queue_size=2, refuse_hopeless=False)
    caller = Caller(pool)
    caller.submit("x", "y")
    return pool, worker, caller


def run_all(worker):
    """Let the worker answer until nothing is left; returns what it ran."""
    ran = []
    while worker.batches:
        ran += sent(worker)[0]
        worker.answer()
    return ran


def expect_unknown(pool):
    """Ask for the next request of the sequence, which says what became of the first."""
    assert len(pool.sequences) == 0
    with pytest.raises(SequenceUnknown, match="its first request was not run"):
        pool.sequence("s", start=False)


def test_refused(busy):
    """The queue is full when a sequence is started → the next request is told so, and the sequence keeps no place."""
    pool, _, caller = busy
    caller.submit("1", "2")
    with pytest.raises(QueueFull):
        caller.submit("a", sequence=pool.sequence("s", start=True))
    expect_unknown(pool)


def test_expired(busy):
    """The first request expires while it waits, with another behind it → neither is run, and the second is told why."""
    pool, worker, caller = busy
    sequence = pool.sequence("s", start=True)
    caller.submit("a", sequence=sequence, arrived=monotonic() - 2, deadline=monotonic() - 1)
    caller.submit("b", sequence=sequence)
    worker.answer()
    assert (caller["a"], caller["b"]) == (["DEADLINE_EXPIRED"], ["SEQUENCE_UNKNOWN"])
    assert "b" not in run_all(worker)
    expect_unknown(pool)


def test_expired_at_its_own_deadline(make):
    """The first request ends at a deadline of its own, with another behind it → that is told why at once; one has expired."""
    timer = ManualTimer()
    pool, _ = make(timer=timer)
    pool.scale(1)
    caller, sequence = Caller(pool), pool.sequence("s", start=True)
    caller.submit("a", sequence=sequence, deadline=monotonic() + 60, expires=True)
    caller.submit("b", sequence=sequence)
    timer.run()
    assert (caller["a"], caller["b"], pool.stats.expired) == (["DEADLINE_EXPIRED"], ["SEQUENCE_UNKNOWN"], 1)
    expect_unknown(pool)


def test_cancelled(busy):
    """The caller of the first request leaves while it waits, with another behind it → that is told so, and not run."""
    pool, worker, caller = busy
    sequence = pool.sequence("s", start=True)
    caller.submit("a", "b", sequence=sequence)
    assert pool.cancel(caller.requests["a"])
    assert caller["b"] == ["SEQUENCE_UNKNOWN"]
    assert run_all(worker) == ["x", "y"]
    expect_unknown(pool)


def test_cancelled_while_the_old_one_ends(busy):
    """A sequence waits for the end of the one before it, and its first request is cancelled → the old one ends well, the new is gone."""
    pool, worker, caller = busy
    caller.submit("a", sequence=pool.sequence("s", start=True), ends_sequence=True)
    caller.submit("b", sequence=pool.sequence("s", start=True))
    assert pool.cancel(caller.requests["b"])
    assert run_all(worker) == ["x", "y", "a"]
    expect_unknown(pool)


def test_second_one_cancelled(busy):
    """A request behind the first is cancelled → the sequence begins."""
    pool, worker, caller = busy
    sequence = pool.sequence("s", start=True)
    caller.submit("a", "b", sequence=sequence)
    assert pool.cancel(caller.requests["b"])
    assert run_all(worker) == ["x", "y", "a"]
    assert pool.sequence("s", start=False) is sequence


def test_left_when_its_worker_ended(serving):
    """The first request's caller leaves, and its worker ends before it began it → what is behind is told so."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("x")
    sequence = pool.sequence("s", start=True)
    caller.submit("a", "b", sequence=sequence)
    assert sent(worker) == [["x"], ["a"]]
    assert not pool.cancel(caller.requests["a"])
    worker.exit("signal 9 (SIGKILL)")
    assert caller["b"] == ["SEQUENCE_UNKNOWN"]
    expect_unknown(pool)


def test_version_fails(busy):
    """All workers go for good before the first request is taken → that is refused, and the sequence keeps no place."""
    pool, worker, caller = busy
    caller.submit("a", sequence=pool.sequence("s", start=True))
    pool.kill()
    worker.exit()
    assert caller["a"] == ["DRAINING"]
    expect_unknown(pool)


def test_not_announced(busy):
    """Requests of a sequence that anyone may begin are refused, or cancelled → it keeps no place, and the next one begins it."""
    pool, worker, caller = busy
    caller.submit("a", "b", sequence=pool.sequence("s"))
    with pytest.raises(QueueFull):
        caller.submit("c", sequence=pool.sequence("t"))
    assert [sequence.id for sequence in pool.sequences._live.values()] == ["s"]
    for name in "ab":
        assert pool.cancel(caller.requests[name])
    assert len(pool.sequences) == 0
    caller.submit("d", sequence=pool.sequence("s"))
    assert run_all(worker) == ["x", "y", "d"]
