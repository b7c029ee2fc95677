"""The manifest of a model archive, MAR-INF/MANIFEST.json: where it is, and reading it with every value checked.

`core.archive` reads it, `core.archiver` writes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePath

from servegrpc.errors import InvalidArchive

MANIFEST_PATH = "MAR-INF/MANIFEST.json"
RUNTIMES = ("python", "python3", "LSP")  # LSP can be packed, for TorchServe's C++ backend, but not served
MAX_ENTRIES = 50_000  # in one archive
_LARGEST_TEXT_BYTES = 2**20


class Manifest:
    """The manifest in an archive's folder; `values` is the file as it is, or empty when there is none.

    Everything raises InvalidArchive, naming the manifest and `label`, the archive's name in messages.
    """

    def __init__(self, label: str, folder: Path) -> None:
        self._label = label
        self._folder = folder
        self.values = self._load()
        model = self.values.get("model") or {}
        if not isinstance(model, dict):
            raise self._invalid('"model" must be an object')
        self._model: dict[str, object] = model

    def text(self, key: str) -> str | None:
        """Return a text of the "model" section, or None when it is absent or empty."""
        value = self._model.get(key)
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, int | float) and not isinstance(value, bool):  # a version written as a number
            return str(value)
        raise self._invalid(f'"{key}" must be text, not {value!r}')

    def file(self, key: str) -> Path | None:
        """Return the file that a key names, which must be there, or None when the key is absent."""
        name = self.text(key)
        if name is None:
            return None
        path = PurePath(name)
        if path.anchor or ".." in path.parts:
            raise self._invalid(f'{key} "{name}" is outside the archive')
        if not os.path.exists(self._folder / path):  # never raises, unlike Path.exists
            raise self._invalid(f'{key} "{name}" is not in the archive')
        return self._folder / path

    def runtime(self) -> str:
        """Return what runs the handler: python (also when absent) or python3."""
        value = self.values.get("runtime") or "python"
        if value == "LSP":
            raise self._invalid('runtime "LSP" is TorchServe\'s C++ backend, which is not supported; give the archive a Python handler')
        if value not in RUNTIMES:
            raise self._invalid(f"runtime must be python or python3, not {value!r}")
        return str(value)

    def _load(self) -> dict[str, object]:
        path = self._folder / MANIFEST_PATH
        if not path.is_file():
            return {}
        try:
            values = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise self._invalid(f"not valid JSON: {error.msg}", line=error.lineno) from error
        except (ValueError, RecursionError) as error:
            raise self._invalid(f"not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise self._invalid("must be a JSON object", line=1)
        return values

    def _invalid(self, problem: str, line: int | None = None) -> InvalidArchive:
        where = MANIFEST_PATH if line is None else f"{MANIFEST_PATH}, line {line}"
        return InvalidArchive(f'Archive "{self._label}": {where}: {problem}.', archive=self._label)


def read_text(path: Path) -> str:
    """Return a UTF-8 file of at most 1 MiB; raises ValueError when it is not one."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_TEXT_BYTES + 1)
    if len(content) > _LARGEST_TEXT_BYTES:
        raise ValueError(f"is larger than {_LARGEST_TEXT_BYTES} bytes")
    return content.decode("utf-8-sig")
