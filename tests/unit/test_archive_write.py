"""Writing archives: what goes in, under which names, in which layout, and what is refused."""

import json
import re
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegrpc import __version__
from servegrpc.core.archive import open_archive
from servegrpc.core.archiver import ARCHIVE_SUFFIXES, DEFAULT_HANDLERS, ArchiveSpec, write_archive
from servegrpc.errors import InvalidArchive


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Write the parts of a model into the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "model.pt": b"weights",
        "model.py": b"class Model: ...",
        "handler.py": b"def handle(data, context): ...",
        "requirements.txt": b"numpy",
        "model-config.yaml": b"batchSize: 4",
        "extra/labels.json": b"{}",
        "extra/deep/er/a.txt": b"a",
        "extra/.hidden/b.txt": b"b",
        "extra/__pycache__/c.pyc": b"c",
        "extra/__MACOSX/d": b"d",
        "extra/.keep": b"",
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def spec(**changes):
    return ArchiveSpec(**({"model_name": "digits", "handler": "handler.py", "version": "1.0", "export_path": "out"} | changes))


def names_of(mar):
    with zipfile.ZipFile(mar) as archive:
        return sorted(archive.namelist())


def manifest_of(mar):
    with zipfile.ZipFile(mar) as archive:
        return json.loads(archive.read("MAR-INF/MANIFEST.json"))


def test_everything(parts):
    """Every part given → the manifest has TorchServe's keys, in its order, with base names."""
    mar = write_archive(
        spec(
            serialized_file="./model.pt",
            model_file="model.py",
            extra_files="extra/labels.json",
            runtime="python3",
            requirements_file="requirements.txt",
            config_file="model-config.yaml",
        )
    )
    assert mar == Path("out/digits.mar")
    manifest = manifest_of(mar)
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", manifest.pop("createdOn"))
    assert json.dumps(manifest) == json.dumps(
        {
            "runtime": "python3",
            "model": {
                "modelName": "digits",
                "serializedFile": "model.pt",
                "handler": "handler.py",
                "modelFile": "model.py",
                "modelVersion": "1.0",
                "requirementsFile": "requirements.txt",
                "configFile": "model-config.yaml",
            },
            "archiverVersion": f"servegrpc {__version__}",
        }
    )
    assert names_of(mar) == [
        "MAR-INF/MANIFEST.json",
        "handler.py",
        "labels.json",
        "model-config.yaml",
        "model.pt",
        "model.py",
        "requirements.txt",
    ]


def test_only_what_is_needed(parts):
    """A name, a version and a handler → keys of other parts absent."""
    manifest = manifest_of(write_archive(spec()))
    assert manifest["runtime"] == "python"
    assert manifest["model"] == {"modelName": "digits", "handler": "handler.py", "modelVersion": "1.0"}


@pytest.mark.parametrize(
    ("handler", "named", "files"),
    [
        ("handler.py", "handler.py", ["handler.py"]),
        ("handler", "handler", ["handler.py"]),
        ("handler.py:handle", "handler.py:handle", ["handler.py"]),
        ("handler:handle", "handler:handle", ["handler.py"]),
        ("./handler.py:handle", "handler.py:handle", ["handler.py"]),
        *((name, name, []) for name in DEFAULT_HANDLERS),
    ],
)
def test_handler(handler, named, files, parts):
    """A handler by any of its names → the file is packed unless it is a default handler; the manifest keeps the name."""
    mar = write_archive(spec(handler=handler))
    assert manifest_of(mar)["model"]["handler"] == named
    assert names_of(mar) == ["MAR-INF/MANIFEST.json", *files]


@pytest.mark.parametrize(
    ("extra_files", "names"),
    [
        ("extra", [".keep", "deep/er/a.txt", "labels.json"]),
        ("extra/", [".keep", "deep/er/a.txt", "labels.json"]),
        ("extra/*.json, model.p*", ["labels.json", "model.pt", "model.py"]),
        ("extra/**/*.txt", ["a.txt"]),
        ("model.pt,,model.pt,", ["model.pt"]),
        ("handler.py", []),
        ("", []),
    ],
)
def test_extra_files(extra_files, names, parts):
    """Files, globs, folders → files by base name, folders by content without hidden and tools' folders."""
    assert names_of(write_archive(spec(extra_files=extra_files))) == sorted(["MAR-INF/MANIFEST.json", "handler.py", *names])


def test_unpacked_archive_as_extra(parts):
    """Extra files from an archive unpacked before → a manifest of its own, not the old one."""
    folder = write_archive(spec(archive_format="no-archive", version="old"))
    assert manifest_of(write_archive(spec(extra_files=str(folder))))["model"]["modelVersion"] == "1.0"


def test_linked_extra(parts):
    """A link among the extra files → the file it leads to, as a regular file."""
    Path("extra/link").symlink_to(Path("model.pt").resolve())
    with zipfile.ZipFile(write_archive(spec(extra_files="extra"))) as archive:
        assert archive.read("link") == b"weights"
        assert stat.S_ISREG(archive.getinfo("link").external_attr >> 16)


@pytest.mark.parametrize(("archive_format", "compression"), [("default", zipfile.ZIP_DEFLATED), ("zip-store", zipfile.ZIP_STORED)])
def test_mar(archive_format, compression, parts):
    """The two kinds of .mar → deflated or stored."""
    with zipfile.ZipFile(write_archive(spec(archive_format=archive_format))) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {compression}


