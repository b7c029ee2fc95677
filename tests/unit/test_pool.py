"""The workers of one version, with the fake engine: numbers, states, losses and who is answered how."""

import random
import threading
from time import monotonic

import pytest
from fakes import FakeEngine, ManualTimer, Script

from servegrpc.core.engine import HandlerSpec
from servegrpc.core.model import ModelSettings, State
from servegrpc.core.placement import Device, DeviceSlots
from servegrpc.core.pool import MAX_FAILURES, WorkerPool
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.core.worker import WorkerState
from servegrpc.errors import Draining, ModelLoadFailed, NoWorkers, QueueFull, ServeError

SPEC = HandlerSpec("digits", "1.0", "/", "echo", {}, {}, False, "", ())
SECONDS = 20  # that a wait may take at most


@pytest.fixture
def timer():
    timer = Timer()
    yield timer
    timer.close()


@pytest.fixture
def make(timer):
    """Make a pool on a fake engine, with the settings given. A call of its handler has taken `pace` seconds lately."""

    def make(timer=timer, gpus=0, on_change=lambda: None, pace=0.001, **settings):
        engine = FakeEngine()
        pool = WorkerPool(SPEC, ModelSettings(**settings), engine, DeviceSlots(gpus, 4), timer, on_change)
        pool._pace.learn(pace, 1)
        return pool, engine

    return make


@pytest.fixture
def serving(make):
    """Make an active pool with that many workers; returns it, its engine and the workers."""

    def serving(workers=1, **settings):
        pool, engine = make(**settings)
        pool.scale(workers)
        for worker in engine.workers:
            worker.become_ready()
        return pool, engine, list(engine.workers)

    return serving


class Caller:
    """Submits requests and counts how each was answered."""

    def __init__(self, pool):
        self.pool = pool
        self.answers = {}
        self.requests = {}
        self._changed = threading.Condition()

    def submit(self, *names, deadline=float("inf")):
        for name in names:
            self.answers[name] = []
            self.requests[name] = Request(b"x", 0, name, lambda reply, name=name: self._note(name, reply), deadline)
            self.pool.submit(self.requests[name])

    def _note(self, name, reply):
        with self._changed:
            self.answers[name].append(reply.error.reason if reply.error else "OK")
            self._changed.notify_all()

    def wait_for(self, *names):
        with self._changed:
            assert self._changed.wait_for(lambda: all(self.answers[name] for name in names), SECONDS), self.answers

    def __getitem__(self, name):
        return self.answers[name]


def sent(worker):
    return [[request.request_id for request in batch] for batch in worker.batches]


# --- numbers


def test_scale_up(make):
    """Two workers are asked for → two are started, and the version is active when both are ready."""
    pool, engine = make()
    pool.scale(2)
    engine.workers[0].become_ready()
    assert (len(engine.workers), pool.state, pool.settled()) == (2, State.LOADING, False)
    engine.workers[1].become_ready()
    assert (pool.state, pool.settled()) == (State.ACTIVE, True)


def test_no_workers_at_first(make):
    """A version starts with no workers → it is active, and refuses requests."""
    pool, engine = make()
    pool.scale(0)
    assert (pool.state, pool.settled(), engine.workers) == (State.ACTIVE, True, [])
    with pytest.raises(NoWorkers, match=r'Model "digits" version 1\.0 has no workers; scale it'):
        Caller(pool).submit("a")


def test_scale_down(serving):
    """Fewer workers are asked for → the newest idle ones are stopped, and gone before it is settled."""
    pool, engine, (_, second, third) = serving(3)
    pool.scale(1)
    assert [worker.stopped for worker in engine.workers] == [False, True, True]
    assert not pool.settled()
    second.exit()
    third.exit()
    assert pool.settled()
    assert pool.state is State.ACTIVE


def test_scale_down_stops_those_that_load_first(serving):
    """A worker still loads when one has to go → that one goes."""
    pool, engine, (first,) = serving(1)
    pool.scale(2)
    pool.scale(1)
    assert (first.stopped, engine.workers[1].stopped) == (False, True)


