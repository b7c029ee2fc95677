"""What follows from how long batches take."""

import pytest

from servegrpc.core.pace import HAND_OVER_SECONDS, MAX_CALLS, PREFETCH_SECONDS, Pace


@pytest.fixture
def pace():
    return Pace()


def test_new_model(pace):
    """Nothing is known → one batch at a time, none ahead, and the shortest wait told."""
    assert (pace.calls, pace.prefetch, pace.expected_wait(100, 1)) == (1, False, 0.01)


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [(HAND_OVER_SECONDS * 2, 1), (HAND_OVER_SECONDS / 2, 2), (HAND_OVER_SECONDS / 7.5, 7), (HAND_OVER_SECONDS / 1000, MAX_CALLS)],
)
def test_calls(pace, seconds, calls):
    """Batches take so long → as many go in one hand-over as it may take time for, up to a limit."""
    pace.learn(seconds, 1)
    assert pace.calls == calls


@pytest.mark.parametrize(("seconds", "prefetch"), [(PREFETCH_SECONDS * 0.9, True), (PREFETCH_SECONDS, False), (1.0, False)])
def test_prefetch(pace, seconds, prefetch):
    """Batches are quick, or slow → a busy worker gets its next one early, or not."""
    pace.learn(seconds, 1)
    assert pace.prefetch is prefetch


def test_several_calls(pace):
    """A hand-over had several batches → its time is theirs together."""
    pace.learn(0.04, 4)
    assert pace.expected_wait(10, 1) == pytest.approx(0.1)


def test_first_counts_in_full(pace):
    """The first batch is known → it is what is expected; each later one changes that by a tenth."""
    pace.learn(1.0, 1)
    assert pace.expected_wait(1, 1) == 1.0
    pace.learn(2.0, 1)
    assert pace.expected_wait(1, 1) == pytest.approx(1.1)


def test_change(pace):
    """A model becomes slow → it is taken for slow soon."""
    pace.learn(0.0001, 1)
    assert pace.prefetch
    for _ in range(10):
        pace.learn(0.1, 1)
    assert (pace.calls, pace.prefetch) == (1, False)


@pytest.mark.parametrize(("batches", "workers", "seconds"), [(8, 4, 2.0), (8, 1, 8.0), (8, 0, 8.0), (0, 1, 0.01)])
def test_expected_wait(pace, batches, workers, seconds):
    """So many batches wait for so many workers → their time, shared; none ready counts as one."""
    pace.learn(1.0, 1)
    assert pace.expected_wait(batches, workers) == seconds
