"""Archives over HTTP, from a server on this machine."""

import io
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from servegrpc.core.archive import open_archive
from servegrpc.core.download import Downloads
from servegrpc.errors import ArchiveNotFound, InvalidArchive


def mar():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "far", "handler": "handler.py"}}')
    return buffer.getvalue()


class Answers(BaseHTTPRequestHandler):
    """What the paths below give."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/moved.mar":
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.end_headers()
        elif path in ("/far.mar", "/cut.mar", "/huge.mar", "/unsaid.mar"):
            self.send_response(200)
            lengths = {"/far.mar": len(mar()), "/cut.mar": len(mar()) + 100, "/huge.mar": 2**40}
            if path in lengths:
                self.send_header("Content-Length", str(lengths[path]))
            self.end_headers()
            self.wfile.write(mar())
        else:
            self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def web():
    """A server on a free port; `base` is its URL."""
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.base = f"http://127.0.0.1:{server.server_port}"
        server.leads_to = "/far.mar"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def open_url(web, tmp_path):
    def open_url(path, allowed=None, **kwargs):
        downloads = Downloads([f"{web.base}/.*"] if allowed is None else allowed, **kwargs)
        return open_archive(web.base + path, store=None, unpack_root=tmp_path / "unpacked", downloads=downloads, max_unpacked_bytes=10**6)

    return open_url


def left(tmp_path):
    return list((tmp_path / "unpacked").iterdir()) if (tmp_path / "unpacked").exists() else []


@pytest.mark.parametrize("path", ["/far.mar", "/unsaid.mar", "/moved.mar"], ids=["plain", "length not told", "redirected"])
def test_downloaded(path, open_url, tmp_path):
    """An allowed URL → the archive, opened; of the download nothing stays."""
    archive = open_url(path)
    assert (archive.model_name, archive.unpacked) == ("far", True)
    assert left(tmp_path) == [archive.folder]


def test_secrets_are_not_shown(open_url, web):
    """A URL with a query → downloaded with it, and shown without."""
    assert open_url("/far.mar?signature=secret").source == f"{web.base}/far.mar"


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/gone.mar", ArchiveNotFound, "could not be downloaded: the server answered 404 Not Found"),
        ("/cut.mar", ArchiveNotFound, "could not be downloaded: the connection ended after"),
        ("/huge.mar", InvalidArchive, "is larger than 1000000 bytes"),
        ("/a/../far.mar", InvalidArchive, r'must not contain "\.\."'),
    ],
)
def test_refused(path, error, words, open_url, tmp_path):
    """What is not there, breaks off or is too large → an error that says so, and nothing left."""
    with pytest.raises(error, match=words):
        open_url(path)
    assert left(tmp_path) == []


def test_not_allowed(open_url):
    """A URL that a pattern matches only in part → refused, without asking the server."""
    with pytest.raises(InvalidArchive, match="no pattern of allowed_urls matches it"):
        open_url("/far.mar", allowed=[r"http://127\.0\.0\.1"])


def test_redirected_elsewhere(open_url, web, monkeypatch):
    """A redirect from an allowed URL to one that is not → refused."""
    monkeypatch.setattr(web, "leads_to", f"http://localhost:{web.server_port}/far.mar")
    with pytest.raises(InvalidArchive, match=r'"http://localhost:\d+/far\.mar" is not downloaded'):
        open_url("/moved.mar")


def test_no_server(tmp_path):
    """A port where nobody listens → ArchiveNotFound saying so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ArchiveNotFound, match="could not be downloaded: Connection refused"):
        open_archive(f"http://127.0.0.1:{port}/m.mar", store=None, unpack_root=tmp_path, downloads=Downloads([".*"]))


def test_server_stops(open_url, tmp_path):
    """The server is told to stop → the download ends at the next bytes, and nothing is left."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(ArchiveNotFound, match="the server is stopping"):
        open_url("/far.mar", stop=stop)
    assert left(tmp_path) == []
