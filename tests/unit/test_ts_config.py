"""TorchServe's configuration as settings of ours."""

import json
import os
import re
import tomllib

import pytest

from servegrpc.config import ServerConfig, load_config
from servegrpc.errors import InvalidInput
from servegrpc.tsconfig.keys import HONOURED, WITHOUT_EFFECT
from servegrpc.tsconfig.load import find_config, read_config
from servegrpc.tsconfig.toml import write_toml
from servegrpc.tsconfig.translate import translate

SNAPSHOT = {
    "name": "20261123065047854-shutdown.cfg",
    "modelCount": 3,
    "created": 1795416647854,
    "models": {
        "m": {
            "1.0": {
                "defaultVersion": False,
                "marName": "m-1.mar",
                "minWorkers": 2,
                "maxWorkers": 4,
                "batchSize": 8,
                "maxBatchDelay": 50,
                "responseTimeout": 30,
                "startupTimeout": 60,
                "runtimeType": "python",
            },
            "2.0": {"defaultVersion": True, "marName": "m-2.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 0},
            "3.0": {"defaultVersion": False, "marName": "m-3.mar", "minWorkers": 0, "maxWorkers": 0, "batchSize": 1, "maxBatchDelay": 100},
        }
    },
}
MODELS_JSON = (
    '{"m": {"1.0": {"defaultVersion": true, "marName": "m.mar", "minWorkers": 1, "maxWorkers": 3, "batchSize": 4, "maxBatchDelay": 20}}}'
)


def settings(text):
    """What our settings are after a file of these lines."""
    properties = dict(line.split("=", 1) for line in text.splitlines())
    return load_config(None, {}, values=translate(properties).settings)


def test_defaults():
    """Nothing is said → our defaults, but TorchServe's where much depends on it."""
    expected = ServerConfig(token_authorization=True, model_api=False, skip_failed_models=True, workers="per-core")
    assert settings("") == expected


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("grpc_inference_port=9000", "inference_address", "127.0.0.1:9000"),
        ("grpc_inference_address=0.0.0.0", "inference_address", "0.0.0.0:7070"),
        ("grpc_management_address=::1\ngrpc_management_port=9001", "management_address", "[::1]:9001"),
        ("metrics_address=http://0.0.0.0:9082", "metrics_address", "0.0.0.0:9082"),
        ("metrics_address=http://0.0.0.0:9082/", "metrics_address", "0.0.0.0:9082"),
        ("metrics_address=https://host", "metrics_address", "host:8082"),
        ("metrics_address=http://0.0.0.0:9082\nenable_metrics_api=false", "metrics_address", ""),
        ("metrics_address=unix:/tmp/x.sock", "metrics_address", "127.0.0.1:8082"),
        ("model_store=store", "model_store.name", "store"),
        ("load_models=all", "models", ("all",)),
        ("load_models=ALL", "models", ("all",)),
        ("load_models=a=a.mar, my model.mar,", "models", ("a=a.mar", "my model.mar")),
        ("load_models=none", "models", ()),
        ("default_workers_per_model=3", "workers", 3),
        ("default_workers_per_model=0", "workers", "per-core"),
        ("debug=true\ndefault_workers_per_model=3", "workers", 1),
        ("debug=TRUE", "log_level", "debug"),
        ("debug=yes", "log_level", "info"),
        ("default_response_timeout=30", "model_defaults.response_timeout_seconds", 30),
        ("default_startup_timeout=31", "model_defaults.startup_timeout_seconds", 31),
        ("job_queue_size=7", "model_defaults.max_queue_size", 7),
        ("number_of_gpu=2", "gpus", 2),
        ("max_request_size=1000", "max_message_bytes", 1000),
        ("default_service_handler=h.py:f", "default_handler", "h.py:f"),
        ("limit_max_image_pixels=false", "limit_max_image_pixels", False),
        ("service_envelope=kservev2", "service_envelope", "kservev2"),
        ("metrics_config=/site-packages/ts/configs/metrics.yaml", "metrics_config", None),
        ("model_metrics_auto_detect=false", "declared_metrics_only", True),
        ("blacklist_env_vars=AWS_.*|SECRET", "blocked_environment", "AWS_.*|SECRET"),
        ("grpc_inference_max_connection_age_ms=1500", "inference_connection_age_seconds", 1.5),
        ("grpc_inference_max_connection_age_grace_ms=0", "inference_connection_grace_seconds", 0),
        ("grpc_management_max_connection_age_ms=9223372036854775807", "management_connection_age_seconds", 9223372036854775.807),
        ("grpc_management_max_connection_age_grace_ms=500", "management_connection_grace_seconds", 0.5),
        ("token_expiration_min=0.25", "token_lifetime_seconds", 15),
        ("disable_token_authorization=true", "token_authorization", False),
        ("enable_model_api=true", "model_api", True),
        ("install_py_dep_per_model=true", "install_requirements", True),
        ("allowed_urls=https://a/.*, http://b/.*", "allowed_urls", ("https://a/.*", "http://b/.*")),
        ("enable_grpc_ssl=true\ncertificate_file=c.pem\nprivate_key_file=k.key", "certificate_file.name", "c.pem"),
        ("enable_grpc_ssl=true\ncertificate_file=c.pem\nprivate_key_file=k.key", "private_key_file.name", "k.key"),
        ("certificate_file=c.pem\nprivate_key_file=k.key", "certificate_file", None),
    ],
)
def test_key(text, field, expected):
    """A key is given → our setting of the same meaning has its value."""
    value = settings(text)
    for name in field.split("."):
        value = getattr(value, name)
    assert value == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("grpc_inference_port=high", "grpc_inference_port must be a whole number, not 'high'"),
        ("job_queue_size=many", "job_queue_size must be a whole number, not 'many'"),
        ("default_workers_per_model=1025", "workers"),
        ("token_expiration_min=soon", "token_expiration_min must be a number of minutes"),
        ("token_expiration_min=inf", "token_lifetime_seconds: Input should be a finite number"),
        ("models={", "models is not valid JSON"),
        ("models=[]", r"models must hold objects .*; \[\] is none"),
        ('models={"m": {"1.0": {"batchSize": "4"}}}', 'models: m 1.0: batchSize must be a number, not "4"'),
        ('models={"m": {"1.0": {"batchSize": Infinity}}}', "models: m 1.0: batchSize must be a number, not Infinity"),
        ('model_snapshot={"models": {"m": 3}}', "model_snapshot must hold objects .*; 3 is none"),
        ("enable_grpc_ssl=true\ncertificate_file=c.pem", "enable_grpc_ssl needs certificate_file and private_key_file"),
        ("blacklist_env_vars=(", "blocked_environment: Value error, is no regular expression"),
    ],
)
def test_bad_value(text, problem):
    """A value cannot be read → InvalidInput naming the key."""
    with pytest.raises(InvalidInput, match=problem):
        settings(text)


