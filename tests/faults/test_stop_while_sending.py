"""Servers that are stopped while callers still read their replies."""

import os
import signal
import socket
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from servers import LANES, until, wait_gone

from servegrpc.client import CallError, Client

pytestmark = pytest.mark.slow

LARGE = """
def handle(data, context):
    return [b"x" * 20_000_000 for _ in data or []]
"""
LARGE_STREAM = """
def handle(data, context):
    for _ in range(40):
        yield [b"x" * 500_000 for _ in data]
"""
WELL_OVER_SECONDS = 2.5  # than the second that refusals are given to leave


class Valve:
    """A proxy in front of a server, from which nothing comes back beyond the first megabyte until it is opened."""

    def __init__(self, address):
        self._target = address.rsplit(":", 1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def open(self):
        self._open.set()

    def close(self):
        self.open()
        for thread in self._threads:
            thread.join()

    def _serve(self):
        with closing(self._listener), self._listener.accept()[0] as client, socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            server.connect((self._target[0], int(self._target[1])))
            there = threading.Thread(target=self._copy, args=(client, server))
            there.start()
            self._copy(server, client, freely=2**20)
            there.join()

    def _copy(self, source, target, freely=float("inf")):
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
                freely -= len(data)
                if freely < 0:
                    self._open.wait()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def valve():
    """Put a valve before a server."""
    made = []

    def make(server):
        made.append(Valve(server.inference))
        return made[-1]

    yield make
    for one in made:
        one.close()


def read(address, kind):
    """Return how many bytes came back."""
    with Client(address, attempts=1) as client:
        if kind == "unary":
            return len(client.predict("large", "x", timeout=60).output)
        return sum(len(result.output) for result in client.stream("large", "x", timeout=60))


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(("kind", "code"), [("unary", LARGE), ("stream", LARGE_STREAM)])
def test_stopped_while_a_caller_reads(start_server, archive, valve, lane, kind, code):
    """SIGTERM while a caller still reads what its handler has answered → it gets all of it, and then the server ends with exit 0."""
    server = start_server("--fast-lane", lane, archive("large", code=code, config="streamBufferBytes: 50000000\n"))
    slow = valve(server)
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(read, slow.address, kind)
        server_ends(server)
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(WELL_OVER_SECONDS)
        slow.open()
        assert reading.result() == 20_000_000
    assert server.wait() == 0


@pytest.mark.parametrize("lane", LANES)
def test_time_runs_out_while_a_caller_reads(start_server, archive, valve, lane):
    """The caller does not read on within --drain-seconds → its call is cut off, and the exit code says so."""
    server = start_server("--fast-lane", lane, "--drain-seconds", "1", archive("large", code=LARGE))
    slow = valve(server)
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(read, slow.address, "unary")
        server_ends(server)
        assert server.wait(20) == 1
        slow.open()
        assert isinstance(reading.exception(), CallError)


def server_ends(server):
    """Stop a server when a worker has answered; returns when the worker has gone."""
    with server.client() as client:
        (worker,) = client.model("large").versions[0].workers
    ended = os.pidfd_open(worker.pid)
    until(lambda: 'requests_total{code="OK",model_name="large",model_version="1.0"} 1.0' in metrics(server))
    server.process.send_signal(signal.SIGTERM)
    wait_gone(ended)


def metrics(server):
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as page:
        return page.read().decode()
