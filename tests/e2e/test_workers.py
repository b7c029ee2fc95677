"""What workers cost, what becomes of their output, and that none outlives its server."""

import os
import re
import signal
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from servers import FREE_PORTS, SERVEGRPC, until, wait_gone

from servegrpc.client import CallError, Client

MAX_ADDED_BYTES = 25 * 2**20
MAX_READY_SECONDS = 0.3
ROUNDS = 3


def pids(client, model):
    return [worker.pid for version in client.model(model).versions for worker in version.workers]


def private_bytes(pid):
    return psutil.Process(pid).memory_full_info().uss


@pytest.mark.slow
def test_cost_of_more_workers(client, server, digits_archive, record_property):
    """Digits scaled from 1 to 4 workers → each new one is ready within 0.3 s and has at most 25 MiB of its own, after a prediction too."""
    name = "digits-cost"
    picture = (Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png").read_bytes()
    client.register(str(digits_archive), name=name, batch_size=1)
    slowest, added = [], []
    for _ in range(ROUNDS):
        first = pids(client, name)
        lines = len(server.log.lines("worker ready", f"model={name}"))
        client.scale(name, 4)
        ready = server.log.wait_for("worker ready", f"model={name}", count=lines + 3)[lines:]
        slowest.append(max(float(re.search(r"seconds=([\d.]+)", line)[1]) for line in ready))
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: client.predict(name, picture), range(64)))
        added.append(max(private_bytes(pid) for pid in pids(client, name) if pid not in first))
        client.scale(name, 1)
    client.unregister(name)
    record_property("worker_ready_seconds", statistics.median(slowest))
    record_property("worker_private_mib", round(statistics.median(added) / 2**20, 1))
    print(f"worker ready in {statistics.median(slowest):.3f} s, private memory {statistics.median(added) / 2**20:.1f} MiB")
    assert statistics.median(slowest) <= MAX_READY_SECONDS
    assert statistics.median(added) <= MAX_ADDED_BYTES


def test_output_in_the_log(client, server, register):
    """What a handler prints on either stream, or logs → the log, with model, version and worker."""
    name = register("noisy", version="2.1")
    client.predict(name, "Grüße\nzweite Zeile")
    (worker,) = client.model(name).versions[0].workers
    for line in ("out Grüße", "err Grüße", "log Grüße", "zweite Zeile"):
        server.log.wait_for("handler output", f"model={name} version=2.1 worker={worker.id}", line)


def test_server_never_loads_torch(client, server, register):
    """The server's own process, after predictions → no torch in its memory map; its worker has it."""
    name = register("echo")
    client.predict(name, "x")
    assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{pids(client, name)[0]}/maps").read_text()


def test_modules_are_private(client, register):
    """Two models with a module of the same name → each its own."""
    one = register("handler", code="import sys\nvalue = 1\ndef handle(data, context):\n    return [value] * len(data or [])\n")
    two = register("handler", code="import sys\nvalue = 2\ndef handle(data, context):\n    return [value] * len(data or [])\n")
    assert [client.predict(name, "x").output for name in (one, two, one)] == [1, 2, 1]


@pytest.mark.slow
def test_modules_where_the_server_was_started(start_server, archive, tmp_path):
    """The server's working folder has modules → workers import Python's own of such a name, and find no handler there."""
    (tmp_path / "random.py").write_text("raise ImportError('not this one')\n")
    (tmp_path / "lying_about.py").write_text("def handle(data, context):\n    return data\n")
    server = start_server(archive("echo"), cwd=tmp_path)
    with server.client() as client:
        assert client.predict("echo", "x").output == "x"
        with pytest.raises(CallError, match=r"there is no lying_about\.py in the archive"):
            client.register(str(archive("echo", name="elsewhere")), handler="lying_about", workers=1)


@pytest.fixture
def gate_server(start_server, archive):
    """A server of its own with two workers of the gate."""
    return start_server("--workers", "2", archive("gate"))


def family(server):
    """Handles of all processes under a server."""
    return [os.pidfd_open(child.pid) for child in psutil.Process(server.process.pid).children(recursive=True)]


