"""The server's side of the fork server: starts it, asks it for workers, hears of their ends."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic

import structlog

from servegrpc.core.timer import Timer
from servegrpc.engine.output import OutputPump

log = structlog.get_logger()


UNTOLD = 256  # beside exit codes: the worker has ended, and the fork server does not say how
STATUS_SECONDS = 1.0  # for the fork server to say how a worker has ended
FORK_SECONDS = 10.0  # for it to fork one
UP_SECONDS = 300.0  # for it to import what workers need, and fork the first one
CLOSE_SECONDS = 5.0  # for it to end when it is told to


@dataclass(slots=True)
class Fork:
    """Who hears of one worker: `on_fork(pid, pidfd)`, the callee owning the pidfd, then `on_end`, exactly once.

    `on_end` gets the exit status, UNTOLD, or None when the fork server has ended.
    """

    on_fork: Callable[[int, int], None]
    on_end: Callable[[int | None], None]
    pidfd: int | None = None  # once it is forked


class ForkServer:
    """One fork server process. When it ends, all its workers have ended.

    One that is stuck hides no worker's end, since those are seen here too; when it does not fork in time, it is killed.
    """

    def __init__(self, output: OutputPump, timer: Timer, *, up_seconds: float = UP_SECONDS, fork_seconds: float = FORK_SECONDS) -> None:
        self._timer = timer
        self._fork_seconds = up_seconds  # that the next fork may take
        self._later_fork_seconds = fork_seconds
        self._selector = selectors.DefaultSelector()
        self._forks: dict[int, Fork] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._has_forked = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, write_end = os.pipe()
        output.add(read_end, lambda line: log.info("fork server output", line=line))
        with theirs:  # -P: a module in the folder where the server was started is none of Python's, nor a handler
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "servegrpc.worker.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C in the terminal is for the server alone, which then drains
            )
        os.close(write_end)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read, name="fork-server", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can fork workers."""
        return not self._ended

    def fork(self, worker_id: int, descriptors: Sequence[int], fork: Fork) -> bool:
        """Ask for a worker that inherits the descriptors; returns at once, False when the fork server has ended or cannot be asked."""
        with self._lock:
            if self._ended:
                return False
            self._forks[worker_id] = fork
        message = json.dumps({"worker_id": worker_id}).encode()
        try:
            self._send(message, descriptors, socket.MSG_DONTWAIT)
        except BlockingIOError:  # hundreds wait already
            try:
                kept = [*map(os.dup, descriptors)]
            except OSError:
                self._forks.pop(worker_id, None)
                return False
            threading.Thread(target=self._send_later, args=(message, kept), daemon=True).start()
        except OSError:
            pass  # it has just ended: _read tells everyone
        self._timer.call_at(monotonic() + self._fork_seconds, partial(self._check_forked, worker_id))
        return True

    def _send(self, message: bytes, descriptors: Sequence[int], flags: int = 0) -> None:
        rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors)
        self._socket.sendmsg([message], [rights], flags)  # `send_fds` takes flags, and drops them

    def _send_later(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Send as soon as there is room, and close the descriptors."""
        with suppress(OSError):
            self._send(message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _check_forked(self, worker_id: int) -> None:
        fork = self._forks.get(worker_id)
        if fork and fork.pidfd is None:
            log.error("fork server is stuck; killing it", worker=worker_id)
            self._process.kill()

    def close(self) -> None:
        """End it, and with it all workers that are left; returns when it is gone."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()

    def _read(self) -> None:
        try:
            while self._read_events():
                pass
        except Exception:  # a fault of ours must not leave the workers' callers waiting for ever
            log.exception("fork server cannot be followed; killing it")
            self._process.kill()
        self._process.wait()
        with self._lock:
            self._ended = True
            left = list(self._forks.values())
            self._forks.clear()
        for fork in left:
            self._forget(fork)
            fork.on_end(None if self._has_forked else self._process.returncode)  # one that never got up is at fault itself
        self._socket.close()
        self._selector.close()

    def _read_events(self) -> bool:
        """Wait for something to happen, and note it; returns False when the fork server has ended."""
        there = True
        for key, _ in self._selector.select():
            if key.fileobj is self._socket:
                there = self._read_message()
            elif key.data in self._forks:  # a worker has ended: how, comes from the fork server, if it is not stuck, or came just now
                self._selector.unregister(key.fd)
                self._timer.call_at(monotonic() + STATUS_SECONDS, partial(self._end, key.data, UNTOLD))
        return there

    def _read_message(self) -> bool:
        """Take what the fork server says; returns False when it has ended."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
        except OSError:
            message = b""
        if not message:
            return False
        body = json.loads(message)
        self._has_forked, self._fork_seconds = True, self._later_fork_seconds
        if "pid" in body:
            fork = self._forks[body["worker_id"]]
            fork.pidfd = descriptors[0] if descriptors else os.pidfd_open(body["pid"])  # the kernel drops it when we have too many open
            self._selector.register(fork.pidfd, selectors.EVENT_READ, body["worker_id"])
            fork.on_fork(body["pid"], fork.pidfd)
        else:
            self._end(body["worker_id"], body["status"])
        return True

    def _end(self, worker_id: int, status: int) -> None:
        """Tell of a worker's end, if that has not been told yet."""
        fork = self._forks.pop(worker_id, None)
        if fork:
            self._forget(fork)
            fork.on_end(status)

    def _forget(self, fork: Fork) -> None:
        with suppress(KeyError, ValueError):  # it has ended, and is not watched any more
            self._selector.unregister(fork.pidfd)  # type: ignore[arg-type]  # None is not there either
