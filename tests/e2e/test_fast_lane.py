"""The fast lane beside the public handlers: which of them serves, and what is said about it."""

import sys

import pytest

from servegrpc.frontend.self_test import fast_lane_works

WARNING = "fast lane is off"

START = """
import sys
from grpc._cython import cygrpc


def change(name, new):
    original = getattr(cygrpc, name)

    def changed(*args):
        ours = sys._getframe(1).f_globals["__name__"].startswith("servegrpc.")
        return new(original, *args) if ours else original(*args)

    setattr(cygrpc, name, changed)


def missing(original, *args):
    raise TypeError("not as it was")


{change}
from servegrpc.cli import main

main()
"""

CHANGES = {
    "no queue": 'change("CompletionQueue", missing)',
    "no calls": 'change("ReceiveMessageOperation", missing)',
    "wrong status": 'change("SendStatusFromServerOperation", lambda real, trailers, *args: real((), *args))',
}


def test_self_test():
    """The installed grpcio is tried → the fast lane works."""
    assert fast_lane_works()


def test_on(start_server, archive):
    """A server starts → without a warning."""
    server = start_server(archive("echo"))
    with server.client() as client:
        assert client.predict("echo", "x").output == "x"
    assert server.log.lines("warning") == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_grpcio_is_another(change, start_server, archive):
    """The private parts of grpcio are not what they were → one warning that says so, and the public handlers serve."""
    server = start_server(archive("echo"), program=(sys.executable, "-c", START.replace("{change}", change)))
    with server.client() as client:
        assert client.predict("echo", "x", request_id="id-1").request_id == "id-1"
    assert len(server.log.lines("warning")) == 1
    assert len(server.log.lines(WARNING, "reason=")) == 1
    server.process.terminate()
    assert server.wait() == 0
