"""The tokens that callers must show, in TorchServe's format: a key file with one key for each port, each with its end.

    {"management": {"key": …, "expiration time": …}, "inference": {"key": …, "expiration time": …}, "API": {"key": …}}

The server and `servegrpc token` both write the file, whole and with rights for its owner alone; the server reads it again when it has
changed. Who can read the file can do all that its keys allow.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog

from servegrpc.errors import InvalidInput, ServerError, TokenRefused

log = structlog.get_logger()

Port = Literal["inference", "management"]

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"  # TorchServe's words
OPEN_METHODS = "/grpc.health.v1.Health/"  # probes have no token
KEY_BYTES = 6  # TorchServe's
_BEARER = re.compile(r"Bearer\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Token:
    """A key, and when it ends, in seconds since the epoch."""

    key: str
    expires: float


class KeyFile:
    """The key file, read again whenever it has changed. One that is gone or damaged changes nothing, and is told in the log."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises InvalidInput when it is not one, OSError when it cannot be read."""
        self._file = file
        self._seen = _stamp(file)
        self._tokens = read_tokens(file)

    def token(self, port: Port) -> Token:
        """Return the token of a port, as it is now."""
        try:
            seen = _stamp(self._file)
        except OSError:
            seen = None
        if seen != self._seen:
            self._seen = seen
            try:
                self._tokens |= read_tokens(self._file)
                log.info("tokens read", file=self._file.name)
            except (OSError, InvalidInput) as error:
                log.error("key file cannot be read; the tokens stay as they were", file=self._file.name, cause=str(error))
        return self._tokens[port]


def check_token(keys: KeyFile, port: Port, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raise TokenRefused unless the metadata have the port's token; health is open to all. Cheap enough for every call."""
    if method.startswith(OPEN_METHODS):
        return
    token = keys.token(port)
    given = next((value for key, value in metadata if key == "authorization"), "")
    match = _BEARER.fullmatch(given) if isinstance(given, str) else None
    if not match or not hmac.compare_digest(match[1].encode(), token.key.encode()) or time.time() >= token.expires:
        raise TokenRefused(REFUSED)


def prepare_key_file(file: Path, lifetime_seconds: float) -> KeyFile:
    """Write new keys for those that are missing or have ended, and return the file. Raises ServerError or InvalidInput."""
    try:
        tokens = read_tokens(file) if file.exists() else {}
        for port in ("inference", "management"):
            if port not in tokens or time.time() >= tokens[port].expires:
                renew_token(file, port, lifetime_seconds)
        file.chmod(0o600)
        return KeyFile(file)
    except OSError as error:
        raise ServerError(f"The key file {file.name} cannot be used: {error.strerror}; set key_file to one that can be written.") from error


def renew_token(file: Path, port: str, lifetime_seconds: float) -> Token:
    """Give a port a new key, which takes the place of the old one; the others stay. Returns it. Raises InvalidInput, OSError."""
    content = _load(file) if file.exists() else {"API": {"key": _new_key()}}
    token = Token(_new_key(), time.time() + lifetime_seconds)
    ends = datetime.fromtimestamp(token.expires, UTC).isoformat().replace("+00:00", "Z")
    content[port] = {"key": token.key, "expiration time": ends}
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    with os.fdopen(descriptor, "w") as written:
        json.dump(content, written, indent=2)
    os.replace(part, file)
    return token


def read_tokens(file: Path) -> dict[str, Token]:
    """Return the tokens of a key file, by port. Raises InvalidInput naming the file, OSError."""
    content = _load(file)
    tokens: dict[str, Token] = {}
    for port in ("inference", "management"):
        if port not in content:
            continue
        entry: Any = content[port]
        try:
            key, ends = entry["key"], datetime.fromisoformat(entry["expiration time"])
            if not isinstance(key, str) or not key:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(f'{file.name}: "{port}" needs a "key" and an "expiration time".', field="key_file") from None
        tokens[port] = Token(key, (ends if ends.tzinfo else ends.replace(tzinfo=UTC)).timestamp())
    return tokens


def _load(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InvalidInput(f"{file.name} is no key file: {error}; remove it for a new one.", field="key_file") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{file.name} is no key file: it has no keys; remove it for a new one.", field="key_file")
    return content


def _new_key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    about = file.stat()
    return about.st_mtime_ns, about.st_ino, about.st_size
