"""The access log: one line per call, from either lane."""

import re
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from servers import LANES, until

from servegrpc.client import CallError
from servegrpc.v1 import inference_pb2 as pb
from servegrpc.v1 import inference_pb2_grpc
from servegrpc.values import encode_value

LINE = re.compile(r"(\S+Z) /servegrpc\.v1\.(\w+/\w+) model=(\S*) code=([A-Z_]+) ms=(\d+\.\d\d) request_id=(\S*)\n")


@pytest.fixture(params=LANES)
def logging_server(request, start_server, archive, tmp_path):
    """A server that logs to `tmp_path / "access.log"`, with an echo and a gate."""
    return start_server("--fast-lane", request.param, "--access-log", tmp_path / "access.log", archive("echo"), archive("gate"))


@pytest.fixture
def stop_and_read(logging_server, tmp_path):
    """End the server; returns the lines it has written, as (method, model, code, request id), without the given methods."""

    def stop_and_read():
        logging_server.stop()
        lines = (tmp_path / "access.log").read_text().splitlines(keepends=True)
        parts = [LINE.fullmatch(line) for line in lines]
        assert all(parts), lines
        return [part.group(2, 3, 4, 6) for part in parts if part.group(2).startswith("Inference")]

    return stop_and_read


def fails(client, *args, **kwargs):
    with pytest.raises(CallError):
        client.predict(*args, **kwargs)


def test_each_call_has_a_line(logging_server, stop_and_read):
    """Calls succeed, fail in the handler, and are refused → a line each, with model, code and request id."""
    with logging_server.client(attempts=1) as client:
        client.predict("echo", "x", request_id="good")
        fails(client, "echo", {"other": "x"}, request_id="raises")
        fails(client, "echo", {}, request_id="empty")
        fails(client, "nobody", "x", request_id="unknown")
        fails(client, "", "x", request_id="nameless")
        list(client.stream("echo", "x", request_id="streamed"))
        made = client.predict("echo", "x").request_id
    lines = stop_and_read()
    nameless = lines.pop(next(index for index, line in enumerate(lines) if not line[1]))
    assert nameless[:3] == ("InferenceService/Predict", "", "INVALID_ARGUMENT")
    assert sorted(lines) == sorted(  # lines of calls that follow at once may change places: a line is written after its reply
        [
            ("InferenceService/Predict", "echo", "OK", "good"),
            ("InferenceService/Predict", "echo", "INTERNAL", "raises"),
            ("InferenceService/Predict", "echo", "INVALID_ARGUMENT", "empty"),
            ("InferenceService/Predict", "nobody", "NOT_FOUND", "unknown"),
            ("InferenceService/PredictStream", "echo", "OK", "streamed"),
            ("InferenceService/Predict", "echo", "OK", made),
        ]
    )


@pytest.mark.slow
def test_many_calls(logging_server, stop_and_read):
    """640 calls from 32 threads, the server ended right after → 640 lines, none twice."""
    names = [f"call-{number}" for number in range(640)]
    with logging_server.client() as client, ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda name: client.predict("echo", "x", request_id=name), names))
    assert sorted(line[3] for line in stop_and_read()) == sorted(names)


@pytest.mark.parametrize(("timeout", "code"), [(None, "CANCELLED"), (1.0, "DEADLINE_EXCEEDED")])
def test_gone_while_waiting(timeout, code, logging_server, stop_and_read, gate):
    """A caller leaves while its request waits, of its own or at its deadline → its line says which."""
    with logging_server.client() as client, grpc.insecure_channel(logging_server.inference) as channel, ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, "gate", gate.path, request_id="running")
        gate.wait_entered()
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.PredictRequest(model_name="gate", inputs={"data": encode_value("")}, request_id="left")
        left = stub.Predict.future(request, timeout=timeout)
        until(lambda: client.model("gate").versions[0].queued_requests == 1)
        if timeout is None:
            left.cancel()
        until(lambda: client.model("gate").versions[0].queued_requests == 0)
        gate.open()
        running.result()
    lines = stop_and_read()
    assert sorted(line[1:] for line in lines) == [("gate", code, "left"), ("gate", "OK", "running")]


def test_left_while_running(logging_server, stop_and_read, gates, tmp_path):
    """A caller leaves, and another's deadline passes, while their requests run → their lines say so, at once."""
    cancelled, late = gates(), gates()
    with grpc.insecure_channel(logging_server.inference) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        def ask(gate, request_id, timeout=None):
            request = pb.PredictRequest(model_name="gate", inputs={"data": encode_value(gate.path)}, request_id=request_id)
            call = stub.Predict.future(request, timeout=timeout)
            gate.wait_entered()
            return call

        def logged(request_id):
            return f"request_id={request_id}\n" in (tmp_path / "access.log").read_text()

        ask(cancelled, "left").cancel()
        until(lambda: logged("left"))
        cancelled.open()
        with pytest.raises(grpc.RpcError):
            ask(late, "late", timeout=0.3).result()
        until(lambda: logged("late"))
        late.open()
    lines = stop_and_read()
    assert sorted(line[1:] for line in lines) == [("gate", "CANCELLED", "left"), ("gate", "DEADLINE_EXCEEDED", "late")]


def test_too_large(start_server, archive, tmp_path):
    """A message is over the limit → no line: gRPC has ended the call, and the server knows nothing of it."""
    server = start_server("--access-log", tmp_path / "access.log", "--max-message-bytes", 100_000, archive("echo"))
    with server.client(attempts=1) as client:
        fails(client, "echo", b"x" * 200_000)
        client.predict("echo", "x", request_id="next")
    server.stop()
    lines = [line for line in (tmp_path / "access.log").read_text().splitlines() if "/Predict " in line]
    assert [line.rpartition("request_id=")[2] for line in lines] == ["next"]


def test_standard_error(start_server, archive):
    """--access-log - → the lines are on standard error."""
    server = start_server("--access-log", "-", archive("echo"))
    with server.client() as client:
        client.predict("echo", "x", request_id="here")
    server.log.wait_for("InferenceService/Predict", "model=echo", "code=OK", "request_id=here")


def test_management_calls(start_server, tmp_path):
    """A management call → it has a line too."""
    server = start_server("--access-log", tmp_path / "access.log")
    with server.client() as client:
        client.models()
    server.stop()
    assert "/servegrpc.v1.ManagementService/ListModels model= code=OK" in (tmp_path / "access.log").read_text()
