"""Workers that end, hang or are killed: every call gets one truthful status, and the model comes back by itself."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import until, wait_gone

from servegrpc.client import CallError

pytestmark = pytest.mark.both_lanes

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ABORTED = grpc.StatusCode.ABORTED


@pytest.fixture
def once(server):
    """A client that tries each call once, so that every status is seen."""
    with server.client(attempts=1) as client:
        yield client


def workers(client, model):
    return [worker for worker in client.model(model).versions[0].workers if worker.state == "READY"]


def wait_back(client, model, count, without=()):
    """Wait until the model is ACTIVE with `count` ready workers, none of them in `without`."""

    def back():
        (version,) = client.model(model).versions
        assert version.state != "FAILED", version.cause
        pids = {worker.pid for worker in workers(client, model)}
        return version.state == "ACTIVE" and len(pids) == count and pids.isdisjoint(without)

    until(back)


@pytest.mark.slow
def test_all_killed_at_once(once, register):
    """All six workers killed together under 16 callers, twice → every call is answered, and six are back at once."""
    model = register("gate", workers=6, batch_size=4)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(2):
            victims = workers(once, model)
            calls = [threads.submit(once.predict, model, "") for _ in range(400)]
            until(lambda calls=calls: sum(one.done() for one in calls) > 50)
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)
            assert all(one.result().output for one in calls)
            wait_back(once, model, 6, without={victim.pid for victim in victims})


@pytest.mark.slow
def test_kill_during_load(once, register):
    """One of two workers killed under 32 callers, three times → ACTIVE again each time, and every call is answered."""
    model = register("gate", workers=2, batch_size=4)

    def call(number):
        return once.predict(model, "", request_id=f"call-{number}").output["pid"]

    with ThreadPoolExecutor(32) as threads:
        for kill in range(3):
            victim = workers(once, model)[0]
            running = os.pidfd_open(victim.pid)
            calls = [threads.submit(call, f"{kill}-{number}") for number in range(400)]
            until(lambda calls=calls: sum(one.done() for one in calls) > 50)
            os.kill(victim.pid, signal.SIGKILL)
            wait_gone(running)
            assert all(one.result() for one in calls)
            wait_back(once, model, 2, without={victim.pid})


def test_kill_of_the_running_worker(once, register, gate):
    """The worker of a running call killed → the next worker runs it, and answers."""
    model = register("gate")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(once.predict, model, gate.path)
        gate.wait_entered()
        (victim,) = workers(once, model)
        ended = os.pidfd_open(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)
        wait_gone(ended)  # and with it the reader of the gate
        gate.open()
        gate.wait_entered()
        gate.open()
        assert running.result().output["pid"] != victim.pid


def test_kill_without_a_retry(once, register, gate):
    """The same where nothing may run twice → that call is WORKER_LOST, and those that wait are answered by the next worker."""
    model = register("gate", config="onWorkerLoss: fail\n")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(once.predict, model, gate.path, request_id="lost-1")
        gate.wait_entered()
        waiting = [threads.submit(once.predict, model, "") for _ in range(5)]
        until(lambda: once.model(model).versions[0].queued_requests == 5)
        (victim,) = workers(once, model)
        os.kill(victim.pid, signal.SIGKILL)
        error = running.exception()
        gate.open()
        assert {call.result().output["pid"] for call in waiting} == {worker.pid for worker in workers(once, model)} != {victim.pid}
    assert (error.code, error.reason) == (ABORTED, "WORKER_LOST")
    assert error.metadata == {
        "model_name": model,
        "model_version": "1.0",
        "worker": str(victim.id),
        "cause": "signal 9 (SIGKILL)",
        "request_id": "lost-1",
    }


def test_idle_worker_killed(client, register, server):
    """An idle worker killed → a new one, without any call failing; the log says what happened."""
    model = register("gate")
    (victim,) = workers(client, model)
    os.kill(victim.pid, signal.SIGKILL)
    wait_back(client, model, 1, without={victim.pid})
    server.log.wait_for("worker lost", f"model={model}", f"worker={victim.id}", "signal 9 (SIGKILL)")
    assert client.predict(model, "").output["pid"] != victim.pid


def test_call_that_was_not_begun(once, register):
    """A worker killed with a call that it has not begun → the call is answered by the next worker, without an error."""
    model = register("gate")
    (victim,) = workers(once, model)
    os.kill(victim.pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(once.predict, model, "")
        os.kill(victim.pid, signal.SIGKILL)
        assert running.result().output["pid"] != victim.pid


@pytest.mark.parametrize(
    ("deed", "cause"),
    [
        ("exit", "exit code 0"),
        ("sys.exit", "exit code 7"),
        ("exit 3", "exit code 3"),
        ("exit 4", "exit code 4"),
        ("segfault", "signal 11 (SIGSEGV)"),
    ],
)
def test_handler_ends_its_process(deed, cause, once, register, server):
    """A handler that exits or crashes, also when it gets the request again → ABORTED naming how, in the log too; the next is answered."""
    model = register("misbehave")
    (victim,) = workers(once, model)
    with pytest.raises(CallError, match=re.escape(cause)) as caught:
        once.predict(model, deed, request_id=f"deed-{deed}")
    assert (caught.value.code, caught.value.reason) == (ABORTED, "POISON_REQUEST")
    told = f"{cause}: it ended by itself" if deed == "exit" else cause
    assert (caught.value.metadata["cause"], caught.value.metadata["first_cause"]) == (told, told)
    assert caught.value.metadata["first_worker"] == str(victim.id) != caught.value.metadata["worker"]
    server.log.wait_for("worker lost", f"deed-{deed}", cause)
    assert once.predict(model, "pid").output != victim.pid


def test_one_poisonous_request(once, register):
    """One of a hundred calls in batches of sixteen ends its worker → it alone fails; the others are answered."""
    code = """