def test_models_json():
    """`models` has settings of versions → they are ours for that name and version; what is not above zero is ignored."""
    config = settings("models=" + MODELS_JSON.replace('"batchSize": 4', '"batchSize": 0, "responseTimeout": 9'))
    given = config.defaults().versions["m", "1.0"]
    assert (given.workers, given.max_workers, given.batch_size, given.max_batch_delay_seconds) == (1, 3, None, 0.02)
    assert given.response_timeout_seconds == 9


@pytest.mark.parametrize("key", ["models", "model_snapshot"])
def test_more_workers_at_least_than_at_most(key):
    """A version has more workers at least than at most → the most is named as without effect."""
    models = {"m": {"1.0": {"minWorkers": 2, "maxWorkers": 1}, "2.0": {"minWorkers": 1, "maxWorkers": 1}}}
    translation = translate({key: json.dumps({"models": models} if key == "model_snapshot" else models)})
    assert translation.without_effect == {f"{key}: m 1.0: maxWorkers": "it is less than minWorkers"}
    config = load_config(None, {}, values=translation.settings)
    first = config.models[0] if config.models else config.defaults().versions["m", "1.0"]
    assert (first.workers, first.max_workers) == (2, None)


@pytest.mark.parametrize(
    ("key", "value", "counts_as"),
    [
        ("default_response_timeout", "0", None),
        ("default_startup_timeout", "-1", None),
        ("job_queue_size", "0", None),
        ("token_expiration_min", "0.0", None),
        ("grpc_inference_max_connection_age_ms", "0", None),
        ("grpc_management_max_connection_age_ms", "-5", None),
        ("max_request_size", "0", None),
        ("max_request_size", "4294967296", "2147483647"),
        ("number_of_gpu", "-1", "0"),
        ("default_workers_per_model", "-1", "0"),
    ],
)
def test_number_out_of_range(key, value, counts_as):
    """A number that TorchServe takes means nothing here → the next one that does, or none, and it is named."""
    translation = translate({key: value})
    assert translation.without_effect == {key: f"{value} counts as {counts_as or 'not given'}"}
    assert translation.settings == translate({key: counts_as} if counts_as else {}).settings
    load_config(None, {}, values=translation.settings)


