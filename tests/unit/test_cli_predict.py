"""`servegrpc predict` and `servegrpc health`, run by the command's own main against a real server."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from echo_server import echo_server

from servegrpc.cli import main


@pytest.fixture(scope="module")
def server():
    with echo_server() as running:
        yield running


@pytest.fixture
def run(server):
    """Return a function that runs the command against the server, found by the environment."""

    def run(*arguments, stdin=None, address=server.address):
        return CliRunner(env={"SERVEGRPC_ADDRESS": address}).invoke(main, arguments, input=stdin)

    return run


def test_text_is_printed_as_it_is(run):
    """A bare value → the text input "data"; a text result as it is."""
    assert run("predict", "echo", "-i", "hello").stdout == "hello\n"


def test_json_is_printed_as_json(run):
    """A JSON input → the result as JSON on one line."""
    assert run("predict", "echo", "-i", 'json:{"a": [1, null, "é"]}').stdout == '{"a": [1, null, "é"]}\n'


def test_long_results_are_indented(run):
    """A result longer than a line → JSON over several lines."""
    output = run("predict", "echo", "-i", f"json:{json.dumps({'words': ['servegrpc'] * 20})}").stdout
    assert output.count("\n") > 20
    assert len(json.loads(output)["words"]) == 20


def test_named_inputs_keep_their_names(run):
    """NAME=VALUE, also with = in the value, and text: with = → inputs by those names."""
    result = run("predict", "echo", "-i", "prompt=a=b", "-i", "n=json:3", "-i", "t=text:json:4")
    assert json.loads(result.stdout) == {"prompt": "a=b", "n": 3, "t": "json:4"}
    assert run("predict", "echo", "-i", "text:a=b").stdout == "a=b\n"


def test_files_are_sent_as_bytes(run, tmp_path):
    """@FILE → its bytes, which come back into --output."""
    picture, back = tmp_path / "a=b.png", tmp_path / "back"
    picture.write_bytes(b"\x89\0")
    assert run("predict", "echo", "-i", f"@{picture}", "--output", str(back)).exit_code == 0
    assert back.read_bytes() == b"\x89\0"


def test_standard_input_is_sent_as_bytes(run):
    """@- → what comes on stdin; --json → the whole reply, bytes as base64."""
    reply = json.loads(run("predict", "echo", "-i", "@-", "--json", "--version", "2", "--request-id", "r", stdin=b"hi").stdout)
    assert (reply["output"], reply["model_version"], reply["request_id"]) == ("aGk=", "2", "r")
    assert reply["timing"] == {"queue_seconds": 0.002, "handler_seconds": 1.5, "batch_size": 3}


def test_npy_files_are_tensors(run, tmp_path):
    """@FILE.npy → a tensor, printed as lists, or written to --output as .npy."""
    array = np.arange(4, dtype=np.float32).reshape(2, 2)
    np.save(tmp_path / "a.npy", array)
    assert run("predict", "echo", "-i", f"@{tmp_path}/a.npy").stdout == "[[0.0, 1.0], [2.0, 3.0]]\n"
    run("predict", "echo", "-i", f"@{tmp_path}/a.npy", "--output", f"{tmp_path}/b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), array)


def test_large_results_are_described(run, tmp_path):
    """A large array and bytes → their size, and how to get them."""
    np.save(tmp_path / "a.npy", np.zeros((20, 30)))
    result = json.loads(
        run("predict", "echo", "-i", f"a=@{tmp_path}/a.npy", "-i", f"b=@{tmp_path}/a.npy", "-i", "c=@-", stdin=b"xyz").stdout
    )
    assert result["a"].startswith("float64 array of shape [20, 30]; --output")
    assert result["c"].startswith("3 bytes; --output")


def test_streams_are_printed_message_by_message(run):
    """--stream → texts as they come, and a line's end after the last one."""
    assert run("predict", "echo", "-i", "start", "--stream").stdout == "startend\n"


def test_verbose_tells_version_and_timing(run):
    """-v → version, request and timing on stderr, the result alone on stdout."""
    result = run("predict", "echo", "-i", "x", "-v", "--request-id", "r-7")
    assert result.stdout == "x\n"
    assert result.stderr == "echo 1.0, request r-7: waited 2.0 ms, ran 1500.0 ms in a batch of 3\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [("json:{", "Expecting property name"), ("@{}/empty.npy", "No data left"), ("@{}/complex.npy", "array of complex128")],
)
def test_wrong_inputs_are_usage_errors(run, tmp_path, value, message):
    """An input that cannot be read or sent → exit code 2 and why."""
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "complex.npy", np.zeros(1, complex))
    result = run("predict", "echo", "-i", value.replace("{}", str(tmp_path)))
    assert result.exit_code == 2
    assert message in result.stderr


def test_stream_into_a_file_is_a_usage_error(run):
    """--stream with --output → exit code 2."""
    assert run("predict", "echo", "-i", "x", "--stream", "--output", "f").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["missing", "-i", "x"], 'error: NOT_FOUND (MODEL_NOT_FOUND): No model "missing"; models: echo.'),
        (["missing", "-i", "x", "--stream"], 'error: NOT_FOUND (MODEL_NOT_FOUND): No model "missing"; models: echo.'),
        (["echo", "-i", "@no-such-file"], "error: no-such-file: No such file or directory"),
        (["slow", "-i", "x", "--timeout", "0.05"], "error: no answer from {} in time; some commands take a longer --timeout"),
    ],
)
def test_failures_are_one_line(run, server, arguments, line):
    """A call that fails → exit code 1 and one line that says why."""
    result = run("predict", *arguments)
    assert result.exit_code == 1
    assert result.stderr == line.format(server.address) + "\n"


@pytest.mark.slow
def test_a_missing_server_is_told_with_the_remedy(run):
    """Nobody at the address → exit code 1, the address and how to start a server."""
    for command in (["predict", "echo", "-i", "x", "--timeout", "1"], ["health"]):
        result = run(*command, address="unix:nobody-listens-here.sock")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: no server answers at unix:nobody-listens-here.sock; start one with: servegrpc serve")


def test_tls_to_a_plain_server_is_told(run):
    """--tls where the server has none → a line about certificates."""
    result = run("health", "--tls")
    assert result.exit_code == 1
    assert "no server with a trusted certificate answers" in result.stderr


def test_a_method_the_port_lacks_is_told(run, server):
    """A server without the method → a line that asks about the port."""
    result = run("predict", "unimplemented", "-i", "x")
    assert "does not offer this" in result.stderr


def test_health_of_a_server_and_its_models(run, server):
    """Serving → SERVING, 0; a model that does not → NOT_SERVING, 1; an unknown one → 1 and where to look."""
    server.set_health("models/digits", False)
    assert (run("health").stdout, run("health").exit_code) == ("SERVING\n", 0)
    assert (run("health", "models/digits").stdout, run("health", "models/digits").exit_code) == ("NOT_SERVING\n", 1)
    unknown = run("health", "models/none")
    assert (unknown.exit_code, unknown.stderr) == (1, 'error: the server knows no "models/none"; see: servegrpc models list\n')


@pytest.mark.parametrize("verb", ["predict", "health"])
def test_help_has_an_example_and_the_environment(run, verb):
    """--help → an example that starts with the verb, and the variable that sets the address."""
    text = run(verb, "--help").stdout
    assert f"  servegrpc {verb}" in text
    assert "SERVEGRPC_ADDRESS" in text
