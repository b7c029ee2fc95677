"""What listeners hear of a manager, and its end; with the fake engine and real archives."""

import sys
import threading

import pytest
from fakes import SECONDS, Caller, FakeEngine, Script

from servegrpc.core.model import State
from servegrpc.core.registration import Registration
from servegrpc.errors import ModelLoadFailed


def drain(changes):
    seen = []
    while not changes.empty():
        change = changes.get()
        seen.append((change.state, change.ready_workers, change.target_workers))
    return seen


def test_listen(make_manager, stored):
    """A listener is there → it hears of each change once, in order, until it leaves."""
    engine = FakeEngine()
    manager = make_manager(engine)
    changes, stop = manager.changes.subscribe()
    manager.register(Registration(stored(), wait=False))
    engine.workers[0].become_ready()
    manager.unregister("digits", wait=False)
    engine.workers[0].exit()
    assert drain(changes) == [(State.LOADING, 0, 1), (State.ACTIVE, 1, 1), (State.DRAINING, 0, 0), (State.UNLOADED, 0, 0)]
    stop()
    manager.register(Registration(stored(version="2.0"), wait=False))
    assert drain(changes) == []


def test_listen_late(manager, stored):
    """A listener comes late → it hears the present state of every version first."""
    manager.register(Registration(stored()))
    manager.register(Registration(stored(name="other"), workers=0))
    changes, _ = manager.changes.subscribe()
    assert drain(changes) == [(State.ACTIVE, 1, 1), (State.ACTIVE, 0, 0)]


def test_listen_to_a_failure(manager, stored):
    """A version fails → the change has its cause."""
    changes = []
    manager.changes.listen(changes.append)
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(stored(handler="broken.py")))
    assert changes[-1].state is State.FAILED
    assert changes[-1].cause == "broken.py, line 2: bad"


def test_close(make_manager, stored):
    """The server ends and all is finished → True, and every version is unloaded."""
    manager = make_manager()
    version = manager.register(Registration(stored(), workers=2))
    assert manager.close(SECONDS)
    assert version.pool.state is State.UNLOADED


def test_close_without_grace(make_manager, stored):
    """The server ends and a worker does not → it is killed after the grace, and False is returned."""
    engine = FakeEngine()
    manager = make_manager(engine)
    version = manager.register(Registration(stored(), wait=False))
    assert not manager.close(0.0)
    assert engine.workers[0].killed == "the server was stopped"
    assert version.pool.state is State.UNLOADED


@pytest.mark.slow
def test_listener_ends_with_the_present_state(make_manager, stored):
    """Changes come from several threads at once → the last one that a listener hears is the present state."""
    engine, told, wrong = FakeEngine(), [], []
    manager = make_manager(engine)
    manager.changes.listen(told.append)
    pool = manager.register(Registration(stored(), workers=4, wait=False)).pool
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(100):
            threads = [threading.Thread(target=worker.become_ready) for worker in engine.live]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if (told[-1].state, told[-1].ready_workers) != (State.ACTIVE, 4):
                wrong.append((number, told[-1]))
            pool.scale(0)
            for worker in engine.live:
                worker.exit()
            pool.scale(4)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_stopped_while_a_version_leaves(make_manager, stored):
    """A version still answers when it is unregistered, and the server ends → it waits for that answer too."""
    engine = FakeEngine({"echo.py": Script(holds=True)})
    manager = make_manager(engine)
    version = manager.register(Registration(stored()))
    caller = Caller(version.pool)
    caller.submit("a")
    manager.unregister("digits", wait=False)
    assert not manager.drain(0.0)
    engine.release()
    assert manager.close(SECONDS)
    assert caller["a"] == ["OK"]


def test_killed_while_a_version_leaves(make_manager, stored):
    """An unregistered version waits for its next worker when the grace of the server's end is over → what waits there is told."""
    engine = FakeEngine()
    manager = make_manager(engine)
    version = manager.register(Registration(stored(), wait=False))
    engine.workers[0].become_ready()
    caller = Caller(version.pool)
    caller.submit("a", "b")
    manager.unregister("digits", wait=False)
    for _ in range(2):
        engine.live[0].exit("signal 11 (SIGSEGV)")
    assert (caller["a"], caller["b"]) == ([], [])
    assert not manager.close(0.0)
    assert (caller["a"], caller["b"], version.pool.state) == (["WORKER_LOST"], ["DRAINING"], State.UNLOADED)
