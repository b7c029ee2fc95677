"""Requests of a pool with the fake engine: when each is handed over, how it is refused, dropped, answered and counted."""

from time import monotonic

import pytest
from fakes import Caller, ManualTimer, sent

from servegrpc.core.request import Request
from servegrpc.errors import Code, QueueFull, RequestExpired


def test_queue_full(serving):
    """As many requests wait as may → the next is refused with the wait to expect."""
    pool, _, _ = serving(1, max_queue_size=1)
    caller = Caller(pool)
    caller.submit("a", "b", "waits")
    with pytest.raises(QueueFull, match=r'Model "digits" version 1\.0: 1 requests wait already') as refused:
        caller.submit("refused")
    assert refused.value.retry_after_seconds > 0
    assert refused.value.metadata == {"model_name": "digits", "model_version": "1.0", "max_queue_size": "1"}


def test_cancel(serving):
    """A caller leaves → a waiting request is dropped and one in flight is not."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    assert not pool.cancel(caller.requests["a"])
    assert pool.cancel(caller.requests["c"])
    worker.answer()
    worker.answer()
    assert sent(worker) == []
    assert caller["c"] == []


def test_expired(serving):
    """A deadline passes while the request waits → it is answered DEADLINE_EXPIRED when a worker is free, and not run."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b")
    caller.submit("late", deadline=monotonic() + 0.001)
    assert not pool.wait(lambda: False, 0.002)  # until it has passed
    worker.answer()
    assert caller["late"] == ["DEADLINE_EXPIRED"]
    assert sent(worker) == [["b"]]


def test_expired_before_it_came(serving):
    """A request comes after its deadline → refused at once."""
    pool, _, (worker,) = serving(1)
    with pytest.raises(RequestExpired):
        Caller(pool).submit("late", deadline=monotonic() - 1)
    assert sent(worker) == []


def test_several_batches_in_one_hand_over(make):
    """A handler is quick and many requests wait → a worker gets several batches at once, and each is answered when it is done."""
    pool, engine = make(pace=0.0001)
    pool.scale(1)
    (worker,) = engine.workers
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    worker.become_ready()
    assert sent(worker) == [["a", "b", "c"]]
    worker.answer(calls=2)
    assert (caller["a"], caller["b"], caller["c"]) == (["OK"], ["OK"], [])
    worker.answer()
    assert caller["c"] == ["OK"]


def test_large_requests(make):
    """A handler is quick and many large requests wait → a worker gets one batch at a time: it would keep memory for all of them."""
    pool, engine = make(batch_size=2, pace=0.0001)
    pool.scale(1)
    (worker,) = engine.workers
    for name in "abcd":
        pool.submit(Request(bytes(100_000), 0, name, lambda reply: None))
    worker.become_ready()
    assert sent(worker)[0] == ["a", "b"]


@pytest.mark.parametrize("yields", [True, False])
def test_quick_handler_that_streams(make, yields):
    """A quick handler yields, or has sent several messages for a request → it gets one batch at a time: it may wait for a reader."""
    pool, engine = make(batch_size=1, pace=0.0001)
    pool.scale(1)
    (worker,) = engine.workers
    worker.become_ready(yields=yields)
    caller = Caller(pool)
    if not yields:
        caller.submit("first", message=lambda reply: None)
        worker.send_message(caller.requests["first"])
        worker.answer()
    caller.submit(*"abcdef", message=lambda reply: None)
    while worker.batches:
        assert {len(batch) for batch in worker.batches} == {1}
        worker.answer()


def test_slow_handler(make):
    """A handler is slow → a busy worker gets no second batch."""
    pool, engine = make(pace=0.1)
    pool.scale(1)
    (worker,) = engine.workers
    worker.become_ready()
    Caller(pool).submit("a", "b")
    assert sent(worker) == [["a"]]


def test_put_and_pump(serving):
    """Requests are put before they are pumped → put says when a batch is full, and pump hands it over."""
    pool, _, (worker,) = serving(1, batch_size=2)
    requests = [Request(b"", 0, name, lambda reply: None) for name in "ab"]
    assert [pool.put(request) for request in requests] == [False, True]
    assert sent(worker) == []
    pool.pump()
    assert sent(worker) == [["a", "b"]]


