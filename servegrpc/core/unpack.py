"""Unpacks an archive file into a folder, trusting nothing in it.

`core.archive` calls it. Only regular files and folders come out, never outside the folder, and never more than the limits allow;
anything else is refused as InvalidArchive. On an error the folder is left half full: the caller removes it.
"""

from __future__ import annotations

import errno
import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from servegrpc.core.manifest import MAX_ENTRIES
from servegrpc.errors import InvalidArchive

MAX_UNPACKED_BYTES = 20 * 2**30
_DENSEST = 100  # times its own size, that an archive may unpack to; weights do not come near
_ALWAYS_ALLOWED_BYTES = 2**30  # however small the archive is
_DEEPEST_FOLDER = 100
_CHUNK_BYTES = 2**20
_LARGEST_TAR_TAIL_BYTES = 2**24  # what may follow a tar's end mark: padding to the block size of its writer
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,  # offsets beyond any file
    NotImplementedError,  # a zip that needs a newer version or a patch
    RecursionError,  # an endless chain of tar headers
    ValueError,  # names that are no text
)
_DAMAGED_ERRNO = (errno.EINVAL, errno.EILSEQ)  # offsets before the file, names that this disk cannot hold


@dataclass(frozen=True)
class _Entry:
    """One entry as the archive declares it; `content` is None for a folder."""

    name: str
    size_bytes: int
    content: IO[bytes] | None


class _Refused(ValueError):
    """Why an archive is refused, as the end of a sentence that begins with its name."""


def unpack(archive: Path, folder: Path, *, label: str, max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Unpack a zip or a gzipped tar into `folder`, which is created with mode 0755 and its files with 0644.

    The format is told by the content, not the name. `label` is what messages call the archive. Raises InvalidArchive when it is
    damaged, unsafe, too large, or far larger than its file, OSError when the disk is at fault.
    """
    most_bytes = min(max_unpacked_bytes, max(_ALWAYS_ALLOWED_BYTES, archive.stat().st_size * _DENSEST))
    try:
        with closing(_entries(archive)) as entries:
            _make_folder(folder)
            _write(entries, folder, most_bytes)
    except _Refused as error:
        raise InvalidArchive(f'Archive "{label}" {error}.', archive=label) from error
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno not in _DAMAGED_ERRNO:
            raise
        raise InvalidArchive(f'Archive "{label}" is damaged or cut short ({error}); copy or build it again.', archive=label) from error


def _entries(archive: Path) -> Generator[_Entry, None, None]:
    with archive.open("rb") as file:
        magic = file.read(2)
        file.seek(0)
        if magic == b"PK":
            yield from _zip_entries(file)
        elif magic == b"\x1f\x8b":
            yield from _tar_entries(file)
        else:
            raise _Refused("is neither a zip (.mar) nor a gzipped tar (.tar.gz)")


def _zip_entries(file: IO[bytes]) -> Generator[_Entry, None, None]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise _Refused(f"has more than {MAX_ENTRIES} entries")
        for entry in entries:
            if entry.flag_bits & 0x1:
                raise _Refused("is encrypted; pack it without a password")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused(f"has an entry that is neither stored nor deflated: {_show(entry.filename)}")
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"has an entry that is no regular file or folder: {_show(entry.filename)}")
            if entry.filename.endswith("/"):
                yield _Entry(entry.filename, 0, None)
            else:
                with archive.open(entry) as content:
                    yield _Entry(entry.filename, entry.file_size, content)


def _tar_entries(file: IO[bytes]) -> Generator[_Entry, None, None]:
    with _GzipStream(fileobj=file) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                if entry.isdir():
                    yield _Entry(entry.name, 0, None)
                    continue
                content = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
                if content is None:
                    raise _Refused(f"has an entry that is no regular file or folder: {_show(entry.name)}")
                yield _Entry(entry.name, entry.size, content)
        tail_bytes = 0
        while chunk := stream.read(_CHUNK_BYTES):  # to the very end, where gzip's checksum is
            tail_bytes += len(chunk)
            if tail_bytes > _LARGEST_TAR_TAIL_BYTES:
                raise _Refused("goes on after the end of its tar")


class _GzipStream(gzip.GzipFile):
    """A gzip reader that gives at most a chunk at a time: tarfile would read a header of any declared size into memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _CHUNK_BYTES:
            raise _Refused("has a tar header of impossible size")
        return super().read(size)


def _write(entries: Generator[_Entry, None, None], folder: Path, max_unpacked_bytes: int) -> None:
    declared_bytes = written_bytes = 0
    for count, entry in enumerate(entries, start=1):
        declared_bytes += entry.size_bytes
        if count > MAX_ENTRIES:
            raise _Refused(f"has more than {MAX_ENTRIES} entries")
        if entry.size_bytes < 0 or declared_bytes > max_unpacked_bytes:
            raise _Refused(f"would unpack to more than {max_unpacked_bytes} bytes")
        target = folder / _checked(entry.name)
        try:
            if entry.content is None:
                _make_folder(target)
            else:
                _make_folder(target.parent)
                written_bytes += _write_file(entry.content, target, max_unpacked_bytes - written_bytes, max_unpacked_bytes)
        except (FileExistsError, NotADirectoryError) as error:
            raise _Refused(f"has two entries of one name: {_show(entry.name)}") from error


def _write_file(content: IO[bytes], target: Path, left_bytes: int, max_unpacked_bytes: int) -> int:
    written_bytes = 0
    with target.open("xb") as file:  # x: a second entry of the name fails
        while chunk := content.read(_CHUNK_BYTES):
            written_bytes += len(chunk)
            if written_bytes > left_bytes:  # the declared size was a lie
                raise _Refused(f"would unpack to more than {max_unpacked_bytes} bytes")
            file.write(chunk)
    target.chmod(0o644)
    return written_bytes


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _checked(name: str) -> PurePath:
    path = PurePath(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise _Refused(f"has an entry outside its folder: {_show(name)}")
    if len(path.parts) > _DEEPEST_FOLDER or any(len(part.encode(errors="surrogateescape")) > 255 for part in path.parts):
        raise _Refused(f"has an entry whose name is too long: {_show(name)}")
    return path


def _show(name: str) -> str:
    return repr(name if len(name) <= 100 else name[:100] + "…")
