"""`Client` and `AsyncClient`: one contract, run by both against a real server."""

import asyncio
import inspect
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pytest
import torch
from echo_server import echo_server

from servegrpc.client import AsyncClient, CallError, Client, HealthStatus, Model, ModelSettings, Tls
from servegrpc.client.connection import channel_options


class Threaded:
    """A Client, awaited like an AsyncClient, so that one test serves both."""

    def __init__(self, address, **kwargs):
        self.client = Client(address, management_address=address, **kwargs)

    def __getattr__(self, name):
        return lambda *args, **kwargs: asyncio.to_thread(getattr(self.client, name), *args, **kwargs)

    async def take(self, name, count, *args, **kwargs):
        """Return the first `count` items of a stream and leave it."""

        def read():
            stream = getattr(self.client, name)(*args, **kwargs)
            items = [item for _, item in zip(range(count), stream, strict=False)]
            stream.close()
            return items

        return await asyncio.to_thread(read)


class Awaited:
    """An AsyncClient with the same surface."""

    def __init__(self, address, **kwargs):
        self.client = AsyncClient(address, management_address=address, **kwargs)

    def __getattr__(self, name):
        return getattr(self.client, name)

    async def take(self, name, count, *args, **kwargs):
        stream, items = getattr(self.client, name)(*args, **kwargs), []
        async for item in stream:
            items.append(item)
            if len(items) == count:
                break
        await stream.aclose()
        return items


@pytest.fixture
def server():
    with echo_server() as running:
        yield running


@pytest.fixture(params=[Threaded, Awaited], ids=["sync", "async"])
async def connect(request, server):
    """Return a function that opens a client of either kind to the server."""
    opened = []

    def connect(address=server.address, **kwargs):
        opened.append(request.param(address, **kwargs))
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


@pytest.fixture
def client(connect):
    return connect()


async def test_predict_returns_the_whole_reply(client):
    """A prediction → its output, model, version, request id and timing."""
    reply = await client.predict("echo", {"data": {"digit": 3}}, version="2.0", request_id="r-1")
    assert reply.output == {"digit": 3}
    assert (reply.model_name, reply.model_version, reply.request_id) == ("echo", "2.0", "r-1")
    assert (reply.timing.queue_seconds, reply.timing.handler_seconds, reply.timing.batch_size) == (0.002, 1.5, 3)


async def test_inputs_of_every_kind_arrive(client):
    """Bytes, text, an array and JSON under names → the same values back."""
    output = (await client.predict("echo", {"png": b"\x89", "prompt": "hi", "mask": np.eye(2), "options": [1, None]})).output
    np.testing.assert_array_equal(output.pop("mask"), np.eye(2))
    assert output == {"png": b"\x89", "prompt": "hi", "options": [1, None]}


async def test_a_bare_value_is_the_input_data(client):
    """Inputs that are no mapping → the input "data"."""
    assert (await client.predict("echo", b"picture")).output == b"picture"


async def test_tensors_come_as_torch_when_asked(connect):
    """`tensors="torch"` → torch tensors, bfloat16 included."""
    output = (await connect(tensors="torch").predict("echo", torch.ones(2, dtype=torch.bfloat16))).output
    assert torch.equal(output, torch.ones(2, dtype=torch.bfloat16))


async def test_unsendable_input_is_refused_by_name(client, server):
    """An input of an unknown type → TypeError that names input and type; nothing is sent."""
    with pytest.raises(TypeError, match="input 'x': cannot send a value of type set"):
        await client.predict("echo", {"x": {1}})
    with pytest.raises(ValueError, match=r"input 'x': .*surrogates"):
        await client.predict("echo", {"x": "\ud800"})
    assert server.inference.calls == 0


async def test_error_details_are_read(client):
    """An error with ErrorInfo → CallError with code, reason and metadata, readable in one line."""
    with pytest.raises(CallError) as raised:
        await client.predict("missing", b"")
    error = raised.value
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.metadata == {"model_name": "missing", "models": "echo"}
    assert str(error) == 'NOT_FOUND (MODEL_NOT_FOUND): No model "missing"; models: echo.'


async def test_retry_delay_and_wrong_fields_are_read(client):
    """An error with RetryInfo and BadRequest → both in the CallError."""
    with pytest.raises(CallError) as raised:
        await client.predict("busy", b"")
    assert raised.value.retry_after_seconds == 0.25
    assert raised.value.fields == {"inputs.data": "is too long"}
    assert str(raised.value) == "RESOURCE_EXHAUSTED: 1000 requests wait already.; inputs.data: is too long; try again in 0.25 s"


