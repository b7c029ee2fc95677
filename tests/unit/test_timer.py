"""Calls at their time."""

import threading
from queue import SimpleQueue
from time import monotonic
from weakref import ref

import pytest

from servegrpc.core.timer import Timer


class Subject:
    """What calls can be about."""


@pytest.fixture
def calls():
    return SimpleQueue()


def test_order(timer, calls):
    """Calls are asked for in any order → they run in the order of their times."""
    now = monotonic()
    for name, seconds in (("c", 0.03), ("a", 0.01), ("b", 0.02)):
        timer.call_at(now + seconds, lambda name=name: calls.put((name, monotonic() - now >= 0.01)))
    assert [calls.get(timeout=5) for _ in range(3)] == [("a", True), ("b", True), ("c", True)]


def test_same_time(timer, calls):
    """Calls are due at the same time → they run in the order given."""
    when = monotonic() + 0.02
    for number in range(20):
        timer.call_at(when, lambda number=number: calls.put(number))
    assert [calls.get(timeout=5) for _ in range(20)] == list(range(20))


def test_past(timer, calls):
    """The time has passed → the call runs at once, on the timer's thread."""
    timer.call_at(0.0, lambda: calls.put(threading.current_thread().name))
    assert calls.get(timeout=5) == "timer"


def test_earlier_call_wakes(timer, calls):
    """An earlier call comes while the timer waits for a later one → it does not wait for that."""
    timer.call_at(monotonic() + 3600, lambda: calls.put("late"))
    timer.call_at(monotonic() + 0.01, lambda: calls.put("early"))
    assert calls.get(timeout=5) == "early"


def test_call_from_a_call(timer, calls):
    """A call asks for another → that runs too."""
    timer.call_at(0.0, lambda: timer.call_at(0.0, lambda: calls.put("second")))
    assert calls.get(timeout=5) == "second"


def test_failing_call(timer, calls):
    """A call raises → the next ones run."""
    timer.call_at(0.0, lambda: 1 / 0)
    timer.call_at(0.0, lambda: calls.put("next"))
    assert calls.get(timeout=5) == "next"


@pytest.mark.parametrize("seconds", [2.0**63 / 1e6, float("inf")])
def test_later_than_a_wait_may_be(timer, calls, seconds):
    """A call is due in more time than a thread can wait for → those before it run."""
    timer.call_at(monotonic() + seconds, lambda: calls.put("never"))
    timer.call_at(monotonic() + 0.01, lambda: calls.put("soon"))
    assert calls.get(timeout=5) == "soon"


def test_subjects_that_are_gone(timer, calls):
    """Calls are about what is soon gone, or stays → of the first few are kept, the others come in their order."""
    stays, now = Subject(), monotonic()
    for number in range(1000):
        timer.call_at(now + 3600, lambda: calls.put("late"), ref(Subject()))
        if number < 3:
            timer.call_at(now + 0.2 - number / 100, lambda number=number: calls.put(number), ref(stays))
    assert len(timer._calls) < 300
    assert [calls.get(timeout=5) for _ in range(3)] == [2, 1, 0]


def test_close_drops(calls):
    """The timer is closed → what is not due never runs, and what comes later neither."""
    timer = Timer()
    timer.call_at(monotonic() + 3600, lambda: calls.put("late"))
    timer.close()
    timer.call_at(0.0, lambda: calls.put("after"))
    assert calls.empty()


def test_close_waits():
    """The timer is closed while a call runs → close returns when that has ended."""
    timer, entered, leave, ended = Timer(), threading.Event(), threading.Event(), []

    def call():
        entered.set()
        leave.wait(5)
        ended.append(True)

    timer.call_at(0.0, call)
    entered.wait(5)
    closing = threading.Thread(target=timer.close)
    closing.start()
    assert closing.is_alive()
    leave.set()
    closing.join(5)
    assert ended == [True]


def test_close_from_a_call(calls):
    """A call closes the timer → it does not wait for itself."""
    timer = Timer()

    def close():
        timer.close()
        calls.put("closed")

    timer.call_at(0.0, close)
    assert calls.get(timeout=5) == "closed"
