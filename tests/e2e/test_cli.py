"""The verbs as a user runs them, against a real server."""

import json
import re

import pytest
from servers import DIGITS, FREE_PORTS, numbers

VERBS = [
    *("serve", "archive", "check", "predict", "health", "models"),
    *(f"models {verb}" for verb in ("list", "describe", "register", "scale", "set-default", "unregister", "watch")),
]


@pytest.fixture(scope="module")
def digits(client, digits_archive):
    client.register(str(digits_archive), name="digits-cli")
    yield "digits-cli"
    client.unregister("digits-cli")


@pytest.fixture
def models(run_cli, server):
    """Run `servegrpc models` against the shared server."""
    return lambda verb, *arguments: run_cli("models", verb, "--management-address", server.management, *arguments)


@pytest.fixture
def predict(run_cli, server):
    """Run `servegrpc predict` against the shared server."""
    return lambda *arguments, **kwargs: run_cli("predict", "--address", server.inference, *arguments, **kwargs)


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb, run_cli):
    """--help of every verb → what it does, and an example that begins with the verb."""
    result = run_cli(*verb.split(), "--help")
    assert result.returncode == 0
    assert re.search(rf"Examples?:\n +servegrpc {verb}", result.stdout)


def test_predict_picture(predict, digits):
    """A picture → the digit, as a line of JSON."""
    result = predict(digits, "-i", f"@{DIGITS / 'samples' / 'seven.png'}")
    assert (result.returncode, result.stderr) == (0, "")
    output = json.loads(result.stdout)
    assert (output["digit"], output["name"]) == (7, "seven")


def test_predict_whole_reply(predict, register):
    """--json → the whole reply on one line; -v → timing on stderr."""
    name = register("about")
    result = predict(name, "-i", "a=x", "-i", "b=json:[1]", "--json", "-v", "--request-id", "cli-1")
    reply = json.loads(result.stdout)
    assert reply["output"]["inputs"] == {"a": "str", "b": "list"}
    assert (reply["model_name"], reply["model_version"], reply["request_id"]) == (name, "1.0", "cli-1")
    assert re.match(rf"{name} 1\.0, request cli-1: waited .* ms, ran .* ms in a batch of 1\n", result.stderr)


