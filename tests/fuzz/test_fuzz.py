"""A short run with the seeds of `make fuzz`."""

import pytest

from fuzz.inside import fuzz_inside
from fuzz.over_wire import fuzz_wire


@pytest.mark.slow
def test_decoders():
    """Arbitrary and mutated messages, archives, files, control messages → read or refused; no other error, no hang, no growth."""
    outcomes = list(fuzz_inside(30_000, 1))
    assert len(outcomes) == 17
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["on", "off"])
def test_rpcs(tmp_path, lane):
    """The same on every rpc of both ports, and garbage below them → statuses that may be; the server goes on, and ends when told to."""
    outcome = fuzz_wire(2000, 200, 1, tmp_path, lane=lane)
    assert outcome.wrong == []
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= outcome.codes.keys()
