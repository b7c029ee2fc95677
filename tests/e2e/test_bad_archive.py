"""What packagers do wrong: each archive gets a clear error, and the server serves on."""

import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import grpc
import pytest
import torch
from servers import numbers, until

from servegrpc.client import CallError
from servegrpc.core.archiver import ArchiveSpec, write_archive

INVALID, NOT_FOUND, FAILED_PRECONDITION = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@pytest.fixture(scope="module")
def echo(register):
    return register("echo")


@pytest.fixture(autouse=True)
def _serves_on(client, echo):
    """After every test the same server answers, and it still has its other model."""
    yield
    assert client.predict(echo, "still there").output == "still there"


def manifest(**model):
    return json.dumps({"model": {"modelName": "bad", "modelVersion": "1.0", "handler": "handler.py", **model}})


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def linked_zip(path):
    entry = zipfile.ZipInfo("weights.pt")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", manifest())
        file.writestr(entry, "/etc/hostname")
    return path


def linked_tar(path):
    with tarfile.open(path, "w:gz") as file:
        entry = tarfile.TarInfo("bad/weights.pt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        file.addfile(entry, io.BytesIO())
    return path


def device_tar(path):
    with tarfile.open(path, "w:gz") as file:
        entry = tarfile.TarInfo("bad/weights.pt")
        entry.type = tarfile.CHRTYPE
        file.addfile(entry)
    return path


def bomb_tar(path):
    """10 GiB of zeros in 10 MB: gzip goes on where a member ends."""
    entry = tarfile.TarInfo("bad/weights.pt")
    entry.size = 10 * 2**30
    with path.open("wb") as file:
        file.write(gzip.compress(entry.tobuf()))
        file.write(gzip.compress(bytes(2**20)) * 10 * 2**10)
    return path


def bomb_zip(path):
    """Three entries that say they are 4 GB each."""
    write_zip(path, dict.fromkeys("abc", b"\x00" * 1234))
    path.write_bytes(path.read_bytes().replace((1234).to_bytes(4, "little"), (4 * 10**9).to_bytes(4, "little")))
    return path


def crowded(path):
    return write_zip(path, {f"{number}": "" for number in range(100_000)})


def truncated(path):
    whole = write_zip(path, {"MAR-INF/MANIFEST.json": manifest(), "handler.py": "x" * 5000}).read_bytes()
    path.write_bytes(whole[:-100])
    return path


def no_zip(path):
    path.write_text("not an archive")
    return path


BAD_ARCHIVES = {
    "no zip": (no_zip, "is neither a zip (.mar) nor a gzipped tar (.tar.gz)"),
    "truncated": (truncated, "is damaged or cut short"),
    "..": (lambda path: write_zip(path, {"../outside.txt": "x"}), "has an entry outside its folder: '../outside.txt'"),
    "absolute": (lambda path: write_zip(path, {"/outside.txt": "x"}), "has an entry outside its folder: '/outside.txt'"),
    "link in a zip": (linked_zip, "no regular file or folder: 'weights.pt'"),
    "link in a tar": (linked_tar, "no regular file or folder: 'bad/weights.pt'"),
    "device": (device_tar, "no regular file or folder: 'bad/weights.pt'"),
    "10 GB in a tar": (bomb_tar, "would unpack to more than 10"),
    "12 GB in a zip": (bomb_zip, "would unpack to more than 1073741824 bytes"),
    "100,000 files": (crowded, "has more than 50000 entries"),
    "manifest no JSON": (lambda path: write_zip(path, {"MAR-INF/MANIFEST.json": "{\n}]"}), "MANIFEST.json, line 2: not valid JSON"),
    "weights missing": (
        lambda path: write_zip(path, {"MAR-INF/MANIFEST.json": manifest(serializedFile="w.pt"), "handler.py": ""}),
        'serializedFile "w.pt" is not in the archive',
    ),
    "no handler": (lambda path: write_zip(path, {"MAR-INF/MANIFEST.json": manifest(handler="")}), "names no handler"),
    "config no YAML": (
        lambda path: write_zip(path, {"MAR-INF/MANIFEST.json": manifest(configFile="c.yaml"), "handler.py": "", "c.yaml": "a: [1\n"}),
        "c.yaml, line 2: not valid YAML",
    ),
}


@pytest.mark.parametrize(("write", "words"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archive(write, words, client, tmp_path):
    """An archive that is damaged, unsafe or incomplete → INVALID_ARGUMENT saying what and where; nothing registered or written outside."""
    folder = tmp_path / "store" / "deep"
    folder.mkdir(parents=True)
    path = write(folder / "bad.mar")
    with pytest.raises(CallError, match=re.escape(words)) as caught:
        client.register(str(path))
    assert (caught.value.code, caught.value.reason) == (INVALID, "INVALID_ARCHIVE")
    assert caught.value.metadata == {"archive": str(path)}
    assert "bad" not in {model.name for model in client.models()}
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.slow
def test_no_residue(start_server, archive, tmp_path):
    """Every bad archive, and handlers that fail to load, on one server → nothing of them stays in its temporary folder."""
    (tmp_path / "tmp").mkdir()
    server = start_server("--metrics-address", "", environment={"TMPDIR": str(tmp_path / "tmp")})
    paths = [write(tmp_path / f"{number}.mar") for number, (write, _) in enumerate(BAD_ARCHIVES.values())]
    paths += [archive(name=f"bad-{number}", code=code) for number, (code, _) in enumerate(BAD_HANDLERS.values())]
    with server.client() as client:
        for path in paths:
            with pytest.raises(CallError):
                client.register(str(path), workers=1)
        folder = tmp_path / "tmp" / f"servegrpc-{os.getuid()}"
        until(lambda: not [name for _, _, names in os.walk(folder) for name in names])  # it goes while we look


def test_archive_without_manifest(client, tmp_path):
    """An archive without a manifest → INVALID_ARGUMENT saying what to give; with name and handler given, it is served."""
    path = write_zip(tmp_path / "bare.mar", {"mine.py": "def handle(data, context):\n    return [1] * len(data or [])\n"})
    with pytest.raises(CallError, match="the archive has no manifest that names the model; give model_name") as caught:
        client.register(str(path))
    assert caught.value.code is INVALID
    with pytest.raises(CallError, match=r"names no handler; give one as file\.py"):
        client.register(str(path), name="bare")
    client.register(str(path), name="bare", handler="mine.py")
    assert client.predict("bare", "x").output == 1
    client.unregister("bare")


def test_archive_missing(client):
    """An archive that is not there → NOT_FOUND naming it."""
    with pytest.raises(CallError, match=r'Archive "/nowhere/digits\.mar" was not found') as caught:
        client.register("/nowhere/digits.mar")
    assert (caught.value.code, caught.value.reason) == (NOT_FOUND, "ARCHIVE_NOT_FOUND")


def test_no_model_store(client):
    """A name of an archive on a server without a model store → NOT_FOUND saying which option is missing."""
    with pytest.raises(CallError, match="the model store is not set; set --model-store") as caught:
        client.register("digits.mar")
    assert (caught.value.code, caught.value.reason) == (NOT_FOUND, "ARCHIVE_NOT_FOUND")


def test_model_store_missing(start_server, tmp_path):
    """A model store that does not exist → NOT_FOUND saying so."""
    server = start_server("--model-store", tmp_path / "nowhere")
    with server.client() as client, pytest.raises(CallError, match="the model store does not exist") as caught:
        client.register("digits.mar")
    assert caught.value.code is NOT_FOUND


def test_near_name_in_the_model_store(start_server, archive, tmp_path):
    """A name that is almost one in the model store → NOT_FOUND with the right one; that one is registered."""
    archive("echo").rename(tmp_path / "echo.mar")
    server = start_server("--model-store", tmp_path)
    with server.client() as client:
        with pytest.raises(CallError, match=r"did you mean echo\.mar\?"):
            client.register("ecko.mar")
        client.register("echo.mar")
        assert client.predict("echo", "x").output == "x"


BAD_HANDLERS = {
    "import": ("import nothing_of_that_name\n", "handler.py, line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    "two classes": (
        "class A:\n    def handle(self, data, context): ...\n\nclass B(A): ...\n",
        'needs a function "handle" or exactly one class; classes there: A, B',
    ),
    "no method": ("class Model:\n    def predict(self, data): ...\n", "class Model in handler.py has no method handle(data, context)"),
    "syntax": ("def handle(data, context):\n    return [\n", "handler.py, line 2: SyntaxError"),
    "initialize": (
        "class Model:\n    def initialize(self, context):\n        self.x = open('w.pt')\n    def handle(self, data, context): ...\n",
        "handler.py, line 3: FileNotFoundError",
    ),
    "nothing in it": ("x = 1\n", 'needs a function "handle" or exactly one class; classes there: none'),
    "interrupt": ("raise KeyboardInterrupt\n", "handler.py, line 1: KeyboardInterrupt"),
    "exit": ("import sys\nsys.exit('no license')\n", "handler.py, line 2: SystemExit: no license"),
}


@pytest.mark.parametrize(("code", "words"), BAD_HANDLERS.values(), ids=BAD_HANDLERS)
def test_handler_fails_to_load(code, words, client, server, archive):
    """A handler that fails to load → FAILED_PRECONDITION with the cause and line; the model is FAILED, refuses, and is not tried again."""
    name = f"unloadable-{next(numbers)}"
    with pytest.raises(CallError, match=re.escape(words)) as caught:
        client.register(str(archive(name=name, code=code)), workers=1)
    assert (caught.value.code, caught.value.reason) == (FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    assert words in caught.value.metadata["cause"]
    (version,) = client.model(name).versions
    assert (version.state, version.workers) == ("FAILED", ())
    assert words in version.cause
    with pytest.raises(CallError, match="Register it again or unregister it") as caught:
        client.predict(name, "x")
    assert (caught.value.code, caught.value.reason) == (FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    assert len(server.log.lines("worker lost", f"model={name}")) == 1
    client.unregister(name)


BAD_WEIGHTS = {
    "pickle": ({"weight": Path("somewhere")}, '"weights.pt" is not a plain state dict'),
    "other names": ({"other.weight": torch.zeros(1)}, 'Missing key(s) in state_dict: "weight", "bias"'),
}


@pytest.mark.parametrize(("state", "words"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_fail_to_load(state, words, client, tmp_path):
    """Weights that need pickle, or that the model has no place for → FAILED_PRECONDITION saying so."""
    name = f"weightless-{next(numbers)}"
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "model.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(1, 1)\n"
    )
    files = {"model_file": str(tmp_path / "model.py"), "serialized_file": str(tmp_path / "weights.pt")}
    path = write_archive(ArchiveSpec(name, "base_handler", "1.0", export_path=str(tmp_path / "store"), **files))
    with pytest.raises(CallError, match=re.escape(words)) as caught:
        client.register(str(path), workers=1)
    assert (caught.value.code, caught.value.reason) == (FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    client.unregister(name)


def test_handler_not_there(client, archive):
    """A handler that is neither in the archive nor a default one → FAILED_PRECONDITION naming it."""
    with pytest.raises(CallError, match=r'there is no mine\.py in the archive, and no default handler "mine"'):
        client.register(str(archive("echo", name="unhandled")), handler="mine.py", workers=1)
    client.unregister("unhandled")


def test_handler_fails_at_length(client, archive):
    """A handler that fails to load with a message larger than the worker's channel carries → FAILED_PRECONDITION with its beginning."""
    with pytest.raises(CallError, match=r"handler\.py, line 1: RuntimeError: xxx") as caught:
        client.register(str(archive(name="wordy", code="raise RuntimeError('x' * 600_000)\n")), workers=1)
    assert (caught.value.code, caught.value.reason) == (FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    assert len(caught.value.metadata["cause"]) < 5000
    client.unregister("wordy")


def test_handler_takes_too_long_to_load(client, archive):
    """A handler that never ends loading → FAILED at the startup timeout, saying so."""
    code = "import threading\nthreading.Event().wait()\n"
    with pytest.raises(CallError, match=r"took longer than the startup timeout of 0\.3 s") as caught:
        client.register(str(archive(name="endless", code=code)), startup_timeout=0.3)
    assert caught.value.reason == "MODEL_LOAD_FAILED"
    client.unregister("endless")
