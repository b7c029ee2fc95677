"""Reads the text of a Java properties file, and replaces `$$NAME$$` in it from the environment, as TorchServe does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from servegrpc.errors import InvalidInput

_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_KEY = re.compile(r"((?:\\.|[^\s=:\\])+)[ \t\f]*[=:]?[ \t\f]*")
_VARIABLE = re.compile(r"\$\$([^$]+)\$\$")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}


def parse_properties(text: str) -> dict[str, str]:
    """Return keys and values; of a key that comes twice, the last (Java `Properties.load`)."""
    properties = {}
    for line in _logical_lines(text):
        match = _KEY.match(line)
        if match:
            properties[_unescape(match[1])] = _unescape(line[match.end() :])
    return properties


def replace_variables(properties: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the properties with `$$NAME$$` replaced in their values. Raises InvalidInput for a variable that is not set."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise InvalidInput(f"Invalid Environment Variable {match[1]}: it stands in {key} and is not set.", field=key)
        return environment[match[1]]

    replaced = {}
    for key, value in properties.items():
        replaced[key] = _VARIABLE.sub(value_of, value)
    return replaced


def _logical_lines(text: str) -> Iterator[str]:
    """Yield lines without comments, those that end in a backslash joined with the next."""
    joined = ""
    for raw in text.splitlines():
        line = raw.lstrip(" \t\f")
        if not joined and (not line or line[0] in "#!"):
            continue
        joined += line
        if (len(joined) - len(joined.rstrip("\\"))) % 2:  # the last backslash is not itself escaped
            joined = joined[:-1]
            continue
        yield joined
        joined = ""
    if joined:
        yield joined


def _unescape(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        escaped = match[1]
        return chr(int(escaped[1:], 16)) if len(escaped) > 1 else _LETTERS.get(escaped, escaped)

    return _ESCAPE.sub(letter, text)
