"""Opens a model archive: finds it, unpacks it and reads its manifest and configuration.

`core.manager` and `servegrpc check` call `open_archive`. Nothing in an archive is run or trusted here; what comes back is plain data.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote
from uuid import uuid4

from servegrpc.core.download import Downloads, shown
from servegrpc.core.manifest import MANIFEST_PATH, Manifest, read_text
from servegrpc.core.model_config import ModelConfig, parse_model_config
from servegrpc.core.unpack import MAX_UNPACKED_BYTES, unpack
from servegrpc.errors import ArchiveNotFound, InvalidArchive, ServerError

_MANIFEST_FOLDER = PurePath(MANIFEST_PATH).parent
_ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ModelArchive:
    """An open archive: its files in `folder`, and what its manifest says.

    `manifest` is MANIFEST.json as it is, or empty when there is none; then `model_name` and `handler` are None and the caller
    must know them. `requirements` is the file that lists the Python packages it asks for. An `unpacked` folder belongs to the
    holder of this object, who ends it with `remove`.
    """

    source: str
    folder: Path
    manifest: dict[str, object]
    model_name: str | None
    model_version: str
    handler: str | None
    runtime: str
    config: ModelConfig
    unpacked: bool
    requirements: Path | None = None

    def remove(self) -> None:
        """Delete the unpacked files; a model given as a folder stays."""
        if self.unpacked:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_archive(
    source: str | Path,
    *,
    store: Path | None,
    unpack_root: Path,
    downloads: Downloads | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> ModelArchive:
    """Open an archive by absolute path, by its name in the model store, or by a URL that may be downloaded.

    A .mar or .tar.gz file is unpacked to a new folder under `unpack_root`; a folder is used where it is. A single folder inside, or the
    only one with a manifest, is taken for the archive itself. Blocks for as long as unpacking takes; on an error nothing is left behind.
    Raises ArchiveNotFound, InvalidArchive, or ServerError when the disk is at fault. Rules: TorchServe `ModelArchive.java`.
    """
    label = str(source)
    try:
        if _is_remote(label):
            label = shown(label)
            return _download(str(source), label, downloads or Downloads(), unpack_root, max_unpacked_bytes)
        found = _locate(label, store)
        if found.is_dir():
            return _read(label, _unwrap(found), unpacked=False)
        return _unpack(label, found, unpack_root, max_unpacked_bytes)
    except OSError as error:
        raise ServerError(f'Archive "{label}" could not be read or unpacked: {error.strerror}.', archive=label) from error


def archive_names(store: Path) -> list[str]:
    """Return the names of the archives and model folders in a store, sorted."""
    with os.scandir(store) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and (entry.is_dir() or (entry.is_file() and entry.name.endswith(_ARCHIVE_SUFFIXES)))
        )


def _is_remote(source: str) -> bool:
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source)) and not source.startswith("file:///")


def _download(url: str, label: str, downloads: Downloads, root: Path, max_unpacked_bytes: int) -> ModelArchive:
    root.mkdir(parents=True, exist_ok=True)
    file = root / f"{uuid4().hex}.download"
    try:
        downloads.fetch(url, file, max_bytes=max_unpacked_bytes)
        return _unpack(label, file, root, max_unpacked_bytes)
    finally:
        file.unlink(missing_ok=True)


def _locate(source: str, store: Path | None) -> Path:
    if source.startswith("file:///"):
        source = unquote(source.removeprefix("file://"))
    path = Path(source)
    if ".." in path.parts:
        raise InvalidArchive(f'Archive "{source}" must not contain ".."; give its name in the model store.', archive=source)
    if path.is_absolute():
        found = path
    elif store is None or not store.is_dir():
        what = "is not set" if store is None else "does not exist"
        raise ArchiveNotFound(
            f'Archive "{source}" was not found: the model store {what}; set --model-store to the folder that holds the archives.',
            archive=source,
            model_store=what,
        )
    else:
        found = store / path
    if path.parts and (os.path.isfile(found) or os.path.isdir(found)):  # never raises, unlike Path.exists
        return found
    raise _not_found(source, None if path.is_absolute() else store)


def _unpack(label: str, file: Path, root: Path, max_unpacked_bytes: int) -> ModelArchive:
    staging, folder = root / f"{uuid4().hex}.part", root / uuid4().hex
    root.mkdir(parents=True, exist_ok=True)
    try:
        unpack(file, staging, label=label, max_unpacked_bytes=max_unpacked_bytes)
        _unwrap(staging).rename(folder)
        return _read(label, folder, unpacked=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _not_found(source: str, store: Path | None) -> ArchiveNotFound:
    message = f'Archive "{source}" was not found'
    if store is None:
        return ArchiveNotFound(f"{message}: no such file or folder.", archive=source)
    names = archive_names(store)
    near = difflib.get_close_matches(source, names, n=5)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    return ArchiveNotFound(f"{message}; {len(names)} archives in the model store{hint}", archive=source)


def _unwrap(folder: Path) -> Path:
    """Step into the folder inside that has the files, as in archives made by hand, by SageMaker and in every .tar.gz.

    It is the one with a manifest, else the only child; what macOS packs beside it does not count.
    """
    children = [child for child in folder.iterdir() if not child.name.startswith(".") and child.name != "__MACOSX"]
    if folder / _MANIFEST_FOLDER in children:
        return folder
    inside = [child for child in children if (child / MANIFEST_PATH).is_file()] or children
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _read(label: str, folder: Path, *, unpacked: bool) -> ModelArchive:
    manifest = Manifest(label, folder)
    for key in ("serializedFile", "modelFile"):
        manifest.file(key)
    config_file = manifest.file("configFile")
    return ModelArchive(
        source=label,
        folder=folder,
        manifest=manifest.values,
        model_name=manifest.text("modelName"),
        model_version=manifest.text("modelVersion") or "1.0",
        handler=manifest.text("handler"),
        runtime=manifest.runtime(),
        config=_read_config(label, config_file) if config_file else ModelConfig(),
        requirements=manifest.file("requirementsFile"),
        unpacked=unpacked,
    )


def _read_config(label: str, path: Path) -> ModelConfig:
    try:
        return parse_model_config(read_text(path), name=path.name)
    except ValueError as error:
        raise InvalidArchive(f'Archive "{label}": {path.name} {error}.', archive=label) from error
    except InvalidArchive as error:
        raise InvalidArchive(f'Archive "{label}": {error.message}', archive=label) from error