@pytest.mark.parametrize("key", ["default_response_timeout", "default_startup_timeout", "job_queue_size", "max_request_size"])
def test_large_number(key):
    """A number is as large as TorchServe takes → it is taken, and nothing named."""
    translation = translate({key: str(2**31 - 1)})
    load_config(None, {}, values=translation.settings)
    assert translation.without_effect == {}


def test_snapshot():
    """The file has a snapshot → its models with all their settings and the default, and not those of load_models."""
    translation = translate({"model_snapshot": json.dumps(SNAPSHOT), "load_models": "all"})
    first, second, third = load_config(None, {}, values=translation.settings).models
    assert (first.archive, first.name, first.workers, first.max_workers, first.batch_size) == ("m-1.mar", "m", 2, 4, 8)
    assert (first.max_batch_delay_seconds, first.response_timeout_seconds, first.startup_timeout_seconds) == (0.05, 30, 60)
    assert (first.default, second.default) == (False, True)
    assert (second.max_batch_delay_seconds, third.workers, third.max_workers) == (0, 0, None)
    assert translation.without_effect == {"load_models": "the models are those of model_snapshot"}


WRITTEN = r"""#Saving snapshot
#Mon Nov 23 13:37:09 UTC 2026
inference_address=http\://127.0.0.1\:8080
default_workers_per_model=1
grpc_inference_port=17070
load_models=echo-1.mar
model_store=/models
number_of_gpu=0
python=/usr/bin/python3.11
model_snapshot=%s
tsConfigFile=config.properties
version=0.12.0
"""


def test_snapshot_as_torchserve_writes_it(tmp_path):
    """A file is as TorchServe 0.12 wrote it → its model is there with its settings, and only the keys without effect are named."""
    escaped = json.dumps(SNAPSHOT, indent=2).replace("\n", r"\n").replace('":', r'"\:')
    translation = read(tmp_path, WRITTEN % escaped)
    models = load_config(None, {}, values=translation.settings).models
    assert [(model.archive, model.workers, model.default) for model in models] == [
        ("m-1.mar", 2, False),
        ("m-2.mar", 1, True),
        ("m-3.mar", 0, False),
    ]
    assert set(translation.without_effect) == {"inference_address", "load_models"}


def test_no_value():
    """Keys have no value → as if they were not given."""
    assert translate(dict.fromkeys((*HONOURED, *WITHOUT_EFFECT), " ")) == translate({})


def test_metrics_file_is_not_there():
    """metrics_config names a file that is not there, as TorchServe's own → it is named as without effect."""
    assert translate({"metrics_config": "/site-packages/ts/configs/metrics.yaml"}).without_effect == {
        "metrics_config": "the file is not there"
    }


def test_plain_certificates():
    """There are certificates but no enable_grpc_ssl → they are named as without effect."""
    assert set(translate({"certificate_file": "c", "private_key_file": "k"}).without_effect) == {"certificate_file", "private_key_file"}


# --- the file, the options, the variables


def read(tmp_path, text, options=None, environment=None):
    file = tmp_path / "config.properties"
    file.write_text(text)
    return read_config(file, options or {}, environment or {})


def test_options_go_before_the_file(tmp_path):
    """The command line says the same key → it goes before the file."""
    translation = read(tmp_path, "load_models=all\njob_queue_size=3", {"load_models": "a.mar"})
    assert translation.settings["models"] == ["a.mar"]
    assert translation.settings["model_defaults"] == {"max_queue_size": 3}


ENVIRONMENT = {
    "TS_JOB_QUEUE_SIZE": "9",
    "TS_LOAD_MODELS": "e.mar",
    "TS_ALLOWED_URLS": "x",
    "TS_MODELS": "{",
    "TS_IO_RATIO": "1",
    "TS_TOKEN_EXPIRATION_TIME_MIN": "2",
    "TS_OPEN_INFERENCE_PROTOCOL": "oip",
}


def test_variables(tmp_path):
    """Variables are enabled → they go before file and options, except for keys that have none."""
    translation = read(tmp_path, "enable_envvars_config=true\njob_queue_size=3\nallowed_urls=y", {"load_models": "a.mar"}, ENVIRONMENT)
    assert translation.settings["model_defaults"] == {"max_queue_size": 9}
    assert translation.settings["models"] == ["e.mar"]
    assert translation.settings["token_lifetime_seconds"] == 120
    assert "io_ratio" not in translation.without_effect
    assert "ts_open_inference_protocol" in translation.without_effect


