"""Archives that are damaged or made to do harm: refused, with nothing left and nothing outside."""

import contextlib
import gzip
import io
import json
import random
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servegrpc.core import unpack
from servegrpc.core.archive import open_archive
from servegrpc.errors import InvalidArchive

NOISE = random.Random(1).randbytes(100_000)


def mar(*entries, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content, *mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = compression
            entry.external_attr = mode[0] << 16 if mode else 0
            archive.writestr(entry, content)
    return buffer.getvalue()


def tgz(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content, *rest in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if rest:
                entry.type, entry.linkname = rest[0], "../outside"
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def raw_tar(name, size, kind=tarfile.REGTYPE, content=b""):
    """A tar header of any size, in a gzip."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + content)


def patched(content, old, new):
    assert old in content
    return content.replace(old, new)


def encrypted_mar():
    """Set the flag of encryption in both headers of the only entry."""
    content = bytearray(mar(("a", b"secret")))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


GOOD_MAR = mar(("model.pt", NOISE), ("handler.py", b"x = 1\n" * 100))
GOOD_TGZ = tgz(("m/model.pt", NOISE), ("m/handler.py", b"x = 1\n" * 100))

BAD = {
    "nothing": (b"", "neither a zip"),
    "text": (b"hello", "neither a zip"),
    "plain tar": (gzip.decompress(GOOD_TGZ), "neither a zip"),
    "only magic of zip": (b"PK\x03\x04", "damaged or cut short"),
    "gzip of text": (gzip.compress(b"hello"), "damaged or cut short"),
    "mar cut at the end": (GOOD_MAR[:-10], "damaged or cut short"),
    "mar cut in the middle": (GOOD_MAR[:50_000], "damaged or cut short"),
    "mar with its directory before its start": (GOOD_MAR[:-10] + b"\xff\xff\xff\x01" + GOOD_MAR[-6:], "damaged or cut short"),
    "tar.gz cut at the end": (GOOD_TGZ[:-4], "damaged or cut short"),
    "tar.gz cut in the middle": (GOOD_TGZ[:50_000], "damaged or cut short"),
    "tar cut inside its gzip": (gzip.compress(gzip.decompress(GOOD_TGZ)[:50_000]), "damaged or cut short"),
    "mar with a wrong byte": (patched(mar(("a", b"weights"), compression=zipfile.ZIP_STORED), b"weights", b"wEights"), "damaged"),
    "tar.gz with a wrong checksum": (GOOD_TGZ[:-8] + b"\0\0\0\0" + GOOD_TGZ[-4:], "damaged"),
    "mar climbs": (mar(("../outside", b"x")), "outside its folder: '../outside'"),
    "mar climbs later": (mar(("ok", b"x"), ("a/../../outside", b"x")), "outside its folder"),
    "mar absolute": (mar(("/outside", b"x")), "outside its folder"),
    "tar.gz climbs": (tgz(("m/ok", b"x"), ("m/../../outside", b"x")), "outside its folder"),
    "tar.gz absolute": (tgz(("/outside", b"x")), "outside its folder"),
    "mar with a link": (mar(("a", b"../outside", 0o120777)), "no regular file or folder: 'a'"),
    "mar with a device": (mar(("a", b"", 0o020666)), "no regular file or folder"),
    "tar.gz with a link": (tgz(("m/a", b"", tarfile.SYMTYPE)), "no regular file or folder"),
    "tar.gz with a hard link": (tgz(("m/a", b"", tarfile.LNKTYPE)), "no regular file or folder"),
    "tar.gz with a device": (tgz(("m/a", b"", tarfile.CHRTYPE)), "no regular file or folder"),
    "tar.gz with a pipe": (tgz(("m/a", b"", tarfile.FIFOTYPE)), "no regular file or folder"),
    "tar.gz with a twin": (tgz(("m/a", b"1"), ("m/a", b"2")), "two entries of one name: 'm/a'"),
    "mar with a twin by another spelling": (mar(("a/b", b"1"), ("a/./b", b"2")), "two entries of one name"),
    "mar with a file as a folder": (mar(("a", b"1"), ("a/b", b"2")), "two entries of one name"),
    "mar with a folder as a file": (mar(("a/b", b"1"), ("a", b"2")), "two entries of one name"),
    "mar with an empty name": (patched(mar(("a", b"1")), b"a", b"\0"), "two entries of one name"),
    "mar encrypted": (encrypted_mar(), "is encrypted"),
    "mar in another compression": (mar(("a", b"x"), compression=zipfile.ZIP_LZMA), "neither stored nor deflated"),
    "mar with a long name": (mar(("n" * 300, b"x")), "too long: 'nnn"),
    "mar nested without end": (mar(("d/" * 2000 + "f", b"x")), "too long: 'd/d/"),
    "tar.gz of a huge header": (raw_tar("x", 2**40, tarfile.XHDTYPE), "impossible size"),
    "tar.gz of a huge name": (raw_tar("x", 2**33, tarfile.GNUTYPE_LONGNAME), "impossible size"),
    "tar.gz of a negative size": (raw_tar("x", -512), "Archive"),
    "tar.gz of endless headers": (gzip.compress(tarfile.TarInfo("x").tobuf()[:156] + b"g" + b"\0" * 355), "Archive"),
    "tar.gz with a long tail": (gzip.compress(gzip.decompress(GOOD_TGZ) + b"\0" * 2**24), "goes on after the end"),
}


def open_bytes(content, tmp_path, **limits):
    """Open an archive of these bytes from a fresh folder."""
    (tmp_path / "store").mkdir(exist_ok=True)
    (tmp_path / "store" / "m.mar").write_bytes(content)
    return open_archive("m.mar", store=tmp_path / "store", unpack_root=tmp_path / "unpacked", **limits)


def assert_nothing_left(tmp_path):
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["store", "store/m.mar", "unpacked"]


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_refused(content, message, tmp_path):
    """A damaged or harmful archive → InvalidArchive with its name and why; nothing left, nothing outside."""
    with pytest.raises(InvalidArchive, match=message) as caught:
        open_bytes(content, tmp_path)
    assert caught.value.message.startswith('Archive "m.mar" ')
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        mar(("a", b"\0" * 600), ("b", b"\0" * 600)),
        tgz(("m/a", b"\0" * 600), ("m/b", b"\0" * 600)),
        patched(mar(("a", b"\0" * 2000)), (2000).to_bytes(4, "little"), (10).to_bytes(4, "little")),
    ],
    ids=["mar", "tar.gz", "mar that declares less"],
)
def test_too_large(content, tmp_path):
    """More bytes than allowed, whatever is declared → InvalidArchive, nothing left."""
    with pytest.raises(InvalidArchive):
        open_bytes(content, tmp_path, max_unpacked_bytes=1000)
    assert_nothing_left(tmp_path)


def test_just_small_enough(tmp_path):
    """Exactly as many bytes as allowed → opened."""
    assert open_bytes(mar(("a", b"\0" * 1000)), tmp_path, max_unpacked_bytes=1000).unpacked


@pytest.mark.slow
def test_too_many(tmp_path):
    """More entries than allowed → InvalidArchive, nothing left."""
    with pytest.raises(InvalidArchive, match="more than 50000 entries"):
        open_bytes(tgz(*(("m", b"", tarfile.DIRTYPE) for _ in range(50_001))), tmp_path)
    assert_nothing_left(tmp_path)


def test_nothing_stays_open(tmp_path):
    """A refused archive → its file is closed (an open one would warn, and warnings are errors)."""
    with pytest.raises(InvalidArchive):
        unpack.unpack(_write(tmp_path / "m.mar", mar(("../a", b""))), tmp_path / "out", label="m.mar")


def _write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["mar", "tgz", "tar"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_damage(kind, changes, tmp_path_factory):
    """Any bytes of a good archive changed → opened, or InvalidArchive; never another error, nothing outside."""
    files = [("m/MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "m"}}).encode()), ("m/a/b.py", b"pass\n" * 50)]
    content = bytearray(mar(*files) if kind == "mar" else tgz(*files))
    if kind == "tar":  # damage under the gzip, which has no checksum against it
        content = bytearray(gzip.decompress(content)[:2560])
    for position, value in changes:
        content[position % len(content)] = value
    folder = tmp_path_factory.mktemp("damage")
    with contextlib.suppress(InvalidArchive):
        open_bytes(gzip.compress(content) if kind == "tar" else content, folder, max_unpacked_bytes=10**6).remove()
    assert_nothing_left(folder)
