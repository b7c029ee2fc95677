"""`servegrpc models`, run by the command's own main against a real server."""

import json

import pytest
from click.testing import CliRunner
from echo_server import echo_server
from terminal import on_a_terminal

from servegrpc.cli import main
from servegrpc.v1 import management_pb2


@pytest.fixture
def server():
    with echo_server() as running:
        yield running


@pytest.fixture
def run(server):
    """Return a function that runs `servegrpc models` against the server."""

    def run(*arguments):
        return CliRunner(env={"SERVEGRPC_MANAGEMENT_ADDRESS": server.address}).invoke(main, ["models", *arguments])

    return run


def test_an_empty_server_says_how_to_register(run):
    """No models → nothing on stdout, the next step on stderr."""
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no models; register one with: servegrpc models register ARCHIVE\n"


def test_list_shows_a_row_for_each_version(run):
    """Registered models → a table with state, workers and device."""
    run("register", "digits.mar", "--workers", "2", "--batch-size", "8")
    run("register", "resnet.mar")
    header, *rows = [line.split() for line in run("list").stdout.splitlines()]
    assert header == ["MODEL", "VERSION", "DEFAULT", "STATE", "WORKERS", "QUEUED", "BATCH", "DEVICE"]
    assert rows == [["digits", "1.0", "*", "ACTIVE", "1/2", "0", "8", "cpu"], ["resnet", "1.0", "*", "ACTIVE", "1/1", "0", "0", "cpu"]]


def test_long_names_are_not_cut_in_a_pipe(run):
    """A long model name with stdout not a terminal → printed whole."""
    run("register", "x.mar", "--name", "n" * 120)
    assert "n" * 120 in run("list").stdout


def test_list_as_json(run):
    """--json → models as objects, times in ISO 8601."""
    run("register", "digits.mar")
    (model,) = json.loads(run("list", "--json").stdout)
    assert model["name"] == "digits"
    assert model["versions"][0]["register_time"] == "2023-11-14T22:13:20+00:00"


def test_describe_shows_settings_workers_and_cause(run, server):
    """A model that failed → its settings, workers and the cause."""
    run("register", "digits.mar", "--batch-size", "8", "--max-batch-delay", "0.005", "--max-queue-size", "50", "--response-timeout", "9")
    server.management.models["digits"].versions[0].cause = "handler.py, line 3: no such layer"
    text = run("describe", "digits").stdout
    for part in (
        "version 1.0 from digits.mar",
        "registered 2023-11-14 22:13:20 UTC",
        "batches of up to 8, filled for 0.005 s at most",
        "50 requests may wait; a batch may take 9 s",
        "failed: handler.py, line 3: no such layer",
        "77   cpu     1 MiB",
    ):
        assert part in text


def test_describe_as_json(run):
    """--json → the one model as an object."""
    run("register", "digits.mar")
    assert json.loads(run("describe", "digits", "--json").stdout)["versions"][0]["workers"][0]["pid"] == 77


def test_register_sends_its_options(run, server):
    """All options → in the request."""
    result = run(
        "register", "a.mar", "--name", "n", "--handler", "h.py", "--workers", "0", "--startup-timeout", "2.5", "--no-wait", "--json"
    )
    assert json.loads(result.stdout)["name"] == "n"
    (request,) = server.management.requests
    assert (request.handler, request.HasField("workers"), request.workers, request.no_wait) == ("h.py", True, 0, True)
    assert request.settings.startup_timeout.ToMilliseconds() == 2500
    assert not request.settings.HasField("batch_size")


def test_scale_and_set_default_print_the_model(run):
    """Scaling and a new default → the table as it is then."""
    run("register", "digits.mar")
    assert "1/3" in run("scale", "digits", "3").stdout
    assert json.loads(run("set-default", "digits", "2.0", "--json").stdout)["default_version"] == "2.0"


def test_unregister_says_what_is_gone(run, server):
    """A version unregistered → said so, and gone."""
    run("register", "digits.mar")
    assert run("unregister", "digits", "--version", "1.0").stdout == "unregistered digits 1.0\n"
    assert server.management.models == {}


def test_watch_prints_a_line_for_each_change(run, server):
    """Events → lines with time, workers and cause; --json → an object a line."""
    event = management_pb2.WatchModelsResponse(
        model_name="digits", model_version="1.0", state=management_pb2.MODEL_STATE_FAILED, target_workers=2, cause="out of memory"
    )
    event.change_time.FromSeconds(1_700_000_000)
    server.management.events = [event]
    assert run("watch").stdout == "22:13:20 digits 1.0 FAILED, 0/2 workers: out of memory\n"
    assert json.loads(run("watch", "digits", "--json").stdout)["state"] == "FAILED"


@pytest.mark.parametrize("arguments", [["describe", "x"], ["scale", "x", "1"], ["set-default", "x", "1"], ["unregister", "x"]])
def test_an_unknown_model_fails(run, arguments):
    """A model that is not there → exit code 1 and the server's message."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (1, 'error: NOT_FOUND (MODEL_NOT_FOUND): No model "x"; models: echo.\n')


@pytest.mark.parametrize("arguments", [["scale", "x", "-1"], ["register"], ["register", "a", "--batch-size", "0"]])
def test_wrong_usage_is_exit_code_2(run, arguments):
    """Arguments that cannot be → exit code 2."""
    assert run(*arguments).exit_code == 2


@pytest.mark.slow
def test_a_missing_server_is_told_with_the_remedy(run):
    """Nobody at the address → exit code 1 and how to start a server."""
    result = run("list", "--management-address", "unix:nobody-listens-here.sock")
    assert result.exit_code == 1
    assert "start one with: servegrpc serve" in result.stderr


@pytest.mark.parametrize("verb", ["list", "describe", "register", "scale", "set-default", "unregister", "watch"])
def test_help_has_an_example(run, verb):
    """--help of every verb → an example and the variable that sets the address."""
    text = run(verb, "--help").stdout
    assert f"  servegrpc models {verb}" in text
    assert "SERVEGRPC_MANAGEMENT_ADDRESS" in text


@pytest.mark.slow
def test_a_terminal_shows_for_how_long_a_model_loads(server):
    """Register with stderr a terminal → what it waits for and the time so far; stdout has the table alone."""
    stdout, seen = on_a_terminal("models", "register", "digits.mar", SERVEGRPC_MANAGEMENT_ADDRESS=server.address)
    assert stdout.startswith(b"MODEL")
    assert b"Loading digits.mar" in seen
    assert b"0:00:0" in seen
