"""Servers that are stopped or killed, and start again with the same --state-dir."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from servers import FREE_PORTS, LANES, SERVEGRPC, until

from servegrpc.client import CallError
from servegrpc.core.archiver import ArchiveSpec, write_archive

pytestmark = pytest.mark.slow

ECHO = Path(__file__).parents[1] / "handlers" / "echo.py"

SLOW_LOAD = """
class Handler:
    def initialize(self, context):
        open({path!r}).read()

    def handle(self, data, context):
        return data
"""


@pytest.fixture
def start(start_server, tmp_path):
    """Start a server with the test's state."""

    def start(*arguments, **kwargs):
        return start_server("--state-dir", tmp_path / "state", *arguments, **kwargs)

    return start


def shown(client):
    """Names, versions, workers asked for, the default."""
    return [
        (model.name, [(version.version, version.target_workers) for version in model.versions], model.default_version)
        for model in client.models()
    ]


def end(server, number):
    server.process.send_signal(number)
    server.wait()


@pytest.mark.parametrize(("number", "lane"), [(signal.SIGTERM, "on"), (signal.SIGKILL, "off")], ids=["SIGTERM", "SIGKILL"])
def test_restart(start, archive, number, lane):
    """Models were registered, scaled, made the default, unregistered, and the server ends → at the next start all is as it was."""
    server = start()
    with server.client() as client:
        for version in ("2.0", "1.0"):
            client.register(str(archive("echo", name="b", version=version)), batch_size=3)
        for name in ("a", "gone"):
            client.register(str(archive("echo", name=name)))
        client.scale("b", 2, version="1.0")
        client.scale("a", 0)
        client.set_default("b", "1.0")
        client.unregister("gone")
        before = shown(client)
    assert before == [("a", [("1.0", 0)], "1.0"), ("b", [("2.0", 1), ("1.0", 2)], "1.0")]
    end(server, number)
    server = start("--fast-lane", lane)
    assert server.ready_line.split("models=")[1].strip() == "b:2.0,b:1.0,a:1.0"
    with server.client() as client:
        assert shown(client) == before
        assert client.model("b").versions[0].settings.batch_size == 3
        assert client.predict("b", "x").output == "x"
        client.unregister("a")
    end(server, number)
    with start().client() as client:
        assert shown(client) == before[1:]


def test_killed_while_registering(start, archive, tmp_path):
    """The server is killed while a handler loads → at the next start that model is not there, the others are, and it can be registered."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    slow = archive("slow", code=SLOW_LOAD.format(path=path))
    server = start()

    def register():
        with suppress(CallError), server.client() as client:
            client.register(str(slow))

    with server.client() as client:
        client.register(str(archive("echo")))
        caller = threading.Thread(target=register)
        caller.start()
        gate = os.open(path, os.O_WRONLY)  # returns when the handler is inside
        end(server, signal.SIGKILL)
        os.close(gate)
        caller.join()
    server = start()
    with server.client() as client:
        assert [model.name for model in client.models()] == ["echo"]
        client.register(str(slow), wait=False)
        os.close(os.open(path, os.O_WRONLY))
        until(lambda: client.model("slow").versions[0].state == "ACTIVE")


@pytest.mark.parametrize("lane", LANES)
def test_killed_while_scaling_and_unregistering(start, archive, gate, lane):
    """The server is killed while one model gets a worker and another drains → at the next start the one has two, the other is gone."""
    server = start("--fast-lane", lane)

    def held(call, *arguments):
        with suppress(CallError), server.client(attempts=1) as client:
            getattr(client, call)(*arguments)

    with server.client() as client:
        for handler in ("echo", "gate"):
            client.register(str(archive(handler)))
        threads = [
            threading.Thread(target=held, args=("predict", "gate", gate.path)),
            threading.Thread(target=held, args=("unregister", "gate")),
        ]
        threads[0].start()
        gate.wait_entered()
        threads[1].start()
        until(lambda: [model.name for model in client.models()] == ["echo"])
        client.scale("echo", 2, wait=False)
        end(server, signal.SIGKILL)
        gate.open()
    for thread in threads:
        thread.join()
    with start().client() as client:
        assert shown(client) == [("echo", [("1.0", 2)], "1.0")]


def test_archive_is_gone(start, archive):
    """An archive has vanished while the server was down → the log names the model, the others are served."""
    gone, there = archive("echo", name="gone"), archive("echo", name="there")
    server = start(gone, there)
    end(server, signal.SIGTERM)
    gone.unlink()
    server = start()
    assert server.ready_line.endswith("models=there:1.0\n")
    assert server.log.wait_for("model cannot be registered again", "model=gone", "was not found")


def test_damaged_state(start, archive, tmp_path):
    """The state file is damaged → it is set aside, the log says so, and the models of the command line are served and saved."""
    end(start(archive("echo", name="old")), signal.SIGTERM)
    file = tmp_path / "state" / "servegrpc.sqlite"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2].ljust(file.stat().st_size, b"\xff"))
    server = start(archive("echo", name="new"))
    assert server.ready_line.endswith("models=new:1.0\n")
    assert server.log.wait_for("state file is damaged", "servegrpc.sqlite.damaged-1")
    end(server, signal.SIGKILL)
    assert start().ready_line.endswith("models=new:1.0\n")


def test_same_command_again(start, archive):
    """The same command starts again → its models are those of the state, with what was changed since, and not registered twice."""
    command = (f"m={archive('echo')}", "--workers", "1")
    server = start(*command)
    with server.client() as client:
        client.scale("m", 2)
    end(server, signal.SIGTERM)
    server = start(*command, archive("about"))
    assert server.ready_line.endswith("models=m:1.0,about:1.0\n")
    with server.client() as client:
        assert client.model("m").versions[0].target_workers == 2


def test_disk_full(start, archive, tmp_path):
    """The disk is full while an archive is unpacked → refused, nothing is left of it, and the server goes on; so it is after a restart."""
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(100 * 2**20)
    spec = ArchiveSpec("large", str(ECHO), "1.0", extra_files=str(large), export_path=str(tmp_path / "store"))
    limited = ("bash", "-c", 'ulimit -f 65536; exec "$0" "$@"', SERVEGRPC)  # no file may grow beyond 64 MiB
    server = start(archive("echo"), program=limited, environment={"TMPDIR": str(tmp_path)})
    with server.client() as client:
        with pytest.raises(CallError, match=r"could not be read or unpacked: File too large"):
            client.register(str(write_archive(spec)))
        assert client.predict("echo", "x").output == "x"
        assert [model.name for model in client.models()] == ["echo"]
    (unpacked,) = tmp_path.glob("servegrpc-*/*")
    assert len(list(unpacked.iterdir())) == 1
    end(server, signal.SIGKILL)
    assert start().ready_line.endswith("models=echo:1.0\n")


def test_two_servers(start, run_cli, tmp_path):
    """A second server with the same folder → refused with one line; the first serves on."""
    server = start()
    second = run_cli("serve", *FREE_PORTS, "--state-dir", tmp_path / "state")
    assert (second.returncode, second.stderr) == (1, "error: The state in --state-dir cannot be used: another server uses it.\n")
    with server.client() as client:
        assert client.models() == []
