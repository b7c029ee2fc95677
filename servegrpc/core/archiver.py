"""Writes a model archive from its parts, as `torch-model-archiver` does: same rules, same layouts.

`servegrpc archive` calls it. It needs the standard library only, and never leaves a half-written archive.
"""

from __future__ import annotations

import filecmp
import glob
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO
from uuid import uuid4

from servegrpc import __version__
from servegrpc.core.manifest import MANIFEST_PATH, MAX_ENTRIES, RUNTIMES
from servegrpc.errors import InvalidArchive

DEFAULT_HANDLERS = (
    "base_handler",
    "dali_image_classifier",
    "densenet_handler",
    "image_classifier",
    "image_segmenter",
    "object_detector",
    "text_classifier",
    "trt_llm_handler",
    "vision_handler",
    "vllm_handler",
)
ARCHIVE_SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")
_SKIPPED_FOLDERS = ("__MACOSX", "__pycache__")
_CHUNK_BYTES = 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ArchiveSpec:
    """What goes into an archive; the flags of `torch-model-archiver`, with their defaults.

    `handler` is one of DEFAULT_HANDLERS or a file, with or without ".py" and ":function". `extra_files` lists files, globs and
    folders, comma separated; a folder gives its contents. `export_path` is created when missing.
    """

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"
    export_path: str = "."
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None


def write_archive(spec: ArchiveSpec, on_progress: Progress | None = None) -> Path:
    """Write the archive and return its path: `<name>.mar`, `<name>.tar.gz`, or the folder `<name>`.

    `on_progress` is told the bytes done and the bytes in all, after each MiB. The archive appears under its name when it is whole.
    Raises InvalidArchive naming the flag at fault, OSError when the disk is.
    """
    _check(spec)
    target = Path(spec.export_path) / (spec.model_name + ARCHIVE_SUFFIXES[spec.archive_format])
    if os.path.lexists(target) and not spec.force:
        raise InvalidArchive(f'--export-path: "{target}" exists already; add --force to replace it.')
    if target.is_dir() and not (target / MANIFEST_PATH).is_file():
        raise InvalidArchive(f'--force: "{target}" is a folder but no archive; move it away.')
    files = _gather(spec)
    manifest = json.dumps(_manifest(spec), indent=2).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        _WRITERS[spec.archive_format](staging, spec.model_name, _contents(manifest, files, on_progress or _ignore_progress))
        if target.is_dir() or staging.is_dir():  # a folder cannot be replaced in one step
            _remove(target)
        staging.replace(target)
    finally:
        _remove(staging)
    return target


def _check(spec: ArchiveSpec) -> None:
    if not _MODEL_NAME.fullmatch(spec.model_name):
        raise InvalidArchive(f'--model-name: "{spec.model_name}" must begin with a letter or digit and go on with those, "_", "-" or ".".')
    if spec.runtime not in RUNTIMES:
        raise InvalidArchive(f'--runtime: "{spec.runtime}" must be one of {", ".join(RUNTIMES)}.')
    if spec.archive_format not in ARCHIVE_SUFFIXES:
        raise InvalidArchive(f'--archive-format: "{spec.archive_format}" must be one of {", ".join(ARCHIVE_SUFFIXES)}.')
    if not spec.version.strip():
        raise InvalidArchive("--version: must not be empty.")
    if not spec.handler.strip():
        raise InvalidArchive(f"--handler: must be a file or one of {', '.join(DEFAULT_HANDLERS)}.")


def _manifest(spec: ArchiveSpec) -> dict[str, object]:
    model = {
        "modelName": spec.model_name,
        "serializedFile": _base(spec.serialized_file),
        "handler": _base(spec.handler),
        "modelFile": _base(spec.model_file),
        "modelVersion": spec.version,
        "requirementsFile": _base(spec.requirements_file),
        "configFile": _base(spec.config_file),
    }
    return {
        "createdOn": datetime.now().strftime("%d/%m/%Y %H:%M:%S"),
        "runtime": spec.runtime,
        "model": {key: value for key, value in model.items() if value},
        "archiverVersion": f"servegrpc {__version__}",
    }


def _base(path: str | None) -> str | None:
    return Path(path).name if path else None


