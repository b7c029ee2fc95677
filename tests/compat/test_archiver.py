"""TorchServe's own archiver, 0.12.0: the archives it writes are served, and ours have what its have.

`make build/torch-model-archiver` installs it; these tests fail without it.
"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from servers import numbers

from servegrpc.core.archiver import ARCHIVE_SUFFIXES, ArchiveSpec, write_archive

ARCHIVER = Path(__file__).parents[2] / "build" / "torch-model-archiver"
HANDLER = """
from ts.torch_handler.base_handler import BaseHandler
from util.words import shout


class Adder(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([row["numbers"] for row in data], dtype=torch.float32)

    def postprocess(self, data):
        return [{shout("sum"): float(value), "batch": self.context.model_yaml_config["batchSize"]} for value in data]


import torch
"""
MODEL = "import torch\n\n\nclass Sum(torch.nn.Module):\n    def forward(self, x):\n        return x.sum(1)\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The files that archives are made of."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "adder.py").write_text(HANDLER)
    (folder / "model.py").write_text(MODEL)
    torch.save({}, folder / "weights.pt")
    (folder / "settings.yaml").write_text("batchSize: 4\nresponseTimeout: 30\n")
    (folder / "needs.txt").write_text("numpy\n")
    for name, text in {
        "extra/util/words.py": "shout = str.upper\n",
        "extra/.hidden/x": "",
        "extra/__pycache__/x.pyc": "",
        "a.txt": "a",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def by_torchserve(folder, export_path, archive_format, **flags):
    """Write an archive with torch-model-archiver; returns its path."""
    assert ARCHIVER.is_dir(), "torch-model-archiver is not there; run: make build/torch-model-archiver"
    export_path.mkdir()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "model_archiver.model_packaging",
            f"--export-path={export_path}",
            f"--archive-format={archive_format}",
            *options,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ARCHIVER)},
        check=True,
        capture_output=True,
        text=True,
    )
    return export_path / (flags["model_name"] + ARCHIVE_SUFFIXES[archive_format])


def contents(path):
    """Return the files of an archive by name, whatever its format."""
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    if path.suffix == ".mar":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


def without_manifest(files):
    """Split the manifest off, without what tells when and by what it was written."""
    name = next(name for name in files if name.endswith("MAR-INF/MANIFEST.json"))
    manifest = json.loads(files.pop(name))
    assert manifest.pop("createdOn")
    assert manifest.pop("archiverVersion")
    return files, json.dumps(manifest), name


def everything(parts, name):
    return {
        "model_name": name,
        "version": "2.5",
        "handler": str(parts / "adder.py"),
        "model_file": str(parts / "model.py"),
        "serialized_file": str(parts / "weights.pt"),
        "extra_files": f"{parts / 'extra'},{parts / 'a.txt'}",
        "config_file": str(parts / "settings.yaml"),
        "requirements_file": str(parts / "needs.txt"),
    }


@pytest.mark.parametrize("archive_format", ARCHIVE_SUFFIXES)
def test_served(archive_format, parts, client, tmp_path):
    """An archive of each format by TorchServe's archiver → served with its model, extra files and settings."""
    name = f"theirs-{next(numbers)}"
    archive = by_torchserve(parts, tmp_path / "store", archive_format, **everything(parts, name))
    (version,) = client.register(str(archive), workers=1).versions
    assert (version.version, version.settings.batch_size, version.settings.response_timeout_seconds) == ("2.5", 4, 30)
    assert client.predict(name, {"numbers": [1, 2, 3.5]}).output == {"SUM": 6.5, "batch": 4}
    client.unregister(name)


@pytest.mark.parametrize("archive_format", ARCHIVE_SUFFIXES)
def test_same_archive(archive_format, parts, tmp_path):
    """Both archivers with the same flags → the same files, byte for byte, and the same manifest."""
    flags = everything(parts, "m")
    theirs = contents(by_torchserve(parts, tmp_path / "theirs", archive_format, **flags))
    ours = contents(write_archive(ArchiveSpec(**flags, export_path=str(tmp_path / "ours"), archive_format=archive_format)))
    assert without_manifest(ours) == without_manifest(theirs)


@pytest.mark.parametrize(
    "flags",
    [
        {"handler": "adder"},
        {"handler": "adder:entry"},
        {"handler": "base_handler"},
        {"handler": "image_classifier", "serialized_file": "weights.pt"},
        {"handler": "adder.py", "runtime": "python3"},
        {"handler": "adder.py", "extra_files": "extra/util/*.py"},
    ],
    ids=lambda flags: " ".join(flags.values()),
)
def test_same_words(flags, parts, tmp_path, monkeypatch):
    """A handler in any spelling, other runtimes, globs → the same files and the same manifest from both."""
    monkeypatch.chdir(parts)
    flags = {"model_name": "m", "version": "1.0", **flags}
    theirs = contents(by_torchserve(parts, tmp_path / "theirs", "default", **flags))
    ours = contents(write_archive(ArchiveSpec(**flags, export_path=str(tmp_path / "ours"))))
    assert without_manifest(ours) == without_manifest(theirs)
