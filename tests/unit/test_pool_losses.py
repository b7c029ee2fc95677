"""Workers that are lost or take too long, with the fake engine: who is run again, who is answered how, and when another starts."""

import math
from time import monotonic

import pytest
from fakes import Caller, ManualTimer, sent

from servegrpc.core.model import State
from servegrpc.core.restarts import MAX_FAILURES
from servegrpc.errors import Code, ModelLoadFailed

# --- losses


def lose(engine, cause="signal 11 (SIGSEGV)", **how):
    """End the only worker, and get the next one ready; returns it."""
    (worker,) = engine.live
    worker.exit(cause, **how)
    (another,) = engine.live
    another.become_ready()
    return another


def fail(pool, engine, *, times=MAX_FAILURES, but=None):
    """End worker after worker, without waiting for the time at which the next may start."""
    for _ in range(times):
        pool._crew.restarts.at = 0.0
        pool.reconcile()
        for worker in engine.live:
            if worker is not but:
                worker.exit("signal 11 (SIGSEGV)")


def test_loss_of_a_running_batch(serving):
    """A worker is lost while it computes a batch → each request of it runs again, alone, and the next ones after them."""
    pool, engine, _ = serving(1, batch_size=3)
    caller = Caller(pool)
    caller.submit("blocks")
    caller.submit("a", "b", "c", "d")
    engine.workers[0].answer()
    assert sent(engine.workers[0]) == [["a", "b", "c"]]
    another = lose(engine)
    for name in "abc":
        assert sent(another) == [[name]]
        another.answer()
    assert sent(another) == [["d"]]
    assert [caller[name] for name in "abc"] == [["OK"]] * 3


def test_poison(serving):
    """One request of a batch ends its worker, and the next one that runs it alone → it fails, naming both; the others are answered."""
    pool, engine, (first,) = serving(1, batch_size=3)
    caller = Caller(pool)
    caller.submit("blocks")
    caller.submit("a", "bad", "c")
    first.answer()
    second = lose(engine, "signal 11 (SIGSEGV)")
    second.answer()
    assert sent(second) == [["bad"]]
    third = lose(engine, "exit code 7")
    third.answer()
    assert (caller["a"], caller["bad"], caller["c"]) == (["OK"], ["POISON_REQUEST"], ["OK"])
    assert caller.errors["bad"].metadata == {
        "model_name": "digits",
        "model_version": "1.0",
        "request_id": "bad",
        "worker": str(second.spec.worker_id),
        "cause": "exit code 7",
        "first_worker": str(first.spec.worker_id),
        "first_cause": "signal 11 (SIGSEGV)",
    }
    told = f"worker {first.spec.worker_id}: signal 11 (SIGSEGV); worker {second.spec.worker_id}: exit code 7"
    assert told in caller.errors["bad"].message


def test_loss_without_a_retry(serving):
    """The model says that nothing may run twice → WORKER_LOST with the cause, and the worker is replaced."""
    pool, engine, (worker,) = serving(1, on_worker_loss="fail")
    caller = Caller(pool)
    caller.submit("a")
    worker.exit("signal 9 (SIGKILL)")
    assert caller["a"] == ["WORKER_LOST"]
    assert caller.errors["a"].metadata["cause"] == "signal 9 (SIGKILL)"
    assert (len(engine.live), pool.state) == (1, State.LOADING)


def test_streams_that_have_begun_do_not_run_again(serving):
    """A worker is lost with two streams, one of which has sent a message → that one fails, the other is run again."""
    pool, engine, (worker,) = serving(1, batch_size=2)
    caller = Caller(pool)
    caller.submit("blocks")
    caller.submit("begun", "fresh", message=lambda reply: None)
    worker.answer()
    worker.send_message(caller.requests["begun"])
    assert sent(lose(engine)) == [["fresh"]]
    assert (caller["begun"], caller["fresh"]) == (["WORKER_LOST"], [])


def test_nobody_waits_for_a_retry(serving):
    """A worker is lost that ran requests whose caller has left, or whose deadline has passed → neither is run again."""
    pool, engine, (worker,) = serving(1, batch_size=2)
    caller = Caller(pool)
    caller.submit("blocks")
    caller.submit("left")
    caller.submit("late", deadline=monotonic() + 0.01)
    worker.answer()
    pool.cancel(caller.requests["left"])
    assert not pool.wait(lambda: False, 0.02)  # until the deadline has passed
    assert sent(lose(engine)) == []
    assert (caller["left"], caller["late"]) == (["WORKER_LOST"], ["WORKER_LOST"])
    assert pool.stats.replies[Code.CANCELLED] == 1


def test_nobody_waits_for_what_was_not_begun(serving):
    """A worker is lost with a request that it had not begun, and whose caller has left → it does not run elsewhere."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    caller.submit("a", "left")
    pool.cancel(caller.requests["left"])
    another = lose(engine)
    another.answer()
    assert (sent(another), caller["left"], pool.stats.replies[Code.CANCELLED]) == ([], ["REQUEST_CANCELLED"], 1)


def test_sequences_do_not_run_again(serving):
    """A worker is lost with a request of a sequence → SEQUENCE_LOST: its state is gone."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    caller.submit("a", sequence=pool.sequence("s"))
    assert sent(lose(engine)) == []
    assert caller["a"] == ["SEQUENCE_LOST"]


