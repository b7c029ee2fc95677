"""Finds and reads TorchServe's configuration, in its own order: the file, the options over it, and the variables over both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from servegrpc.errors import InvalidInput
from servegrpc.tsconfig.keys import variables
from servegrpc.tsconfig.properties import parse_properties, replace_variables
from servegrpc.tsconfig.translate import Translation, translate

CONFIG_VARIABLE = "TS_CONFIG_FILE"
LOG_VARIABLE = "LOG_LOCATION"  # TorchServe writes its snapshots below its logs


def find_config(given: Path | None, environment: Mapping[str, str], *, snapshots: bool, folder: Path) -> Path | None:
    """Return the file to read, if any: the variable's, the one given, the newest snapshot, config.properties in `folder`."""
    if environment.get(CONFIG_VARIABLE):
        return Path(environment[CONFIG_VARIABLE])
    if given:
        return given
    kept = folder / environment.get(LOG_VARIABLE, "logs") / "config"
    if snapshots and (files := list(kept.glob("*.cfg"))):
        return max(files, key=lambda file: (file.stat().st_mtime, file.name))
    default = folder / "config.properties"
    return default if default.is_file() else None


def read_config(file: Path | None, options: Mapping[str, str], environment: Mapping[str, str]) -> Translation:
    """Read a file, if there is one, with `options` put over its keys. Raises InvalidInput naming the file and the key."""
    try:
        properties = replace_variables(parse_properties(_text(file)) if file else {}, environment)
        properties |= options
        if properties.get("enable_envvars_config", "").strip().lower() == "true":
            allowed_urls = properties.get("use_env_allowed_urls", "").strip().lower() == "true"
            properties |= variables(environment, allowed_urls=allowed_urls)
        return translate(properties)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}.", field="ts_config") from None
    except InvalidInput as error:
        raise InvalidInput(f"{file.name if file else 'TorchServe options'}: {error.message}", field=error.field) from None


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")  # Java's own encoding of such files