def test_busy_worker_finishes(serving):
    """A worker that computes has to go → it is stopped after its batches are answered."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b")
    pool.scale(0)
    assert not worker.stopped
    worker.answer()
    assert not worker.stopped
    worker.answer()
    assert worker.stopped
    assert (caller["a"], caller["b"]) == (["OK"], ["OK"])


def test_waiting_requests_finish_first(serving):
    """All workers have to go while requests wait → one stays until it has taken them all."""
    pool, _, workers = serving(2)
    caller = Caller(pool)
    names = [str(number) for number in range(7)]
    caller.submit(*names)
    pool.scale(0)
    while any(worker.batches for worker in workers):
        for worker in workers:
            if worker.batches:
                worker.answer()
    assert all(caller[name] == ["OK"] for name in names)
    assert all(worker.stopped for worker in workers)


def test_requests_wait_for_the_first_worker(make):
    """Requests come while the version loads → its first worker answers them."""
    pool, engine = make(batch_size=4)
    pool.scale(1)
    caller = Caller(pool)
    caller.submit("a", "b")
    engine.workers[0].become_ready()
    engine.workers[0].answer()
    assert (caller["a"], caller["b"]) == (["OK"], ["OK"])


def test_scaled_to_zero_while_loading(make):
    """Requests wait for a worker that loads, and all workers have to go → it answers them first."""
    pool, engine = make()
    pool.scale(1)
    caller = Caller(pool)
    caller.submit("a")
    pool.scale(0)
    (worker,) = engine.workers
    worker.become_ready()
    worker.answer()
    assert caller["a"] == ["OK"]
    assert worker.stopped


def test_zero_and_back(serving):
    """A version goes to no workers and back → it loads again and serves."""
    pool, engine, (worker,) = serving(1)
    pool.scale(0)
    worker.exit()
    assert pool.settled()
    pool.scale(1)
    assert pool.state is State.LOADING
    engine.workers[1].become_ready()
    caller = Caller(pool)
    caller.submit("a")
    engine.workers[1].answer()
    assert (pool.state, caller["a"]) == (State.ACTIVE, ["OK"])


def test_scale_up_while_stopping(serving):
    """A worker is on its way out and one is wanted again → another is started."""
    pool, engine, (first,) = serving(1)
    pool.scale(0)
    pool.scale(1)
    assert len(engine.workers) == 2
    first.exit()
    engine.workers[1].become_ready()
    assert pool.settled()


def test_devices(make):
    """Workers come and go → each has the least used GPU, and gives it back."""
    pool, engine = make(gpus=2)
    pool.scale(3)
    assert [worker.spec.device for worker in engine.workers] == [Device(0), Device(1), Device(0)]
    for worker in engine.workers:
        worker.become_ready()
    engine.workers[1].exit("signal 9 (SIGKILL)")
    assert engine.workers[3].spec.device == Device(1)


def test_records(serving):
    """The workers are listed → oldest first, with their states."""
    pool, _, _ = serving(2)
    pool.scale(1)
    assert [record.state for record in pool.records()] == [WorkerState.READY, WorkerState.STOPPING]


def test_wait(make):
    """Someone waits for the workers → it returns when they are ready, and False at the time-out."""
    pool, engine = make()
    pool.scale(1)
    assert not pool.wait(pool.settled, 0.0)
    ready = threading.Thread(target=engine.workers[0].become_ready)
    ready.start()
    assert pool.wait(pool.settled, SECONDS)
    ready.join()


def test_on_change(make):
    """Workers come, get ready and go → each change is told, with the state already changed."""
    seen = []
    pool, engine = make(on_change=lambda: seen.append((pool.state, len(pool.records()))))
    pool.scale(1)
    engine.workers[0].become_ready()
    pool.drain()
    engine.workers[0].exit()
    for moment in ((State.LOADING, 1), (State.ACTIVE, 1), (State.DRAINING, 1), (State.UNLOADED, 0)):
        assert moment in seen
        seen = seen[seen.index(moment) :]


# --- requests


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
    caller.submit("late", deadline=monotonic())
    worker.answer()
    assert caller["late"] == ["DEADLINE_EXPIRED"]
    assert sent(worker) == [["b"]]


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


# --- losses


def test_loss_of_a_running_batch(serving):
    """A worker is lost while it computes → its requests get WORKER_LOST with the cause, and it is replaced."""
    pool, engine, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a")
    worker.exit("signal 9 (SIGKILL)")
    assert caller["a"] == ["WORKER_LOST"]
    assert (len(engine.live), pool.state) == (1, State.LOADING)


def test_loss_of_a_batch_not_started(serving):
    """A worker is lost with a second batch in flight → another worker runs that one."""
    pool, engine, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    worker.exit("signal 9 (SIGKILL)")
    engine.workers[1].become_ready()
    assert sent(engine.workers[1]) == [["b"], ["c"]]
    engine.workers[1].answer()
    engine.workers[1].answer()
    assert (caller["a"], caller["b"], caller["c"]) == (["WORKER_LOST"], ["OK"], ["OK"])


def test_loss_in_the_middle_of_a_hand_over(make):
    """A worker is lost after the first of three calls of a hand-over → one is answered, one lost, and one run by another worker."""
    pool, engine = make(pace=0.0001)
    pool.scale(1)
    worker = engine.workers[0]
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    worker.become_ready()
    worker.answer(calls=1)
    worker.exit("signal 9 (SIGKILL)")
    engine.workers[1].become_ready()
    engine.workers[1].answer()
    assert (caller["a"], caller["b"], caller["c"]) == (["OK"], ["WORKER_LOST"], ["OK"])


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


def test_repeated_losses(serving):
    """Worker after worker is lost without an answer → after the last allowed failure the version has failed."""
    pool, engine, _ = serving(1)
    pool.scale(MAX_FAILURES)
    for worker in engine.workers[1:]:
        worker.become_ready()
    for number, worker in enumerate(list(engine.workers), 1):
        assert pool.state is not State.FAILED, f"after {number} losses"
        worker.exit("signal 11 (SIGSEGV)")
    assert pool.state is State.FAILED
    assert pool.cause.endswith("ended: signal 11 (SIGSEGV).")


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
        pool._restart_at = 0.0
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
        pool._restart_at = 0.0
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
    """A worker is lost twice in a row → the second restart waits half a second, the first does not."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    engine.workers[0].exit("signal 11 (SIGSEGV)")
    assert len(engine.workers) == 2
    engine.workers[1].exit("signal 11 (SIGSEGV)")
    assert len(engine.workers) == 2
    when, _ = timer.calls[-1]
    assert 0.4 < when - monotonic() <= 0.5


