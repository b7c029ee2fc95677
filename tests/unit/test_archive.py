"""Opening archives: where they are found, what is read from them."""

import io
import json
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from servegrpc.core.archive import archive_names, open_archive
from servegrpc.errors import ArchiveNotFound, InvalidArchive, ServerError

MANIFEST = {
    "createdOn": "23/11/2025 06:37:19",
    "runtime": "python",
    "model": {"modelName": "digits", "serializedFile": "digits.pt", "handler": "handler.py", "modelVersion": "2.0"},
    "archiverVersion": "0.12.0",
}
FILES = {"MAR-INF/MANIFEST.json": json.dumps(MANIFEST).encode(), "digits.pt": b"weights", "handler.py": b"def handle(data, context): ..."}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def open_from(store, tmp_path):
    return lambda source: open_archive(source, store=store, unpack_root=tmp_path / "unpacked")


def write_mar(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tgz(path, files=FILES, folder="digits/"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(folder + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_folder(path, files=FILES):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def with_manifest(**changes):
    return FILES | {"MAR-INF/MANIFEST.json": json.dumps(MANIFEST | changes).encode()}


def with_model(**changes):
    return with_manifest(model=MANIFEST["model"] | changes)


def read_tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "write",
    [
        lambda store: write_mar(store / "digits.mar"),
        lambda store: write_mar(store / "digits.mar", compression=zipfile.ZIP_STORED),
        lambda store: write_tgz(store / "digits.tar.gz"),
        lambda store: write_tgz(store / "digits.tgz", folder="./digits/"),
        lambda store: write_tgz(store / "digits.tar.gz", folder=""),
        lambda store: write_tgz(store / "digits.model"),
    ],
    ids=["mar", "stored mar", "tar.gz", "tgz with dots", "tar.gz without a folder", "tar.gz by content"],
)
def test_file(write, store, open_from):
    """A file in the store → its files unpacked, its manifest and names read."""
    archive = open_from(write(store).name)
    assert read_tree(archive.folder) == FILES
    assert archive.unpacked
    assert archive.manifest == MANIFEST
    assert (archive.model_name, archive.model_version, archive.handler, archive.runtime) == ("digits", "2.0", "handler.py", "python")


@pytest.mark.parametrize("inner", ["digits", "digits/model"], ids=["plain", "one folder inside"])
def test_folder(inner, store, open_from):
    """A folder in the store, or its only child → used where it is."""
    write_folder(store / inner)
    archive = open_from("digits")
    assert (archive.folder, archive.unpacked, archive.model_name) == (store / inner, False, "digits")


@pytest.mark.parametrize("beside", [".DS_Store", "._digits", "__MACOSX/._digits", "README.txt", "docs/page.md"])
def test_beside_the_leading_folder(beside, store, open_from):
    """A .tar.gz with something beside its leading folder, by macOS or by hand → the folder is the archive (TorchServe strips it)."""
    write_tgz(store / "digits.tar.gz", {beside: b"x"} | {f"digits/{name}": content for name, content in FILES.items()}, folder="")
    archive = open_from("digits.tar.gz")
    assert (read_tree(archive.folder), archive.model_name) == (FILES, "digits")


def test_beside_the_leading_folder_without_manifest(store, open_from):
    """No manifest, and beside the folder what macOS adds, or a file of the packager's → the folder is the archive, or is not."""
    write_tgz(store / "mac.tar.gz", {"._m": b"x", "m/handler.py": b"x = 1"}, folder="")
    write_tgz(store / "flat.tar.gz", {"model.pth": b"x", "code/inference.py": b"x = 1"}, folder="")
    assert read_tree(open_from("mac.tar.gz").folder) == {"handler.py": b"x = 1"}
    assert set(read_tree(open_from("flat.tar.gz").folder)) == {"model.pth", "code/inference.py"}


def test_folder_with_only_a_manifest(store, open_from):
    """A folder whose only child is MAR-INF → not stepped into."""
    write_folder(store / "m", {"MAR-INF/MANIFEST.json": b'{"model": {"modelName": "m", "handler": "base_handler"}}'})
    assert open_from("m").model_name == "m"


@pytest.mark.parametrize("write", [write_mar, write_folder])
def test_absolute_path(write, tmp_path):
    """An absolute path → opened without a store."""
    archive = open_archive(write(tmp_path / "digits"), store=None, unpack_root=tmp_path / "unpacked")
    assert archive.source == str(tmp_path / "digits")
    assert archive.model_name == "digits"


def test_file_url(tmp_path):
    """A file:// URL → the file it names."""
    url = write_mar(tmp_path / "my digits.mar").as_uri()
    assert open_archive(url, store=None, unpack_root=tmp_path / "unpacked").model_name == "digits"


def test_modes(store, open_from):
    """Entries with strange modes, under a strict umask → files 0644, folders 0755."""
    with zipfile.ZipFile(store / "m.mar", "w") as archive:
        entry = zipfile.ZipInfo("a/b/run.sh")
        entry.external_attr = (stat.S_IFREG | 0o4777) << 16
        archive.writestr(entry, b"")
    old = os.umask(0o077)
    try:
        folder = open_from("m.mar").folder
    finally:
        os.umask(old)
    assert {path.name: oct(path.stat().st_mode & 0o7777) for path in [folder, *folder.rglob("*")]} == {
        folder.name: "0o755",
        "b": "0o755",
        "run.sh": "0o644",
    }


def test_remove(store, tmp_path, open_from):
    """Remove after unpacking → the files are gone, and the archive stays."""
    write_mar(store / "digits.mar")
    open_from("digits.mar").remove()
    assert list((tmp_path / "unpacked").iterdir()) == []
    assert (store / "digits.mar").exists()


def test_remove_folder(store, open_from):
    """Remove of a model given as a folder → the folder stays."""
    write_folder(store / "digits")
    open_from("digits").remove()
    assert read_tree(store / "digits") == FILES


def test_opened_twice(store, open_from):
    """One archive opened twice → two folders."""
    write_mar(store / "digits.mar")
    assert open_from("digits.mar").folder != open_from("digits.mar").folder


def test_no_manifest(store, open_from):
    """No manifest → an empty one; name and handler are the caller's to give."""
    write_mar(store / "m.mar", {"handler.py": b"", "model.pt": b""})
    archive = open_from("m.mar")
    assert (archive.manifest, archive.model_name, archive.handler) == ({}, None, None)
    assert (archive.model_version, archive.runtime) == ("1.0", "python")


def test_old_manifest(store, open_from):
    """An old archive's manifest, with keys long gone and no version → read; version 1.0."""
    old = {"specificationVersion": "1.0", "license": "MIT", "publisher": {"author": "x"}, "model": {"modelName": "m", "handler": "h.py"}}
    write_mar(store / "m.mar", {"MAR-INF/MANIFEST.json": json.dumps(old).encode()})
    archive = open_from("m.mar")
    assert (archive.model_name, archive.model_version, archive.manifest) == ("m", "1.0", old)


def test_config(store, open_from):
    """The configFile of the manifest → parsed, with its warnings named after the file."""
    write_mar(store / "m.mar", with_model(configFile="settings.yaml") | {"settings.yaml": b"batchSize: 8\nmaxWorkers: many\n"})
    config = open_from("m.mar").config
    assert config.batch_size == 8
    assert config.warnings[0].startswith("settings.yaml, line 2: maxWorkers")


def test_version_as_number(store, open_from):
    """A version written as a number → text."""
    write_mar(store / "m.mar", with_model(modelVersion=3))
    assert open_from("m.mar").model_version == "3"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (FILES | {"MAR-INF/MANIFEST.json": b'{\n"model": }'}, "MAR-INF/MANIFEST.json, line 2: not valid JSON"),
        (FILES | {"MAR-INF/MANIFEST.json": b"[]"}, "must be a JSON object"),
        (FILES | {"MAR-INF/MANIFEST.json": b"\xff\xfe"}, "not valid JSON"),
        (FILES | {"MAR-INF/MANIFEST.json": b"[" * 100_000}, "not valid JSON"),
        (FILES | {"MAR-INF/MANIFEST.json": b" " * 2_000_000}, "larger than"),
        (with_manifest(model=["digits"]), '"model" must be an object'),
        (with_model(modelName={"a": 1}), '"modelName" must be text'),
        (with_model(handler=True), '"handler" must be text'),
        (with_manifest(runtime="LSP"), "C\\+\\+ backend"),
        (with_manifest(runtime="python4"), "runtime must be python or python3, not 'python4'"),
        (with_model(serializedFile="gone.pt"), 'serializedFile "gone.pt" is not in the archive'),
        (with_model(modelFile="model.py"), 'modelFile "model.py" is not in the archive'),
        (with_model(configFile="c.yaml"), 'configFile "c.yaml" is not in the archive'),
        (with_model(requirementsFile="r.txt"), 'requirementsFile "r.txt" is not in the archive'),
        (with_model(configFile="../c.yaml"), "is outside the archive"),
        (with_model(configFile="/etc/hostname"), "is outside the archive"),
        (with_model(configFile="c.yaml") | {"c.yaml": b"a: 1\nb: {]"}, '"m.mar": c.yaml, line 2: not valid YAML'),
        (with_model(configFile="c.yaml") | {"c.yaml": b"\xff"}, "c.yaml"),
    ],
)
def test_bad_contents(files, message, store, tmp_path, open_from):
    """A manifest or configuration that cannot be used → InvalidArchive saying where, and nothing left."""
    write_mar(store / "m.mar", files)
    with pytest.raises(InvalidArchive, match=message):
        open_from("m.mar")
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_not_found(store, open_from):
    """A name nobody has → the near names and how many there are, without the store's path."""
    for name in ("digits.mar", "digit.mar", "resnet.mar", "notes.txt", ".hidden.mar"):
        (store / name).touch()
    with pytest.raises(ArchiveNotFound) as caught:
        open_from("digitz.mar")
    assert caught.value.message == 'Archive "digitz.mar" was not found; 3 archives in the model store; did you mean digit.mar, digits.mar?'


