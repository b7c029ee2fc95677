"""The benchmark's figures: which runs count, and what its goals compare."""

import pytest

from benchmarks.bench import Results
from benchmarks.goals import checks
from benchmarks.load import WrongReplyError, summarize
from benchmarks.models import MODELS
from benchmarks.plan import FULL

REPLY_BYTES = 105
LOG = "".join(f"{start}\t200\t1000\n" for start in range(0, 300_000, 1000))  # 300 requests of 1 ms, one after another


def output(data):
    return f"traffic: 40.00KB ({data + 9000}) total, 9.00KB (9000) headers (space savings 90.00%), 31.00KB ({data}) data"


def test_replies_of_the_size_that_was_checked_are_counted():
    """As much data as the checked replies had → the run's figures."""
    load = summarize(LOG, output(300 * REPLY_BYTES), REPLY_BYTES)
    assert (load.requests, load.rps, load.p50_ms, load.p99_ms) == (300, pytest.approx(1000), 1, 1)


def test_a_run_with_a_third_of_errors_does_not_count():
    """Every third reply is an error of gRPC, which has status 200 and no data → the run is an error."""
    with pytest.raises(WrongReplyError, match="too small to be results"):
        summarize(LOG, output(200 * REPLY_BYTES), REPLY_BYTES)


def test_a_run_with_an_http_error_does_not_count():
    """One reply with another status than 200 → the run is an error."""
    with pytest.raises(WrongReplyError, match="1 of 301 requests failed"):
        summarize(LOG + "300000\t503\t1000\n", output(301 * REPLY_BYTES), REPLY_BYTES)


def test_the_cost_of_many_callers_is_that_of_the_worst_number():
    """CPU per request grows at 256 callers and is as before at 512 → the goal compares 256 with 32, and does not hold."""
    results = Results(callers_cpu_us={32: 50.0, 64: 55.0, 256: 60.0, 512: 50.0})
    (found,) = (check for check in checks(results) if check.name.endswith("vs c = 32"))
    assert (found.worst, found.where, found.holds) == (1.2, "noop bs8 c256", False)


def test_a_part_of_the_plan():
    """A scenario, a cell of another, and growth are named → these are measured, and nothing else; results go elsewhere."""
    part = FULL.part(["mlp bs8", "noop bs32 c64", "growth"])
    assert [str(cell) for scenario in part.scenarios for cell in scenario.cells()] == [
        "noop bs32 c64",
        *(f"mlp bs8 c{concurrency}" for concurrency in (1, 8, 32, 64, 256)),
    ]
    assert (part.name, part.lifecycle_repeats, part.growth) == ("part", 0, FULL.growth)


def test_an_unknown_part_of_the_plan():
    """A batch size that is not measured → an error with the names that there are."""
    with pytest.raises(ValueError, match="no 'noop bs9'; there are start, growth, noop bs1; "):
        FULL.part(["noop bs9"])


def test_slow_models_are_timed_by_requests():
    """Requests of 25 ms, which the server still computes when time is over → a number of them; quick ones → timed in seconds."""
    assert [MODELS["resnet"].requests(concurrency, seconds=4) for concurrency in (1, 8, 64)] == [40, 160, 256]
    assert MODELS["noop"].requests(8, seconds=4) == 0
