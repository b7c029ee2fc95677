"""Callers of the services that all servers have, who leave early or send what is no message."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import until

from servegrpc.compat.open_inference import infer_pb2

pytestmark = pytest.mark.slow

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_watchers_that_leave(start_server):
    """Many watch the health at once, and leave at their deadlines → the port still answers, and the server ends when told to."""
    server = start_server()
    with grpc.insecure_channel(server.inference) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def watch(number):
            with suppress(grpc.RpcError):
                list(health.Watch(health_pb2.HealthCheckRequest(service=f"{number % 3}"), timeout=0.02))

        with ThreadPoolExecutor(32) as threads:
            list(threads.map(watch, range(300)))
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    server.process.terminate()
    assert server.wait(10) == 0


def test_malformed_reflection(start_server):
    """Reflection is sent what is no message, more often than there are threads → INVALID_ARGUMENT each time, and the server ends."""
    server = start_server()
    with grpc.insecure_channel(server.inference) as channel:
        for _ in range(100):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(REFLECTION)(iter([b"\xff"]), timeout=10))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert until(lambda: list(channel.stream_stream(REFLECTION)(iter([b"\x3a\x00"]), timeout=10)))
    server.process.terminate()
    assert server.wait(10) == 0


@pytest.mark.parametrize("text", ["a\0b", "\0", "x" * 70_000], ids=["NUL inside", "NUL", "long"])
@pytest.mark.both_lanes
def test_odd_parameters(server, client, register, text):
    """A request's parameter has a NUL, or is longer than any header → it is answered, and its worker lives on."""
    model = register("told")
    request = infer_pb2.ModelInferRequest(model_name=model, raw_input_contents=[b"\1\0\0\0a"])
    request.inputs.add(name="data", datatype="BYTES", shape=[1])
    request.parameters["odd"].string_param = text
    before = client.model(model).versions[0].workers[0].pid
    with grpc.insecure_channel(server.inference) as channel:
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString(), timeout=20)
    assert text.replace("\0", "\\ufffd") in infer_pb2.ModelInferResponse.FromString(raw).raw_output_contents[0].decode()
    assert client.model(model).versions[0].workers[0].pid == before
