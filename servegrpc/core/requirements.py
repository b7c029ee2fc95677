"""Installs the Python packages that an archive asks for, beside the server's own and never into them.

`core.manager` and `servegrpc check` call it when the operator allows it. Each list of requirements gets a virtual environment of its
own, which sees the packages of the server: what is there already is not installed again, and what its workers have loaded, torch above
all, is not to be had in another version.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import venv
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from itertools import dropwhile
from pathlib import Path
from time import monotonic

import structlog

from servegrpc.errors import RequirementsFailed

log = structlog.get_logger()

INSTALL_SECONDS = 1800  # for all packages of one archive
_STEPS = ("Collecting ", "Downloading ", "Building ", "Installing ", "Successfully ")
_KEPT_LINES = 60
_TOLD_CHARACTERS = 600  # what a gRPC error can carry, with room for the rest
LOADED = (  # what `worker.forkserver` has imported when it forks a worker
    "googleapis-common-protos",
    "numpy",
    "nvidia-ml-py",
    "pillow",
    "protobuf",
    "pyyaml",
    "servegrpc",
    "torch",
    "tqdm",
    "typing-extensions",
)
_BESIDE_TORCH = ("cuda-", "nvidia-", "pytorch-triton", "triton")  # libraries that belong to that one torch
_STOPPING = "the server is stopping."


class PackageCache:
    """The installed lists of requirements, each in the folder `root/<hash>`; calls may come from any thread, and other processes share it.

    The hash is that of the list, of the files beside it that it names, of Python and of the server's packages. Nothing is ever
    removed: who wants the space deletes a folder while no server uses it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def install(self, requirements: Path, *, label: str) -> Path:
        """Return the folder for `sys.path` that has the packages of a requirements file.

        Blocks while pip works, and while another thread or process installs the same; its steps go to the log. `label` names the
        model in messages. Raises RequirementsFailed with the last words of pip; then nothing stays on the disk.
        """
        try:
            folder = self._root / _key(requirements)
            with self._locked(folder):
                if not folder.is_dir():
                    self._fill(folder, requirements, label)
        except OSError as error:
            raise _failed(label, f"{error.strerror}.") from error
        return _site_packages(folder)

    def close(self) -> None:
        """End what is being installed, and install nothing more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill(process)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _fill(self, folder: Path, requirements: Path, label: str) -> None:
        log.info("installing requirements", model=label)
        started = monotonic()
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)  # of a server that was killed
        try:
            venv.create(part, symlinks=True, with_pip=not _has_pip())
            seen = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
            (_site_packages(part) / "server.pth").write_text("\n".join(seen))
            pins = part / "pins.txt"
            pins.write_text("\n".join(_pins()))
            self._pip(part, requirements, pins, label)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        log.info("requirements installed", model=label, seconds=round(monotonic() - started, 1))

    def _pip(self, environment: Path, requirements: Path, pins: Path, label: str) -> None:
        command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        command += ["--disable-pip-version-check", "--no-warn-script-location", "-c", str(pins), "-r", requirements.name]
        process = self._start(command, requirements.parent, label)
        timer = threading.Timer(INSTALL_SECONDS, _kill, [process])
        timer.start()
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        with process:
            for line in map(str.rstrip, process.stdout or ()):
                lines.append(line)
                if line.startswith(_STEPS):
                    log.info("installing requirements", model=label, step=line)
        timer.cancel()
        with self._lock:
            self._running.discard(process)
        if self._closed:
            raise _failed(label, _STOPPING)
        if process.returncode:
            log.error("requirements not installed", model=label, output=list(lines))
            raise _failed(label, _last_words(lines, process.returncode, environment))

    def _start(self, command: list[str], folder: Path, label: str) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise _failed(label, _STOPPING)
            process = subprocess.Popen(  # noqa: S603 - the operator allowed it
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # so that what pip starts can be ended with it
            )
            self._running.add(process)
            return process


def _failed(label: str, cause: str) -> RequirementsFailed:
    return RequirementsFailed(f"{label}: its requirements could not be installed: {cause}", cause=cause)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)


def _last_words(lines: deque[str], code: int, environment: Path) -> str:
    """Return what pip says is wrong, from its first error on, without paths of this machine."""
    if code < 0:
        return f"pip was ended by signal {-code}; it may take {INSTALL_SECONDS} s."
    errors = list(dropwhile(lambda line: not line.lstrip().lower().startswith("error: "), lines)) or list(lines)[-5:]
    said = " ".join(" ".join(errors).replace("ERROR: ", "").replace(f"{environment}/", "").split())
    if len(said) > _TOLD_CHARACTERS:
        said = f"{said[: _TOLD_CHARACTERS // 2]} … {said[-_TOLD_CHARACTERS // 2 :]}"
    return said or f"pip ended with exit code {code}."


def _site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def _key(requirements: Path) -> str:
    text = requirements.read_bytes()
    named = [path for path in sorted(requirements.parent.iterdir()) if path.name.encode() in text]
    files = [file for path in named for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()]
    digest = hashlib.sha256("\n".join([sys.version, sysconfig.get_platform(), *_installed()]).encode())
    for content in (text, *(file.read_bytes() for file in files)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


def _installed() -> list[str]:
    return sorted({f"{package.name}=={package.version}" for package in metadata.distributions()})


def _pins() -> list[str]:
    """Return the versions of what workers have loaded before a handler is: they cannot load others."""
    pins: dict[str, str] = {}
    for package in metadata.distributions():  # in the order of `sys.path`: the first of a name is the one that is imported
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        if name in LOADED or name.startswith(_BESIDE_TORCH):
            pins.setdefault(name, f"{name}=={package.version}")
    return sorted(pins.values())


def _has_pip() -> bool:
    """Whether the server's own environment has pip: asked by its metadata, since looking for the module runs hooks of setuptools."""
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True
