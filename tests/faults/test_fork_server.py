"""The server's side of the fork server, with a real one."""

import os
import threading

import pytest

from servegrpc.core.timer import Timer
from servegrpc.engine.forkserver import Fork, ForkServer
from servegrpc.engine.output import OutputPump

pytestmark = pytest.mark.slow

SECONDS = 30  # that a wait may take at most


def test_fork_server_that_does_not_fork():
    """A fork server takes longer than it may for a worker → it is killed, whoever waits for the worker is told, and it forks no more."""
    timer, output = Timer(), OutputPump()
    fork_server = ForkServer(output, timer, up_seconds=0.01)  # it needs more than that to import torch
    ends, told = [], threading.Event()

    def end(status):
        ends.append(status)
        told.set()

    null = os.open("/dev/null", os.O_RDWR)
    assert fork_server.fork(1, [null], Fork(lambda pid, pidfd: os.close(pidfd), end))
    assert told.wait(SECONDS)
    assert (ends, fork_server.alive) == ([-9], False)
    assert not fork_server.fork(2, [null], Fork(lambda pid, pidfd: None, end))
    os.close(null)
    fork_server.close()
    output.close()
    timer.close()