def test_killed_server_leaves_no_worker(gate_server, gate):
    """SIGKILL for the server while a call runs → fork server and workers end too, within a second."""
    with gate_server.client(attempts=1) as client, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path)
        gate.wait_entered()
        processes = family(gate_server)
        assert len(processes) == 3
        gate_server.process.kill()
        for process in processes:
            wait_gone(process, 1)
        assert running.exception().code is grpc.StatusCode.UNAVAILABLE
    assert gate_server.wait() == -signal.SIGKILL


def first_refusal(server):
    """Call a server that has begun to drain until it refuses: it does so a moment after the line in the log."""
    with server.client(attempts=1) as client:
        while True:
            try:
                client.predict("gate", "", timeout=1)
            except CallError as error:
                if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:  # it was still taken in, and waits behind one that is held
                    return error


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_drain(number, lane, start_server, archive, gate):
    """SIGTERM or Ctrl-C while a call runs → it is finished, new ones are refused with DRAINING, exit 0, no process left."""
    gate_server = start_server("--workers", "2", "--fast-lane", lane, archive("gate"))
    with gate_server.client(attempts=1) as client, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path)
        gate.wait_entered()
        processes = family(gate_server)
        gate_server.process.send_signal(number)
        gate_server.log.wait_for("draining")
        refusal = first_refusal(gate_server)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        gate.open()
        assert running.result().output["pid"]
    assert gate_server.wait() == 0
    for process in processes:
        wait_gone(process)


def test_crash_while_draining(start_server, archive, gate):
    """The only worker is killed while the server drains, with calls that run and that wait → another one finishes them, exit 0."""
    server = start_server(archive("gate"))
    with server.client(attempts=1) as client, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path)
        gate.wait_entered()
        waiting = [threads.submit(client.predict, "gate", "") for _ in range(4)]
        until(lambda: client.model("gate").versions[0].queued_requests >= 3)
        (victim,) = pids(client, "gate")
        server.process.terminate()
        assert first_refusal(server).reason == "DRAINING"
        ended = os.pidfd_open(victim)
        os.kill(victim, signal.SIGKILL)
        wait_gone(ended)
        gate.open()
        gate.wait_entered()
        gate.open()
        assert victim not in {call.result().output["pid"] for call in [running, *waiting]}
    assert server.wait() == 0


def test_second_signal(gate_server, gate):
    """A second SIGTERM while it drains → the end at once, workers included."""
    with gate_server.client(attempts=1) as client, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path)
        gate.wait_entered()
        processes = family(gate_server)
        gate_server.process.terminate()
        gate_server.log.wait_for("draining")
        gate_server.process.terminate()
        assert gate_server.wait(5) != 0
        for process in processes:
            wait_gone(process, 5)
        assert running.exception().code is grpc.StatusCode.UNAVAILABLE


def test_drain_time_runs_out(start_server, archive, gate):
    """A call that outlasts --drain-seconds → it ends with UNAVAILABLE or CANCELLED, exit 1, no process left."""
    server = start_server("--drain-seconds", "0.5", archive("gate"))
    with server.client(attempts=1) as client, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path)
        gate.wait_entered()
        processes = family(server)
        server.process.terminate()
        assert running.exception().code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert server.wait(20) == 1
    for process in processes:
        wait_gone(process)


def test_stopped_while_loading(archive, tmp_path):
    """SIGTERM while a handler of the command line still loads → the server ends at once, exit 0, without a ready line or a worker left."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    code = f"def handle(data, context):\n    return data\n\n\nopen({path!r}).read()\n"
    command = [SERVEGRPC, "serve", *FREE_PORTS, "--gpus", "0", str(archive("slow", code=code))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        gate = os.open(path, os.O_WRONLY)  # returns when the handler is inside
        processes = [os.pidfd_open(child.pid) for child in psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        said, _ = process.communicate(timeout=20)
        os.close(gate)
    assert (process.returncode, said, len(processes)) == (0, "", 2)
    for one in processes:
        wait_gone(one)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full stands for a full disk")
def test_log_cannot_be_written(archive):
    """Standard error takes nothing → the server serves and stops as ever, exit 0."""
    command = [SERVEGRPC, "serve", *FREE_PORTS, "--gpus", "0", str(archive("echo"))]
    with open("/dev/full", "w") as full, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True) as process:
        ready = dict(part.split("=", 1) for part in process.stdout.readline().split()[1:])
        with Client(ready["inference"]) as client:
            assert client.predict("echo", "x").output == "x"
        process.terminate()
        assert process.wait(30) == 0