import os

def handle(data, context):
    if any(row["data"] == 50 for row in data or []):
        os._exit(1)
    return [row["data"] for row in data or []]
"""
    model = register("poisoned", code=code, batch_size=16, workers=2)

    def call(number):
        try:
            return once.predict(model, number).output
        except CallError as error:
            return error.reason

    with ThreadPoolExecutor(100) as threads:
        outcomes = list(threads.map(call, range(100)))
    assert outcomes == [*range(50), "POISON_REQUEST", *range(51, 100)]


def test_hung_handler(once, register):
    """A handler that hangs → killed at the response timeout, DEADLINE_EXCEEDED saying so; the next call is answered."""
    model = register("misbehave", response_timeout=0.5)
    (victim,) = workers(once, model)
    running = os.pidfd_open(victim.pid)
    with pytest.raises(CallError, match=r"took longer than 0\.5s") as caught:
        once.predict(model, "hang", request_id="hung-1")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RESPONSE_TIMEOUT")
    assert (caught.value.metadata["worker"], caught.value.metadata["request_id"]) == (str(victim.id), "hung-1")
    wait_gone(running)
    assert once.predict(model, "pid").output != victim.pid


def test_stopped_worker(once, register):
    """A worker that the system stops → killed at the response timeout; the call it never began is answered by the next one."""
    model = register("misbehave", response_timeout=0.5)
    (victim,) = workers(once, model)
    running = os.pidfd_open(victim.pid)
    os.kill(victim.pid, signal.SIGSTOP)
    assert once.predict(model, "pid").output != victim.pid
    wait_gone(running)


def test_poison(client, once, register):
    """A handler that ends its process at every call → FAILED after five, with the cause; registered again it serves."""
    model = register("misbehave", config="minWorkers: 1\n")

    def state():
        return once.model(model).versions[0]

    for _ in range(20):
        if state().state == "FAILED":
            break
        with pytest.raises(CallError):
            once.predict(model, "exit")
    assert state().state == "FAILED"
    assert "exit code 0" in state().cause
    with pytest.raises(CallError) as caught:
        once.predict(model, "pid")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    register("misbehave", name=model)
    assert once.predict(model, "pid").output


def soon(watch):
    """Return the next status, which comes within a second."""
    asked = monotonic()
    status = next(watch).status
    assert monotonic() < asked + 1
    return status


def test_failed_model_comes_back(server, once, register, tmp_path):
    """A model that FAILED, since its workers kept ending, works again → after the cool-down it serves, and watchers hear at once."""
    broken = tmp_path / "broken"
    code = f"""