def test_batch_delay(serving):
    """A batch is not full when the delay is over → the timer hands it over."""
    pool, _, (worker,) = serving(1, batch_size=4, max_batch_delay_seconds=0.01)
    Caller(pool).submit("a")
    worker.wait_for(lambda: worker.batches)
    assert sent(worker) == [["a"]]


def test_nothing_is_lost_from_the_count(serving):
    """Requests are answered, cancelled, dropped, refused and run again → those accepted are those answered and those in flight."""
    pool, engine, (worker,) = serving(1, max_queue_size=4)
    caller = Caller(pool)

    def counts():
        accepted, in_flight, replies = pool.stats.requests()
        assert accepted == in_flight + sum(replies.values())
        assert in_flight == len(pool.queue) + sum(record.running for record in pool.records())
        return accepted, in_flight, replies

    caller.submit("a", "b", "c")
    caller.submit("late", deadline=monotonic() + 0.001)
    assert counts() == (4, 4, {})
    pool.cancel(caller.requests["c"])
    caller.submit("left", "d", "e")
    with pytest.raises(QueueFull):
        caller.submit("refused")
    assert not pool.wait(lambda: False, 0.002)  # until "late" is
    worker.answer()
    assert counts() == (7, 4, {Code.OK: 1, Code.CANCELLED: 1, Code.DEADLINE_EXCEEDED: 1})
    worker.exit("signal 11 (SIGSEGV)")
    assert counts() == (7, 4, {Code.OK: 1, Code.CANCELLED: 1, Code.DEADLINE_EXCEEDED: 1})
    (another,) = engine.live
    another.become_ready()
    while another.batches:
        pool.cancel(caller.requests["left"])
        another.answer()
        counts()
    assert counts() == (7, 0, {Code.OK: 4, Code.CANCELLED: 2, Code.DEADLINE_EXCEEDED: 1})
    assert pool.stats.refused == {"QUEUE_FULL": 1}


def test_own_deadline(make):
    """Requests with deadlines of their own wait behind a long one, run, or have been answered → those that wait are told, at that time."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, max_queue_size=10)
    pool.scale(1)
    engine.workers[0].become_ready()
    caller = Caller(pool)
    deadline = monotonic() + 60
    caller.submit("running", "next", "waiting", deadline=deadline, expires=True)
    caller.submit("other", "waiting too")
    assert [when for when, _ in timer.calls].count(deadline) == 3
    timer.run()
    assert (caller["waiting"], len(pool.queue)) == (["DEADLINE_EXPIRED"], 2)
    while engine.workers[0].batches:
        engine.workers[0].answer()
    assert [caller[name] for name in ("running", "next", "other", "waiting too")] == [["OK"]] * 4


def test_own_deadline_of_what_was_answered(serving, timer):
    """Requests with a deadline of their own, long after, are answered → nothing of them is kept until then."""
    pool, _, (worker,) = serving(1)
    for number in range(1000):
        pool.submit(Request(b"", 0, str(number), lambda reply: None, monotonic() + 3600, expires=True))
        worker.answer()
    assert len(timer._calls) < 300


def test_callers_that_leave_for_their_deadline(serving):
    """Callers leave at their deadline, while their requests wait and while they run → counted as DEADLINE_EXCEEDED, others as CANCELLED."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("running", "waiting", deadline=monotonic() + 60)
    caller.submit("third", "left")
    for name in ("running", "waiting", "third"):
        caller.requests[name].deadline = monotonic()
    for name in caller.requests:
        pool.cancel(caller.requests[name])
    while worker.batches:
        worker.answer()
    assert pool.stats.requests() == (4, 0, {Code.DEADLINE_EXCEEDED: 3, Code.CANCELLED: 1})


def test_wasted_batches(serving):
    """All callers of one batch leave while it runs, and one of another's two → one batch was wasted."""
    pool, _, (worker,) = serving(1, batch_size=2)
    caller = Caller(pool)
    caller.submit("alone", "a", "b")
    pool.cancel(caller.requests["alone"])
    worker.answer()
    pool.cancel(caller.requests["a"])
    worker.answer()
    assert pool.stats.wasted_batches == 1
