"""grpc.health.v1 of a real server, its models and their versions."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import until

from servegrpc.client import CallError

SERVICES = ("", "servegrpc.v1.InferenceService", "servegrpc.v1.ManagementService")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


@pytest.fixture(params=["inference", "management"])
def health(request, server):
    """A stub on each of the two ports."""
    with grpc.insecure_channel(getattr(server, request.param)) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def check(health, service):
    return health.Check(health_pb2.HealthCheckRequest(service=service)).status


@pytest.mark.parametrize("service", SERVICES)
def test_server(service, health):
    """The server and each service, on both ports → SERVING."""
    assert check(health, service) == SERVING


def test_unknown(health):
    """A service that is not there → NOT_FOUND."""
    with pytest.raises(grpc.RpcError) as caught:
        check(health, "models/nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_list(health, client, register):
    """List → every service, model and version, with its status."""
    serving, empty = register("echo"), register("echo")
    client.scale(empty, 0)
    until(lambda: check(health, f"models/{empty}") == NOT_SERVING)
    statuses = {name: one.status for name, one in health.List(health_pb2.HealthListRequest()).statuses.items()}
    expected = dict.fromkeys((*SERVICES, f"models/{serving}", f"models/{serving}/versions/1.0"), SERVING)
    expected |= dict.fromkeys((f"models/{empty}", f"models/{empty}/versions/1.0"), NOT_SERVING)
    assert statuses.items() >= expected.items()


@pytest.mark.parametrize("suffix", ["", "/versions/1.0"])
def test_watch(suffix, health, client, register):
    """A watch of a model, or a version, through scaling and its end → SERVING, NOT_SERVING, SERVING, then unknown."""
    name = register("echo")
    until(lambda: check(health, f"models/{name}{suffix}") == SERVING)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=f"models/{name}{suffix}"))
    assert next(watch).status == SERVING
    client.scale(name, 0)
    assert next(watch).status == NOT_SERVING
    client.scale(name, 1)
    assert next(watch).status == SERVING
    client.unregister(name)
    left = next(watch).status
    assert (next(watch).status if left == NOT_SERVING else left) == SERVICE_UNKNOWN
    watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        check(health, f"models/{name}{suffix}")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("number", ["1", "2"])
def test_version(number, client, register):
    """Two versions, one without workers → each has its own status; the model has that of its default, the first."""
    name = register("about", version="1")
    register("about", name=name, version="2")
    client.scale(name, 0, version=number)
    until(lambda: not client.health(f"models/{name}/versions/{number}"))
    assert client.health(f"models/{name}/versions/{3 - int(number)}")
    until(lambda: bool(client.health(f"models/{name}")) == (number == "2"))


def test_default_version(client, register):
    """Two versions, the default without workers → the model is as its default; another default → as that one."""
    name = register("about", version="1")
    register("about", name=name, version="2")
    client.scale(name, 0, version="1")
    until(lambda: not client.health(f"models/{name}/versions/1"))
    assert client.health(f"models/{name}/versions/2")
    assert not client.health(f"models/{name}")
    client.set_default(name, "2")
    until(lambda: client.health(f"models/{name}"))


def test_failed(client, register):
    """A model that failed to load → NOT_SERVING; the server is SERVING."""
    with pytest.raises(CallError):
        register(name="health-failed", code="import nothing_of_that_name\n")
    assert not client.health("models/health-failed")
    assert client.health()


def test_drain(start_server, archive, gate):
    """A server that drains while a call runs → NOT_SERVING first, then the call's result, then the end."""
    server = start_server(archive("gate"))
    with grpc.insecure_channel(server.inference) as channel, server.client() as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        running = client.stream("gate", gate.path)
        gate.wait_entered()
        server.process.terminate()
        assert next(watch).status == NOT_SERVING
        gate.open()
        assert next(running).output["pid"]
        running.close()
        watch.cancel()
    assert server.wait() == 0
