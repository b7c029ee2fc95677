"""The dead children of a worker: which of them it reaps."""

import ctypes
import subprocess

import pytest
from servers import until

from servegrpc.worker import orphans as orphans_module
from servegrpc.worker.batch_loop import PredictionTimes
from servegrpc.worker.context import Context
from servegrpc.worker.forkserver import PR_SET_CHILD_SUBREAPER
from servegrpc.worker.orphans import LOOK_NANOSECONDS, Orphans, _dead_children


@pytest.fixture
def dead():
    """Leave an orphan, and return the children that have died since."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def dead():
        before = _dead_children()
        subprocess.run("true &", shell=True, check=True)
        until(lambda: _dead_children() - before)
        return _dead_children() - before

    yield dead
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_orphan(dead):
    """A program that a handler ran leaves another one behind, which ends → it is reaped at the second look after, between two calls."""
    ended = dead()
    times = PredictionTimes(Context("m", "/", {}, 1, None))
    times.add(0, LOOK_NANOSECONDS)
    times.add(0, 2 * LOOK_NANOSECONDS - 1)
    assert ended <= _dead_children()
    times.add(0, 3 * LOOK_NANOSECONDS)
    assert not ended & _dead_children()


def test_handlers_own(dead):
    """A process that a handler has started has ended, and the handler has not waited for it yet → it gets the status when it does."""
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    until(lambda: process.pid in _dead_children())
    orphan = dead()
    orphans = Orphans()
    for look in range(3):
        orphans.reap(look * LOOK_NANOSECONDS)
    assert not orphan & _dead_children()
    assert process.wait() == 3


def test_looked_for_once(monkeypatch):
    """A process that the handler does not wait for stays → what it belongs to, which takes long to find out, is asked once."""
    asked = []
    monkeypatch.setattr(orphans_module, "_waited_for", lambda: asked.append(1) or {process.pid})
    process = subprocess.Popen(["true"])
    until(lambda: process.pid in _dead_children())
    orphans = Orphans()
    for look in range(5):
        orphans.reap(look * LOOK_NANOSECONDS)
    assert asked == [1]
    assert process.wait() == 0