def _gather(spec: ArchiveSpec) -> dict[str, Path]:
    """Return the file for each name in the archive, sorted by name."""
    files: dict[str, Path] = {}
    for flag, path in (
        ("--serialized-file", spec.serialized_file),
        ("--model-file", spec.model_file),
        ("--handler", _handler_file(spec.handler)),
        ("--requirements-file", spec.requirements_file),
        ("--config-file", spec.config_file),
    ):
        if path:
            _add(files, flag, Path(path).name, Path(path))
    for name, path_found in _extra_files(spec.extra_files or ""):
        if name != MANIFEST_PATH:  # of an archive unpacked before; this one gets its own
            _add(files, "--extra-files", name, path_found)
    for name, path_found in files.items():
        if any(parent.as_posix() in files for parent in PurePosixPath(name).parents):
            raise InvalidArchive(f'--extra-files: "{path_found}" would be in a folder of the archive that is also a file; rename one.')
    return dict(sorted(files.items()))


def _handler_file(handler: str) -> str | None:
    if handler in DEFAULT_HANDLERS:
        return None
    path = re.sub(r":\w*$", "", handler)
    return path if path.endswith(".py") else f"{path}.py"


def _extra_files(patterns: str) -> Iterator[tuple[str, Path]]:
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        matches = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise InvalidArchive(f'--extra-files: "{pattern}" matches no file or folder.')
        for match in map(Path, matches):
            if match.is_dir():
                yield from _folder_files(match)
            else:
                yield match.name, match


def _folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Walk a folder, through links too, leaving out hidden folders and those that tools make."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        for name in names:
            path = Path(parent, name)
            yield PurePosixPath(path.relative_to(folder)).as_posix(), path


def _add(files: dict[str, Path], flag: str, name: str, path: Path) -> None:
    if not path.is_file():
        raise InvalidArchive(f'{flag}: "{path}" is not a file.')
    if name.encode(errors="replace").decode() != name:
        raise InvalidArchive(f"{flag}: {str(path)!r} has a name that is not UTF-8; rename it.")
    if name in files and not filecmp.cmp(files[name], path, shallow=False):
        raise InvalidArchive(f'{flag}: "{path}" and "{files[name]}" would both be "{name}" in the archive; rename one.')
    files[name] = path
    if len(files) >= MAX_ENTRIES:  # one is the manifest
        raise InvalidArchive(f"{flag}: more than {MAX_ENTRIES} files; leave some out.")


@dataclass
class _Content:
    """One file on its way into an archive; reading it reports progress."""

    name: str
    size_bytes: int
    file: IO[bytes]
    on_read: Callable[[int], None]

    def read(self, size_bytes: int = -1, /) -> bytes:
        chunk = self.file.read(size_bytes)
        self.on_read(len(chunk))
        return chunk


def _contents(manifest: bytes, files: dict[str, Path], on_progress: Progress) -> Iterator[_Content]:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total_bytes = len(manifest) + sum(sizes.values())
    done_bytes = reported_bytes = 0

    def count(read_bytes: int) -> None:
        nonlocal done_bytes, reported_bytes
        done_bytes += read_bytes
        if done_bytes - reported_bytes >= _CHUNK_BYTES or done_bytes == total_bytes > reported_bytes:
            reported_bytes = done_bytes
            on_progress(done_bytes, total_bytes)

    yield _Content(MANIFEST_PATH, len(manifest), BytesIO(manifest), count)
    for name, path in files.items():
        with path.open("rb") as file:
            yield _Content(name, sizes[name], file, count)


def _ignore_progress(_done_bytes: int, _total_bytes: int) -> None:
    pass


def _write_mar(target: Path, _model_name: str, contents: Iterator[_Content], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for content in contents:
            entry = zipfile.ZipInfo(content.name)
            entry.compress_type = compression
            entry.external_attr = 0o100644 << 16
            entry.file_size = content.size_bytes  # tells zipfile when to use its 64-bit form
            with archive.open(entry, "w") as file:
                shutil.copyfileobj(content, file, _CHUNK_BYTES)


def _write_stored_mar(target: Path, model_name: str, contents: Iterator[_Content]) -> None:
    _write_mar(target, model_name, contents, zipfile.ZIP_STORED)


def _write_tgz(target: Path, model_name: str, contents: Iterator[_Content]) -> None:
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for content in contents:
            entry = tarfile.TarInfo(f"{model_name}/{content.name}")
            entry.size = content.size_bytes
            archive.addfile(entry, content)


def _write_folder(target: Path, _model_name: str, contents: Iterator[_Content]) -> None:
    for content in contents:
        path = target / content.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)


_WRITERS: dict[str, Callable[[Path, str, Iterator[_Content]], None]] = {
    "default": _write_mar,
    "zip-store": _write_stored_mar,
    "tgz": _write_tgz,
    "no-archive": _write_folder,
}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
