"""A short history for each seed; `make test-faults` runs long ones."""

import pytest

from history.run import run

SECONDS = 8


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "lane"), [(1, "on"), (2, "off"), (3, "on")])
def test_history(seed, lane):
    """Calls of every kind while workers are killed, stop, hang, come and go → each status is one that may be, nothing is left behind."""
    history = run(seed, SECONDS, lane=lane)
    assert not history.wrong, "\n".join(history.summary + history.wrong)
    assert history.calls > 300
    assert history.faults > 5
