"""`servegrpc serve` with TorchServe's configuration: a config.properties, its options, its variables, its snapshots."""

import json
import os
import shutil
import subprocess
import threading

import grpc
import pytest
from servers import Servers

from servegrpc.client import CallError, Tls
from servegrpc.compat.torchserve import inference_pb2

pytestmark = pytest.mark.slow

PORTS = """
grpc_inference_port=0
grpc_management_port=0
metrics_address=http://127.0.0.1:0
number_of_gpu=0
default_workers_per_model=1
"""
CONFIG = f"""{PORTS}
model_store=$$STORE$$
load_models=echo.mar,second=echo.mar,about.mar,environment=environment.mar,nothing.mar
models={{\\
  "echo": {{"1.0": {{"minWorkers": 1, "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 20, "responseTimeout": 7}}}}\\
}}
default_response_timeout=30
job_queue_size=9
enable_envvars_config=true
max_request_size=100000
blacklist_env_vars=HIDDEN_.*
install_py_dep_per_model=false
netty_client_threads=8
cors_allowed_origin=*
no_such_key=1
"""
ENVIRONMENT_HANDLER = """
import os

def handle(data, context):
    return [sorted(name for name in os.environ if name.startswith(("HIDDEN_", "SHOWN_"))) for _ in data or []]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory, archive):
    """A model store with a few archives."""
    folder = tmp_path_factory.mktemp("store")
    for path in (archive("echo"), archive("about"), archive("environment", code=ENVIRONMENT_HANDLER)):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory, store):
    """Start a server in a folder of its own, where these files are; returns it and the folder."""
    servers = Servers()

    def start(*arguments, files=None, environment=None):
        folder = tmp_path_factory.mktemp("cwd")
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return servers(*arguments, ports=(), cwd=folder, environment={"STORE": str(store), **(environment or {})}), folder

    yield start
    servers.stop()


@pytest.fixture(scope="module")
def configured(start):
    """A server started from the file above, and its folder."""
    environment = {"TS_JOB_QUEUE_SIZE": "8", "HIDDEN_KEY": "x", "SHOWN_KEY": "x"}
    return start("--ts-config", "config.properties", files={"config.properties": CONFIG}, environment=environment)


def tokens(folder):
    content = json.loads((folder / "key_file.json").read_text())
    return {port: content[port]["key"] for port in ("inference", "management")}


def client_of(configured, port="inference"):
    server, folder = configured
    return server.client(metadata=(("authorization", f"Bearer {tokens(folder)[port]}"),), attempts=1)


def refusal(call, *arguments, **kwargs):
    with pytest.raises(CallError) as refused:
        call(*arguments, **kwargs)
    return refused.value.code, refused.value.reason


def test_models(configured):
    """load_models names archives, other names, and one that is not there → those there are served, the other is told in the log."""
    server, _ = configured
    assert server.ready_line.split("models=")[1].strip() == "echo:1.0,second:1.0,about:1.0,environment:1.0"
    assert server.log.wait_for("model cannot be loaded", "nothing.mar")
    with client_of(configured) as client:
        assert client.predict("second", "x").output == "x"


def test_warning(configured):
    """Keys have no effect → one warning names them with the reason, and no other key."""
    server, _ = configured
    (line,) = server.log.wait_for("settings without effect")
    for words in ("netty_client_threads: HTTP is not served", "cors_allowed_origin: HTTP", "no_such_key: it is no key of TorchServe"):
        assert words in line
    assert line.count(": ") == 3


def test_settings(configured):
    """Settings come from the JSON of `models`, the defaults and a variable → each number from who goes first."""
    with client_of(configured, "management") as client:
        echo, about = (client.model(name).versions[0].settings for name in ("echo", "about"))
    assert (echo.batch_size, echo.max_batch_delay_seconds, echo.response_timeout_seconds, echo.max_queue_size) == (4, 0.02, 7, 8)
    assert (about.batch_size, about.max_batch_delay_seconds, about.response_timeout_seconds, about.max_queue_size) == (1, 0, 30, 8)


def test_blocked_variables(configured):
    """Variables are in blacklist_env_vars → workers do not see them, but the others."""
    with client_of(configured) as client:
        assert client.predict("environment", "").output == ["SHOWN_KEY"]


def test_request_size(configured):
    """A request is larger than max_request_size → RESOURCE_EXHAUSTED."""
    with client_of(configured) as client:
        assert refusal(client.predict, "echo", b"x" * 200_000)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        client.predict("echo", b"x" * 90_000)


def test_tokens(configured):
    """Nothing is said of tokens → each port asks for its own; health does not."""
    denied = (grpc.StatusCode.PERMISSION_DENIED, "TOKEN_REFUSED")
    server, _ = configured
    with server.client(attempts=1) as client:
        assert refusal(client.predict, "echo", "x") == denied
        assert refusal(lambda: list(client.stream("echo", "x"))) == denied
        assert refusal(client.models) == denied
        assert client.health()
    with client_of(configured) as client:
        assert client.predict("echo", "x").output == "x"
        assert refusal(client.models) == denied
    with client_of(configured, "management") as client:
        assert client.models()
        assert refusal(client.predict, "echo", "x") == denied


TORCHSERVE = "org.pytorch.serve.grpc"
REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


def ending(address, method, raw=b"", metadata=()):
    """Code and text of a call that fails; the request is given as bytes."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(f"/{TORCHSERVE}.{method}")(raw, metadata=metadata, timeout=20)
    return failed.value.code(), failed.value.details()