def test_tgz(parts):
    """Format tgz → everything in a folder of the model's name."""
    path = write_archive(spec(archive_format="tgz"))
    assert path.name == "digits.tar.gz"
    with tarfile.open(path) as archive:
        assert sorted(archive.getnames()) == ["digits/MAR-INF/MANIFEST.json", "digits/handler.py"]


def test_no_archive(parts):
    """Format no-archive → a folder of the model's name."""
    folder = write_archive(spec(archive_format="no-archive"))
    assert folder == Path("out/digits")
    assert (folder / "handler.py").read_bytes() == Path("handler.py").read_bytes()
    assert (folder / "MAR-INF/MANIFEST.json").is_file()


@pytest.mark.parametrize("archive_format", ARCHIVE_SUFFIXES)
def test_exists(archive_format, parts):
    """An archive of that name there → refused without force, replaced with it."""
    write_archive(spec(archive_format=archive_format, extra_files="extra"))
    with pytest.raises(InvalidArchive, match=r"exists already; add --force"):
        write_archive(spec(archive_format=archive_format))
    path = write_archive(spec(archive_format=archive_format, force=True, version="2.0"))
    archive = open_archive(path.resolve(), store=None, unpack_root=Path("unpacked").resolve())
    assert archive.model_version == "2.0"
    assert not (archive.folder / "labels.json").exists()
    assert [path.name for path in Path("out").iterdir()] == [path.name]


def test_force_on_a_folder(parts):
    """Force where a folder that is no archive has the name → refused, and the folder stays."""
    with pytest.raises(InvalidArchive, match="is a folder but no archive"):
        write_archive(spec(model_name="extra", export_path=".", archive_format="no-archive", force=True))
    assert Path("extra/labels.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "-digits"}, "--model-name"),
        ({"model_name": "../digits"}, "--model-name"),
        ({"model_name": ""}, "--model-name"),
        ({"model_name": "digits\n"}, "--model-name"),
        ({"version": ""}, "--version"),
        ({"handler": " "}, "--handler"),
        ({"handler": "gone.py"}, '--handler: "gone.py" is not a file'),
        ({"runtime": "java"}, "--runtime"),
        ({"archive_format": "rar"}, "--archive-format"),
        ({"serialized_file": "gone.pt"}, '--serialized-file: "gone.pt" is not a file'),
        ({"model_file": "extra"}, '--model-file: "extra" is not a file'),
        ({"requirements_file": "gone.txt"}, "--requirements-file"),
        ({"config_file": "gone.yaml"}, "--config-file"),
        ({"extra_files": "model.pt,gone*"}, '--extra-files: "gone\\*" matches no file'),
        ({"extra_files": "twin"}, "--extra-files: .* would both be"),
        ({"extra_files": "clash"}, "--extra-files: .* folder of the archive that is also a file"),
    ],
)
def test_refused(changes, message, parts):
    """A flag that cannot be used → InvalidArchive naming it, and nothing written."""
    Path("twin").mkdir()
    Path("twin/handler.py").write_text("another")
    Path("clash/handler.py").mkdir(parents=True)
    Path("clash/handler.py/file").touch()
    with pytest.raises(InvalidArchive, match=message):
        write_archive(spec(**changes))
    assert not Path("out").exists()


def test_failure_leaves_nothing(parts):
    """Writing that breaks off → the export folder stays as it was."""

    def leave(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(spec(serialized_file="model.pt"), leave)
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("archive_format", ARCHIVE_SUFFIXES)
def test_progress(archive_format, parts):
    """A large file → progress that only grows and ends at the whole."""
    Path("model.pt").write_bytes(b"\0" * 3_500_000)
    seen = []
    write_archive(spec(serialized_file="model.pt", archive_format=archive_format), lambda done, total: seen.append((done, total)))
    done = [step[0] for step in seen]
    assert len(seen) >= 3
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] > 3_500_000


def test_imports_little():
    """Importing the archiver → neither yaml nor grpc nor torch."""
    code = "import sys, servegrpc.core.archiver; sys.exit(bool({'yaml', 'grpc', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FILE_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: not name.startswith((".", "MAR-INF", "__")) and len(name.encode()) < 200 and name != "handler.py"
)
TREES = st.recursive(st.binary(max_size=200), lambda inner: st.dictionaries(FILE_NAMES, inner, max_size=3), max_leaves=6).filter(
    lambda tree: isinstance(tree, dict)
)


def write_tree(folder, tree):
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(folder / name, content)
        else:
            (folder / name).write_bytes(content)


def read_tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tree=TREES, archive_format=st.sampled_from(sorted(ARCHIVE_SUFFIXES)))
def test_round_trip(tree, archive_format):
    """Any tree of files, in any format → the same bytes when opened again."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_tree(root / "tree", tree)
        path = write_archive(
            ArchiveSpec("m", "base_handler", "1", extra_files=str(root / "tree"), export_path=str(root), archive_format=archive_format)
        )
        archive = open_archive(path, store=None, unpack_root=root / "unpacked")
        files = read_tree(archive.folder)
        assert json.loads(files.pop("MAR-INF/MANIFEST.json")) == archive.manifest
        assert files == read_tree(root / "tree")
        assert (archive.model_name, archive.handler, archive.model_version) == ("m", "base_handler", "1")