async def test_metadata_of_client_and_call_are_sent(connect):
    """Metadata given to the client and to a call → both arrive."""
    reply = await connect(metadata=[("authorization", "Bearer t")]).predict("metadata", b"", metadata=[("trace", "7")])
    assert reply.output["authorization"] == "Bearer t"
    assert reply.output["trace"] == "7"


@pytest.mark.slow
async def test_unavailable_predictions_are_tried_again(client, server):
    """A prediction that is UNAVAILABLE twice, with more data than gRPC keeps by default → the third answer."""
    picture = bytes(1_000_000)
    assert (await client.predict("flaky", picture)).output == picture
    assert server.inference.calls == 3


async def test_one_attempt_means_no_retry(connect, server):
    """`attempts=1` → the first UNAVAILABLE is the answer."""
    with pytest.raises(CallError, match="UNAVAILABLE: not yet"):
        await connect(attempts=1).predict("flaky", b"")
    assert server.inference.calls == 1


def test_attempts_out_of_range_are_refused():
    """0 or 6 attempts → ValueError that gives the range."""
    for attempts in (0, 6):
        with pytest.raises(ValueError, match="give 1 to 5"):
            channel_options(1, attempts)


@pytest.mark.parametrize("how", ["client", "call"])
async def test_the_deadline_ends_a_call(connect, server, how):
    """A model slower than the timeout of the client or of the call → DEADLINE_EXCEEDED, and the server is told."""
    client = connect(timeout=0.05) if how == "client" else connect()
    with pytest.raises(CallError) as raised:
        await client.predict("slow", b"", timeout=None if how == "client" else 0.05)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await asyncio.to_thread(server.inference.left.wait, 5)


async def test_no_server_is_a_call_error(connect):
    """A port where nobody listens → CallError UNAVAILABLE."""
    with pytest.raises(CallError) as raised:
        await connect("unix:nobody-listens-here.sock", attempts=1).predict("echo", b"")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


async def test_messages_beyond_the_limit_are_refused(connect):
    """A request larger than `max_message_bytes` → RESOURCE_EXHAUSTED; without a limit it passes."""
    with pytest.raises(CallError) as raised:
        await connect(max_message_bytes=1000).predict("echo", bytes(2000))
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len((await connect(max_message_bytes=-1).predict("echo", bytes(5_000_000))).output) == 5_000_000


async def test_a_stream_gives_every_message(client):
    """A streamed result → its predictions in order, then the end."""
    assert [item.output for item in await client.take("stream", 9, "echo", "start")] == ["start", "end"]


async def test_leaving_a_stream_cancels_the_call(client, server):
    """A reader that leaves after one message → the server sees the call end."""
    assert [item.output for item in await client.take("stream", 1, "endless", "x")] == ["x"]
    assert await asyncio.to_thread(server.inference.left.wait, 5)


async def test_a_stream_ends_with_its_error(client):
    """A stream that fails → CallError with its reason."""
    with pytest.raises(CallError, match="MODEL_NOT_FOUND"):
        await client.take("stream", 9, "missing", b"")


async def test_the_client_timeout_holds_for_streams(connect):
    """A stream longer than the client's timeout → DEADLINE_EXCEEDED."""
    with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
        await connect(timeout=0.05).take("stream", 2, "endless", b"")


async def test_health_is_true_when_serving(client, server):
    """A server that serves → true; a model that does not → false; an unknown one → NOT_FOUND."""
    server.set_health("models/digits", False)
    assert await client.health()
    assert await client.health("models/digits") is HealthStatus.NOT_SERVING
    assert not await client.health("models/digits")
    with pytest.raises(CallError, match="NOT_FOUND"):
        await client.health("models/none")


async def test_wait_ready_returns_when_the_model_serves(client, server):
    """A model that becomes ready while the client waits → it returns then."""
    server.set_health("models/digits/versions/1.0", False)
    waiting = asyncio.create_task(client.wait_ready("digits", version="1.0", timeout=10))
    assert await asyncio.to_thread(server.health.watched.wait, 5)
    server.set_health("models/digits/versions/1.0", True)
    await waiting


async def test_wait_ready_tells_the_last_status(client, server):
    """A model that never becomes ready → DEADLINE_EXCEEDED that names it and its status."""
    server.set_health("models/digits", False)
    with pytest.raises(CallError, match="models/digits did not become ready in time; its last status was NOT_SERVING"):
        await client.wait_ready("digits", timeout=0.05)