@pytest.fixture(scope="module")
def without_lane(start, store):
    text = f"{PORTS}model_store={store}\nload_models=echo.mar\n"
    return start("--ts-config", "ts.properties", "--fast-lane", "off", files={"ts.properties": text})


@pytest.mark.parametrize("started", ["configured", "without_lane"])
def test_refusals_of_torchserves_services(started, request):
    """TorchServe's services are called without a token, or to register → TorchServe's code and text, on the fast lane and without."""
    server, folder = request.getfixturevalue(started)
    predictions = inference_pb2.PredictionsRequest(model_name="echo", input={"data": b"x"}).SerializeToString()
    denied = (grpc.StatusCode.PERMISSION_DENIED, REFUSED)
    assert ending(server.inference, "inference.InferenceAPIsService/Predictions", predictions) == denied
    assert ending(server.inference, "inference.InferenceAPIsService/Ping") == denied
    assert ending(server.management, "management.ManagementAPIsService/ListModels") == denied
    metadata = [("authorization", f"Bearer {tokens(folder)['management']}")]
    code, text = ending(server.management, "management.ManagementAPIsService/RegisterModel", metadata=metadata)
    assert (code, text) == (denied[0], "Model API disabled\norg.pytorch.serve.archive.model.ModelException")
    metadata = [("authorization", f"Bearer {tokens(folder)['inference']}")]
    with grpc.insecure_channel(server.inference) as channel:
        predict = channel.unary_unary(f"/{TORCHSERVE}.inference.InferenceAPIsService/Predictions")
        assert predict(predictions, metadata=metadata, timeout=20)


def test_new_token(configured, run_cli):
    """A new key is made for a port → it is taken at once, the old one no more."""
    _, folder = configured
    with client_of(configured) as old:
        old.predict("echo", "x")
        made = run_cli("token", "inference", cwd=folder)
        assert made.stdout.strip() == tokens(folder)["inference"]
        assert refusal(old.predict, "echo", "x")[1] == "TOKEN_REFUSED"
    with client_of(configured) as new:
        new.predict("echo", "x")


def test_token_of_a_command(configured, run_cli):
    """A command gets the key by option or variable → served; without one → one line that says what is missing."""
    server, folder = configured
    command = ("predict", "second", "-i", "x", "--address", server.inference)
    assert run_cli(*command, "--token", tokens(folder)["inference"]).stdout == "x\n"
    variables = {**os.environ, "SERVEGRPC_MANAGEMENT_TOKEN": tokens(folder)["management"]}
    assert run_cli("models", "list", "--management-address", server.management, env=variables).returncode == 0
    refused = run_cli(*command)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "takes no call without a valid --token" in refused.stderr
    assert run_cli("health", "--address", server.inference).stdout == "SERVING\n"


def test_model_api(configured, archive):
    """Nothing is said of the model API → models are not registered or unregistered by calls, but scaled."""
    denied = (grpc.StatusCode.PERMISSION_DENIED, "MODEL_API_DISABLED")
    with client_of(configured, "management") as client:
        assert refusal(client.register, str(archive("gate"))) == denied
        assert refusal(client.unregister, "about") == denied
        client.scale("about", 2)
        client.scale("about", 1)


def test_options(start, store):
    """No file, but TorchServe's options → they say it all; those without effect are named."""
    server, folder = start(
        *("--model-store", store, "--models", "all", "--ncs", "--disable-token-auth", "--enable-model-api", "--foreground", "--start"),
        *("--log-config", "log4j2.xml", "--inference-address", "127.0.0.1:0", "--management-address", "127.0.0.1:0"),
        *("--metrics-address", "", "--workers", "1", "--gpus", "0"),
    )
    assert server.ready_line.split("models=")[1].strip() == "about:1.0,echo:1.0,environment:1.0"
    assert "log_config: logs go to standard error" in server.log.wait_for("settings without effect")[0]
    with server.client() as client:
        client.unregister("about")
    assert not (folder / "key_file.json").exists()


