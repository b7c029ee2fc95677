"""The folder a server unpacks archives into, and what to do with those that servers which were killed left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from servegrpc.errors import ServerError


class OwnFolder:
    """A new folder below `root`, locked while this process lives. Making one removes the folders of processes that no longer do."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise ServerError("The temporary folder for archives belongs to another user; set TMPDIR to a folder of your own.")
        for left in root.iterdir():
            with suppress(OSError):
                descriptor = _lock(left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(descriptor)
        while True:
            self.path = Path(tempfile.mkdtemp(dir=root))
            with suppress(OSError):  # a server that starts at the same time took it for one left behind
                self._descriptor = _lock(self.path)
                if self.path.exists():
                    break
                os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock; BlockingIOError (an OSError) when another process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
