"""`model_archiver`, as test-suites and build scripts use it."""

import json
import subprocess
import sys
import zipfile

import pytest

import servegrpc.compat_api


@pytest.fixture(autouse=True, scope="module")
def installed():
    servegrpc.compat_api.install()


@pytest.fixture
def config(tmp_path):
    """A configuration that can be written."""
    from model_archiver import ModelArchiverConfig

    (tmp_path / "handler.py").write_text("def handle(data, context): return data")
    return ModelArchiverConfig("m", str(tmp_path / "handler.py"), "1.0", export_path=tmp_path / "store")


def test_writes_an_archive(config, tmp_path):
    """A script writes an archive → it is there, with its manifest."""
    from model_archiver import ModelArchiver

    ModelArchiver.generate_model_archive(config)
    with zipfile.ZipFile(tmp_path / "store" / "m.mar") as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert manifest["model"] == {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0"}


def test_exists(config):
    """The archive is there already → ModelArchiverError, and with force it is replaced."""
    from model_archiver.model_archiver_error import ModelArchiverError
    from model_archiver.model_packaging import generate_model_archive
    from model_archiver.model_packaging_utils import ModelExportUtils

    generate_model_archive(config)
    with pytest.raises(ModelArchiverError, match="exists already"):
        generate_model_archive(config)
    with pytest.raises(ModelArchiverError, match="already exists"):
        ModelExportUtils.check_mar_already_exists("m", str(config.export_path), overwrite=False)
    config.force = True
    generate_model_archive(config)


def test_command_line(config, tmp_path, monkeypatch):
    """The archiver is called as a program → its arguments are used."""
    from model_archiver.model_packaging import generate_model_archive

    arguments = [
        "--model-name",
        "n",
        "-v",
        "2",
        "--handler",
        config.handler,
        "--export-path",
        str(tmp_path),
        "-f",
        "--archive-format",
        "tgz",
    ]
    monkeypatch.setattr("sys.argv", ["torch-model-archiver", *arguments])
    generate_model_archive()
    assert (tmp_path / "n.tar.gz").is_file()


def test_manifest(config):
    """A script makes a manifest → TorchServe's keys."""
    from model_archiver.manifest_components.manifest import Manifest, RuntimeType
    from model_archiver.manifest_components.model import Model
    from model_archiver.model_packaging_utils import ModelExportUtils

    assert RuntimeType("LSP") is RuntimeType.LSP
    manifest = json.loads(str(Manifest("python3", Model("m", "a/w.pt", "a/h.py:f", config_file="c.yaml"))))
    assert manifest["runtime"] == "python3"
    assert manifest["model"] == {"modelName": "m", "serializedFile": "w.pt", "handler": "h.py:f", "configFile": "c.yaml"}
    assert json.loads(ModelExportUtils.generate_manifest_json(config))["model"]["modelVersion"] == "1.0"


def test_checks(tmp_path):
    """A script checks its inputs → a bad name is refused, the folder is made."""
    from model_archiver.model_archiver_error import ModelArchiverError
    from model_archiver.model_packaging_utils import ModelExportUtils

    with pytest.raises(ModelArchiverError, match="must begin with"):
        ModelExportUtils.validate_inputs("-m", str(tmp_path))
    ModelExportUtils.validate_inputs("m", str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir()
    assert ModelExportUtils.get_archive_export_path("a", "m", "zip-store") == "a/m.mar"


def test_ts_too():
    """compat_api is installed → ts is there as well."""
    import ts

    assert ts.__version__ == "0.12.0"


def test_needs_servegrpc_alone():
    """A script writes archives → nothing that only servers have is loaded."""
    code = "import servegrpc.compat_api as api, sys; api.install(); from model_archiver import ModelArchiver; from ts import __version__"
    servers_only = ("torch", "yaml", "structlog", "pydantic", "psutil")
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*(set({servers_only}) & set(sys.modules)))"], capture_output=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
