"""The number of a model's workers follows its load, on a real server."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from servegrpc.v1 import management_pb2, management_pb2_grpc

CONFIG = "minWorkers: 1\nmaxWorkers: 2\n"


@pytest.fixture(scope="module")
def management(server):
    with grpc.insecure_channel(server.management) as channel:
        yield management_pb2_grpc.ManagementServiceStub(channel)


def bounds(model):
    (version,) = model.versions
    return version.min_workers, version.target_workers, version.max_workers


@pytest.mark.slow
def test_grows(client, register, gates, server):
    """Requests wait for the only worker for a few seconds → there is a second one, which takes them; the log says so."""
    model = register("gate", config=CONFIG)
    held, other = gates(), gates()
    with ThreadPoolExecutor(3) as threads, closing(client.watch(model)) as events:
        calls = [threads.submit(client.predict, model, gate.path) for gate in (held, other)]
        held.wait_entered()
        next(event for event in events if event.target_workers == 2)
        other.wait_entered()
        held.open()
        other.open()
        assert len({call.result().output["pid"] for call in calls}) == 2
    assert server.log.wait_for("workers scaled", f"model={model}", "target=2", "before=1")


def test_bounds_by_command(client, register, server, run_cli):
    """Bounds are given by the Python client, then by `servegrpc models scale` → the model has them."""
    name = register("echo", workers=1, max_workers=2)
    assert bounds(client.model(name)) == (1, 1, 2)
    assert bounds(client.scale(name, 1, max_workers=3)) == (1, 1, 3)
    options = ("--max-workers", "4", "--management-address", server.management)
    assert run_cli("models", "scale", name, "1", *options).returncode == 0
    assert bounds(client.model(name)) == (1, 1, 4)


def test_bounds_by_call(management, register, archive):
    """A caller gives both bounds when registering or scaling → they are shown; scaling without the upper one fixes the number."""
    name = register("echo")
    assert bounds(management.GetModel(management_pb2.GetModelRequest(model_name=name)).model) == (1, 1, 1)
    scale = management_pb2.ScaleModelRequest(model_name=name, workers=0, max_workers=3)
    assert bounds(management.ScaleModel(scale).model) == (0, 0, 3)
    scale = management_pb2.ScaleModelRequest(model_name=name, workers=1)
    assert bounds(management.ScaleModel(scale).model) == (1, 1, 1)
    management.UnregisterModel(management_pb2.UnregisterModelRequest(model_name=name))
    path = str(archive("echo", config=CONFIG))
    made = management.RegisterModel(management_pb2.RegisterModelRequest(archive=path, model_name=name, workers=1, max_workers=3))
    assert bounds(made.model) == (1, 1, 3)


def test_upper_bound_too_low(management, register):
    """The upper bound is below the lower → INVALID_ARGUMENT naming the field."""
    scale = management_pb2.ScaleModelRequest(model_name=register("echo"), workers=2, max_workers=1)
    with pytest.raises(grpc.RpcError, match=r"max_workers must not be less than workers \(2\), and is 1"):
        management.ScaleModel(scale)
