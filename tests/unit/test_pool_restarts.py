"""Workers that end again and again, or never load, with the fake engine: when another starts, and when the version has failed."""

import math
from time import monotonic

import pytest
from fakes import Caller, ManualTimer, fail

from servegrpc.core.model import State
from servegrpc.core.restarts import MAX_FAILURES
from servegrpc.errors import ModelLoadFailed


def test_load_failure(make):
    """The first worker cannot load → the version has failed with the cause, nobody restarts it, and waiting requests are told."""
    pool, engine = make()
    pool.scale(2)
    caller = Caller(pool)
    caller.submit("a")
    engine.workers[0].exit("exit code 3", load_error="model.py, line 3: ValueError: bad")
    assert (pool.state, pool.cause, pool.settled()) == (State.FAILED, "model.py, line 3: ValueError: bad", True)
    assert caller["a"] == ["MODEL_LOAD_FAILED"]
    assert engine.workers[1].stopped
    engine.workers[1].exit()
    assert len(engine.workers) == 2
    with pytest.raises(ModelLoadFailed, match="line 3: ValueError: bad Register it again or unregister it"):
        caller.submit("b")


def test_failed_can_be_drained(make):
    """A version has failed and is unregistered → it is unloaded."""
    pool, engine = make()
    pool.scale(1)
    engine.workers[0].exit(load_error="bad")
    pool.drain()
    assert pool.state is State.UNLOADED


def test_repeated_losses(make):
    """Worker after worker is lost without an answer → after the last allowed failure the version has failed."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    engine.workers[0].become_ready()
    fail(pool, engine, times=MAX_FAILURES - 1)
    assert pool.state is State.LOADING
    fail(pool, engine, times=1)
    assert pool.state is State.FAILED
    assert pool.cause.endswith("ended: signal 11 (SIGSEGV).")


def test_many_lost_at_once(serving):
    """Six workers are lost together, before any answer → one failure of the version: all are started again at once, and it serves."""
    pool, engine, workers = serving(6)
    for worker in workers:
        worker.exit("signal 9 (SIGKILL)")
    assert (pool.state, len(engine.live), pool._crew.restarts.failures) == (State.LOADING, 6, 1)
    for worker in engine.live:
        worker.become_ready()
    assert pool.state is State.ACTIVE


def test_losses_by_poison(make):
    """Requests end their workers twice each, and nothing is answered meanwhile → each counts once: not before the fifth all are refused."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    caller = Caller(pool)
    engine.workers[0].become_ready()
    for number in range(MAX_FAILURES - 1):
        caller.submit(str(number))
        for _ in range(2):
            engine.workers[-1].exit("signal 11 (SIGSEGV)")
            pool._crew.restarts.at = 0.0
            pool.reconcile()
            engine.workers[-1].become_ready()
        assert caller[str(number)] == ["POISON_REQUEST"]
    caller.submit("harmless")
    engine.workers[-1].answer()
    assert (pool.state, caller["harmless"]) == (State.ACTIVE, ["OK"])


def test_losses_by_time_out(make):
    """Handlers hang, one after the other → the version never fails for it: each caller has been told."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, response_timeout_seconds=0)
    pool.scale(1)
    caller = Caller(pool)
    for number in range(2 * MAX_FAILURES):
        engine.workers[-1].become_ready()
        caller.submit(str(number))
        timer.run()
        engine.workers[-1].exit()
        assert caller[str(number)] == ["RESPONSE_TIMEOUT"]
    assert (pool.state, len(engine.live)) == (State.LOADING, 1)


def test_an_answer_ends_a_row_of_losses(serving):
    """Between losses the new worker answers → the version never fails."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    for number in range(2 * MAX_FAILURES):
        (worker,) = engine.live
        if number:
            worker.become_ready()
        caller.submit(f"ok-{number}")
        worker.answer()
        worker.exit("signal 11 (SIGSEGV)")
    assert pool.state is State.LOADING


def test_additional_worker_never_loads(make):
    """One worker serves and a second never loads → after five tries there is no sixth; the first serves on, and the cause is kept."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    first = engine.workers[0]
    first.become_ready()
    pool.scale(2)
    for _ in range(MAX_FAILURES):
        pool._crew.restarts.at = 0.0
        pool.reconcile()
        engine.workers[-1].exit("exit code 3", load_error="handler.py, line 1: no GPU.")
    assert (len(engine.workers), engine.live) == (1 + MAX_FAILURES, [first])
    assert (pool.state, pool.target, pool.cause) == (State.ACTIVE, 1, "handler.py, line 1: no GPU.")
    caller = Caller(pool)
    caller.submit("a")
    first.answer()
    assert caller["a"] == ["OK"]


def test_answers_of_a_worker_that_stays_do_not_hide_losses(make):
    """One worker answers between the losses of another → they still count as losses in a row, and end."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    first = engine.workers[0]
    first.become_ready()
    pool.scale(2)
    caller = Caller(pool)
    for number in range(MAX_FAILURES):
        pool._crew.restarts.at = 0.0
        pool.reconcile()
        caller.submit(str(number))
        first.answer()
        engine.workers[-1].exit("exit code 3", load_error="handler.py, line 1: no GPU.")
    assert (engine.live, pool.target) == ([first], 1)


