"""Memory that a client shares with the server: read and written, never mapped.

A mapping would end the process when the client made its object smaller, and let the client change a tensor while a handler reads it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servegrpc.errors import InvalidInput

FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open has its objects on Linux


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a shared memory object: its name in requests, the object's name, and where the part begins and how long it is, in bytes."""

    name: str
    key: str
    offset: int
    size: int

    def check(self) -> None:
        """Raise InvalidInput unless the object is there, belongs to the server's user, and is large enough."""
        with self._opened(os.O_RDONLY):
            pass

    def read(self, offset: int, size: int) -> bytearray:
        """Return bytes of the region, as a copy. Raises InvalidInput when it has not so many."""
        data = bytearray(self._checked(offset, size))
        with self._opened(os.O_RDONLY) as file:
            done = 0
            while done < size:  # one call moves 2 GiB at most
                got = os.preadv(file, [memoryview(data)[done:]], self.offset + offset + done)
                if not got:
                    raise self._wrong("became shorter")
                done += got
        return data

    def write(self, offset: int, size: int, data: bytes | bytearray) -> None:
        """Put bytes into the `size` bytes of the region that begin at `offset`. Raises InvalidInput when there is too little room."""
        self._checked(offset, size)
        if len(data) > size:
            raise self._wrong(f"has {size} bytes for a tensor of {len(data)}")
        with self._opened(os.O_RDWR) as file:
            done = 0
            while done < len(data):  # as in `read`
                done += os.pwrite(file, memoryview(data)[done:], self.offset + offset + done)

    def _checked(self, offset: int, size: int) -> int:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._wrong(f"has {self.size} bytes; {size} at offset {offset} were asked for")
        return size

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        name = self.key.removeprefix("/")
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise self._wrong("names no shared memory object")
        try:
            file = os.open(FOLDER / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._wrong(f"cannot be opened: {error.strerror}") from None
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                raise self._wrong("must be a file of the user that the server runs as")
            if facts.st_size < self.offset + self.size:
                raise self._wrong(f"ends beyond its object, which has {facts.st_size} bytes")
            yield file
        except OSError as error:
            raise self._wrong(f"cannot be used: {error.strerror}") from None
        finally:
            os.close(file)

    def _wrong(self, what: str) -> InvalidInput:
        return InvalidInput(f"shared memory region '{self.name}' (key '{self.key}') {what}", field="shared_memory_region")