@pytest.mark.slow
def test_restart_comes(serving):
    """The wait before a restart is over → the worker is started."""
    _, engine, (worker,) = serving(1)
    worker.exit("signal 11 (SIGSEGV)")
    engine.workers[1].exit("signal 11 (SIGSEGV)")
    engine.wait_started(3)
    assert len(engine.live) == 1


# --- time-outs


def test_response_timeout(serving):
    """A handler takes longer than the response timeout → its worker is killed, and the caller is told RESPONSE_TIMEOUT."""
    pool, _, (worker,) = serving(1, response_timeout_seconds=0.02)
    caller = Caller(pool)
    caller.submit("a")
    worker.wait_for(lambda: worker.killed)
    assert worker.killed == "took longer than the response timeout of 0.02 s"
    worker.exit()
    assert caller["a"] == ["RESPONSE_TIMEOUT"]


def test_response_timeout_counts_per_batch(make):
    """A second batch waits behind the first → its time counts from the first one's answer."""
    timer = ManualTimer()
    pool, engine = make(timer=timer, response_timeout_seconds=60)
    pool.scale(1)
    (worker,) = engine.workers
    worker.become_ready()
    Caller(pool).submit("a", "b")
    answered = monotonic()
    worker.answer()
    timer.run()
    assert worker.killed == ""
    when, _ = timer.calls[-1]
    assert answered + 60 <= when <= monotonic() + 60


def test_response_timeout_again(serving):
    """A worker answered a batch in time → a later one that takes too long is noticed too."""
    pool, _, (worker,) = serving(1, response_timeout_seconds=0.02)
    caller = Caller(pool)
    caller.submit("a")
    worker.answer()
    caller.submit("b")
    worker.wait_for(lambda: worker.killed)
    worker.exit()
    assert (caller["a"], caller["b"]) == (["OK"], ["RESPONSE_TIMEOUT"])


def test_startup_timeout(make):
    """A handler takes longer to load than the startup timeout → its worker is killed and the version has failed."""
    pool, engine = make(startup_timeout_seconds=0.02)
    pool.scale(1)
    (worker,) = engine.workers
    worker.wait_for(lambda: worker.killed)
    assert worker.killed == "took longer than the startup timeout of 0.02 s to load its handler"
    worker.exit()
    assert pool.state is State.FAILED


# --- the end


def test_drain(serving):
    """A version is unregistered → new requests are refused, those accepted are answered, then it is unloaded."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.drain()
    with pytest.raises(Draining):
        caller.submit("d")
    for _ in range(3):
        worker.answer()
    assert (worker.stopped, pool.state) == (True, State.DRAINING)
    worker.exit()
    assert (pool.state, pool.settled()) == (State.UNLOADED, True)
    assert [caller[name] for name in "abc"] == [["OK"]] * 3


def test_drain_without_workers(make):
    """A version without workers is unregistered → it is unloaded at once."""
    pool, _ = make()
    pool.scale(0)
    pool.drain()
    assert pool.state is State.UNLOADED


def test_drain_loses_its_worker(serving):
    """The last worker is lost while it drains → what waits is answered, and nothing is started."""
    pool, engine, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.drain()
    worker.exit("signal 9 (SIGKILL)")
    assert [caller[name] for name in "abc"] == [["WORKER_LOST"], ["DRAINING"], ["DRAINING"]]
    assert (pool.state, engine.live) == (State.UNLOADED, [])


def test_kill(serving):
    """A version is killed → waiting requests are answered at once, the others when their worker is gone."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.kill()
    assert caller["c"] == ["DRAINING"]
    assert worker.killed == "the server was stopped"
    worker.exit()
    assert [caller[name] for name in "ab"] == [["WORKER_LOST"], ["DRAINING"]]
    assert pool.state is State.UNLOADED