import os

def handle(data, context):
    if data and os.path.exists({str(broken)!r}):
        os._exit(1)
    return data and [row["data"] for row in data]
"""
    model = register("mended", code=code, config="coolDown: 1\nmaxRetryTimeoutInSec: 0\n")
    with grpc.insecure_channel(server.inference) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=f"models/{model}"), timeout=30)
        assert next(watch).status == SERVING
        broken.touch()
        with pytest.raises(CallError):
            once.predict(model, "x")
        assert soon(watch) == NOT_SERVING
        broken.unlink()
        until(lambda: once.model(model).versions[0].state == "ACTIVE")
        assert soon(watch) == SERVING
        watch.cancel()
    assert once.predict(model, "x").output == "x"


def test_isolated_errors(once, register):
    """A handler that isolates errors raises on batches → of 64 calls only the bad one fails."""
    code = "def handle(data, context):\n    return [1 / row['data'] for row in data or []]\n"
    model = register("dividing", code=code, batch_size=16, config="isolateErrors: true\n")

    def call(number):
        try:
            return once.predict(model, number).output
        except CallError as error:
            return error.reason

    with ThreadPoolExecutor(64) as threads:
        outcomes = list(threads.map(call, range(64)))
    assert outcomes == ["HANDLER_ERROR", *(1 / number for number in range(1, 64))]


@pytest.mark.parametrize("count", [1, 6])
def test_fork_server_killed(count, start_server, archive):
    """The fork server killed → its workers end with it, and all come back under a new one."""
    server = start_server("--workers", str(count), archive("gate"))
    with server.client() as client:
        before = {worker.pid for worker in workers(client, "gate")}
        (fork_server,) = psutil.Process(server.process.pid).children()
        fork_server.kill()
        wait_back(client, "gate", count, without=before)
        assert client.predict("gate", "").output["pid"] not in before


def test_fork_server_stuck(start_server, archive):
    """The fork server is stopped, and one of two workers killed → its call is answered by the other, and the server still ends, exit 0."""
    server = start_server("--workers", "2", archive("gate"))
    with server.client(attempts=1) as client:
        (fork_server,) = psutil.Process(server.process.pid).children()
        fork_server.suspend()
        victim = workers(client, "gate")[0]
        os.kill(victim.pid, signal.SIGKILL)
        server.log.wait_for("worker lost", f"worker={victim.id}", "the fork server does not say how")
        assert {client.predict("gate", "").output["pid"] for _ in range(10)} == {workers(client, "gate")[0].pid} != {victim.pid}
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


SPAWNING = """
import subprocess

def handle(data, context):
    for number in range(20 if data else 0):
        subprocess.Popen(["sleep", "1000"], start_new_session=number % 2 == 0)
        subprocess.run(["setsid", "--fork", "sleep", "1000"], check=True)  # nobody's child but the worker's, by adoption
    return [0 for _ in data or []]
"""


@pytest.mark.parametrize("ends", ["worker", "server", "server told to"])
def test_children_of_a_handler(ends, start_server, archive):
    """A handler has started forty processes, most of them in sessions of their own, and its worker or the server ends → so do they all."""
    server = start_server(archive("spawning", code=SPAWNING))
    (fork_server,) = psutil.Process(server.process.pid).children()
    (worker,) = fork_server.children()
    with server.client() as client:
        client.predict("spawning", "x")
        there = [os.pidfd_open(child.pid) for child in worker.children(recursive=True)]
        assert len(there) == 40
        match ends:
            case "worker":
                worker.kill()
            case "server":
                server.process.kill()
            case "server told to":
                server.process.terminate()
        for child in there:
            wait_gone(child)
        if ends == "worker":
            wait_back(client, "spawning", 1, without={worker.pid})