def test_lost_with_what_they_were_forked_from(serving):
    """Six workers end at once, with the fork server → no failure of theirs: all are started again at once."""
    pool, engine, workers = serving(6)
    for worker in workers:
        worker.exit("the fork server ended", blameless=True)
    assert len(engine.live) == 6
    for worker in engine.live:
        worker.become_ready()
    assert pool.state is State.ACTIVE


def test_restart_waits(make):
    """A worker is lost twice in a row → the second restart waits some half a second, the first does not."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    engine.workers[0].exit("signal 11 (SIGSEGV)")
    assert len(engine.workers) == 2
    engine.workers[1].exit("signal 11 (SIGSEGV)")
    assert len(engine.workers) == 2
    when, _ = timer.calls[-1]
    assert 0.3 < when - monotonic() <= 0.6


@pytest.mark.slow
def test_restart_comes(serving):
    """The wait before a restart is over → the worker is started."""
    _, engine, (worker,) = serving(1)
    worker.exit("signal 11 (SIGSEGV)")
    engine.workers[1].exit("signal 11 (SIGSEGV)")
    engine.wait_started(3)
    assert len(engine.live) == 1


def test_tried_again(make):
    """A version has failed since its workers kept ending → after the cool-down it loads again, and an answer makes it whole."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, cool_down_seconds=60)
    pool.scale(1)
    engine.workers[0].become_ready()
    fail(pool, engine)
    with pytest.raises(ModelLoadFailed, match="It is tried again soon") as refused:
        Caller(pool).submit("a")
    assert 59 < refused.value.retry_after_seconds <= 60
    timer.run()
    assert (pool.state, pool.cause) == (State.LOADING, "")
    engine.workers[-1].become_ready()
    caller = Caller(pool)
    caller.submit("a")
    engine.workers[-1].answer()
    assert (pool.state, caller["a"]) == (State.ACTIVE, ["OK"])
    engine.workers[-1].exit("signal 11 (SIGSEGV)")
    assert pool.state is State.LOADING


def test_tried_again_in_vain(make):
    """The first worker after the cool-down ends too → FAILED again at once, until the next cool-down is over."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    fail(pool, engine)
    timer.run()
    engine.workers[-1].exit("signal 11 (SIGSEGV)")
    assert (pool.state, engine.live) == (State.FAILED, [])
    timer.run()
    assert pool.state is State.LOADING


@pytest.mark.parametrize("how", ["never", "drained", "registered"])
def test_not_tried_again(make, how):
    """A version has failed, and is not to be tried again, or was unregistered meanwhile, or never loaded → it stays as it is."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, cool_down_seconds=0 if how == "never" else 60)
    pool.scale(1)
    if how != "registered":
        engine.workers[0].become_ready()
    fail(pool, engine)
    if how == "drained":
        pool.drain()
    timer.run()
    assert (pool.state, engine.live) == (State.UNLOADED if how == "drained" else State.FAILED, [])


def test_given_up_workers_come_back(make):
    """A second worker could not be kept running → after the cool-down it is asked for again; a new number meanwhile stays."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    first = engine.workers[0]
    first.become_ready()
    pool.scale(2)
    fail(pool, engine, but=first)
    assert pool.target == 1
    timer.run()
    assert (pool.target, len(engine.live), pool.state) == (2, 2, State.ACTIVE)
    engine.workers[-1].exit("signal 11 (SIGSEGV)")
    assert pool.target == 1
    pool.scale(3)
    timer.run()
    assert pool.target == 3


def test_losses_for_a_time(make):
    """The model says how long workers may keep ending → it is not given up before, and is then."""
    pool, engine = make(timer=ManualTimer(), max_retry_timeout_seconds=1000)
    pool.scale(1)
    engine.workers[0].become_ready()
    fail(pool, engine, times=3 * MAX_FAILURES)
    assert pool.state is State.LOADING
    pool._crew.restarts._first_at -= 1000
    fail(pool, engine, times=1)
    assert pool.state is State.FAILED


# --- time-outs


def test_startup_timeout_counts_from_the_fork(make):
    """A worker could not be forked for long, since what it is forked from was not up → its time to load has not begun."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, startup_timeout_seconds=60)
    pool.scale(1)
    (worker,) = engine.workers
    worker.started = math.inf
    timer.run()
    worker.started = monotonic() - 50
    timer.run()
    assert worker.killed == ""
    assert 9 < timer.calls[-1][0] - monotonic() <= 10
    worker.started = monotonic() - 61
    timer.run()
    assert worker.killed == "took longer than the startup timeout of 60 s to load its handler"


def test_startup_timeout(make):
    """A handler takes longer to load than the startup timeout → its worker is killed and the version has failed."""
    pool, engine = make(startup_timeout_seconds=0.02)
    pool.scale(1)
    (worker,) = engine.workers
    worker.wait_for(lambda: worker.killed)
    assert worker.killed == "took longer than the startup timeout of 0.02 s to load its handler"
    worker.exit()
    assert pool.state is State.FAILED
