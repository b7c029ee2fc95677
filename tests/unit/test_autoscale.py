"""Between two bounds, by how long requests wait; each run of the timer is one check, so that no time passes."""

import itertools
import math
from time import monotonic

import pytest
from fakes import FakeEngine, ManualTimer

from servegrpc.core.autoscale import CHECKS_TO_GROW, CHECKS_TO_SHRINK, Autoscaler
from servegrpc.core.engine import HandlerSpec
from servegrpc.core.model import ModelSettings
from servegrpc.core.pace import ServiceTime
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.pool import WorkerPool
from servegrpc.core.request import Request
from servegrpc.errors import QueueFull, WouldMissDeadline

ids = itertools.count()


class Model:
    """A pool with fake workers, its autoscaler, and the timer that drives it."""

    def __init__(self, low, high, **settings):
        self.timer = ManualTimer()
        self.engine = FakeEngine()
        spec = HandlerSpec("m", "1.0", "/none", "h.py", {}, {}, False, "", ())
        self.pool = WorkerPool(spec, ModelSettings(**settings), self.engine, DeviceSlots(0, 4), ManualTimer(), lambda: None)
        self.autoscaler = Autoscaler(self.pool, self.timer)
        self.bound(low, high)

    def bound(self, low, high):
        self.autoscaler.bound(low, high)
        self.settle()

    def settle(self):
        """Let workers that start be ready, and those that are told to stop end."""
        for worker in self.engine.live:
            if worker.stopped:
                worker.exit()
            elif not any(record.id == worker.spec.worker_id and record.state.name == "READY" for record in self.pool.records()):
                worker.become_ready()

    def send(self, age=0.0, deadline=math.inf):
        """Send a request that came so many seconds ago; returns it."""
        request = Request(b"", 0, str(next(ids)), lambda reply: None, deadline)
        request.arrived -= age
        self.pool.submit(request)
        return request

    def answer(self):
        """Answer all that was handed over."""
        for worker in self.engine.live:
            while worker.batches:
                worker.answer()

    def check(self, times=1, age=None):
        """Let so many checks pass; with `age`, a request that waited so long is handed over and answered before each."""
        for _ in range(times):
            if age is not None:
                self.send(age)
                self.answer()
            self.timer.run()

    def check_until_settled(self, times, **kwargs):
        self.check(times, **kwargs)
        self.settle()
        return self.pool.target


def test_grows_while_requests_wait():
    """Requests wait too long, check after check → a worker more each time, up to the bound."""
    model = Model(1, 3)
    assert [model.check_until_settled(CHECKS_TO_GROW, age=0.5) for _ in range(3)] == [2, 3, 3]


def test_one_short_wait_restarts_the_count():
    """One check without long waits comes between → no worker more."""
    model = Model(1, 3)
    model.check(CHECKS_TO_GROW - 1, age=0.5)
    model.check(1, age=0.0)
    model.check(CHECKS_TO_GROW - 1, age=0.5)
    assert model.pool.target == 1


def test_stuck_queue():
    """Requests wait and nothing is handed over → that is a long wait too."""
    model = Model(1, 2)
    for _ in range(3):
        model.send()  # the first goes to the worker, the next waits behind it
    model.check(1)  # takes note of the first
    model.check(CHECKS_TO_GROW)
    assert model.pool.target == 2


def test_refused_by_a_full_queue():
    """Few may wait and the others are refused, those handed over had waited for a short time only → that is a long wait too."""
    model = Model(1, 2, max_queue_size=1)
    for _ in range(CHECKS_TO_GROW):
        while len(model.pool.queue) < 1:
            model.send()
        with pytest.raises(QueueFull):
            model.send()
        model.answer()
        model.check()
    assert model.pool.target == 2


@pytest.mark.parametrize("leaves", [False, True], ids=["dropped", "given up by its caller"])
def test_deadline_passes_in_the_queue(leaves):
    """A request waits until its deadline has passed, in each check, the others a short time only → that is a long wait too."""
    model = Model(1, 2)
    for _ in range(CHECKS_TO_GROW):
        while len(model.pool.queue) < 1:
            model.send()  # until the worker has no room
        late = model.send(age=0.01, deadline=monotonic())
        if leaves:
            model.pool.cancel(late)
        model.answer()
        model.check()
    assert model.pool.target == 2


