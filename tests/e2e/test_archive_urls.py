"""Archives by URL, on a server whose operator allows some."""

import functools
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest
from servers import FREE_PORTS

from servegrpc.client import CallError

pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def web(archive):
    """A web server with the archive of `echo`; its URL."""
    folder = archive("echo", name="far").parent
    with HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_allowed(start_server, web, tmp_path):
    """A URL that is allowed, and one that is not → served, and refused with the setting's name; its query stays secret."""
    config = tmp_path / "servegrpc.toml"
    config.write_text(f'allowed_urls = ["{web}/far.*"]\n')
    server = start_server("--config", config, environment={"no_proxy": "127.0.0.1"})
    with server.client() as client:
        (version,) = client.register(f"{web}/far.mar?token=secret").versions
        assert version.archive == f"{web}/far.mar"
        assert client.predict("far", "hello").output == "hello"
        with pytest.raises(CallError, match="no pattern of allowed_urls matches it") as caught:
            client.register(f"{web}/near.mar?token=secret")
    assert caught.value.reason == "INVALID_ARCHIVE"
    assert server.log.lines("archive downloaded", f"archive={web}/far.mar")
    assert not server.log.lines("secret")


def test_given_at_the_start(start_server, web, tmp_path):
    """A URL is given at the start, and nothing is said of allowed ones → it is served, after a restart too; calls may register none."""
    arguments = {"environment": {"no_proxy": "127.0.0.1"}}
    start_server("--state-dir", tmp_path, f"{web}/far.mar", **arguments).stop()
    with start_server("--state-dir", tmp_path, **arguments).client() as client:
        assert client.predict("far", "hello").output == "hello"
        with pytest.raises(CallError, match="no pattern of allowed_urls matches it"):
            client.register(f"{web}/far.mar", name="further")


def test_given_at_the_start_and_not_allowed(run_cli, web, tmp_path):
    """A URL is given at the start, and others are allowed → the server does not start, and says why."""
    config = tmp_path / "servegrpc.toml"
    config.write_text('allowed_urls = ["https://models.example/.*"]\n')
    done = run_cli("serve", "--config", config, *FREE_PORTS, f"{web}/far.mar")
    assert done.returncode == 1
    assert "no pattern of allowed_urls matches it" in done.stderr


def test_bad_pattern(run_cli, tmp_path):
    """A pattern that is no regular expression → the server does not start, and names the setting."""
    config = tmp_path / "servegrpc.toml"
    config.write_text('allowed_urls = ["http://(.*"]\n')
    done = run_cli("serve", "--config", config)
    assert done.returncode == 1
    assert "allowed_urls" in done.stderr
    assert "is no regular expression" in done.stderr