SNAPSHOT = {
    "name": "20261123065047854-shutdown.cfg",
    "models": {
        "echo": {"1.0": {"defaultVersion": False, "marName": "echo.mar", "minWorkers": 2, "maxWorkers": 3, "batchSize": 5}},
        "about": {"1.0": {"defaultVersion": True, "marName": "about.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1}},
    },
}


def test_snapshot(start, store):
    """TorchServe left a snapshot in logs/config and an option of TorchServe is given → its models and numbers are served."""
    text = f"{PORTS}model_store={store}\nload_models=all\nmodel_snapshot={json.dumps(SNAPSHOT)}\ntsConfigFile=config.properties\n"
    files = {"logs/config/20261123065047854-shutdown.cfg": text, "config.properties": "number_of_gpu=no number"}
    server, _ = start("--disable-token-auth", files=files)
    assert "20261123065047854-shutdown.cfg" in server.log.wait_for("TorchServe's configuration")[0]
    with server.client() as client:
        assert [(model.name, model.versions[0].target_workers) for model in client.models()] == [("about", 1), ("echo", 2)]
        assert client.model("echo").versions[0].settings.batch_size == 5


def test_files_of_the_working_folder(start, store):
    """Files of the working folder have the names of archives, or `all` → what is in the model store goes before them."""
    text = f"{PORTS}model_store={store}\nload_models=second=about.mar,All\ndisable_token_authorization=true\n"
    files = {"config.properties": text, "about.mar": "", "echo.mar": "", "all": "", "All": ""}
    server, _ = start("--ts-config", "config.properties", files=files)
    assert server.ready_line.split("models=")[1].strip() == "second:1.0,about:1.0,echo:1.0,environment:1.0"


BARE_HANDLER = """
def handle(data, context):
    return [{"row": type(row).__name__, "limit": context.system_properties["limit_max_image_pixels"]} for row in data or []]
"""


def test_converted(start, tmp_path, run_cli):
    """An archive without a manifest, and defaults for it → served under its file's name; from the converted file just the same."""
    (tmp_path / "bare.model").mkdir()
    (tmp_path / "bare.model" / "own.py").write_text(BARE_HANDLER)
    text = f"{PORTS}model_store={tmp_path}\nload_models=all\nenable_model_api=true\ndisable_token_authorization=true\n"
    text += "default_service_handler=own.py\nservice_envelope=body\nlimit_max_image_pixels=false\n"
    (tmp_path / "config.properties").write_text(text)
    converted = run_cli("config", "convert", tmp_path / "config.properties")
    assert converted.returncode == 0
    (tmp_path / "servegrpc.toml").write_text(converted.stdout)
    for option in ("--ts-config", "config.properties"), ("--config", "servegrpc.toml"):
        server, _ = start(option[0], tmp_path / option[1])
        assert server.ready_line.endswith("models=bare:1.0\n")
        with server.client() as client:
            output = client.predict("bare", {"body": "x"}).output
            assert output == {"row": "str", "limit": False}  # the envelope took the body out of its row
            client.unregister("bare")


@pytest.fixture(scope="module")
def by_variable(start, store):
    text = f"{PORTS}model_store={store}\nload_models=echo.mar\ndisable_token_authorization=true\n"
    text += "grpc_inference_max_connection_age_ms=500\n"
    server, _ = start(files={"ts.properties": text}, environment={"TS_CONFIG_FILE": "ts.properties"})
    return server


def test_variable_names_the_file(by_variable):
    """TS_CONFIG_FILE is set and no option is given → that file is read."""
    assert by_variable.ready_line.endswith("models=echo:1.0\n")


def test_connection_age(by_variable):
    """Connections may get half a second old → the server asks the client to make a new one, and serves on it."""
    left = threading.Event()
    with by_variable.client() as client, grpc.insecure_channel(by_variable.inference) as channel:
        grpc.channel_ready_future(channel).result(20)
        channel.subscribe(lambda state: state is grpc.ChannelConnectivity.IDLE and left.set())
        assert left.wait(20)
        assert client.predict("echo", "x").output == "x"


def test_tls(start, store, tmp_path):
    """enable_grpc_ssl with a certificate and a PKCS#1 key, which TorchServe refuses → TLS on both ports."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, capture_output=True)
    assert "BEGIN RSA PRIVATE KEY" in key.read_text()
    about = ("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    subprocess.run(["openssl", "req", "-x509", "-key", key, "-out", certificate, *about], check=True, capture_output=True)
    text = f"{PORTS}model_store={store}\nenable_grpc_ssl=true\nprivate_key_file={key}\ncertificate_file={certificate}\n"
    server, _ = start("--dt", "--ts-config", "ts.properties", "--models", "echo.mar", files={"ts.properties": text})
    with server.client(tls=Tls(certificate)) as client:
        assert client.predict("echo", "x").output == "x"
        assert client.models()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--stop",), 2, "send it SIGTERM"),
        (("--config", "x.toml", "--ncs"), 2, "--config goes without TorchServe's options"),
        (("--ts-config", "none.properties"), 1, "none.properties: No such file"),
        (("--ts-config", "bad.properties"), 1, "bad.properties: Invalid Environment Variable NO_SUCH_VARIABLE"),
        (("--models", "all"), 1, "there is no model store"),
    ],
    ids=["stop", "both", "missing", "variable", "no store"],
)
def test_wrong(arguments, code, words, run_cli, tmp_path):
    """Options that cannot be, or a file that cannot be read → the exit code, and one line that says what to do."""
    (tmp_path / "bad.properties").write_text("model_store=$$NO_SUCH_VARIABLE$$")
    result = run_cli(
        "serve",
        *arguments,
        "--inference-address",
        "127.0.0.1:0",
        "--management-address",
        "127.0.0.1:0",
        "--metrics-address",
        "",
        cwd=tmp_path,
    )
    assert result.returncode == code
    assert words in result.stderr.splitlines()[-1]
