"""The server's side of the fork server: starts it, asks it for workers, hears of their ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from servegrpc.engine.output import OutputPump

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fork:
    """Who hears of one worker: `on_fork(pid, pidfd)`, the callee owning the pidfd, then `on_end(exit status or None)`, exactly once."""

    on_fork: Callable[[int, int], None]
    on_end: Callable[[int | None], None]


class ForkServer:
    """One fork server process. When it ends, all its workers have ended; `on_end` then gets None."""

    def __init__(self, output: OutputPump) -> None:
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
        self._thread = threading.Thread(target=self._read, name="fork-server", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can fork workers."""
        return not self._ended

    def fork(self, worker_id: int, descriptors: Sequence[int], fork: Fork) -> bool:
        """Ask for a worker that inherits the descriptors; returns at once, False when the fork server has ended."""
        with self._lock:
            if self._ended:
                return False
            self._forks[worker_id] = fork
        with suppress(OSError):  # then it has just ended: _read tells everyone
            socket.send_fds(self._socket, [json.dumps({"worker_id": worker_id}).encode()], list(descriptors))
        return True

    def close(self) -> None:
        """End it, and with it all workers that are left; returns when it is gone."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
            except OSError:
                message = b""
            if not message:
                break
            body = json.loads(message)
            self._has_forked = True
            if "pid" in body:
                pidfd = descriptors[0] if descriptors else os.pidfd_open(body["pid"])  # the kernel drops it when we have too many open
                self._forks[body["worker_id"]].on_fork(body["pid"], pidfd)
            else:
                self._forks.pop(body["worker_id"]).on_end(body["status"])
        self._process.wait()
        with self._lock:
            self._ended = True
            left = list(self._forks.values())
            self._forks.clear()
        for fork in left:
            fork.on_end(None if self._has_forked else self._process.returncode)  # one that never got up is at fault itself
