"""Writes settings as a servegrpc.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_toml(settings: Mapping[str, object]) -> str:
    """Return the text of a TOML file: plain values first, then a table for each mapping."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += _table([key], value)
    return "\n".join(lines) + "\n"


def _table(path: list[str], table: Mapping[str, object]) -> list[str]:
    plain = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    lines = ["", f"[{'.'.join(map(_key, path))}]", *plain] if plain or not table else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _table([*path, key], value)
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and true or false look the same in both
