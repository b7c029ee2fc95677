"""What is registered, kept in a SQLite file so that it survives a restart or a crash of the server.

The manager writes it: each change is one transaction, on the disk when the method returns. A registration is written when it has
succeeded, so one that was cut off is not there. Nothing else reads the file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import structlog

from servegrpc.core.registration import GivenSettings, Registration, check_numbers
from servegrpc.errors import ServeError, ServerError

log = structlog.get_logger()

FILE_NAME = "servegrpc.sqlite"
FORMAT = 1
PRIMARY_CODE = 0xFF  # of SQLite's error codes; the rest says more
NOT_THE_FILE = (  # what these say is no damage: another server, the disk, the rights
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of registration
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    is_default INTEGER NOT NULL DEFAULT 0,
    registration TEXT NOT NULL,  -- JSON; what was not given is not there
    UNIQUE (name, version)
)
"""
SET_DEFAULT = "UPDATE versions SET is_default = (version = ?) WHERE name = ?"
ALL_VERSIONS = "SELECT name, version, is_default, registration FROM versions ORDER BY position"


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """One registered version, as it shall be registered again."""

    name: str
    version: str
    is_default: bool
    registration: Registration


class StateStore:
    """The state file of a folder, for this process alone. Every method may raise ServerError when the disk is at fault."""

    def __init__(self, folder: Path) -> None:
        """Open or make the file. One that is damaged is set aside under another name, with an error in the log.

        Raises ServerError when another server uses the folder, or when it cannot be written.
        """
        self._lock = threading.Lock()
        file = folder / FILE_NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._database = _open(file)
            except (sqlite3.Error, ValueError) as error:
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & PRIMARY_CODE in NOT_THE_FILE:
                    raise
                aside = _set_aside(file)
                log.error("state file is damaged; what was registered is forgotten", cause=str(error), kept_as=aside.name)
                self._database = _open(file)
        except (OSError, sqlite3.Error) as error:
            raise ServerError(f"The state in --state-dir cannot be used: {_cause(error)}.") from error

    def versions(self) -> list[SavedVersion]:
        """Return what is registered, in the order of registration; an entry that cannot be read is left out, with an error in the log."""
        with self._changing() as database:
            rows = database.execute(ALL_VERSIONS).fetchall()
        saved = []
        for name, version, is_default, registration in rows:
            try:
                saved.append(SavedVersion(name, version, bool(is_default), _read(registration)))
            except (ValueError, TypeError, ServeError) as error:
                log.error("saved version cannot be read", model=name, version=version, cause=str(error))
        return saved

    def put(self, name: str, version: str, registration: Registration, *, default_version: str) -> None:
        """Add a version, or replace it where it stands; of the model's versions, `default_version` is the default, if it is there."""
        with self._changing() as database:
            database.execute(
                "INSERT INTO versions (name, version, registration) VALUES (?, ?, ?)"
                " ON CONFLICT (name, version) DO UPDATE SET registration = excluded.registration",
                (name, version, _write(registration)),
            )
            database.execute(SET_DEFAULT, (default_version, name))

    def scale(self, name: str, version: str, workers: int, max_workers: int) -> None:
        """Change the workers of a version that is there."""
        key = (name, version)
        with self._changing() as database:
            row = database.execute("SELECT registration FROM versions WHERE (name, version) = (?, ?)", key).fetchone()
            if row:
                registration = replace(_read(row[0]), workers=workers, max_workers=max_workers)
                database.execute("UPDATE versions SET registration = ? WHERE (name, version) = (?, ?)", (_write(registration), *key))

    def set_default(self, name: str, version: str) -> None:
        """Make a version the default of its model."""
        with self._changing() as database:
            database.execute(SET_DEFAULT, (version, name))

    def remove(self, name: str, version: str = "") -> bool:
        """Remove a version, or all of a model; returns whether there were any."""
        with self._changing() as database:
            return database.execute("DELETE FROM versions WHERE name = ?1 AND ?2 IN ('', version)", (name, version)).rowcount > 0

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or on an error nothing."""
        try:
            with self._lock, self._database:
                yield self._database
        except (sqlite3.Error, ValueError) as error:  # ValueError: damaged while the server ran
            raise ServerError(f"The state in --state-dir cannot be saved: {_cause(error)}. Nothing was changed.") from error


def _open(file: Path) -> sqlite3.Connection:
    """Return a connection that nobody else can have. Raises sqlite3.Error, or ValueError for an error text that is damaged too."""
    database = sqlite3.connect(file, timeout=0, check_same_thread=False)
    database.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA synchronous = FULL")
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
        (number,) = database.execute("PRAGMA user_version").fetchone()
        if found != "ok" or number not in (0, FORMAT):
            raise sqlite3.DatabaseError(found if found != "ok" else f"it has format {number}, this version knows {FORMAT}")
        with database:
            database.execute(SCHEMA)
            database.execute(f"PRAGMA user_version = {FORMAT}")
        database.execute(ALL_VERSIONS).fetchall()  # what cannot be read shall be known now
    except BaseException:
        database.close()
        raise
    file.chmod(0o600)
    return database


def _set_aside(file: Path) -> Path:
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    return file.rename(aside)


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "another server uses it" if "locked" in str(error) else str(error)


def _write(registration: Registration) -> str:
    given = {key: value for key, value in asdict(registration).items() if value is not None}
    del given["wait"], given["make_default"]
    return json.dumps(given)


def _read(text: str) -> Registration:
    """Raises ValueError, TypeError or ServeError for what is no registration."""
    given = json.loads(text)
    if not isinstance(given, dict):
        raise TypeError("it is no object")
    known = {field.name for field in fields(Registration)}
    registration = Registration(**{key: value for key, value in given.items() if key in known})
    if not all(
        isinstance(value, str)
        for value in (registration.archive, registration.model_name, registration.handler, registration.fallback_name)
    ):
        raise TypeError("a text is missing")
    for field in fields(GivenSettings):
        if not isinstance(getattr(registration, field.name), int | float | None):
            raise TypeError(f"{field.name} is no number")
    check_numbers(registration)
    return registration