async def test_wait_ready_ends_with_the_server(client, server):
    """A server that stops while the client waits → CallError UNAVAILABLE or CANCELLED at once, not at the deadline."""
    waiting = asyncio.create_task(client.wait_ready("nothing", timeout=30))
    assert await asyncio.to_thread(server.health.watched.wait, 5)
    await asyncio.to_thread(server.server.stop(0).wait)
    with pytest.raises(CallError) as raised:
        await waiting
    assert raised.value.code is not grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_registration_sends_every_setting(client, server):
    """All settings given, seconds or timedelta → in the request; the model comes back as a dataclass."""
    model = await client.register(
        "digits.mar",
        name="digits",
        handler="h.py",
        workers=0,
        batch_size=8,
        max_batch_delay=timedelta(milliseconds=5),
        response_timeout=1.5,
        startup_timeout=30,
        max_queue_size=10,
        wait=False,
    )
    request = server.management.requests[-1]
    assert (request.handler, request.HasField("workers"), request.workers, request.no_wait) == ("h.py", True, 0, True)
    version = model.versions[0]
    assert isinstance(model, Model)
    assert version.settings == ModelSettings(8, 0.005, 1.5, 30.0, 10)
    assert (version.state, version.ready_workers, version.workers[0].state) == ("ACTIVE", 1, "READY")
    assert version.workers[0].start_time == version.register_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def test_settings_not_given_stay_unset(client, server):
    """A bare registration → no setting in the request, so that the archive's count."""
    await client.register("digits.mar")
    request = server.management.requests[-1]
    assert not request.HasField("workers")
    assert not request.settings.ByteSize()


async def test_models_reads_every_page(client):
    """Five models, two a page → all five, by name."""
    for name in "edcba":
        await client.register("x.mar", name=name)
    assert [model.name for model in await client.models()] == list("abcde")


async def test_scale_and_default_return_the_model(client):
    """Scaling and a new default → the model as it is then."""
    await client.register("digits.mar")
    assert (await client.scale("digits", 3)).versions[0].target_workers == 3
    assert (await client.set_default("digits", "2.0")).default_version == "2.0"
    assert (await client.model("digits")).default_version == "2.0"


async def test_unregister_removes_the_model(client):
    """An unregistered model → gone; once more → MODEL_NOT_FOUND."""
    await client.register("digits.mar")
    assert await client.unregister("digits") is None
    with pytest.raises(CallError, match="MODEL_NOT_FOUND"):
        await client.unregister("digits")


async def test_watch_gives_events_until_the_reader_leaves(connect, server):
    """A watch, with a client timeout shorter than it → events without a deadline; the call ends when the reader leaves."""
    client = connect()
    await client.register("digits.mar")
    (event,) = await client.take("watch", 1)
    assert (event.model_name, event.state, event.target_workers, event.change_time) == ("digits", "ACTIVE", 1, None)
    assert await asyncio.to_thread(server.management.left.wait, 5)


async def test_watch_ends_at_its_timeout(client):
    """A watch with a timeout of its own → DEADLINE_EXCEEDED, though nothing has changed."""
    with pytest.raises(CallError) as raised:
        await client.take("watch", 1, timeout=0.05)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.slow
@pytest.mark.parametrize("as_path", [True, False])
async def test_tls_with_given_certificates(connect, tmp_path, as_path):
    """Root and client certificates, as bytes or paths → a call over TLS that the server accepts."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-addext", "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True)
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    pair = [(key.read_bytes(), certificate.read_bytes())]
    with echo_server(grpc.ssl_server_credentials(pair, certificate.read_bytes(), require_client_auth=True)) as server:
        tls = (
            Tls(certificate, str(key), certificate)
            if as_path
            else Tls(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
        )
        assert (await connect(server.tls_address, tls=tls).predict("echo", "secret")).output == "secret"
        with pytest.raises(CallError, match="UNAVAILABLE"):
            await connect(server.tls_address, tls=True, attempts=1).predict("echo", "secret")


def test_the_clients_have_the_same_methods():
    """Both classes → the same public methods with the same parameters."""

    def surface(client_class):
        methods = inspect.getmembers(client_class, inspect.isfunction)
        return {name: inspect.signature(method).parameters for name, method in methods if not name.startswith("_")}

    assert surface(Client) == surface(AsyncClient)
    assert inspect.signature(Client).parameters == inspect.signature(AsyncClient).parameters


async def test_leaving_the_context_closes_the_client(server):
    """`with` and `async with` → a client that works inside and is closed after."""
    with Client(server.address) as client:
        assert math.isclose(client.predict("echo", 0.5).output, 0.5)
    async with AsyncClient(server.address) as async_client:
        assert (await async_client.predict("echo", 2)).output == 2
    with pytest.raises(ValueError, match="closed"):
        client.predict("echo", 1)


@pytest.mark.slow
def test_importing_the_client_loads_nothing_heavy():
    """A fresh process that imports the client → no torch, pydantic, structlog, nor any other part of the server."""
    code = "import servegrpc.client, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "pydantic", "structlog", "yaml", "ray"} & set(loaded)