def test_variables_not_enabled(tmp_path):
    """Variables are not enabled → they are not read."""
    assert read(tmp_path, "job_queue_size=3", {}, ENVIRONMENT).settings["model_defaults"] == {"max_queue_size": 3}


def test_variable_in_a_value(tmp_path):
    """A value has `$$NAME$$` → the variable's value is there."""
    assert read(tmp_path, "model_store=$$HOME$$/m", {}, {"HOME": "/home/me"}).settings["model_store"] == "/home/me/m"


def test_other_encoding(tmp_path):
    """The file is not UTF-8 → it is read as Java does."""
    file = tmp_path / "config.properties"
    file.write_bytes("model_store=caf\u00e9".encode("latin-1"))
    assert read_config(file, {}, {}).settings["model_store"] == "café"


def test_errors_name_the_file(tmp_path):
    """The file is wrong, or not there → InvalidInput naming it."""
    with pytest.raises(InvalidInput, match=r"^config\.properties: number_of_gpu must be a whole number"):
        read(tmp_path, "number_of_gpu=all")
    with pytest.raises(InvalidInput, match=r"none\.properties: No such file"):
        read_config(tmp_path / "none.properties", {}, {})


def test_order_of_files(tmp_path):
    """Several files could be read → the variable's, the one given, the newest snapshot, config.properties; else none."""

    def find(given=None, environment=None, snapshots=True):
        return find_config(given, environment or {}, snapshots=snapshots, folder=tmp_path)

    assert find() is None
    (tmp_path / "config.properties").write_text("")
    assert find() == tmp_path / "config.properties"
    logs = tmp_path / "logs" / "config"
    logs.mkdir(parents=True)
    for age, name in enumerate(["20261123065047854-startup.cfg", "20261123065047999-shutdown.cfg", "20261122065047854-snapshot.cfg"]):
        (logs / name).write_text("")
        os.utime(logs / name, (1000 - age, 1000 - age))
    os.utime(logs / "20261123065047999-shutdown.cfg", (2000, 2000))
    assert find() == logs / "20261123065047999-shutdown.cfg"
    assert find(environment={"LOG_LOCATION": "elsewhere"}) == tmp_path / "config.properties"
    assert find(snapshots=False) == tmp_path / "config.properties"
    assert find(given=tmp_path / "given") == tmp_path / "given"
    assert find(given=tmp_path / "given", environment={"TS_CONFIG_FILE": "/etc/ts"}).name == "ts"


# --- convert

FULL = f"""
inference_address=http://127.0.0.1:8080
grpc_inference_port=9000
metrics_address=http://127.0.0.1:9082
model_store=/models "quoted" é
load_models=a=a.mar,b.mar
default_workers_per_model=2
default_response_timeout=30
job_queue_size=50
number_of_gpu=0
max_request_size=1000000
disable_token_authorization=true
enable_model_api=true
blacklist_env_vars=AWS_\\\\d+
grpc_inference_max_connection_age_ms=60500
models={MODELS_JSON}
netty_client_threads=4
"""


@pytest.mark.parametrize("text", [FULL, f"model_snapshot={json.dumps(SNAPSHOT)}\n", ""], ids=["full", "snapshot", "empty"])
def test_convert(tmp_path, run_cli, text):
    """A config.properties is converted → a file with exactly the same settings, and comments on what has no effect."""
    file = tmp_path / "config.properties"
    file.write_text(text)
    result = run_cli("config", "convert", file)
    assert result.returncode == 0, result.stderr
    (tmp_path / "servegrpc.toml").write_text(result.stdout)
    assert load_config(tmp_path / "servegrpc.toml", {}) == load_config(None, {}, values=read_config(file, {}, {}).settings)
    assert re.findall(r"^# (\w+): without effect", result.stdout, re.MULTILINE) == list(read_config(file, {}, {}).without_effect)


def test_toml():
    """Settings of every kind are written → they are read back as they were."""
    settings = {
        "a": 1,
        "b": 0.25,
        "c": True,
        "d": 'x"\\\n\té',
        "e": ["x", {"f": 1, "g h": "i"}],
        "t": {"1.0": {"x": 1}, "y": {}, "z": 2},
        "l": [],
    }
    assert tomllib.loads(write_toml(settings)) == settings
