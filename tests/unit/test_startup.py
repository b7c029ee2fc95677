"""The models of the start, with the fake engine and real archives."""

import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from servegrpc.core.download import Downloads
from servegrpc.core.registration import Registration
from servegrpc.core.startup import load_models
from servegrpc.core.state import StateStore
from servegrpc.errors import ArchiveNotFound, Draining, ModelLoadFailed, VersionExists

SECONDS = 20  # that a wait may take at most


def load(manager, *archives, skip_registered=False, skip_failed=False, default=""):
    registrations = [Registration(archive, make_default=archive == default) for archive in archives]
    return load_models(manager, registrations, skip_registered=skip_registered, skip_failed=skip_failed)


def versions(loaded):
    return [(version.name, version.version) for version in loaded]


class Late(BaseHTTPRequestHandler):
    """Gives version 1.0 of `digits`, with the handler that the path names, when `server.may` is set."""

    def do_GET(self):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "digits", "handler": self.path[1:]}}))
        assert self.server.may.wait(SECONDS)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(buffer.getvalue())

    def log_message(self, *args):
        pass


@pytest.fixture
def late(make_manager, monkeypatch):
    """A manager, and the URL under which there is version 1.0 of `digits` as soon as there is 3.0."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Late) as server:
        server.may = threading.Event()
        manager = make_manager(downloads=Downloads(["http://.*"]))
        manager.changes.listen(lambda change: change.model_version == "3.0" and server.may.set())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield manager, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("handler", ["echo.py", "broken.py"])
def test_the_first_is_there_last(late, stored, handler):
    """The first archive of a model is there after the second → it is the default all the same, also when it cannot load."""
    manager, url = late
    load(manager, f"{url}/{handler}", stored(version="3.0"), skip_failed=True)
    model = manager.registry.model("digits")
    assert (list(model.versions)[-1], model.default_version) == ("1.0", "1.0")


def test_one_asks_to_be_the_default(manager, stored):
    """A later version of the list asks to be the default → it is."""
    archives = [stored(version=number) for number in ("1.0", "2.0", "3.0")]
    assert versions(load(manager, *archives, default=archives[1])) == [("digits", "1.0"), ("digits", "2.0"), ("digits", "3.0")]
    assert manager.registry.model("digits").default_version == "2.0"


def test_saved_models(make_manager, stored, tmp_path):
    """Models were saved, and are listed too, with others → each is there once, the saved default stays."""
    archives = [stored(version=number) for number in ("1.0", "2.0", "3.0")]
    for listed in archives[:2], archives:
        state = StateStore(tmp_path / "state")
        manager = make_manager(state=state)
        loaded = load(manager, *reversed(listed), skip_registered=True)
        if len(listed) == 2:
            manager.set_default("digits", "1.0")
        state.close()
    assert sorted(versions(loaded)) == [("digits", "1.0"), ("digits", "2.0"), ("digits", "3.0")]
    assert manager.registry.model("digits").default_version == "1.0"


@pytest.mark.parametrize("skip", ["skip_registered", "skip_failed"])
def test_the_same_twice(manager, stored, skip):
    """A version is listed twice → one is served when such models are skipped, else the start fails."""
    archive = stored()
    assert versions(load(manager, archive, archive, **{skip: True})) == [("digits", "1.0")]
    with pytest.raises(VersionExists):
        load(manager, archive)


@pytest.mark.parametrize(("bad", "error"), [("none.mar", ArchiveNotFound), ("broken.py", ModelLoadFailed)])
def test_one_that_fails(manager, stored, bad, error):
    """An archive is not there, or cannot be loaded → the others are served when such models are skipped, else the start fails."""
    archives = [stored(name="bad", handler=bad) if bad == "broken.py" else bad, stored()]
    with pytest.raises(error):
        load(manager, *archives, skip_registered=True)
    manager.unregister("digits")
    assert versions(load(manager, *archives, skip_failed=True)) == [("digits", "1.0")]


def test_stopped_before_it_is_opened(manager):
    """The server stops while models are loaded → archives that were not opened yet never are: even one that is not there is refused so."""
    manager.close()
    with pytest.raises(Draining, match="registers no more models"):
        load(manager, "none.mar")