def test_predict_error(predict):
    """A model that is not there → exit 1 and one line with code, reason and the models there are."""
    result = predict("nobody", "-i", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith('error: NOT_FOUND (MODEL_NOT_FOUND): There is no model "nobody"; ')
    assert result.stderr.count("\n") == 1


def test_no_server(run_cli):
    """No server at the address → exit 1 and one line saying how to start one."""
    result = run_cli("predict", "digits", "-i", "x", "--address", "127.0.0.1:1", "--timeout", "5")
    assert result.returncode == 1
    assert result.stderr == (
        "error: no server answers at 127.0.0.1:1; start one with: servegrpc serve, or name another with an option (see --help)\n"
    )


def test_wrong_port(run_cli, server):
    """The inference address where the management address belongs → exit 1 and a question that helps."""
    result = run_cli("models", "list", "--management-address", server.inference)
    assert result.returncode == 1
    assert "is it the address of another port?" in result.stderr


def test_health(run_cli, server, digits):
    """Health of the server and a model → SERVING, exit 0; of a model that is not there → exit 1."""
    for service in ((), (f"models/{digits}",)):
        result = run_cli("health", "--address", server.inference, *service)
        assert (result.returncode, result.stdout) == (0, "SERVING\n")
    assert run_cli("health", "--address", server.inference, "models/nobody").returncode == 1


def test_a_models_life(models, archive):
    """Register, list, describe, scale, another default, unregister → a table each time, exit 0."""
    name = f"cli-{next(numbers)}"
    registered = models("register", archive("echo", name=name), "--workers", "2", "--batch-size", "8")
    assert registered.returncode == 0, registered.stderr
    assert re.search(rf"^MODEL +VERSION +DEFAULT +STATE .*\n{name} +1\.0 +\* +ACTIVE +2/2 +0 +8 +cpu *$", registered.stdout, re.MULTILINE)
    assert models("register", archive("echo", name=name, version="2.0")).returncode == 0
    listed = models("list")
    assert re.search(rf"^{name} +2\.0 +ACTIVE", listed.stdout, re.MULTILINE)
    described = models("describe", name).stdout
    assert "version 1.0 from" in described
    assert models("scale", name, "1").stdout.count("1/1") == 2
    (found,) = [model for model in json.loads(models("list", "--json").stdout) if model["name"] == name]
    assert [version["version"] for version in found["versions"]] == ["1.0", "2.0"]
    assert models("set-default", name, "2.0").returncode == 0
    assert models("unregister", name, "--version", "1.0").stdout == f"unregistered {name} 1.0\n"
    assert models("unregister", name).stdout == f"unregistered {name}\n"
    gone = models("describe", name)
    assert gone.returncode == 1
    assert gone.stderr.startswith("error: NOT_FOUND (MODEL_NOT_FOUND)")


def test_register_failure(models, archive):
    """An archive whose handler fails to load → exit 1 and one line with the cause."""
    name = f"cli-{next(numbers)}"
    result = models("register", archive(name=name, code="import nothing_of_that_name\n"))
    assert result.returncode == 1
    assert "handler.py, line 1: ModuleNotFoundError" in result.stderr
    assert result.stderr.count("\n") == 1
    models("unregister", name)


def test_archive_serve_predict(run_cli, start_server, tmp_path):
    """An archive packed into a model store, served by its name under another, asked → the answer; nothing else to know."""
    handler = tmp_path / "hello.py"
    handler.write_text("def handle(data, context):\n    return [f\"hello {row['data']}\" for row in data or []]\n")
    packed = run_cli("archive", "--model-name", "hello", "--version", "3", "--handler", handler, "--export-path", tmp_path / "store")
    assert (packed.returncode, packed.stdout) == (0, f"{tmp_path / 'store' / 'hello.mar'}\n")
    server = start_server("--model-store", tmp_path / "store", "greeting=hello.mar", "--log-format", "json")
    assert " models=greeting:3" in server.ready_line
    result = run_cli("predict", "greeting", "-i", "you", "--address", server.inference)
    assert (result.returncode, result.stdout) == (0, "hello you\n")
    assert json.loads(server.log.wait_for("worker ready")[0])["model"] == "greeting"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--workers", "-1"), 2, "Invalid value for '--workers'"),
        (("nothing.mar",), 1, 'Archive "nothing.mar" was not found'),
        (("--inference-address", "here"), 1, '"here" is no address; give host:port'),
        (("--config", "nothing.toml"), 1, "nothing.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_serve_failure(arguments, code, words, run_cli, tmp_path):
    """`serve` that cannot start → exit 1, or 2 for wrong usage, and a last line that says why."""
    result = run_cli("serve", *FREE_PORTS, *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, "")
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_serve_config_file(start_server, archive, tmp_path):
    """Settings in a TOML file, one of them given on the command line too → the command line's word first."""
    config = tmp_path / "servegrpc.toml"
    config.write_text(f'models = ["{archive("echo")}"]\nworkers = 3\nlog_format = "json"\n')
    server = start_server("--config", config, "--workers", "2")
    with server.client() as client:
        assert client.model("echo").versions[0].target_workers == 2
    assert json.loads(server.log.wait_for("worker ready")[0])["event"] == "worker ready"


def test_check_says_what_is_wrong(run_cli, archive):
    """A setting of the wrong type and a handler that fails → each is told once, the exception too; exit 1."""
    path = archive("echo", name="checked", config="batchSize: many")
    result = run_cli("check", path, "-i", "other=x")
    assert result.returncode == 1
    warning = "warning: model-config.yaml, line 1: batchSize must be a whole number of at least 1, not 'many'; ignored\n"
    assert result.stderr.startswith(warning + 'error: Model "checked" version 1.0: the handler raised KeyError:')
    assert result.stderr.count("\n") == 2
