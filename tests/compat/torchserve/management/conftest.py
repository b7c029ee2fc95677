"""A server with a model store, for the tests of TorchServe's management service."""

import shutil

import pytest
from servers import Servers, numbers


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    """A server with a model store, of this module's own: it lists models, and nobody else's."""
    servers = Servers()
    yield servers("--model-store", store)
    servers.stop()


@pytest.fixture
def put(archive, store):
    """Write an archive into the store; returns a model's name and the archive's."""

    def put(handler="echo", *, name=None, **kwargs):
        name = name or f"{handler}-{next(numbers)}"
        file = f"{name}-{kwargs.get('version', '1.0')}.mar"
        shutil.copy(archive(handler, name=name, **kwargs), store / file)
        return name, file

    return put


@pytest.fixture
def registered(torchserve, put):
    """Register a handler with TorchServe's call; returns the model's name. All models are gone after the test."""

    def registered(handler="echo", *, workers=1, fields=None, **kwargs):
        name, file = put(handler, **kwargs)
        torchserve.manage("RegisterModel", url=file, initial_workers=workers, synchronous=True, **(fields or {}))
        return name

    return registered


@pytest.fixture(autouse=True)
def _clean(server):
    yield
    with server.client() as client:
        for model in client.models():
            client.unregister(model.name)