# --- races


def test_stop_comes_after_the_last_batch(make):
    """The workers go while several batches are being handed over → each is sent and answered before its worker is told to stop."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    (worker,) = engine.workers
    caller = Caller(pool)
    caller.submit("a", "b")

    def meanwhile():
        timer.on_call = lambda: None
        pool.scale(0)
        worker.answer()

    timer.on_call = meanwhile  # between the hand-overs of a and b, when the response timeout of the first is set
    worker.become_ready()
    assert sent(worker) == [["b"]]
    worker.answer()
    assert (caller["a"], caller["b"], worker.stopped) == (["OK"], ["OK"], True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_everyone_is_answered_once(timer, seed):
    """Threads submit while workers are killed and the number changes at random → every request accepted is answered exactly once."""
    chance = random.Random(seed)
    engine = FakeEngine({"echo": Script()})
    settings = ModelSettings(batch_size=chance.choice([1, 4]), max_queue_size=50, max_batch_delay_seconds=chance.choice([0.0, 0.001]))
    pool = WorkerPool(SPEC, settings, engine, DeviceSlots(0, 4), timer, lambda: None)
    pool.scale(2)
    caller = Caller(pool)
    accepted, refused = set(), set()

    def submit(prefix):
        for number in range(1500):
            name = f"{prefix}-{number}"
            try:
                caller.submit(name)
                accepted.add(name)
            except ServeError as error:
                refused.add(error.reason)
                pool.wait(lambda: pool.target > 0 and len(pool.queue) < 50, 0.01)
            if number % 20 == 0 and name in accepted:
                caller.wait_for(name)

    submitters = [threading.Thread(target=submit, args=(prefix,)) for prefix in "abc"]
    for thread in submitters:
        thread.start()
    while any(thread.is_alive() for thread in submitters):
        pool.scale(chance.choice([0, 1, 2, 3]))
        for worker in engine.live[: chance.choice([0, 0, 0, 1])]:
            worker.kill("signal 9 (SIGKILL)")
        submitters[chance.randrange(3)].join(0.002)
    pool.drain()
    assert pool.wait(lambda: pool.state is State.UNLOADED, SECONDS)
    engine.close()
    assert accepted
    assert refused <= {"QUEUE_FULL", "NO_WORKERS", "MODEL_LOAD_FAILED"}
    wrong = {name: answers for name, answers in caller.answers.items() if len(answers) != (name in accepted)}
    assert not wrong


@pytest.mark.parametrize("leave", ["drain", "scale"])
@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_last_waiting_request_never_runs(serving, leave, end):
    """While the last worker must stay for a request that waits, that request is cancelled or expires → the worker goes all the same."""
    pool, _, (worker,) = serving(1, batch_size=2)
    caller = Caller(pool)
    caller.submit("running")
    caller.submit("waiting", deadline=monotonic() + (1000 if end == "cancelled" else 0.01))
    pool.drain() if leave == "drain" else pool.scale(0)
    assert not worker.stopped
    if end == "cancelled":
        assert pool.cancel(caller.requests["waiting"])
    else:
        assert not pool.wait(lambda: False, 0.02)  # until the deadline has passed
    worker.answer()
    assert worker.stopped
    worker.exit()
    assert pool.settled()


class BrokenEngine(FakeEngine):
    """An engine that can start `most` workers."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def start(self, spec, events):
        if len(self.workers) >= self.most:
            raise OSError(24, "Too many open files")
        return super().start(spec, events)


@pytest.mark.parametrize("most", [0, 2])
def test_engine_cannot_start_a_worker(timer, most):
    """The engine has no means for another worker → the version fails with the cause, or keeps those it has; nothing hangs."""
    pool = WorkerPool(SPEC, ModelSettings(), BrokenEngine(most), DeviceSlots(0, 4), timer, lambda: None)
    pool.scale(4)
    assert "Too many open files" in pool.cause
    assert (pool.state is State.FAILED, pool.target) == ((True, 4) if most == 0 else (False, 2))
    for worker in pool._engine.workers:
        worker.become_ready()
    assert pool.settled()


def test_scale_while_draining(serving):
    """A version that is being unregistered is scaled → refused, and it goes."""
    pool, _, (worker,) = serving(1)
    pool.drain()
    with pytest.raises(Draining):
        pool.scale(3)
    worker.exit()
    assert pool.state is State.UNLOADED
