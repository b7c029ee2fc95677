"""The numbers that Prometheus gets: those of what was sent."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import FREE_PORTS, until

from servegrpc.client import CallError

pytestmark = pytest.mark.both_lanes


@pytest.fixture
def once(server):
    with server.client(attempts=1) as client:
        yield client


def test_requests_by_code(once, register, numbers_of):
    """Calls succeed and fail → each is counted once, under its code, with its times and the size of its batch."""
    model = register("echo")
    for _ in range(5):
        once.predict(model, "x")
    for _ in range(2):
        with pytest.raises(CallError):
            once.predict(model, {"other": "x"})
    with pytest.raises(CallError):
        once.predict(model, {})
    numbers = numbers_of(model)
    requests = {key[1]: value for key, value in numbers.items() if key[0] == "requests_total"}
    assert requests == {"OK": 5, "INTERNAL": 2, "INVALID_ARGUMENT": 1}
    assert [numbers[f"{name}_count"] for name in ("request_seconds", "queue_seconds", "batch_size")] == [8, 8, 8]
    assert 0 < numbers["queue_seconds_sum"] < numbers["request_seconds_sum"] < 60
    assert numbers["batch_size_sum"] == 8


def test_batches_and_queue(once, register, gate, numbers_of):
    """Calls wait behind a running one → they are counted as queued, and then as one batch."""
    model = register("gate", batch_size=4)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(once.predict, model, gate.path)
        gate.wait_entered()
        waiting = [threads.submit(once.predict, model, "") for _ in range(3)]
        until(lambda: numbers_of(model)["queued_requests"] == 3)
        gate.open()
        for call in (running, *waiting):
            call.result()
    numbers = numbers_of(model)
    assert numbers["queued_requests"] == 0
    assert (numbers["batch_size_count"], numbers["batch_size_sum"]) == (2, 4)
    assert [numbers["batch_size_bucket", bound] for bound in ("1", "2", "4", "+Inf")] == [1, 1, 2, 2]


def test_workers(once, register, numbers_of):
    """Workers are asked for, lost and come back → target, ready workers, state and losses say so."""
    model = register("echo", workers=2)
    numbers = numbers_of(model)
    assert (numbers["target_workers"], numbers["workers", "READY"], numbers["worker_losses_total"]) == (2, 2, 0)
    os.kill(once.model(model).versions[0].workers[0].pid, signal.SIGKILL)
    until(lambda: numbers_of(model)["worker_losses_total"] == 1)
    until(lambda: numbers_of(model)["workers", "READY"] == 2)
    once.scale(model, 0)
    until(lambda: numbers_of(model)["workers", "STOPPING"] == 0)
    numbers = numbers_of(model)
    assert (numbers["target_workers"], numbers["workers", "READY"], numbers["worker_losses_total"]) == (0, 0, 1)
    assert {key[1] for key, value in numbers.items() if key[0] == "model_state" and value} == {"ACTIVE"}


def test_lost_requests(once, register, numbers_of):
    """A worker ends with a request → the request is counted as ABORTED."""
    model = register("misbehave")
    with pytest.raises(CallError):
        once.predict(model, "exit")
    assert numbers_of(model)["requests_total", "ABORTED"] == 1


def test_unregistered(once, register, numbers_of):
    """A model is unregistered → its numbers are gone."""
    model = register("echo")
    assert numbers_of(model)
    once.unregister(model)
    assert numbers_of(model) == {}


@pytest.mark.parametrize("handler", ["echo", "steps", "later"], ids=["batches", "steps", "asynchronous"])
def test_prediction_time(once, register, numbers_of, handler):
    """A call of the handler, however it works → TorchServe's gauge PredictionTime, in milliseconds."""
    model = register(handler)
    once.predict(model, {"data": "x", "count": 1})
    time = until(lambda: numbers_of(model).get(("PredictionTime", "Model", model, "Milliseconds")))
    assert 0 < time < 20_000


def test_no_metrics(start_server):
    """--metrics-address "" → none are served."""
    assert start_server("--metrics-address", "").metrics == ""


def test_metrics_port_in_use(server, run_cli):
    """A metrics port that another server has, or no address → exit 1 and one line naming it."""
    for address in (server.metrics, "nowhere"):
        result = run_cli("serve", *FREE_PORTS, "--gpus", "0", "--metrics-address", address)
        assert result.returncode == 1
        assert re.search(rf"error: .*{re.escape(address)}", result.stderr.splitlines()[-1])
        assert "Traceback" not in result.stderr
