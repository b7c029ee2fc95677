"""What one server takes in, whatever the model: calls at once, and bytes that wait."""

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from queue import Queue

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import until

from servegrpc.client import CallError
from servegrpc.v1 import inference_pb2 as pb
from servegrpc.v1 import inference_pb2_grpc
from servegrpc.values import encode_value


@pytest.fixture
def settings():
    return "max_concurrent_calls = 3\n"


@pytest.fixture(params=["on", "off"], ids=lambda lane: f"lane_{lane}")
def server(request, settings, start_server, archive, tmp_path):
    """A server of the test's own with these settings and three models."""
    config = tmp_path / "config.toml"
    config.write_text(settings)
    models = archive("gate"), archive("gate", name="idle"), archive("sums")
    return start_server("--config", config, "--fast-lane", request.param, *models)


@pytest.fixture
def page(server):
    """Read a number of the server's metrics."""

    def page(name, **labels):
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20) as text:
            families = text_string_to_metric_families(text.read().decode())
            samples = [sample for family in families for sample in family.samples]
        return sum(one.value for one in samples if one.name == f"servegrpc_{name}" and labels.items() <= one.labels.items())

    return page


def test_calls(server, gates, page):
    """A stream's caller, a session and a call are there → a fourth call is refused, whatever its kind, until one has ended."""
    held = gates()
    with server.client() as client, ThreadPoolExecutor() as threads:
        session = client.session("sums")
        session.predict(1)
        stream = client.stream("gate", held.path)
        first = threads.submit(next, stream)
        held.wait_entered()
        waiting = threads.submit(client.predict, "gate", "")
        until(lambda: page("accepted_requests_total", model_name="gate") == 2)
        for call in (lambda: client.predict("sums", 1), lambda: next(client.stream("sums", 1)), lambda: client.session("sums").predict(1)):
            with pytest.raises(CallError, match="3 calls run, as many as this server takes") as refused:
                call()
            error = refused.value
            assert (error.code.name, error.reason, error.retry_after_seconds) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS", 1)
            assert error.metadata == {"max_concurrent_calls": "3"}
        assert page("refused_calls_total") == 3
        assert page("accepted_requests_total", model_name="sums") == 1
        held.open()
        assert first.result().output
        assert waiting.result().output
        until(lambda: client_takes(client))
        session.close()


def test_all_come_in_turn(server):
    """Many callers, who try again when they are refused → all are answered, and afterwards there is room for as many as before."""
    with server.client() as client, ThreadPoolExecutor(16) as threads:

        def call(_):
            return until(lambda: client_takes(client))

        assert all(threads.map(call, range(200)))
        sessions = [client.session("sums") for _ in range(3)]
        assert [session.predict(1).output[0] for session in sessions] == [1, 1, 1]
        for session in sessions:
            session.close()


def test_callers_who_leave(server):
    """As many callers as may hold a session and leave, again and again → their places are free each time."""
    request = pb.PredictSessionRequest(model_name="sums", inputs={"data": encode_value(1)})
    with grpc.insecure_channel(server.inference) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        def opened():
            call = stub.PredictSession(chain([request], iter(Queue().get, None)))
            try:
                next(call)
            except grpc.RpcError:
                return None
            return call

        for _ in range(4):
            calls = [until(opened) for _ in range(3)]
            assert opened() is None
            for call in calls:
                call.cancel()


@pytest.mark.parametrize("settings", ["max_queue_bytes = 100000\n"])
def test_bytes(server, gates, page):
    """The requests for one model are as large as may be → those for another are refused, when they are large, until they have gone."""
    held = gates()
    with server.client() as client, ThreadPoolExecutor() as threads:
        calls = [threads.submit(client.predict, "gate", held.path)]
        held.wait_entered()
        while page("queued_bytes", model_name="gate") < 80_000:  # one more may be with the worker
            calls.append(threads.submit(client.predict, "gate", {"data": "", "more": b"1" * 40_000}))
            until(lambda: page("accepted_requests_total", model_name="gate") == len(calls))
        with pytest.raises(CallError, match="wait already in the whole server") as refused:
            client.predict("idle", {"data": "", "more": b"1" * 40_000})
        error = refused.value
        assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert error.retry_after_seconds is not None
        assert error.metadata == {"server_max_queue_bytes": "100000", "model_name": "idle", "model_version": "1.0"}
        assert client.predict("idle", "").output
        held.open()
        assert all(call.result().output for call in calls)
        assert client.predict("idle", {"data": "", "more": b"1" * 40_000}).output
        assert page("queued_bytes", model_name="gate") == page("queued_bytes", model_name="idle") == 0


def client_takes(client):
    """Whether a call is answered, or else refused since too many run."""
    try:
        return client.predict("sums", 1).output
    except CallError as error:
        if error.reason != "TOO_MANY_CALLS":
            raise
        return None
