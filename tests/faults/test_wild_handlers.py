"""Handlers that do what none should: each call gets one truthful status, in time, and the next one is served."""

import grpc
import pytest

from servegrpc.client import CallError

pytestmark = pytest.mark.both_lanes

WILD = """
import ctypes
import os
import resource
import signal
import socket
import threading

def spin():
    while True:
        pass

def lock_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def sockets():
    for descriptor in range(3, 200):
        try:
            socket.socket(fileno=os.dup(descriptor)).send(b"garbage" * 5)
        except OSError:
            pass
    threading.Event().wait()

def close_all():
    os.closerange(3, 4096)
    threading.Event().wait()

def hoard():
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    return bytearray(2**40)

DEEDS = {
    "python loop": spin,
    "native loop": lambda: ctypes.PyDLL(None).pause(),
    "deadlock": lock_twice,
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "closes its socket": close_all,
    "garbage": sockets,
    "hoards": hoard,
    "kills itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
}

def handle(data, context):
    for row in data or []:
        DEEDS.get(row["data"], lambda: None)()
    return [os.getpid() for _ in data or []]
"""
TIMEOUT = (grpc.StatusCode.DEADLINE_EXCEEDED, "RESPONSE_TIMEOUT", "took longer than 1s")
PATIENCE_SECONDS = 25


@pytest.fixture
def once(server):
    """A client that tries each call once, so that every status is seen."""
    with server.client(attempts=1) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "code", "reason", "said"),
    [
        ("python loop", *TIMEOUT),
        ("native loop", *TIMEOUT),  # that holds the interpreter's lock
        ("deadlock", *TIMEOUT),
        ("stops itself", *TIMEOUT),
        ("closes its socket", grpc.StatusCode.ABORTED, "POISON_REQUEST", "closed its channel without ending"),
        ("garbage", grpc.StatusCode.ABORTED, "POISON_REQUEST", "broke the protocol"),
        ("kills itself", grpc.StatusCode.ABORTED, "POISON_REQUEST", "signal 9 (SIGKILL)"),
        ("hoards", grpc.StatusCode.INTERNAL, "HANDLER_ERROR", ""),
    ],
)
def test_deed(deed, code, reason, said, once, register):
    """A handler hangs, in Python or in native code, is stopped, breaks its channel or runs out of memory → told so; then it serves."""
    patient = deed == "closes its socket"
    model = register("wild", code=WILD, config=f"responseTimeout: {60 if patient else 1}\n")
    before = once.predict(model, "x").output
    with pytest.raises(CallError) as caught:
        once.predict(model, deed, timeout=PATIENCE_SECONDS)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert said in caught.value.message
    assert (once.predict(model, "x", timeout=PATIENCE_SECONDS).output == before) == (deed == "hoards")


@pytest.mark.parametrize("where", ["import", "initialize"])
@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os._exit(9)", "exit code 9"),
        ("os._exit(3)", "exit code 3: its handler failed to load"),
        ("os.kill(os.getpid(), 9)", "signal 9 (SIGKILL)"),
        ("ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
    ],
)
def test_death_while_loading(where, deed, said, client, once, archive):
    """A handler ends its process while it is imported or initialized → registering it fails with the cause, and the server goes on."""
    body = {
        "import": f"{deed}\ndef handle(data, context):\n    return data\n",
        "initialize": f"class H:\n    def initialize(self, context):\n        {deed}\n    def handle(self, data, context):\n        pass\n",
    }[where]
    with pytest.raises(CallError) as caught:
        once.register(str(archive("deadly", code=f"import ctypes, os\n{body}")))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    assert said in caught.value.message
    client.unregister("deadly")


@pytest.mark.parametrize(("messages", "reason"), [(0, "POISON_REQUEST"), (2, "WORKER_LOST")])
def test_death_in_a_stream(messages, reason, once, register):
    """A handler ends its process in a stream, before the first message or after two → the caller has what was sent, and is told."""
    code = """
import os

def handle(data, context):
    for part in range(data[0]["data"]):
        yield [part for _ in data]
    os._exit(1)
"""
    model = register("dying", code=code)
    got = []

    def read():
        for result in once.stream(model, messages):
            got.append(result.output)

    with pytest.raises(CallError, match="exit code 1") as caught:
        read()
    assert (got, caught.value.code, caught.value.reason) == ([*range(messages)], grpc.StatusCode.ABORTED, reason)
