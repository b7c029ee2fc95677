"""When a worker counts as hanging, with the fake engine: one that runs batches, and a live one, which says that it works."""

import math
from time import monotonic

import pytest
from fakes import Caller, ManualTimer

from servegrpc.core.model import State
from servegrpc.core.restarts import MAX_FAILURES


def test_response_timeout(serving):
    """A handler takes longer than the response timeout → its worker is killed, and the caller is told RESPONSE_TIMEOUT."""
    pool, _, (worker,) = serving(1, response_timeout_seconds=0.02)
    caller = Caller(pool)
    caller.submit("a")
    worker.wait_for(lambda: worker.killed)
    assert worker.killed == "took longer than the response timeout of 0.02 s"
    worker.exit()
    assert caller["a"] == ["RESPONSE_TIMEOUT"]


def test_response_timeout_counts_per_batch(make):
    """A second batch waits behind the first → its time counts from the first one's answer."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, response_timeout_seconds=60)
    pool.scale(1)
    (worker,) = engine.workers
    worker.become_ready()
    Caller(pool).submit("a", "b")
    answered = monotonic()
    worker.answer()
    timer.run()
    assert worker.killed == ""
    when, _ = timer.calls[-1]
    assert answered + 60 <= when <= monotonic() + 60


def test_response_timeout_again(serving):
    """A worker answered a batch in time → a later one that takes too long is noticed too."""
    pool, _, (worker,) = serving(1, response_timeout_seconds=0.02)
    caller = Caller(pool)
    caller.submit("a")
    worker.answer()
    caller.submit("b")
    worker.wait_for(lambda: worker.killed)
    worker.exit()
    assert (caller["a"], caller["b"]) == (["OK"], ["RESPONSE_TIMEOUT"])


@pytest.fixture
def live(make):
    """A pool, its live worker with ten slots, and callers."""
    pool, engine = make(timer=ManualTimer(), batch_size=10, response_timeout_seconds=60)
    pool.scale(1)
    engine.workers[0].become_ready(slots=10)
    return pool, engine.workers[0], Caller(pool)


def due(pool, since):
    """Say whether the worker counts as hanging at 60 s after a time, or shortly after; None when it has nothing that lets it hang."""
    (record,) = pool.records()
    at = record.overdue_at(60)
    return None if at in (None, math.inf) else since + 60 <= at <= monotonic() + 60


def test_sign_of_life(live):
    """A live worker has had a request for long and says that it works → its time counts from then."""
    pool, worker, caller = live
    caller.submit("a")
    said = monotonic()
    worker.sign()
    assert due(pool, said)
    assert caller["a"] == []


def test_request_is_no_sign_of_life(live):
    """A live worker that is silent gets more requests → its time counts on."""
    pool, _, caller = live
    before = monotonic()
    caller.submit("a")
    later = monotonic()
    caller.submit("b")
    assert (due(pool, before), due(pool, later)) == (True, False)


def test_live_worker_hangs(make):
    """A live worker is silent for longer than the response timeout → it is killed, and the caller is told RESPONSE_TIMEOUT."""
    pool, engine = make(batch_size=2, response_timeout_seconds=0.02)
    pool.scale(1)
    (worker,) = engine.workers
    worker.become_ready(slots=2)
    caller = Caller(pool)
    caller.submit("a")
    worker.wait_for(lambda: worker.killed)
    worker.exit()
    assert caller["a"] == ["RESPONSE_TIMEOUT"]


def test_paused_beside_others(live):
    """One reader of a hand-over is slow, another waits for a live worker that is silent → its time counts."""
    pool, worker, caller = live
    pool.queue.remove_worker(pool.records()[0])
    for name in "ab":
        caller.submit(name, message=lambda reply: None)
    pool.queue.add_worker(pool.records()[0], slots=10)
    before = monotonic()
    pool.pump()
    (hand_over,) = worker.batches
    assert len(hand_over) == 2
    pool.pause(caller.requests["a"], paused=True)
    assert due(pool, before)


def test_all_paused(live):
    """All readers of a live worker are slow → it may be silent, until one reads on."""
    pool, _, caller = live
    for name in "ab":
        caller.submit(name, message=lambda reply: None)
        pool.pause(caller.requests[name], paused=True)
    assert due(pool, 0.0) is None
    again = monotonic()
    pool.pause(caller.requests["b"], paused=False)
    assert due(pool, again)


def test_request_beside_paused_ones(live):
    """A live worker whose readers are all slow gets another request → its time counts from then."""
    pool, _, caller = live
    caller.submit("a", message=lambda reply: None)
    pool.pause(caller.requests["a"], paused=True)
    before = monotonic()
    caller.submit("b")
    assert due(pool, before)


def test_paused_batch(serving):
    """Readers of a batch are slow → its worker may be silent when all of them are, and not before."""
    pool, _, (worker,) = serving(1, timer=ManualTimer(), batch_size=2, response_timeout_seconds=60)
    caller = Caller(pool)
    caller.submit("x")
    for name in "ab":
        caller.submit(name, message=lambda reply: None)
    worker.answer()
    began = monotonic()
    worker.send_message(caller.requests["a"])
    pool.pause(caller.requests["a"], paused=True)
    assert due(pool, began)
    pool.pause(caller.requests["b"], paused=True)
    assert due(pool, began) is None


def test_signs_of_life_are_no_answers(make):
    """A live worker says that it works before it ends, again and again → the version has failed all the same."""
    pool, engine = make(timer=ManualTimer(), batch_size=2)
    pool.scale(1)
    for _ in range(MAX_FAILURES):
        pool._crew.restarts.at = 0.0
        pool.reconcile()
        engine.workers[-1].become_ready(slots=2)
        engine.workers[-1].sign()
        engine.workers[-1].exit("signal 11 (SIGSEGV)")
    assert pool.state is State.FAILED