@pytest.mark.parametrize("source", ["x.mar", "", ".", "a/b/c.mar", "x" * 5000, "a\0b"])
def test_not_found_whatever_the_name(source, open_from):
    """Names that no file has or can have → ArchiveNotFound."""
    with pytest.raises(ArchiveNotFound):
        open_from(source)


def test_not_in_the_current_folder(tmp_path, monkeypatch, open_from):
    """A file in the current folder but not in the store → ArchiveNotFound."""
    write_mar(tmp_path / "digits.mar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchiveNotFound):
        open_from("digits.mar")


def test_absolute_not_found(tmp_path, open_from):
    """An absolute path that is not there → ArchiveNotFound."""
    with pytest.raises(ArchiveNotFound, match="no such file or folder"):
        open_from(tmp_path / "x.mar")


@pytest.mark.parametrize(("store", "message"), [(None, "is not set"), (Path("/nonexistent"), "does not exist")])
def test_no_store(store, message, tmp_path):
    """No store → ArchiveNotFound naming the setting."""
    with pytest.raises(ArchiveNotFound, match=f"the model store {message}; set --model-store"):
        open_archive("x.mar", store=store, unpack_root=tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("../x.mar", r'must not contain "\.\."'),
        ("a/../../x.mar", r'must not contain "\.\."'),
        ("/a/../x.mar", r'must not contain "\.\."'),
        ("http://host/x.mar", "no pattern of allowed_urls matches it"),
        ("HTTPS://user:secret@host/x.mar?token=secret", 'Archive "https://host/x.mar" is not downloaded: no pattern'),
        ("s3://bucket/x.mar", "only http and https URLs are downloaded"),
        ("file://host/x.mar", "only http and https URLs are downloaded"),
        ("http://[", "The archive's URL is none"),
    ],
)
def test_refused_source(source, message, open_from):
    """Paths that climb, URLs that nobody allowed → InvalidArchive that says why, without secrets."""
    with pytest.raises(InvalidArchive, match=message):
        open_from(source)


def test_disk_at_fault(store, tmp_path):
    """A place to unpack that is no folder → ServerError without a path."""
    write_mar(store / "digits.mar")
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"could not be read or unpacked") as caught:
        open_archive("digits.mar", store=store, unpack_root=tmp_path / "file")
    assert str(tmp_path) not in caught.value.message


def test_archive_names(store):
    """A store with archives, folders and other files → archives and folders, sorted."""
    for name in ("b.mar", "a.tar.gz", "c.tgz", "d.model", "e.txt", ".f.mar"):
        (store / name).touch()
    (store / "folder").mkdir()
    (store / ".hidden").mkdir()
    assert archive_names(store) == ["a.tar.gz", "b.mar", "c.tgz", "d.model", "folder"]