def test_lost_twice_without_its_fault(serving):
    """A request's worker is lost, and the next one ends with the fork server → WORKER_LOST: the request is not to blame."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    caller.submit("a")
    lose(engine)
    lose(engine, "the fork server ended", blameless=True)
    assert caller["a"] == ["WORKER_LOST"]


def test_cancelled_while_it_waits_to_run_again(make):
    """The caller of a request that is to run again leaves → it is dropped."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    engine.workers[0].become_ready()
    caller = Caller(pool)
    caller.submit("a")
    engine.workers[0].exit("signal 11 (SIGSEGV)")
    assert len(pool.queue) == 1
    assert pool.cancel(caller.requests["a"])
    engine.workers[1].become_ready()
    assert (sent(engine.workers[1]), caller["a"]) == ([], [])


@pytest.mark.parametrize("drain", ["drain", "scale to 0"])
def test_last_worker_lost_while_draining(serving, drain):
    """The last worker of a version that drains is lost → another one finishes what it ran and what waits; then it goes."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.drain() if drain == "drain" else pool.scale(0)
    another = lose(engine)
    for _ in "abc":
        another.answer()
    assert [caller[name] for name in "abc"] == [["OK"]] * 3
    assert another.stopped
    another.exit()
    assert (pool.state, engine.live, pool.unfinished) == (State.UNLOADED if drain == "drain" else State.ACTIVE, [], 0)


def test_no_worker_to_run_it_again(make):
    """The last worker of a version that drains is lost, and none can be started → it is told WORKER_LOST, and counted as unfinished."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    engine.workers[0].become_ready()
    caller = Caller(pool)
    caller.submit("a")
    pool.drain()
    fail(pool, engine)
    assert caller["a"] == ["WORKER_LOST"]
    assert caller.errors["a"].metadata["cause"] == "signal 11 (SIGSEGV)"
    assert (pool.state, pool.unfinished, len(engine.workers)) == (State.UNLOADED, 1, MAX_FAILURES)


def test_drains_until_its_next_worker_is_due(make):
    """The workers of a version that drains are lost twice while requests wait → it is not done before another one has answered them."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.drain()
    for _ in range(2):
        engine.live[0].exit("signal 11 (SIGSEGV)")
    assert (pool.state, pool.records(), pool.settled()) == (State.DRAINING, [], False)
    pool._crew.restarts.at = 0.0
    timer.run()
    another = engine.workers[-1]
    another.become_ready()
    while another.batches:
        another.answer()
    another.exit()
    assert [caller[name] for name in "abc"] == [["OK"]] * 3
    assert pool.settled()


def test_cancelled_while_draining_without_a_worker(make):
    """The caller leaves whose request alone keeps a version that drains, while its next worker is due → the version is unloaded."""
    pool, engine = make(timer=ManualTimer())
    pool.scale(1)
    caller = Caller(pool)
    engine.workers[0].become_ready()
    caller.submit("a")
    pool.drain()
    engine.workers[0].exit("signal 11 (SIGSEGV)")
    engine.workers[1].exit("signal 11 (SIGSEGV)")
    assert (pool.state, engine.live, caller["a"]) == (State.DRAINING, [], [])
    pool.cancel(caller.requests["a"])
    assert pool.state is State.UNLOADED


def test_killed_while_it_runs(serving):
    """The grace is over and what runs is killed → nothing is started for it."""
    pool, engine, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.kill()
    worker.exit()
    assert (caller["a"], caller["c"], len(engine.workers)) == (["WORKER_LOST"], ["DRAINING"], 1)
    assert (pool.state, pool.unfinished) == (State.UNLOADED, 3)


def test_loss_of_a_batch_not_started(serving):
    """A worker is lost with a second batch in flight → another worker runs that one, after what was running."""
    pool, engine, _ = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    another = lose(engine)
    assert sent(another)[0] == ["a"]
    for _ in "abc":
        another.answer()
    assert [caller[name] for name in "abc"] == [["OK"]] * 3
    assert not caller.requests["b"].lost


def test_loss_in_the_middle_of_a_hand_over(make):
    """A worker is lost after the first of three calls of a hand-over → one is answered, one runs again alone, one for the first time."""
    pool, engine = make(pace=0.0001)
    pool.scale(1)
    worker = engine.workers[0]
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    worker.become_ready()
    worker.answer(calls=1)
    another = lose(engine)
    assert sent(another)[0] == ["b"]
    another.answer()
    another.answer()
    assert [caller[name] for name in "abc"] == [["OK"]] * 3
    assert [bool(caller.requests[name].lost) for name in "abc"] == [False, True, False]


def test_fails_in_the_middle_of_a_hand_over(make):
    """The last worker ends for the last time between two hand-overs → the second one is told too that the version has failed."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    fail(pool, engine, times=MAX_FAILURES - 1)
    pool._crew.restarts.at = 0.0
    pool.reconcile()
    caller = Caller(pool)
    caller.submit("a", "b")

    def meanwhile():
        timer.on_call = lambda: None
        engine.workers[-1].exit("signal 11 (SIGSEGV)")

    timer.on_call = meanwhile  # when the response timeout of the first is set
    engine.workers[-1].become_ready()
    assert (pool.state, len(pool.queue)) == (State.FAILED, 0)
    assert (caller["a"], caller["b"]) == (["WORKER_LOST"], ["MODEL_LOAD_FAILED"])


def test_loss_while_another_serves(serving):
    """One of two workers is lost → the version stays active."""
    pool, _, (first, _) = serving(2)
    first.exit("signal 11 (SIGSEGV)")
    assert pool.state is State.ACTIVE


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
