"""ManagementService through a real server."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from servers import numbers, until

from servegrpc.client import CallError
from servegrpc.v1 import management_pb2 as pb
from servegrpc.v1 import management_pb2_grpc

BROKEN = "def handle(data, context):\n    raise RuntimeError('no weights')\n"
FINE = "def handle(data, context):\n    return ['fine'] * len(data or [])\n"


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.management) as channel:
        yield management_pb2_grpc.ManagementServiceStub(channel)


def events_until(events, state):
    """Read a watch up to the first event of a state; returns the states seen."""
    seen = []
    for event in events:
        seen.append(event.state)
        if event.state == state:
            return seen
    raise AssertionError(f"the watch ended; seen: {seen}")


def test_register(client, register):
    """An archive with settings of its own and others in the call → ACTIVE, the call's word first, the archive's next."""
    name = register("echo", config="batchSize: 4\nresponseTimeout: 7\n", batch_size=8, max_batch_delay=0.01, workers=2)
    model = client.model(name)
    version = model.versions[0]
    assert (model.name, model.default_version, version.version, version.state) == (name, "1.0", "1.0", "ACTIVE")
    assert (version.ready_workers, version.target_workers) == (2, 2)
    settings = version.settings
    assert (settings.batch_size, settings.max_batch_delay_seconds, settings.response_timeout_seconds) == (8, 0.01, 7)
    assert len({worker.pid for worker in version.workers}) == 2
    assert all(worker.device == "cpu" and worker.resident_memory_bytes > 2**20 for worker in version.workers)


def test_register_twice(client, archive):
    """The same version again → ALREADY_EXISTS naming it; the first one serves on."""
    name = f"twice-{next(numbers)}"
    path = str(archive("echo", name=name))
    client.register(path)
    with pytest.raises(CallError, match=f'"{name}" version 1.0 is registered already') as caught:
        client.register(path)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VERSION_EXISTS")
    assert client.predict(name, "x").output == "x"
    client.unregister(name)


def test_register_after_failed(client, archive, register):
    """A version that failed to load, registered again from a sound archive → ACTIVE."""
    name = f"mended-{next(numbers)}"
    with pytest.raises(CallError) as caught:
        register(name=name, code=BROKEN)
    assert caught.value.reason == "MODEL_LOAD_FAILED"
    assert client.model(name).versions[0].state == "FAILED"
    register(name=name, code=FINE)
    assert client.predict(name, "x").output == "fine"


def test_register_no_wait(client, register):
    """No wait → back while LOADING; a watch tells when it is ACTIVE."""
    name = f"later-{next(numbers)}"
    events = client.watch(name)
    register("echo", name=name, wait=False)
    seen = events_until(events, "ACTIVE")
    assert set(seen) == {"LOADING", "ACTIVE"}
    events.close()


def test_watch_of_unregister(client, register):
    """A model unregistered under a watch → the state now, then DRAINING and UNLOADED."""
    name = register("echo")
    events = client.watch(name)
    first = next(events)
    assert (first.model_name, first.state, first.ready_workers, first.target_workers) == (name, "ACTIVE", 1, 1)
    client.unregister(name)
    seen = events_until(events, "UNLOADED")
    assert seen[-2:] == ["DRAINING", "UNLOADED"]
    events.close()


def test_watch_of_failure(client, register):
    """A model that fails to load under a watch → FAILED with the cause."""
    name = f"broken-{next(numbers)}"
    events = client.watch(name)
    register(name=name, code=BROKEN, wait=False)
    failed = next(event for event in events if event.state == "FAILED")
    assert failed.cause == "handler.py, line 2: RuntimeError: no weights"
    events.close()


def test_scale(client, register):
    """Scale to 3, then 1 → that many workers, the older ones staying."""
    name = register("gate")
    (first,) = client.model(name).versions[0].workers
    scaled = client.scale(name, 3).versions[0]
    assert (scaled.ready_workers, len(scaled.workers)) == (3, 3)
    (left,) = client.scale(name, 1).versions[0].workers
    assert left.pid == first.pid


def test_scale_to_zero_and_back(client, register):
    """Scale to 0 → registered, ACTIVE, and refusing with NO_WORKERS; back to 1 → served again."""
    name = register("echo")
    emptied = client.scale(name, 0).versions[0]
    assert (emptied.state, emptied.workers) == ("ACTIVE", ())
    with pytest.raises(CallError, match="scale it to at least 1") as caught:
        client.predict(name, "x")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKERS")
    client.scale(name, 1)
    assert client.predict(name, "x").output == "x"


def test_scale_to_zero_finishes_what_it_has(client, register, gate):
    """Scale to 0 while one call runs and others wait → all of them are answered, then the workers are gone."""
    name = register("gate")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, name, gate.path)
        gate.wait_entered()
        waiting = [threads.submit(client.predict, name, "") for _ in range(3)]
        until(lambda: client.model(name).versions[0].queued_requests == 3)
        client.scale(name, 0, wait=False)
        gate.open()
        assert len({call.result().output["pid"] for call in (running, *waiting)}) == 1
    until(lambda: not client.model(name).versions[0].workers)


def test_unregister_drains(client, register, gate):
    """Unregister while a call runs → new calls are refused at once, the running one succeeds, then it is gone."""
    name = register("gate")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, name, gate.path)
        gate.wait_entered()
        leaving = threads.submit(client.unregister, name)
        until(lambda: name not in {model.name for model in client.models()})
        with pytest.raises(CallError) as caught:
            client.predict(name, "x")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
        assert not leaving.done()
        gate.open()
        assert running.result().output["pid"]
        leaving.result()
    with pytest.raises(CallError) as caught:
        client.unregister(name)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


def test_unregister_no_wait(client, register, gate):
    """Unregister without waiting → back while the call still runs; it succeeds."""
    name = register("gate")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(client.predict, name, gate.path)
        gate.wait_entered()
        client.unregister(name, wait=False)
        assert not running.done()
        gate.open()
        assert running.result().output["pid"]


def test_unregister_default(client, register):
    """The default version while others are there → refused; another made the default first → gone."""
    name = register("about", version="1")
    register("about", name=name, version="2")
    with pytest.raises(CallError, match="set another default first") as caught:
        client.unregister(name, "1")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEFAULT_VERSION")
    client.set_default(name, "2")
    client.unregister(name, "1")
    assert [version.version for version in client.model(name).versions] == ["2"]


def test_list_pages(stub, register):
    """Pages of one → every model once, sorted, by tokens that are not names; none after the last page."""
    names = [register("echo", workers=0) for _ in range(3)]
    found, token = [], ""
    while True:
        page = stub.ListModels(pb.ListModelsRequest(page_size=1, page_token=token))
        found += [model.name for model in page.models]
        token = page.next_page_token
        if not token:
            break
        assert token not in found
    assert found == sorted(found)
    assert set(names) <= set(found)
    assert found == [model.name for model in stub.ListModels(pb.ListModelsRequest()).models]


def test_list_pages_with_changes(stub, client, register):
    """A model unregistered between two pages → no other is skipped."""
    gone, following = (register("echo", name=f"pages-{place}", workers=0) for place in "ab")
    listed = [model.name for model in stub.ListModels(pb.ListModelsRequest()).models]
    token = stub.ListModels(pb.ListModelsRequest(page_size=listed.index(gone) + 1)).next_page_token
    client.unregister(gone)
    assert stub.ListModels(pb.ListModelsRequest(page_size=1, page_token=token)).models[0].name == following


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ListModels", pb.ListModelsRequest(page_token="digits!"), "page_token"),
        ("ListModels", pb.ListModelsRequest(page_size=-1), "page_size"),
        ("RegisterModel", pb.RegisterModelRequest(), "archive"),
        ("GetModel", pb.GetModelRequest(), "model_name"),
        ("UnregisterModel", pb.UnregisterModelRequest(), "model_name"),
        ("ScaleModel", pb.ScaleModelRequest(workers=1), "model_name"),
        ("SetDefaultVersion", pb.SetDefaultVersionRequest(model_name="x"), "model_version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_field(method, request_, field, stub):
    """A field that cannot be → INVALID_ARGUMENT naming it."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in caught.value.details()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"workers": -1}, "workers"),
        ({"workers": 5000}, "workers"),
        ({"batch_size": 0}, "settings.batch_size"),
        ({"response_timeout": 0}, "settings.response_timeout"),
        ({"max_queue_size": 0}, "settings.max_queue_size"),
    ],
    ids=str,
)
def test_wrong_setting(settings, field, client, archive):
    """A setting out of its range → INVALID_ARGUMENT naming the field, and nothing is registered."""
    path = archive("echo", name="never")
    with pytest.raises(CallError) as caught:
        client.register(str(path), **settings)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(caught.value.fields) == [field]
    assert "never" not in {model.name for model in client.models()}


def test_scale_wrong(client, register):
    """Scaling to fewer than none, a model or a version that is not there → each its own error; the model serves on."""
    name = register("echo")
    for arguments, reason in [((name, -1), "INVALID_INPUT"), (("nobody", 1), "MODEL_NOT_FOUND")]:
        with pytest.raises(CallError) as caught:
            client.scale(*arguments)
        assert caught.value.reason == reason
    with pytest.raises(CallError, match=r"versions: 1\.0") as caught:
        client.scale(name, 1, version="9")
    assert caught.value.reason == "VERSION_NOT_FOUND"
    assert client.predict(name, "x").output == "x"
