"""The workers of one version, with the fake engine: numbers, states, the end and its races."""

import random
import threading
from time import monotonic

import pytest
from fakes import POOL_SPEC, SECONDS, Caller, FakeEngine, ManualTimer, Script, sent

from servegrpc.core.model import ModelSettings, State
from servegrpc.core.placement import Device, DeviceSlots
from servegrpc.core.pool import WorkerPool
from servegrpc.core.worker import WorkerState
from servegrpc.errors import Draining, NoWorkers, ServeError

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


def test_stopped_while_loading(make):
    """A version goes while one of two workers loads → that one has no time to end, since nobody waits for it; the other one has."""
    pool, engine = make()
    pool.scale(2)
    engine.workers[0].become_ready()
    pool.drain()
    assert [worker.grace_seconds for worker in engine.workers] == [10, 0]


def test_drain_without_workers(make):
    """A version without workers is unregistered → it is unloaded at once."""
    pool, _ = make()
    pool.scale(0)
    pool.drain()
    assert pool.state is State.UNLOADED


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
    pool = WorkerPool(POOL_SPEC, settings, engine, DeviceSlots(0, 4), timer, lambda: None)
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
    pool = WorkerPool(POOL_SPEC, ModelSettings(), BrokenEngine(most), DeviceSlots(0, 4), timer, lambda: None)
    pool.scale(4)
    assert "Too many open files" in pool.cause
    assert (pool.state is State.FAILED, pool.target) == ((True, 4) if most == 0 else (False, 2))
    for worker in pool._crew._engine.workers:
        worker.become_ready()
    assert pool.settled()


def test_engine_cannot_start_a_worker_while_draining():
    """The last worker of a version that drains is lost, and no other can be started → it has failed, and never comes back."""
    timer = ManualTimer()
    pool = WorkerPool(POOL_SPEC, ModelSettings(), BrokenEngine(1), DeviceSlots(0, 4), timer, lambda: None)
    pool.scale(1)
    (worker,) = pool._crew._engine.workers
    worker.become_ready()
    caller = Caller(pool)
    caller.submit("a", "b", "c")
    pool.drain()
    worker.exit("signal 9 (SIGKILL)")
    assert pool.state is State.FAILED
    assert all(caller[name] for name in "abc")
    for _ in range(3):
        timer.run()
    assert (pool.state, pool.settled()) == (State.FAILED, True)


def test_scale_while_draining(serving):
    """A version that is being unregistered is scaled → refused, and it goes."""
    pool, _, (worker,) = serving(1)
    pool.drain()
    with pytest.raises(Draining):
        pool.scale(3)
    worker.exit()
    assert pool.state is State.UNLOADED
