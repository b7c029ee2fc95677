"""What a notebook shows of the client."""

from datetime import UTC, datetime

import pytest
from echo_server import echo_server

from servegrpc.client import AsyncClient, Client
from servegrpc.client.notebook import LARGE_BYTES
from servegrpc.client.results import Model, Models, ModelSettings, ModelVersion, Worker

SETTINGS = ModelSettings(8, 0.0, 120.0, 120.0, 1000)
WORKERS = (Worker(1, "READY", 7, "cuda:0", None, 0), Worker(2, "STARTING", 0, "cuda:1", None, 0))


def version(name, state="ACTIVE", **kwargs):
    values = {"cause": "", "archive": "a.mar", "register_time": datetime.now(UTC), "settings": SETTINGS, "target_workers": 2}
    return ModelVersion(name, state, **{**values, "workers": WORKERS, "queued_requests": 3, "min_workers": 2, "max_workers": 2, **kwargs})


@pytest.fixture
def server():
    with echo_server() as running:
        yield running


@pytest.fixture
def terminal(monkeypatch):
    """Make rich take standard error for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")


def test_models_are_a_table():
    """Two models → a row for each version: its state, workers and devices, and the default version bold."""
    models = Models([Model("digits", "2.0", (version("1.0"), version("2.0"))), Model("chat", "1.0", (version("1.0"),))])
    rows = models._repr_html_().split("<tr>")[2:]
    assert len(rows) == 3
    assert rows[0].startswith("<td>digits</td><td>1.0</td><td>ACTIVE</td><td>1 of 2</td><td>3</td><td>8</td><td>cuda:0, cuda:1</td>")
    assert "<b>2.0</b>" in rows[1]


def test_models_are_readable_in_a_terminal():
    """Models, printed → for each its versions with state and workers, and none of the settings."""
    shown = repr(Models([Model("digits", "2.0", (version("1.0", "FAILED", workers=()), version("2.0")))]))
    assert shown == "[<Model digits: 1.0 FAILED 0 of 2 workers, 2.0 (default) ACTIVE 1 of 2 workers>]"


def test_slice_of_models_is_a_table():
    """Some of the models → a table too, with just these."""
    models = Models([Model(name, "1.0", (version("1.0"),)) for name in ("a", "b", "c")])
    assert [model.name for model in models[1:]] == ["b", "c"]
    assert models[1:]._repr_html_().count("<tr>") == 3


def test_texts_are_escaped():
    """A cause with an angle bracket → it is text in the table, not HTML."""
    shown = Model("digits", "1.0", (version("1.0", "FAILED", cause="handler.py: <Handler> is missing"),))._repr_html_()
    assert "&lt;Handler&gt;" in shown


def test_client_lists_a_table(server):
    """`models()` of a client → a list, which a notebook shows as a table."""
    with Client(server.address, management_address=server.address) as client:
        models = client.models()
    assert isinstance(models, list)
    assert models._repr_html_().count("<tr>") == 1 + sum(len(model.versions) for model in models)


def test_client_names_its_server():
    """A client, shown → both of its addresses."""
    with Client("127.0.0.1:1", management_address="127.0.0.1:2") as client:
        assert repr(client) == "Client('127.0.0.1:1', management_address='127.0.0.1:2')"


async def test_async_client_names_its_server():
    """An AsyncClient, shown → both of its addresses."""
    async with AsyncClient("127.0.0.1:1") as client:
        assert repr(client) == "AsyncClient('127.0.0.1:1', management_address='127.0.0.1:7071')"


def test_session_names_its_model():
    """A session, shown → its model, and the version when one was asked for."""
    with Client("127.0.0.1:1") as client:
        assert repr(client.session("digits")) == "Session('digits')"
        assert repr(client.session("digits", version="2.0")) == "Session('digits', version='2.0')"


async def test_async_session_names_its_model():
    """The same of an AsyncClient → the same."""
    async with AsyncClient("127.0.0.1:1") as client, client.session("digits") as session:
        assert repr(session) == "AsyncSession('digits')"


def test_large_request_is_shown(server, terminal, capsys):
    """A request of 2 MiB with `progress` → its model and size on standard error while it runs."""
    with Client(server.address, progress=True) as client:
        client.predict("echo", bytes(2 * LARGE_BYTES))
    assert "echo: 2.0 MiB" in capsys.readouterr().err


async def test_large_request_of_async_client_is_shown(server, terminal, capsys):
    """The same from an AsyncClient → the same."""
    async with AsyncClient(server.address, progress=True) as client:
        await client.predict("echo", bytes(2 * LARGE_BYTES))
    assert "echo: 2.0 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "progress"), [(100, True), (2 * LARGE_BYTES, False)])
def test_nothing_else_is_shown(server, terminal, capsys, size, progress):
    """A small request, or no `progress` → nothing."""
    with Client(server.address, progress=progress) as client:
        client.predict("echo", bytes(size))
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_without_a_terminal(server, capfd):
    """A large request with `progress`, into a file or pipe → nothing, not even an empty line."""
    with Client(server.address, progress=True) as client:
        client.predict("echo", bytes(2 * LARGE_BYTES))
    assert capfd.readouterr() == ("", "")


def test_large_request_of_a_stream_is_shown(server, terminal, capsys):
    """The same from a stream → the line until its first message, and no longer."""
    with Client(server.address, progress=True) as client:
        messages = client.stream("echo", bytes(2 * LARGE_BYTES))
        next(messages)
        shown = capsys.readouterr().err
        list(messages)
    assert "echo: 2.0 MiB" in shown
    assert capsys.readouterr().err == ""


async def test_large_request_of_an_async_stream_is_shown(server, terminal, capsys):
    """The same from an AsyncClient → the same."""
    async with AsyncClient(server.address, progress=True) as client:
        messages = client.stream("echo", bytes(2 * LARGE_BYTES))
        await anext(messages)
        assert "echo: 2.0 MiB" in capsys.readouterr().err
        await messages.aclose()
    assert capsys.readouterr().err == ""


def test_large_requests_of_a_session_are_shown(server, terminal, capsys):
    """Two from a session → a line for each, though only the first names the model."""
    with Client(server.address, progress=True) as client, client.session("echo") as session:
        for _ in range(2):
            session.predict(bytes(2 * LARGE_BYTES))
            assert "echo: 2.0 MiB" in capsys.readouterr().err


async def test_large_request_of_an_async_session_is_shown(server, terminal, capsys):
    """The same from an AsyncClient → the same."""
    async with AsyncClient(server.address, progress=True) as client, client.session("echo") as session:
        await session.predict(bytes(2 * LARGE_BYTES))
        assert "echo: 2.0 MiB" in capsys.readouterr().err