def test_hopeless_from_the_start():
    """Callers give the model less time than it takes, and it has nothing else to do → no worker more, which would not help them."""
    model = Model(1, 2)
    for _ in range(ServiceTime.MIN_HAND_OVERS):
        model.pool._service.learn(0.5, monotonic())
    for _ in range(CHECKS_TO_GROW):
        with pytest.raises(WouldMissDeadline):
            model.send(deadline=monotonic() + 0.1)
        model.check()
    assert model.pool.target == 1


def test_delay_asked_for():
    """Requests wait as long as the model's batch delay → no worker more."""
    model = Model(1, 2, max_batch_delay_seconds=1.0)
    model.check(CHECKS_TO_GROW, age=1.05)
    assert model.pool.target == 1


def test_shrinks_when_idle():
    """A worker is idle check after check → one less, down to the bound."""
    model = Model(1, 3)
    for _ in range(2):
        model.check_until_settled(CHECKS_TO_GROW, age=0.5)
    assert [model.check_until_settled(CHECKS_TO_SHRINK) for _ in range(3)] == [2, 1, 1]


def test_open_sequence():
    """A sequence is open, its state in one of the workers → none is taken away until it ends."""
    model = Model(1, 2)
    model.check_until_settled(CHECKS_TO_GROW, age=0.5)
    model.pool.sequence("s", start=True)
    assert model.check_until_settled(CHECKS_TO_SHRINK) == 2
    model.pool.sequences.end("s")
    assert model.check_until_settled(CHECKS_TO_SHRINK) == 1


def test_stays_when_busy():
    """All workers are busy in every fifth check, but nothing waits → the number stays."""
    model = Model(1, 2)
    model.check_until_settled(CHECKS_TO_GROW, age=0.5)
    for number in range(CHECKS_TO_SHRINK):
        if number % 5 == 0:
            model.send()
            model.send()
        model.check()
        model.answer()
    assert model.pool.target == 2


def test_waits_for_a_worker_that_starts():
    """The worker asked for is not ready yet → no other is asked for."""
    model = Model(1, 4)
    model.check(3 * CHECKS_TO_GROW, age=0.5)
    assert model.pool.target == 2


def test_more_cannot_be_kept():
    """It had to give up workers → none is asked for again until someone scales it."""
    model = Model(1, 3)
    model.pool._crew.cause = "worker 2 ended: out of memory."
    assert model.check_until_settled(3 * CHECKS_TO_GROW, age=0.5) == 1
    model.bound(1, 3)
    assert model.check_until_settled(CHECKS_TO_GROW, age=0.5) == 2


@pytest.mark.parametrize("bounds", [(2, 2), (0, 0)])
def test_equal_bounds(bounds):
    """Both bounds are the same → nothing is ever checked."""
    assert Model(*bounds).timer.calls == []


def test_no_workers():
    """It was scaled to 0 → it stays so, and grows again only when someone asks for a worker."""
    model = Model(0, 2)
    model.check(CHECKS_TO_SHRINK)
    assert model.pool.target == 0
    model.bound(1, 2)
    assert model.check_until_settled(CHECKS_TO_GROW, age=0.5) == 2


def test_low_bound_of_zero():
    """The least is 0 → idleness leaves one worker."""
    model = Model(0, 2)
    model.pool.scale(1)
    model.settle()
    model.check(2 * CHECKS_TO_SHRINK)
    assert model.pool.target == 1


def test_new_bounds():
    """The bounds are changed → only the new ones are checked."""
    model = Model(1, 3)
    model.bound(2, 2)
    model.check(2 * CHECKS_TO_GROW, age=0.5)
    assert (model.pool.target, model.timer.calls) == (2, [])


def test_unregistered():
    """The version drains → its checks end."""
    model = Model(1, 3)
    model.pool.drain()
    model.check()
    assert model.timer.calls == []
