"""Servers as processes, started by `servegrpc serve` and ended by pid, and what tests wait on instead of time."""

import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from servegrpc.client import Client

SERVEGRPC = Path(sys.executable).parent / "servegrpc"
FREE_PORTS = ("--inference-address", "127.0.0.1:0", "--management-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
LANES = ("on", "off")

numbers = itertools.count(1)


class Log:
    """The lines of a stream, read as they come."""

    def __init__(self, stream):
        self._lines = []
        self._grown = threading.Condition()
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with self._stream:
            for line in self._stream:
                with self._grown:
                    self._lines.append(line)
                    self._grown.notify_all()

    def lines(self, *words):
        """Return the lines so far that have all these words."""
        return [line for line in list(self._lines) if all(word in line for word in words)]

    def wait_for(self, *words, count=1, seconds=60):
        """Return the first `count` lines with all these words, as soon as they are there."""
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.lines(*words)) >= count, seconds), f"not logged: {words}"
            return self.lines(*words)[:count]

    def close(self):
        self._thread.join()


class ServerProcess:
    """One `servegrpc serve` on free ports, ready; ended by `stop`.

    `program` runs it, `environment` is added to our own, `ports` are the options that choose ports and GPUs, `cwd` is its working folder.
    """

    def __init__(self, *arguments, program=(SERVEGRPC,), environment=None, ports=(*FREE_PORTS, "--gpus", "0"), cwd=None):
        command = [*program, "serve", *ports, *map(str, arguments)]
        environment = {**os.environ, **(environment or {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True, errors="replace", env=environment, cwd=cwd)
        self.log = Log(self.process.stderr)
        self.ready_line = self.process.stdout.readline()
        if not self.ready_line.startswith("ready "):
            self.stop()
            pytest.fail(f"no ready line; exit {self.process.returncode}, log:\n{''.join(self.log.lines())}")
        ready = dict(part.split("=", 1) for part in self.ready_line.split()[1:])
        self.inference, self.management, self.metrics = ready["inference"], ready["management"], ready["metrics"]

    def client(self, **kwargs):
        return Client(self.inference, management_address=self.management, **kwargs)

    def wait(self, seconds=60):
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Gate:
    """Holds a call of the handler `gate`: a FIFO that it opens for reading, with the path as its input."""

    def __init__(self, folder):
        self.path = str(folder / f"gate-{next(numbers)}")
        os.mkfifo(self.path)
        self._end = None

    def wait_entered(self):
        """Return when the handler is inside."""
        self._end = os.open(self.path, os.O_WRONLY)

    def open(self):
        """Let the handler go on; once is enough."""
        if self._end is not None:
            os.close(self._end)
            self._end = None

    def remove(self):
        """Let the handler go on, now and ever after: there is a plain file instead."""
        os.unlink(self.path)
        with open(self.path, "w"):
            self.open()


def until(check, seconds=30):
    """Ask again and again, each time over the wire, until the answer is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, "did not come true in time"
    return answer


def wait_gone(pid_handle, seconds=30):
    """Wait until the process of a pidfd has ended, and close it."""
    ended, _, _ = select.select([pid_handle], [], [], seconds)
    os.close(pid_handle)
    assert ended, "the process has not ended"


class Servers:
    """Starts servers, and ends them all."""

    def __init__(self):
        self.started = []

    def __call__(self, *arguments, **kwargs):
        self.started.append(ServerProcess(*arguments, **kwargs))
        return self.started[-1]

    def stop(self):
        for server in self.started:
            server.stop()
