"""The server's settings: defaults, a file, and what is put over it."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from servegrpc.config import ServerConfig, load_config
from servegrpc.errors import InvalidInput


@pytest.fixture
def file(tmp_path):
    return tmp_path / "server.toml"


def test_defaults():
    """Nothing is given → the ports are local and known."""
    config = load_config(None, {})
    assert config == ServerConfig()
    assert (config.inference_address, config.management_address) == ("127.0.0.1:7070", "127.0.0.1:7071")
    assert config.workers is config.gpus is config.model_store is None


def test_file(file):
    """A file gives settings → they hold, the others are the defaults."""
    file.write_text('inference_address = "0.0.0.0:80"\nmodels = ["a.mar", "b=c.mar"]\nmodel_store = "/models"\n')
    config = load_config(file, {})
    assert (config.inference_address, config.models, config.model_store) == ("0.0.0.0:80", ("a.mar", "b=c.mar"), Path("/models"))
    assert config.management_address == "127.0.0.1:7071"


def test_overrides(file):
    """The command line gives settings too → they go before the file's; None does not."""
    file.write_text("workers = 2\ngpus = 1\n")
    config = load_config(file, {"workers": 0, "gpus": None})
    assert (config.workers, config.gpus) == (0, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("wrokers = 2", "Bad setting: .*wrokers: Extra inputs are not permitted"),
        ("workers = -1", r"Bad setting: .*workers\S*: Input should be greater than or equal to 0"),
        ("max_message_bytes = 4294967296", "Bad setting: .*max_message_bytes: "),
        ("cpus = 0", "Bad setting: .*cpus: "),
        ('log_level = "loud"', "Bad setting: .*log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ('workers = "many"\ncpus = "all"', r"workers\S*: .*; cpus: "),
        ("workers = ", "server.toml: Invalid value"),
    ],
)
def test_bad_file(file, text, problem):
    """A setting is unknown, out of range or no TOML → InvalidInput naming it."""
    file.write_text(text)
    with pytest.raises(InvalidInput, match=problem):
        load_config(file, {})


def test_file_is_no_text(file):
    """The file is not UTF-8 → InvalidInput naming it."""
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"server\.toml: .*can't decode"):
        load_config(file, {})


def test_missing_file(file):
    """The file is not there → InvalidInput naming it."""
    with pytest.raises(InvalidInput, match=r"server\.toml: .*No such file"):
        load_config(file, {})


def test_frozen():
    """Someone changes a setting → refused: the settings are those of the start."""
    with pytest.raises(ValidationError, match="frozen"):
        ServerConfig().workers = 3


def test_unpack_root():
    """Archives are unpacked → under a folder of our own in the system's temporary one."""
    assert ServerConfig().unpack_root().name == f"servegrpc-{os.getuid()}"


def test_metrics_config(tmp_path):
    """A metrics.yaml is given → its metrics are declared for every model, as keys that an archive's own go before."""
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text("dimensions: [&level Level]\nmodel_metrics:\n  gauge: [{name: Load, unit: percent, dimensions: [*level]}]\n")
    config = load_config(None, {"metrics_config": metrics, "declared_metrics_only": True, "service_envelope": "json"})
    declared = {"model_metrics": {"gauge": [{"name": "Load", "unit": "percent", "dimensions": ["Level"]}]}}
    assert config.defaults().model_config == {"serviceEnvelope": "json", "metricsConfig": declared, "declaredMetricsOnly": True}


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), ("a: [", "cannot be read"), ("ts_metrics: {}", "has nothing under")]
)
def test_bad_metrics_config(tmp_path, content, problem):
    """The metrics.yaml is missing, no YAML or declares nothing → refused at the start, with the reason."""
    metrics = tmp_path / "metrics.yaml"
    if content:
        metrics.write_text(content)
    with pytest.raises(InvalidInput, match=rf"metrics_config: .*metrics\.yaml {problem}"):
        load_config(None, {"metrics_config": metrics})
