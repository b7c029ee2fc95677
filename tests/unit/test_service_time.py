"""What answers take, as far as it decides who is refused."""

import random
from time import monotonic

import pytest
from fakes import Caller, sent

from servegrpc.core.pace import ServiceTime
from servegrpc.errors import WouldMissDeadline


def learned(*seconds):
    service = ServiceTime()
    for one in seconds:
        service.learn(one, 0.0)
    return service


def test_nothing_known():
    """A new model, and one with seven answers → nothing is known."""
    assert (learned().known(0.0), learned(*[1.0] * 7).known(0.0)) == (0.0, 0.0)


def test_slow_start():
    """The first answers are slow → the quickest of the first eight counts."""
    assert learned(5.0, 3.0, *[0.1] * 6).known(0.0) == pytest.approx(0.1)


def test_one_slow_answer():
    """One answer takes a hundred times as long → it counts for a tenth more, not for its length."""
    service = learned(*[0.1] * 20)
    service.learn(10.0, 0.0)
    assert 0.1 <= service.known(0.0) < 0.11


def test_even_work():
    """Answers take 90 to 110 ms → what nearly all of them stay below."""
    chance = random.Random(1)
    assert 0.104 < learned(*(chance.uniform(0.09, 0.11) for _ in range(1000))).known(0.0) < 0.112


def test_uneven_work():
    """Answers take 10 ms to 1 s → hardly more than the quickest take: nobody is refused by a guess."""
    chance = random.Random(1)
    assert learned(*(chance.uniform(0.01, 1.0) for _ in range(2000))).known(0.0) < 0.25


def test_change():
    """A model becomes slower, or quicker → that is known after some fifty answers."""
    assert learned(*[0.1] * 20, *[0.2] * 200).known(0.0) == pytest.approx(0.2)
    assert learned(*[0.1] * 20, *[0.01] * 50).known(0.0) == pytest.approx(0.0125)


@pytest.mark.parametrize(("seconds", "stale"), [(0.01, 1.0), (1.0, 10.0)])
def test_too_old(seconds, stale):
    """Nothing has been answered for a second, or ten times an answer → nothing is known: someone must find out."""
    service = learned(*[seconds] * 8)
    assert (service.known(stale * 0.9), service.known(stale * 1.1)) == (seconds, 0.0)


@pytest.fixture
def slow(serving):
    """A pool whose answers take a second, and its worker."""

    def slow(**settings):
        pool, _, (worker,) = serving(1, **settings)
        for _ in range(8):
            pool._service.learn(1.0, monotonic())
        return pool, worker

    return slow


def test_refused_at_once(slow):
    """A request has less time left than answers take → refused at once, and counted; one with enough runs."""
    pool, worker = slow()
    caller = Caller(pool)
    with pytest.raises(WouldMissDeadline, match="quick answers take 1 s") as refused:
        caller.submit("hopeless", deadline=monotonic() + 0.9)
    assert refused.value.metadata["service_seconds"] == "1"
    caller.submit("good", deadline=monotonic() + 100)
    assert (sent(worker), pool.stats.refused, pool.stats.accepted) == ([["good"]], {"WOULD_MISS_DEADLINE": 1}, 1)


def test_shed_when_it_would_be_taken(slow):
    """A request waits until less time is left than answers take → told so when it would be taken; the next one is run."""
    pool, worker = slow()
    caller = Caller(pool)
    caller.submit("runs", "prefetched")
    caller.submit("hopeless", deadline=monotonic() + 1.01)
    caller.submit("good")
    assert not pool.wait(lambda: False, 0.05)  # until then
    worker.answer()
    worker.answer()
    assert caller["hopeless"] == ["WOULD_MISS_DEADLINE"]
    assert sent(worker)[-1] == ["good"]


def test_streams_are_run(slow):
    """A stream has less time left than answers take → run: it may send a part in time."""
    pool, worker = slow()
    Caller(pool).submit("stream", deadline=monotonic() + 0.5, message=lambda reply: None)
    assert sent(worker) == [["stream"]]


def test_switched_off(serving):
    """The model refuses nobody so → nothing is learned."""
    pool, _, (worker,) = serving(1, refuse_hopeless=False)
    caller = Caller(pool)
    for number in range(10):
        caller.submit(str(number))
        worker.answer()
    assert pool._service.seconds == 0.0
