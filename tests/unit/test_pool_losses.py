"""Workers that are lost, with the fake engine: what they had is run again or answered."""

from time import monotonic

import pytest
from fakes import Caller, ManualTimer, fail, sent

from servegrpc.core.model import State
from servegrpc.core.restarts import MAX_FAILURES
from servegrpc.errors import Code


def lose(engine, cause="signal 11 (SIGSEGV)", **how):
    """End the only worker, and get the next one ready; returns it."""
    (worker,) = engine.live
    worker.exit(cause, **how)
    (another,) = engine.live
    another.become_ready()
    return another


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
